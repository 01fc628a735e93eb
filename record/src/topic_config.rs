//! The topic settings that act: one table with name, type, unit, default, range and meaning. `[P]`
//! Parsing, printing and describing all read [`SETTINGS`]; a setting is added by adding its row.
//! Defaults are Kafka's unless the row says otherwise.

use crate::header::TimestampType;

mod table;

pub use table::SETTINGS;

/// When a produced record counts as safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// Synced to stable storage on as many replicas as `min.insync.replicas` asks for.
    #[default]
    Fsync,
    /// Written by that many replicas; lost only if all of them lose power together.
    Replicated,
}

/// How deep a leader looks into compressed batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RecordValidation {
    /// Header, counts and checksum.
    #[default]
    Header,
    /// Also every record, which costs inflating them.
    Full,
}

/// The settings of one topic, typed. [`TopicConfig::default`] has Kafka's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// `retention.ms`: how long records are kept; `None` for ever.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`: how many bytes a partition keeps; `None` for all.
    pub retention_bytes: Option<u64>,
    /// `segment.bytes`: at which size a segment rolls.
    pub segment_bytes: u32,
    /// `segment.ms`: at which age a segment rolls.
    pub segment_ms: u64,
    /// `max.message.bytes`: largest batch, header included, as compressed as it comes.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`: who decides timestamps.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far in the past a timestamp may lie.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far in the future a timestamp may lie.
    pub timestamp_after_max_ms: i64,
    /// `min.insync.replicas`; `None` for the majority of the replicas.
    pub min_insync_replicas: Option<u32>,
    /// `durability`: what an acknowledgement promises.
    pub durability: Durability,
    /// `record.validation`: how deep the leader looks into compressed batches.
    pub record_validation: RecordValidation,
    /// Which rows of [`SETTINGS`] were set by name, one bit each.
    overridden: u32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig {
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            min_insync_replicas: None,
            durability: Durability::Fsync,
            record_validation: RecordValidation::Header,
            overridden: 0,
        }
    }
}

/// Type of a setting's value, as clients are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingType {
    /// A 32-bit integer.
    Int,
    /// A 64-bit integer.
    Long,
    /// A word.
    String,
    /// Words separated by commas.
    List,
}

/// What a setting's number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// Replicas.
    Replicas,
    /// It is no number.
    None,
}

/// Which values make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// Integers, both ends inclusive.
    Between {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// One of these words.
    OneOf(&'static [&'static str]),
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Allowed::Between { min, max: i64::MAX } => write!(f, "an integer from {min} on"),
            Allowed::Between { min, max } => write!(f, "an integer from {min} to {max}"),
            Allowed::OneOf([only]) => write!(f, "only {only:?}"),
            Allowed::OneOf(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

/// A value that the table has found allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Of an [`Allowed::Between`].
    Number(i64),
    /// Of an [`Allowed::OneOf`].
    Word(&'static str),
}

/// One row of the table.
#[derive(Debug)]
pub struct Setting {
    /// Kafka's name of it, or ours where Kafka has none.
    pub name: &'static str,
    /// Type of its value.
    pub value_type: SettingType,
    /// What its number counts.
    pub unit: Unit,
    /// The default as text; `None` where it follows from the number of replicas.
    pub default: Option<&'static str>,
    /// Which values make sense.
    pub allowed: Allowed,
    /// What it does, for people.
    pub doc: &'static str,
    set: fn(&mut TopicConfig, Value),
    get: fn(&TopicConfig) -> Option<Value>,
}

/// Why overrides are refused: always with the setting, the value and what would be allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No setting of this name acts.
    #[error("topic setting {name:?} is unknown: known are {}", known_names())]
    Unknown {
        /// The name.
        name: String,
    },
    /// The value makes no sense for the setting.
    #[error("topic setting {name} cannot be {value:?}: allowed is {allowed}")]
    Value {
        /// The setting.
        name: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: Allowed,
    },
    /// The setting is there twice.
    #[error("topic setting {name} is given twice")]
    Twice {
        /// The setting.
        name: &'static str,
    },
    /// More replicas must be in sync than there are.
    #[error(
        "topic setting min.insync.replicas cannot be {min_insync}: the topic has {replicas} replicas"
    )]
    MinInsync {
        /// The setting's value.
        min_insync: u32,
        /// The topic's replicas.
        replicas: u32,
    },
}

