//! What can keep the bench from a result.

use std::io;
use std::path::Path;

use levada_client::producer::SendError;
use levada_client::{ClientError, consumer::ConsumeError};

/// The bench cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An option makes no sense, or not together with another.
    #[error("{option}: {reason}")]
    Option {
        /// The option as typed.
        option: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// The cluster cannot be reached, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A producer did not take a record.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A consumer cannot go on.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// librdkafka refuses, or cannot go on.
    #[cfg(feature = "librdkafka")]
    #[error("librdkafka: {0}")]
    Librdkafka(#[from] rdkafka::error::KafkaError),
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Runs that differ in more than what is compared.
    #[error("the runs are not alike: {0}; --unlike compares them nevertheless")]
    Unlike(String),
    /// A thread of ours ended by a panic, which is a bug of ours.
    #[error("a thread of the bench panicked")]
    Panicked,
}

impl BenchError {
    /// A value of an option that makes no sense.
    pub fn option(option: &'static str, reason: impl Into<String>) -> Self {
        Self::Option { option, reason: reason.into() }
    }

    /// What was tried, for `map_err`.
    pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }

    /// What is wrong with a file.
    pub fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File { path: path.display().to_string(), reason: reason.into() }
    }
}
