//! What to do next, for errors that people meet.

use levada_bench::BenchError;
use levada_client::{ClientError, ConnectError, Refusal};
use levada_protocol::kafka::ErrorCode;

/// The error and its causes, each that says something new.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// A sentence on what to do about `error`, when there is something to say.
pub(crate) fn what_next(error: &anyhow::Error, bootstrap: &str) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return about_connection(error, bootstrap);
        }
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return about_refusal(refusal.code);
        }
        let bench = cause.downcast_ref::<BenchError>();
        let client = bench.and_then(|error| match error {
            BenchError::Client(error) => Some(error),
            _ => None,
        });
        match client.or_else(|| cause.downcast_ref::<ClientError>()) {
            Some(ClientError::Connect(error)) => about_connection(error, bootstrap),
            Some(ClientError::Refused { refusal, .. }) => about_refusal(refusal.code),
            _ => None,
        }
    })
}

fn about_connection(error: &ConnectError, bootstrap: &str) -> Option<String> {
    if error.is_refused() {
        return Some(format!(
            "is a broker running at {bootstrap}? start one with `levada dev`, or name another with --bootstrap"
        ));
    }
    match error {
        ConnectError::Address { .. } => Some("give --bootstrap host:port[,host:port]".to_owned()),
        ConnectError::Handshake { .. } => Some(format!(
            "something listens at {bootstrap}, but it is no Kafka broker; check the port"
        )),
        ConnectError::TimedOut { .. }
        | ConnectError::Socket { .. }
        | ConnectError::NoneReached { .. } => {
            Some("check the address, the network and firewalls".to_owned())
        }
        ConnectError::UnknownBroker { .. } => None,
    }
}

fn about_refusal(code: ErrorCode) -> Option<String> {
    let hint = match code {
        ErrorCode::UnknownTopicOrPartition => {
            "`levada topic list` shows what there is; `levada topic create NAME` makes a topic"
        }
        ErrorCode::TopicAlreadyExists => {
            "`levada topic describe NAME` shows it; `levada topic alter NAME` changes it"
        }
        ErrorCode::InvalidConfig => {
            "`levada topic describe --all NAME` shows every setting with its meaning"
        }
        ErrorCode::InvalidReplicationFactor => {
            "`levada cluster brokers` shows how many brokers there are; ask for no more replicas with -r"
        }
        ErrorCode::MessageTooLarge => {
            "raise it with `levada topic alter NAME -c max.message.bytes=...`, or send smaller records"
        }
        ErrorCode::InvalidPartitions => "a topic's partitions can be added to, never taken away",
        ErrorCode::KafkaStorageError => {
            "the broker's disk failed or is full; see its log and `levada doctor`"
        }
        ErrorCode::NotEnoughReplicas | ErrorCode::LeaderNotAvailable => {
            "`levada cluster status` shows which brokers and partitions are missing"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_refused_connection_says_how_to_start_a_broker() {
        let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let error = ConnectError::Socket { address: "h:1".to_owned(), source };
        let error = anyhow::Error::from(ClientError::from(error)).context("list topics");
        assert!(what_next(&error, "h:1").unwrap().contains("levada dev"));
        assert_eq!(sentence(&error), "list topics: connect to h:1: connection refused");
    }

    #[test]
    fn a_missing_topic_says_how_to_make_one() {
        let refusal = Refusal::from(ErrorCode::UnknownTopicOrPartition);
        let error = ClientError::Refused { subject: "topic t".to_owned(), refusal };
        assert!(what_next(&error.into(), "").unwrap().contains("topic create"));
        assert_eq!(what_next(&anyhow::anyhow!("something"), ""), None);
    }
}