fn known_names() -> String {
    SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>().join(", ")
}

/// One setting of one topic, for people and for `DescribeConfigs`.
#[derive(Debug, Clone)]
pub struct ConfigRow {
    /// The row of the table.
    pub setting: &'static Setting,
    /// The value in force.
    pub value: String,
    /// Whether nobody set it on this topic.
    pub is_default: bool,
}

impl TopicConfig {
    /// The defaults with `overrides` on top.
    ///
    /// # Errors
    /// [`ConfigError`] on the first name that is unknown or comes twice, and on the first value that
    /// makes no sense.
    pub fn parse<'a>(
        overrides: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ConfigError> {
        let mut config = TopicConfig::default();
        for (name, text) in overrides {
            let (setting, bit) = find(name)?;
            if config.overridden & bit != 0 {
                return Err(ConfigError::Twice { name: setting.name });
            }
            (setting.set)(&mut config, setting.read(text)?);
            config.overridden |= bit;
        }
        Ok(config)
    }

    /// The settings set by name, with their values: [`TopicConfig::parse`] of them gives `self`.
    pub fn overrides(&self) -> Vec<(&'static str, String)> {
        rows()
            .filter(|(_, bit)| self.overridden & bit != 0)
            .filter_map(|(setting, _)| Some((setting.name, setting.text(self)?)))
            .collect()
    }

    /// Every setting with the value in force on a topic of so many replicas.
    pub fn describe(&self, replicas: u32) -> Vec<ConfigRow> {
        rows()
            .map(|(setting, bit)| ConfigRow {
                setting,
                value: setting.text(self).unwrap_or_else(|| majority(replicas).to_string()),
                is_default: self.overridden & bit == 0,
            })
            .collect()
    }

    /// How many replicas of `replicas` must be in sync for acks=all: the setting, or the majority.
    pub fn min_insync(&self, replicas: u32) -> u32 {
        self.min_insync_replicas.unwrap_or_else(|| majority(replicas))
    }

    /// Checks the settings against the number of replicas.
    ///
    /// # Errors
    /// [`ConfigError::MinInsync`] when the topic could never be written with acks=all.
    pub fn check_replicas(&self, replicas: u32) -> Result<(), ConfigError> {
        match self.min_insync_replicas {
            Some(min_insync) if min_insync > replicas => {
                Err(ConfigError::MinInsync { min_insync, replicas })
            }
            _ => Ok(()),
        }
    }

    /// Largest batch that fits both `max.message.bytes` and a segment.
    pub fn max_batch_bytes(&self) -> u32 {
        self.max_message_bytes.min(self.segment_bytes)
    }
}

/// More than half of `replicas`.
fn majority(replicas: u32) -> u32 {
    replicas / 2 + 1
}

/// The table with each row's bit.
fn rows() -> impl Iterator<Item = (&'static Setting, u32)> {
    SETTINGS.iter().enumerate().map(|(index, setting)| (setting, 1 << index))
}

fn find(name: &str) -> Result<(&'static Setting, u32), ConfigError> {
    rows()
        .find(|(setting, _)| setting.name == name)
        .ok_or_else(|| ConfigError::Unknown { name: shortened(name) })
}

/// Enough of a stranger's text to know it again.
fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}

impl Setting {
    fn read(&self, text: &str) -> Result<Value, ConfigError> {
        let value = match self.allowed {
            Allowed::Between { min, max } => text
                .trim()
                .parse()
                .ok()
                .filter(|number| (min..=max).contains(number))
                .map(Value::Number),
            Allowed::OneOf(words) => {
                words.iter().find(|word| **word == text.trim()).map(|word| Value::Word(word))
            }
        };
        value.ok_or_else(|| ConfigError::Value {
            name: self.name,
            value: shortened(text),
            allowed: self.allowed,
        })
    }

    /// The value in force as text; `None` where it follows from the number of replicas.
    fn text(&self, config: &TopicConfig) -> Option<String> {
        (self.get)(config).map(|value| match value {
            Value::Number(number) => number.to_string(),
            Value::Word(word) => word.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
