//! What a leader asks of a batch that a producer sent, beyond that it is one. `[P]`
//! Source: the checks of Kafka's `LogValidator`, in the order in which they are cheapest.

use crate::batch::{BatchError, BatchView};
use crate::compression::Compression;
use crate::header::{TimestampType, rewrite_log_append_time, rewrite_max_timestamp};
use crate::limits::{INFLATED_BYTES_MAX_DEFAULT, VerifyLimits};
use crate::offset::Offset;
use crate::records::Walk;
use crate::time::{Timestamp, TimestampRange};
use crate::topic_config::{RecordValidation, TopicConfig};

/// The rules of one topic at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceRules {
    /// Most bytes of a batch, header included and as compressed as it came.
    pub max_batch_bytes: u32,
    /// Most bytes its records may inflate to.
    pub max_inflated_bytes: u32,
    /// Who decides timestamps.
    pub timestamp_type: TimestampType,
    /// What producers may say, where they decide.
    pub timestamps: TimestampRange,
    /// Whether compressed records are inflated and walked.
    pub validation: RecordValidation,
    /// The time of this append.
    pub now: Timestamp,
}

impl ProduceRules {
    /// The rules that `config` means at `now`.
    pub fn of(config: &TopicConfig, now: Timestamp) -> Self {
        ProduceRules {
            max_batch_bytes: config.max_message_bytes,
            max_inflated_bytes: INFLATED_BYTES_MAX_DEFAULT,
            timestamp_type: config.timestamp_type,
            timestamps: TimestampRange {
                earliest: now.saturating_sub_ms(config.timestamp_before_max_ms),
                latest: now.saturating_add_ms(config.timestamp_after_max_ms),
            },
            validation: config.record_validation,
            now,
        }
    }
}

/// Why a leader refuses what a producer sent. State and log are untouched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// It is not exactly one sound batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Longer than `max.message.bytes`.
    #[error("batch of {got_bytes} B exceeds max.message.bytes, {max_bytes} B")]
    TooLarge {
        /// Its length.
        got_bytes: usize,
        /// The limit.
        max_bytes: u32,
    },
    /// Producers do not assign offsets.
    #[error("batch has base offset {got}, expected 0")]
    BaseOffsetNotZero {
        /// The base offset.
        got: Offset,
    },
    /// A batch of nothing.
    #[error("batch without records")]
    NoRecords,
    /// Records and offsets are not as many.
    #[error("batch counts {record_count} records with a last offset delta of {last_offset_delta}")]
    CountMismatch {
        /// The record count.
        record_count: i32,
        /// The last offset delta.
        last_offset_delta: i32,
    },
    /// Transaction markers are the broker's to write.
    #[error("batch of transaction markers from a producer")]
    Control,
    /// Attribute bits without meaning for producers.
    #[error("batch sets reserved attribute bits {bits:#06x}")]
    ReservedAttributes {
        /// The bits.
        bits: i16,
    },
    /// The broker's timestamp type is not the producer's to claim.
    #[error("batch claims to be timed by the broker")]
    LogAppendTime,
    /// A transaction needs a producer id.
    #[error("transactional batch without producer id")]
    TransactionalWithoutProducer,
    /// A producer id needs an epoch and a sequence.
    #[error(
        "batch of producer {producer_id} has epoch {producer_epoch} and sequence {base_sequence}"
    )]
    IncompleteProducer {
        /// The producer id.
        producer_id: i64,
        /// The epoch.
        producer_epoch: i16,
        /// The sequence.
        base_sequence: i32,
    },
    /// A timestamp too old or too new for the topic.
    #[error("timestamp {timestamp} is outside {}..={}", allowed.earliest, allowed.latest)]
    Timestamp {
        /// First record with such a one; `None` when only the header of a compressed batch is known.
        record_index: Option<u32>,
        /// The timestamp.
        timestamp: Timestamp,
        /// What the topic takes.
        allowed: TimestampRange,
    },
    /// Offset deltas leave a gap.
    #[error("record {record_index} does not have its index as offset delta")]
    OffsetGap {
        /// First such record.
        record_index: u32,
    },
}

/// What the leader must write into the batch beside base offset and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrite {
    /// Nothing: the bytes go to the log as they came.
    Nothing,
    /// The max timestamp was wrong: this is the right one.
    MaxTimestamp(Timestamp),
    /// The topic's records carry the time of the append.
    LogAppendTime(Timestamp),
}

impl Rewrite {
    /// Writes it into `batch`, the bytes that were verified or a copy of them, with the checksum
    /// that follows from it.
    pub fn apply(self, batch: &mut [u8]) {
        match self {
            Rewrite::Nothing => {}
            Rewrite::MaxTimestamp(max) => rewrite_max_timestamp(batch, max),
            Rewrite::LogAppendTime(now) => rewrite_log_append_time(batch, now),
        }
    }
}

/// A batch fit for the log.
#[derive(Debug, Clone, Copy)]
pub struct ProduceCheck<'a> {
    /// The batch as it came.
    pub batch: BatchView<'a>,
    /// What to write into it.
    pub rewrite: Rewrite,
}

