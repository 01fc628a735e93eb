//! The rows of the table of topic settings. `[P]`

use super::{Allowed, Durability, RecordValidation, Setting, SettingType, Unit, Value};
use crate::header::TimestampType;

/// The greatest value of Kafka's 32-bit settings.
const INT_MAX: i64 = i32::MAX as i64;
/// Least `segment.bytes`. Kafka asks for 1 MiB; tests of many segments want smaller ones.
const SEGMENT_BYTES_MIN: i64 = 64 * 1024;
/// Most replicas `min.insync.replicas` can ask for; brokers and replicas are counted in 16 bits.
const INSYNC_MAX: i64 = i16::MAX as i64;

/// Every topic setting that acts. Tests hold the defaults here against [`super::TopicConfig`].
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "cleanup.policy",
        value_type: SettingType::List,
        unit: Unit::None,
        default: Some("delete"),
        allowed: Allowed::OneOf(&["delete"]),
        doc: "What happens to old segments: they are deleted.",
        set: |_, _| {},
        get: |_| Some(Value::Word("delete")),
    },
    Setting {
        name: "compression.type",
        value_type: SettingType::String,
        unit: Unit::None,
        default: Some("producer"),
        allowed: Allowed::OneOf(&["producer"]),
        doc: "How batches are kept: as the producer compressed them.",
        set: |_, _| {},
        get: |_| Some(Value::Word("producer")),
    },
    Setting {
        name: "durability",
        value_type: SettingType::String,
        unit: Unit::None,
        default: Some("fsync"),
        allowed: Allowed::OneOf(&["fsync", "replicated"]),
        doc: "What an acknowledgement promises. fsync: the record is on stable storage on at least \
              min.insync.replicas replicas. replicated: so many have written it, and it is lost only \
              if all of them lose power together.",
        set: |config, value| {
            config.durability = match value {
                Value::Word("replicated") => Durability::Replicated,
                _ => Durability::Fsync,
            };
        },
        get: |config| {
            Some(Value::Word(match config.durability {
                Durability::Fsync => "fsync",
                Durability::Replicated => "replicated",
            }))
        },
    },
    Setting {
        name: "max.message.bytes",
        value_type: SettingType::Int,
        unit: Unit::Bytes,
        default: Some("1048588"),
        allowed: Allowed::Between { min: 0, max: INT_MAX },
        doc: "Largest batch a producer may send, header included and as compressed as it comes.",
        set: |config, value| config.max_message_bytes = int(value),
        get: |config| Some(Value::Number(i64::from(config.max_message_bytes))),
    },
    Setting {
        name: "message.timestamp.after.max.ms",
        value_type: SettingType::Long,
        unit: Unit::Milliseconds,
        default: Some("3600000"),
        allowed: Allowed::Between { min: 0, max: i64::MAX },
        doc: "How far ahead of the broker's clock a record's timestamp may lie, where producers \
              decide timestamps.",
        set: |config, value| config.timestamp_after_max_ms = long(value),
        get: |config| Some(Value::Number(config.timestamp_after_max_ms)),
    },
    Setting {
        name: "message.timestamp.before.max.ms",
        value_type: SettingType::Long,
        unit: Unit::Milliseconds,
        default: Some("9223372036854775807"),
        allowed: Allowed::Between { min: 0, max: i64::MAX },
        doc: "How far behind the broker's clock a record's timestamp may lie, where producers \
              decide timestamps.",
        set: |config, value| config.timestamp_before_max_ms = long(value),
        get: |config| Some(Value::Number(config.timestamp_before_max_ms)),
    },
    Setting {
        name: "message.timestamp.type",
        value_type: SettingType::String,
        unit: Unit::None,
        default: Some("CreateTime"),
        allowed: Allowed::OneOf(&["CreateTime", "LogAppendTime"]),
        doc: "Who decides timestamps: the producer (CreateTime) or the broker when it appends \
              (LogAppendTime).",
        set: |config, value| {
            config.timestamp_type = match value {
                Value::Word("LogAppendTime") => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            };
        },
        get: |config| {
            Some(Value::Word(match config.timestamp_type {
                TimestampType::CreateTime => "CreateTime",
                TimestampType::LogAppendTime => "LogAppendTime",
            }))
        },
    },
    Setting {
        name: "min.insync.replicas",
        value_type: SettingType::Int,
        unit: Unit::Replicas,
        default: None,
        allowed: Allowed::Between { min: 1, max: INSYNC_MAX },
        doc: "How many replicas must hold a record before acks=all is answered. Without it: the \
              majority of the topic's replicas (Kafka: 1).",
        set: |config, value| config.min_insync_replicas = Some(int(value)),
        get: |config| config.min_insync_replicas.map(|count| Value::Number(i64::from(count))),
    },
    Setting {
        name: "record.validation",
        value_type: SettingType::String,
        unit: Unit::None,
        default: Some("header"),
        allowed: Allowed::OneOf(&["header", "full"]),
        doc: "How deep the leader looks into compressed batches. header: lengths, counts and \
              checksum. full: every record too, which costs inflating them.",
        set: |config, value| {
            config.record_validation = match value {
                Value::Word("full") => RecordValidation::Full,
                _ => RecordValidation::Header,
            };
        },
        get: |config| {
            Some(Value::Word(match config.record_validation {
                RecordValidation::Header => "header",
                RecordValidation::Full => "full",
            }))
        },
    },
    Setting {
        name: "retention.bytes",
        value_type: SettingType::Long,
        unit: Unit::Bytes,
        default: Some("-1"),
        allowed: Allowed::Between { min: -1, max: i64::MAX },
        doc: "How many bytes a partition keeps before its oldest segments go; -1 for all.",
        set: |config, value| config.retention_bytes = u64::try_from(long(value)).ok(),
        get: |config| Some(or_minus_one(config.retention_bytes)),
    },
    Setting {
        name: "retention.ms",
        value_type: SettingType::Long,
        unit: Unit::Milliseconds,
        default: Some("604800000"),
        allowed: Allowed::Between { min: -1, max: i64::MAX },
        doc: "How long a record is kept before its segment goes; -1 for ever.",
        set: |config, value| config.retention_ms = u64::try_from(long(value)).ok(),
        get: |config| Some(or_minus_one(config.retention_ms)),
    },
    Setting {
        name: "segment.bytes",
        value_type: SettingType::Int,
        unit: Unit::Bytes,
        default: Some("1073741824"),
        allowed: Allowed::Between { min: SEGMENT_BYTES_MIN, max: INT_MAX },
        doc: "Size at which a segment is sealed and the next one begun. Retention drops whole \
              segments.",
        set: |config, value| config.segment_bytes = int(value),
        get: |config| Some(Value::Number(i64::from(config.segment_bytes))),
    },
    Setting {
        name: "segment.ms",
        value_type: SettingType::Long,
        unit: Unit::Milliseconds,
        default: Some("604800000"),
        allowed: Allowed::Between { min: 1, max: i64::MAX },
        doc: "Age at which a segment is sealed even if it is not full.",
        set: |config, value| config.segment_ms = long(value).unsigned_abs(),
        get: |config| Some(number(config.segment_ms)),
    },
];

// One bit per row in a `u32`.
const _: () = assert!(SETTINGS.len() <= 32);

/// The number; the table lets only numbers reach numeric settings.
fn long(value: Value) -> i64 {
    match value {
        Value::Number(number) => number,
        Value::Word(word) => panic!("the word {word:?} reached a numeric setting"),
    }
}

/// The same for settings whose range lies in 32 bits without sign.
fn int(value: Value) -> u32 {
    u32::try_from(long(value)).expect("the row's range lies in 0..=2^31-1")
}

fn number(value: u64) -> Value {
    Value::Number(i64::try_from(value).unwrap_or(i64::MAX))
}

fn or_minus_one(value: Option<u64>) -> Value {
    value.map_or(Value::Number(-1), number)
}
