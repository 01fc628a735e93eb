//! Our errors as Kafka's codes. `[P]` Every match is exhaustive: a new error needs a decision here.
#![deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]

use levada_protocol::cluster::RefusalCode;
use levada_protocol::kafka::ErrorCode;
use levada_record::{BatchError, ProduceError};

use crate::controller_link::ControllerError;
use crate::partition::ReadFailure;
use crate::partition::append_job::AppendFailure;
use crate::partition::leader::EpochMismatch;

/// A produced batch that is not fit for the log.
pub fn of_produce(error: &ProduceError) -> ErrorCode {
    match error {
        ProduceError::Batch(error) => of_batch(error),
        ProduceError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        ProduceError::Timestamp { .. } => ErrorCode::InvalidTimestamp,
        ProduceError::BaseOffsetNotZero { .. }
        | ProduceError::NoRecords
        | ProduceError::CountMismatch { .. }
        | ProduceError::Control
        | ProduceError::ReservedAttributes { .. }
        | ProduceError::LogAppendTime
        | ProduceError::TransactionalWithoutProducer
        | ProduceError::IncompleteProducer { .. }
        | ProduceError::OffsetGap { .. } => ErrorCode::InvalidRecord,
    }
}

fn of_batch(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Checksum { .. } => ErrorCode::CorruptMessage,
        BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        BatchError::Codec { .. } => ErrorCode::UnknownServerError,
        BatchError::TooShort { .. }
        | BatchError::Truncated { .. }
        | BatchError::TrailingBytes { .. }
        | BatchError::Magic { .. }
        | BatchError::Length { .. }
        | BatchError::Offsets { .. }
        | BatchError::Count { .. }
        | BatchError::Record { .. }
        | BatchError::Columnar(_)
        | BatchError::Compression(_) => ErrorCode::InvalidRecord,
    }
}

/// A batch that did not get into its log, or was not acknowledged.
pub fn of_append(failure: &AppendFailure) -> ErrorCode {
    match failure {
        AppendFailure::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        // A stopping broker: the client looks for the next leader.
        AppendFailure::NotLeader | AppendFailure::Stopping => ErrorCode::NotLeaderOrFollower,
        AppendFailure::NotEnoughReplicas(_) => ErrorCode::NotEnoughReplicas,
        AppendFailure::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendFailure::StaleProducerEpoch => ErrorCode::InvalidProducerEpoch,
        AppendFailure::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
        AppendFailure::NotABatch(_) => ErrorCode::InvalidRecord,
        AppendFailure::DiskFull { .. } | AppendFailure::Storage(_) => ErrorCode::KafkaStorageError,
        AppendFailure::TimedOut => ErrorCode::RequestTimedOut,
    }
}

/// A partition that cannot be read.
pub fn of_read(failure: &ReadFailure) -> ErrorCode {
    match failure {
        ReadFailure::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        ReadFailure::NotLeader => ErrorCode::NotLeaderOrFollower,
        ReadFailure::Epoch(EpochMismatch::Fenced { .. }) => ErrorCode::FencedLeaderEpoch,
        ReadFailure::Epoch(EpochMismatch::Unknown { .. }) => ErrorCode::UnknownLeaderEpoch,
        ReadFailure::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ReadFailure::Storage(_) => ErrorCode::KafkaStorageError,
        ReadFailure::Untranslatable(_) => ErrorCode::CorruptMessage,
    }
}

/// The controller did not do what a client asked for.
pub fn of_controller(error: &ControllerError) -> ErrorCode {
    match error {
        // Clients look for the controller again and try once more.
        ControllerError::Unavailable => ErrorCode::NotController,
        ControllerError::TimedOut => ErrorCode::RequestTimedOut,
        ControllerError::Refused(refusal) => of_refusal(refusal.code),
    }
}

/// The controller refused.
pub fn of_refusal(code: RefusalCode) -> ErrorCode {
    match code {
        RefusalCode::InvalidRequest | RefusalCode::TooLarge => ErrorCode::InvalidRequest,
        // The broker's own standing is in doubt; that mends itself.
        RefusalCode::NotController
        | RefusalCode::Unavailable
        | RefusalCode::StaleBrokerEpoch
        | RefusalCode::UnknownBroker => ErrorCode::NotController,
        RefusalCode::WrongCluster => ErrorCode::InconsistentClusterId,
        RefusalCode::LimitReached => ErrorCode::PolicyViolation,
        RefusalCode::DuplicateBroker => ErrorCode::DuplicateBrokerRegistration,
        RefusalCode::TopicExists => ErrorCode::TopicAlreadyExists,
        RefusalCode::InvalidTopicName => ErrorCode::InvalidTopic,
        RefusalCode::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        RefusalCode::InvalidPartitions => ErrorCode::InvalidPartitions,
        RefusalCode::InvalidReplicationFactor => ErrorCode::InvalidReplicationFactor,
        RefusalCode::InvalidReplicaAssignment => ErrorCode::InvalidReplicaAssignment,
        RefusalCode::InvalidConfig => ErrorCode::InvalidConfig,
        RefusalCode::UnknownTopicId => ErrorCode::UnknownTopicId,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_heals_by_itself_is_retriable_and_what_does_not_is_not() {
        let heals = [
            of_append(&AppendFailure::DiskFull { bytes: 1 }),
            of_append(&AppendFailure::Stopping),
            of_append(&AppendFailure::TimedOut),
            of_append(&AppendFailure::UnknownPartition),
            of_controller(&ControllerError::Unavailable),
            of_controller(&ControllerError::TimedOut),
        ];
        assert!(heals.iter().all(|code| code.is_retriable()), "{heals:?}");
        let stays = [
            of_produce(&ProduceError::NoRecords),
            of_produce(&ProduceError::TooLarge { got_bytes: 2, max_bytes: 1 }),
            of_append(&AppendFailure::StaleProducerEpoch),
            of_append(&AppendFailure::OutOfOrderSequence { expected: 1, got: 2 }),
            of_refusal(RefusalCode::InvalidConfig),
        ];
        assert!(stays.iter().all(|code| !code.is_retriable()), "{stays:?}");
    }
}
