//! What can go wrong between a client and a broker, said so that a person can act on it.

use std::io;
use std::sync::Arc;

use levada_protocol::kafka::{ApiKey, DecodeError, EncodeError, ErrorCode};

/// A broker said no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Refusal {
    /// Kafka's code; [`ErrorCode::UnknownServerError`] when the number is none that we know.
    pub code: ErrorCode,
    /// The number as sent.
    pub number: i16,
    /// What the broker added.
    pub message: Option<String>,
}

impl Refusal {
    /// Nothing when `number` is 0, else the refusal.
    ///
    /// # Errors
    /// [`Refusal`] for every number but 0.
    pub fn check(number: i16, message: Option<&str>) -> Result<(), Refusal> {
        if number == 0 {
            return Ok(());
        }
        let code = ErrorCode::from_i16(number).unwrap_or(ErrorCode::UnknownServerError);
        let message = message.filter(|message| !message.is_empty()).map(str::to_owned);
        Err(Refusal { code, number, message })
    }

    fn sentence(&self) -> String {
        let meaning = self.message.as_deref().unwrap_or_else(|| self.code.meaning());
        match ErrorCode::from_i16(self.number) {
            Some(code) => format!("{meaning} [{}]", code.name()),
            None => format!("{meaning} [error {}]", self.number),
        }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Refusal { code, number: code.to_i16(), message: None }
    }
}

/// No connection could be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The address is no `host:port`.
    #[error("{address:?} is no address: expected host:port")]
    Address {
        /// The text.
        address: String,
    },
    /// The socket could not be connected.
    #[error("connect to {address}: {source}")]
    Socket {
        /// Whom.
        address: String,
        /// What the system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// Nothing happened for too long.
    #[error("connect to {address}: no answer within {after_ms} ms")]
    TimedOut {
        /// Whom.
        address: String,
        /// For how long, in ms.
        after_ms: u64,
    },
    /// Somebody answered, but not as a Kafka broker does.
    #[error("{address} does not answer as a Kafka broker: {source}")]
    Handshake {
        /// Whom.
        address: String,
        /// What was wrong.
        #[source]
        source: CallError,
    },
    /// The metadata does not tell where that broker is.
    #[error("broker {broker} is not in the cluster's metadata")]
    UnknownBroker {
        /// Which.
        broker: i32,
    },
    /// None of several addresses could be reached; the last error.
    #[error("none of {tried} addresses can be reached; the last: {last}")]
    NoneReached {
        /// How many.
        tried: usize,
        /// Why not the last.
        #[source]
        last: Box<ConnectError>,
    },
}

impl ConnectError {
    /// Whether nobody listens at the address.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Socket { source, .. } => source.kind() == io::ErrorKind::ConnectionRefused,
            Self::NoneReached { last, .. } => last.is_refused(),
            _ => false,
        }
    }
}

/// A request got no answer that can be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The connection broke, or was closed, before the answer. Whether the request was handled is unknown.
    #[error("connection to {address} ended: {reason}")]
    Closed {
        /// With whom.
        address: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// No answer in time. The connection is given up, since all later answers stand behind this one.
    #[error("{address} did not answer {api} within {after_ms} ms")]
    TimedOut {
        /// Who.
        address: Arc<str>,
        /// Which request.
        api: ApiKey,
        /// For how long, in ms.
        after_ms: u64,
    },
    /// Broker and client have no version of the API in common.
    #[error("{address} does not serve {api} in a version that this client speaks")]
    Unsupported {
        /// Who.
        address: Arc<str>,
        /// Which API.
        api: ApiKey,
    },
    /// As many requests wait for this connection as may.
    #[error("{max} requests already wait for {address}")]
    QueueFull {
        /// With whom.
        address: Arc<str>,
        /// The limit.
        max: usize,
    },
    /// The request cannot be written.
    #[error("write {api}: {source}")]
    Encode {
        /// Which.
        api: ApiKey,
        /// Why.
        #[source]
        source: EncodeError,
    },
    /// The answer cannot be read.
    #[error("read the answer to {api}: {source}")]
    Decode {
        /// To which request.
        api: ApiKey,
        /// Why.
        #[source]
        source: DecodeError,
    },
}

/// What a whole operation can end with: no connection, no answer, or a refusal.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A refusal, of this thing.
    #[error("{subject}: {refusal}")]
    Refused {
        /// A topic, a partition, the cluster.
        subject: String,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// The answer leaves out what was asked for, or contradicts itself.
    #[error("{subject}: the broker's answer makes no sense: {reason}")]
    Senseless {
        /// What was asked about.
        subject: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl ClientError {
    /// The refusal, when it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// A refusal of `subject`.
    pub(crate) fn refused(subject: impl Into<String>, refusal: Refusal) -> Self {
        Self::Refused { subject: subject.into(), refusal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_the_brokers_words_and_kafkas_name() {
        assert_eq!(Refusal::check(0, Some("x")), Ok(()));
        let refusal = Refusal::check(36, Some("topic t is there")).unwrap_err();
        assert_eq!(refusal.to_string(), "topic t is there [TOPIC_ALREADY_EXISTS]");
        let refusal = Refusal::check(36, None).unwrap_err();
        assert_eq!(refusal.to_string(), "there is a topic of that name [TOPIC_ALREADY_EXISTS]");
        let refusal = Refusal::check(9999, None).unwrap_err();
        assert!(refusal.to_string().ends_with("[error 9999]"), "{refusal}");
    }
}
