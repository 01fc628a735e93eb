//! The columns of the matrix: the clients, and what the suite wants of each.

use std::collections::BTreeMap;
use std::fmt;

use super::operation::Operation;

/// A foreign client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Client {
    /// The official Java client.
    Java,
    /// Apache Kafka's command-line tools.
    JavaTools,
    /// librdkafka under Python.
    ConfluentKafka,
    KafkaPython,
    Aiokafka,
    Kafkajs,
    /// librdkafka's command-line tool, with the old librdkafka that distributions carry.
    Kcat,
}

impl Client {
    /// All, those that take longest first.
    pub(crate) fn all() -> &'static [Self] {
        use Client::{Aiokafka, ConfluentKafka, Java, JavaTools, KafkaPython, Kafkajs, Kcat};
        &[JavaTools, Java, KafkaPython, ConfluentKafka, Kcat, Aiokafka, Kafkajs]
    }

    /// As `--clients` takes it and directories are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::JavaTools => "java-tools",
            Self::ConfluentKafka => "confluent-kafka",
            Self::KafkaPython => "kafka-python",
            Self::Aiokafka => "aiokafka",
            Self::Kafkajs => "kafkajs",
            Self::Kcat => "kcat",
        }
    }

    /// As the head of the matrix shows it.
    pub(crate) fn short_name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::JavaTools => "tools",
            Self::ConfluentKafka => "confl.",
            Self::KafkaPython => "k-py",
            Self::Aiokafka => "aiok.",
            Self::Kafkajs => "kafkajs",
            Self::Kcat => "kcat",
        }
    }
}

/// What became of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// `detail` in one line, `output` all that the client printed.
    Failed {
        detail: String,
        output: String,
    },
    Skipped {
        reason: String,
    },
}

/// The client has no such operation.
#[derive(Debug)]
pub(crate) struct Unsupported(pub(crate) &'static str);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unsupported {}

impl Outcome {
    /// The outcome of a check that the suite itself made.
    pub(crate) fn of(result: anyhow::Result<()>) -> Self {
        let Err(error) = result else { return Self::Passed };
        if let Some(Unsupported(reason)) = error.downcast_ref() {
            return Self::Skipped { reason: (*reason).to_owned() };
        }
        let text = format!("{error:#}");
        let detail = text.lines().next().unwrap_or_default().to_owned();
        Self::Failed { detail, output: text }
    }

    /// As the matrix shows it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed { .. } => "FAIL",
            Self::Skipped { .. } => "skip",
        }
    }
}

/// One operation to perform.
pub(crate) struct Request<'run> {
    pub(crate) operation: &'static Operation,
    /// `host:port` of the broker.
    pub(crate) bootstrap: String,
    /// A name that no other operation uses; longer names may be made of it.
    pub(crate) topic: String,
    /// Key → partition by Java's partitioner.
    pub(crate) keys: &'run BTreeMap<&'static str, i32>,
    /// Kills the broker and starts it again on its port and data; present when the operation needs it.
    pub(crate) restart: Option<&'run mut dyn FnMut() -> anyhow::Result<()>>,
}

/// A client that is installed and can be asked.
pub(crate) trait Column {
    /// Performs one operation within its time limit.
    fn perform(&mut self, request: &mut Request<'_>) -> Outcome;
}
