//! Topic settings: checked, put into their one spelling, altered. `[P]`
//! The table of settings is [`levada_record::topic_config`]'s.

use std::collections::{BTreeMap, BTreeSet};

use levada_protocol::cluster::request::{AlterKind, ConfigChange, ConfigOp};
use levada_protocol::cluster::{Refusal, RefusalCode};
use levada_record::topic_config::{ConfigError, SETTINGS, Setting, SettingType, TopicConfig};

/// Settings as the image keeps them.
pub type Settings = BTreeMap<String, String>;

/// Checks `given` for a topic of so many replicas.
///
/// # Errors
/// [`RefusalCode::InvalidConfig`] about the first setting that is unknown, given twice, or
/// senseless.
pub fn checked<'a>(
    given: impl IntoIterator<Item = (&'a str, &'a str)>,
    replicas: u32,
) -> Result<Settings, Refusal> {
    let config = TopicConfig::parse(given).map_err(|error| refusal(&error))?;
    config.check_replicas(replicas).map_err(|error| refusal(&error))?;
    Ok(config.overrides().into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The settings of a topic of so many replicas after `changes` to `current`.
///
/// # Errors
/// [`RefusalCode::InvalidConfig`] as in [`checked`], or when items are added to what is no list;
/// [`RefusalCode::InvalidRequest`] when one setting is changed twice.
pub fn altered(
    current: &Settings,
    kind: AlterKind,
    changes: &[ConfigChange],
    replicas: u32,
) -> Result<Settings, Refusal> {
    let mut named = BTreeSet::new();
    let mut next = match kind {
        AlterKind::Incremental => current.clone(),
        AlterKind::ReplaceAll => Settings::new(),
    };
    for change in changes {
        let setting = find(&change.name)?;
        if !named.insert(setting.name) {
            let message = format!("setting {} is changed twice in one request", setting.name);
            return Err(Refusal::new(RefusalCode::InvalidRequest, message).about(setting.name));
        }
        match &change.op {
            ConfigOp::Set(value) => {
                next.insert(setting.name.to_owned(), value.clone());
            }
            ConfigOp::Delete => {
                next.remove(setting.name);
            }
            ConfigOp::Append(items) => {
                let mut list = list_of(setting, &next)?;
                for item in split(items) {
                    if !list.contains(&item) {
                        list.push(item);
                    }
                }
                next.insert(setting.name.to_owned(), list.join(","));
            }
            ConfigOp::Subtract(items) => {
                let mut list = list_of(setting, &next)?;
                list.retain(|item| !split(items).contains(item));
                next.insert(setting.name.to_owned(), list.join(","));
            }
        }
    }
    checked(next.iter().map(|(name, value)| (name.as_str(), value.as_str())), replicas)
}

fn find(name: &str) -> Result<&'static Setting, Refusal> {
    SETTINGS.iter().find(|setting| setting.name == name).ok_or_else(|| {
        // The table's own words for it, which list what is known.
        TopicConfig::parse([(name, "")]).err().map_or_else(
            || Refusal::new(RefusalCode::InvalidConfig, "setting is unknown"),
            |error| refusal(&error),
        )
    })
}

fn list_of(setting: &Setting, current: &Settings) -> Result<Vec<String>, Refusal> {
    if setting.value_type != SettingType::List {
        let message = format!("setting {} is no list: nothing can be added or taken", setting.name);
        return Err(Refusal::new(RefusalCode::InvalidConfig, message).about(setting.name));
    }
    let value = current.get(setting.name).map(String::as_str).or(setting.default);
    Ok(value.map(split).unwrap_or_default())
}

fn split(items: &str) -> Vec<String> {
    items.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn refusal(error: &ConfigError) -> Refusal {
    let subject = match error {
        ConfigError::Unknown { name } => name.clone(),
        ConfigError::Value { name, .. } | ConfigError::Twice { name } => (*name).to_owned(),
        ConfigError::MinInsync { .. } => "min.insync.replicas".to_owned(),
    };
    Refusal::new(RefusalCode::InvalidConfig, error.to_string()).about(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn change(name: &str, op: ConfigOp) -> ConfigChange {
        ConfigChange { name: name.to_owned(), op }
    }

    fn set(name: &str, value: &str) -> ConfigChange {
        change(name, ConfigOp::Set(value.to_owned()))
    }

    #[track_caller]
    fn refused(result: Result<Settings, Refusal>, code: RefusalCode, subject: &str) {
        let refusal = result.expect_err("is refused");
        assert_eq!(refusal.code, code, "{refusal}");
        assert_eq!(refusal.subject.as_deref(), Some(subject), "{refusal}");
    }

    #[test]
    fn settings_are_kept_in_their_one_spelling() {
        let kept = checked([("retention.ms", "  007 ")], 1).unwrap();
        assert_eq!(kept, settings(&[("retention.ms", "7")]));
    }

    #[test]
    fn unknown_and_senseless_settings_are_refused_by_name() {
        let invalid = RefusalCode::InvalidConfig;
        refused(checked([("retention.msec", "1")], 1), invalid, "retention.msec");
        refused(checked([("retention.ms", "soon")], 1), invalid, "retention.ms");
        refused(
            checked([("retention.ms", "1"), ("retention.ms", "2")], 1),
            invalid,
            "retention.ms",
        );
        refused(checked([("min.insync.replicas", "2")], 1), invalid, "min.insync.replicas");
    }

    #[test]
    fn incremental_changes_leave_the_rest_and_replacing_does_not() {
        let current = settings(&[("retention.ms", "7"), ("segment.bytes", "1048576")]);
        let changes = [set("retention.ms", "8")];
        assert_eq!(
            altered(&current, AlterKind::Incremental, &changes, 1).unwrap(),
            settings(&[("retention.ms", "8"), ("segment.bytes", "1048576")])
        );
        assert_eq!(
            altered(&current, AlterKind::ReplaceAll, &changes, 1).unwrap(),
            settings(&[("retention.ms", "8")])
        );
        let delete = [change("retention.ms", ConfigOp::Delete)];
        assert_eq!(
            altered(&current, AlterKind::Incremental, &delete, 1).unwrap(),
            settings(&[("segment.bytes", "1048576")])
        );
    }

    #[test]
    fn lists_take_and_give_items_and_nothing_else_does() {
        let none = Settings::new();
        let append = |name: &str| [change(name, ConfigOp::Append("delete".into()))];
        assert_eq!(
            altered(&none, AlterKind::Incremental, &append("cleanup.policy"), 1).unwrap(),
            settings(&[("cleanup.policy", "delete")])
        );
        let invalid = RefusalCode::InvalidConfig;
        refused(
            altered(&none, AlterKind::Incremental, &append("retention.ms"), 1),
            invalid,
            "retention.ms",
        );
        let subtract = [change("cleanup.policy", ConfigOp::Subtract("delete".into()))];
        refused(altered(&none, AlterKind::Incremental, &subtract, 1), invalid, "cleanup.policy");
    }

    #[test]
    fn one_setting_is_changed_once_and_must_be_known_even_to_be_deleted() {
        let twice = [set("retention.ms", "1"), change("retention.ms", ConfigOp::Delete)];
        let none = Settings::new();
        refused(
            altered(&none, AlterKind::Incremental, &twice, 1),
            RefusalCode::InvalidRequest,
            "retention.ms",
        );
        refused(
            altered(&none, AlterKind::Incremental, &[change("colour", ConfigOp::Delete)], 1),
            RefusalCode::InvalidConfig,
            "colour",
        );
    }
}