impl ProduceCheck<'_> {
    /// The right max timestamp, when the producer's is wrong and matters.
    pub fn needs_max_timestamp_fix(&self) -> Option<Timestamp> {
        match self.rewrite {
            Rewrite::MaxTimestamp(actual) => Some(actual),
            Rewrite::Nothing | Rewrite::LogAppendTime(_) => None,
        }
    }
}

/// Verifies that `bytes` are exactly one batch, and one that a producer may send under `rules`.
///
/// Uncompressed records are always walked. Compressed ones are inflated, bounded, and walked only
/// under [`RecordValidation::Full`]; otherwise header, counts and checksum must do, and timestamps
/// are judged by the header's greatest.
///
/// # Errors
/// [`ProduceError`], one variant per reason.
pub fn verify_produced<'a>(
    bytes: &'a [u8],
    rules: &ProduceRules,
) -> Result<ProduceCheck<'a>, ProduceError> {
    if bytes.len() > rules.max_batch_bytes as usize {
        let max_bytes = rules.max_batch_bytes;
        return Err(ProduceError::TooLarge { got_bytes: bytes.len(), max_bytes });
    }
    let limits = VerifyLimits {
        max_batch_bytes: rules.max_batch_bytes,
        max_inflated_bytes: rules.max_inflated_bytes,
    };
    let batch = BatchView::verify_frame(bytes, limits)?;
    check_header(&batch)?;
    let allowed = match rules.timestamp_type {
        TimestampType::CreateTime => rules.timestamps,
        TimestampType::LogAppendTime => TimestampRange::ALL,
    };
    let actual_max = if let Some(walk) = walk(&batch, rules, allowed)? {
        judge_walk(&walk, allowed)?;
        walk.max_timestamp
    } else {
        judge_header_timestamp(batch.header().max_timestamp, allowed)?;
        batch.header().max_timestamp
    };
    let rewrite = match rules.timestamp_type {
        TimestampType::LogAppendTime => Rewrite::LogAppendTime(rules.now),
        TimestampType::CreateTime if actual_max != batch.header().max_timestamp => {
            Rewrite::MaxTimestamp(actual_max)
        }
        TimestampType::CreateTime => Rewrite::Nothing,
    };
    Ok(ProduceCheck { batch, rewrite })
}

fn check_header(batch: &BatchView<'_>) -> Result<(), ProduceError> {
    let header = batch.header();
    if header.base_offset != Offset::ZERO {
        return Err(ProduceError::BaseOffsetNotZero { got: header.base_offset });
    }
    if header.record_count == 0 {
        return Err(ProduceError::NoRecords);
    }
    if i64::from(header.record_count) != i64::from(header.last_offset_delta) + 1 {
        return Err(ProduceError::CountMismatch {
            record_count: header.record_count,
            last_offset_delta: header.last_offset_delta,
        });
    }
    let attributes = header.attributes;
    if attributes.is_control() {
        return Err(ProduceError::Control);
    }
    if attributes.reserved_bits() != 0 {
        return Err(ProduceError::ReservedAttributes { bits: attributes.reserved_bits() });
    }
    if attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Err(ProduceError::LogAppendTime);
    }
    if attributes.is_transactional() && !header.producer_id.is_some() {
        return Err(ProduceError::TransactionalWithoutProducer);
    }
    let incomplete = header.base_sequence < 0 || header.producer_epoch.0 < 0;
    if header.producer_id.is_some() && incomplete {
        return Err(ProduceError::IncompleteProducer {
            producer_id: header.producer_id.0,
            producer_epoch: header.producer_epoch.0,
            base_sequence: header.base_sequence,
        });
    }
    Ok(())
}

/// Walks the records where the rules ask for it; `None` where they stay compressed.
fn walk(
    batch: &BatchView<'_>,
    rules: &ProduceRules,
    allowed: TimestampRange,
) -> Result<Option<Walk>, BatchError> {
    if batch.codec() == Compression::None || rules.validation == RecordValidation::Header {
        return batch.walk(allowed);
    }
    batch.walk_inflated(&mut Vec::new(), rules.max_inflated_bytes, allowed).map(Some)
}

fn judge_walk(walk: &Walk, allowed: TimestampRange) -> Result<(), ProduceError> {
    if let Some(record_index) = walk.first_gap {
        return Err(ProduceError::OffsetGap { record_index });
    }
    if let Some((index, timestamp)) = walk.out_of_range {
        return Err(ProduceError::Timestamp { record_index: Some(index), timestamp, allowed });
    }
    Ok(())
}

/// The greatest timestamp is too new: so is some record. Too old: so are all, the first included.
fn judge_header_timestamp(max: Timestamp, allowed: TimestampRange) -> Result<(), ProduceError> {
    if !max.is_some() || allowed.contains(max) {
        return Ok(());
    }
    let record_index = (max < allowed.earliest).then_some(0);
    Err(ProduceError::Timestamp { record_index, timestamp: max, allowed })
}

#[cfg(test)]
mod tests;
