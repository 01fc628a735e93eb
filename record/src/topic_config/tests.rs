//! Claims about the table: its defaults are the struct's, and nonsense is refused by name.

use super::*;

fn parse(overrides: &[(&str, &str)]) -> Result<TopicConfig, ConfigError> {
    TopicConfig::parse(overrides.iter().copied())
}

/// Values at the ends of what a row allows.
fn samples(setting: &Setting) -> Vec<String> {
    match setting.allowed {
        Allowed::Between { min, max } => vec![min.to_string(), max.to_string()],
        Allowed::OneOf(words) => words.iter().map(|word| (*word).to_owned()).collect(),
    }
}

#[test]
fn nothing_set_means_the_defaults_that_the_table_prints() {
    let config = parse(&[]).unwrap();
    assert_eq!(config, TopicConfig::default());
    assert!(config.overrides().is_empty());
    for row in config.describe(3) {
        assert!(row.is_default);
        match row.setting.default {
            Some(default) => assert_eq!(row.value, default, "{}", row.setting.name),
            None => {
                assert_eq!((row.setting.name, row.value.as_str()), ("min.insync.replicas", "2"));
            }
        }
    }
}

#[test]
fn defaults_are_kafkas() {
    let config = TopicConfig::default();
    assert_eq!(config.retention_ms, Some(7 * 24 * 3_600_000));
    assert_eq!(config.retention_bytes, None);
    assert_eq!(config.segment_bytes, 1_073_741_824);
    assert_eq!(config.segment_ms, 7 * 24 * 3_600_000);
    assert_eq!(config.max_message_bytes, 1_048_588);
    assert_eq!(config.timestamp_before_max_ms, i64::MAX);
    assert_eq!(config.timestamp_after_max_ms, 3_600_000);
}

#[test]
fn every_allowed_value_is_taken_told_and_read_back() {
    for setting in SETTINGS {
        for value in samples(setting) {
            let config = parse(&[(setting.name, &value)]).unwrap();
            assert_eq!(config.overrides(), [(setting.name, value.clone())]);
            let rows = config.describe(3);
            let row = rows.iter().find(|row| row.setting.name == setting.name).unwrap();
            assert_eq!(row.value, value);
            assert!(!row.is_default, "{} was set by name", setting.name);
            let again: Vec<_> = config.overrides();
            let again = TopicConfig::parse(again.iter().map(|(n, v)| (*n, v.as_str()))).unwrap();
            assert_eq!(again, config);
        }
    }
}

#[test]
fn senseless_values_are_refused_with_name_value_and_what_is_allowed() {
    for setting in SETTINGS {
        let mut refused = vec![String::new(), "nonsense".to_owned(), "1e3".to_owned()];
        if let Allowed::Between { min, max } = setting.allowed {
            refused.push((i128::from(min) - 1).to_string());
            refused.push((i128::from(max) + 1).to_string());
        }
        for value in refused {
            let error = parse(&[(setting.name, &value)]).unwrap_err();
            let (name, allowed) = (setting.name, setting.allowed);
            assert_eq!(error, ConfigError::Value { name, value: value.clone(), allowed });
            let message = error.to_string();
            assert!(message.contains(name), "{message}");
            assert!(message.contains(&format!("{value:?}")), "{message}");
            assert!(message.contains(&allowed.to_string()), "{message}");
        }
    }
}

#[test]
fn settings_that_do_not_act_are_refused() {
    for name in ["flush.messages", "unclean.leader.election.enable", "Retention.ms", ""] {
        let error = parse(&[(name, "1")]).unwrap_err();
        assert_eq!(error, ConfigError::Unknown { name: name.to_owned() });
        assert!(error.to_string().contains("retention.ms"), "{error}");
    }
    let message = parse(&[("cleanup.policy", "compact")]).unwrap_err().to_string();
    assert_eq!(
        message,
        "topic setting cleanup.policy cannot be \"compact\": allowed is only \"delete\""
    );
}

#[test]
fn a_setting_given_twice_is_refused() {
    let error = parse(&[("segment.ms", "5"), ("segment.ms", "6")]).unwrap_err();
    assert_eq!(error, ConfigError::Twice { name: "segment.ms" });
}

#[test]
fn the_majority_must_be_in_sync_unless_the_topic_says_otherwise() {
    let config = TopicConfig::default();
    assert_eq!([1, 2, 3, 4, 5].map(|replicas| config.min_insync(replicas)), [1, 2, 2, 3, 3]);
    let config = parse(&[("min.insync.replicas", "3")]).unwrap();
    assert_eq!(config.min_insync(5), 3);
    assert_eq!(config.check_replicas(3), Ok(()));
    let refused = ConfigError::MinInsync { min_insync: 3, replicas: 2 };
    assert_eq!(config.check_replicas(2), Err(refused));
}

#[test]
fn no_row_comes_twice_and_each_explains_itself() {
    for (index, setting) in SETTINGS.iter().enumerate() {
        assert!(SETTINGS.iter().skip(index + 1).all(|other| other.name > setting.name));
        assert!(setting.doc.ends_with('.') || setting.doc.ends_with(")."), "{}", setting.name);
        let is_number = matches!(setting.allowed, Allowed::Between { .. });
        assert_eq!(is_number, setting.unit != Unit::None, "{}", setting.name);
    }
}

#[test]
fn a_batch_must_fit_a_segment_too() {
    let config = parse(&[("segment.bytes", "65536")]).unwrap();
    assert_eq!(config.max_batch_bytes(), 65_536);
    assert_eq!(TopicConfig::default().max_batch_bytes(), 1_048_588);
}
