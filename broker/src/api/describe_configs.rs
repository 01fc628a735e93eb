//! `DescribeConfigs`: the settings of topics, which clients may change, and of this broker, which
//! stand in its file.

use std::collections::HashSet;

use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use levada_record::topic_config::{ConfigRow, SettingType};
use levada_record::{BrokerId, TopicName};

use super::alter_configs::{BROKER, TOPIC};
use super::change::{self, Refused};
use super::context::{Context, owned};
use crate::config::{BrokerConfig, SETTINGS, Setting};
use crate::image::TopicView;

/// Where a value comes from: set for the topic.
const SOURCE_TOPIC: i8 = 1;

/// Where a value comes from: the broker's file, its environment or its flags.
const SOURCE_BROKER_FILE: i8 = 4;

/// Where a value comes from: nobody set it.
const SOURCE_DEFAULT: i8 = 5;

/// One setting of whatever resource.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: &'static str,
    value: Option<String>,
    default: Option<String>,
    source: i8,
    is_read_only: bool,
    config_type: i8,
    doc: &'static str,
}

/// Answers from the image of this shard.
pub fn handle(
    context: &Context,
    request: &DescribeConfigsRequest<'_>,
) -> DescribeConfigsResponse<'static> {
    let shard = &context.shard;
    let image = shard.image.get();
    let room = change::check_count(shard, request.resources.len());
    let results = request.resources.iter().map(|asked| {
        let rows = room.clone().and_then(|()| match asked.resource_type {
            TOPIC => match image.topic_named(&asked.resource_name) {
                Some(topic) => Ok(topic_rows(topic)),
                None => Err(no_topic(&asked.resource_name)),
            },
            BROKER if asked.resource_name.is_empty() => Ok(Vec::new()),
            BROKER if asked.resource_name.parse() == Ok(shard.broker.0) => {
                Ok(broker_rows(&shard.config, shard.broker))
            }
            BROKER => Err(Refused::invalid(format!(
                "broker {} can only tell its own settings",
                shard.broker
            ))),
            other => Err(Refused::invalid(format!(
                "resources of type {other} have no settings: {TOPIC} is a topic, {BROKER} a broker"
            ))),
        });
        result(asked, rows, request.include_synonyms, request.include_documentation)
    });
    DescribeConfigsResponse { throttle_time_ms: 0, results: results.collect() }
}

fn no_topic(name: &str) -> Refused {
    match TopicName::new(name) {
        Ok(_) => {
            let message = format!("topic {name} does not exist");
            Refused::new(ErrorCode::UnknownTopicOrPartition, message)
        }
        Err(error) => Refused::new(ErrorCode::InvalidTopic, error.to_string()),
    }
}

fn result(
    asked: &DescribeConfigsResource<'_>,
    rows: Result<Vec<Row>, Refused>,
    with_synonyms: bool,
    with_docs: bool,
) -> DescribeConfigsResult<'static> {
    let mut result = DescribeConfigsResult {
        resource_type: asked.resource_type,
        resource_name: owned(&asked.resource_name),
        ..DescribeConfigsResult::default()
    };
    match rows {
        Ok(rows) => {
            // No names at all means all of them; names that nothing has are passed over.
            let wanted: Option<HashSet<&str>> = asked
                .configuration_keys
                .as_ref()
                .filter(|keys| !keys.is_empty())
                .map(|keys| keys.iter().map(|key| &**key).collect());
            let rows = rows
                .into_iter()
                .filter(|row| wanted.as_ref().is_none_or(|wanted| wanted.contains(row.name)));
            result.configs = rows.map(|row| on_wire(row, with_synonyms, with_docs)).collect();
        }
        Err(refused) => {
            result.error_code = refused.code.to_i16();
            result.error_message = Some(refused.message.into());
        }
    }
    result
}

fn on_wire(
    row: Row,
    with_synonyms: bool,
    with_docs: bool,
) -> DescribeConfigsResourceResult<'static> {
    let synonym = |value: &Option<String>, source| DescribeConfigsSynonym {
        name: row.name.into(),
        value: value.clone().map(Into::into),
        source,
    };
    let mut synonyms = Vec::new();
    if with_synonyms && row.source != SOURCE_DEFAULT {
        synonyms.push(synonym(&row.value, row.source));
    }
    if with_synonyms && row.default.is_some() {
        synonyms.push(synonym(&row.default, SOURCE_DEFAULT));
    }
    DescribeConfigsResourceResult {
        name: row.name.into(),
        value: row.value.map(Into::into),
        read_only: row.is_read_only,
        config_source: row.source,
        is_sensitive: false,
        synonyms,
        config_type: row.config_type,
        documentation: with_docs.then(|| one_line(row.doc).into()),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where the value of a topic's setting comes from, on the wire.
pub(super) fn source_of_topic_setting(row: &ConfigRow) -> i8 {
    if row.is_default { SOURCE_DEFAULT } else { SOURCE_TOPIC }
}

fn topic_rows(topic: &TopicView) -> Vec<Row> {
    let replicas = topic.image.partitions.first().map_or(1, |partition| partition.replicas.len());
    let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
    // What would be in force if nobody had set anything.
    let defaults = levada_record::TopicConfig::default().describe(replicas);
    let rows = topic.config.describe(replicas).into_iter().zip(defaults);
    rows.map(|(row, default)| Row {
        name: row.setting.name,
        default: Some(default.value),
        source: source_of_topic_setting(&row),
        value: Some(row.value),
        is_read_only: false,
        config_type: match row.setting.value_type {
            SettingType::String => 2,
            SettingType::Int => 3,
            SettingType::Long => 5,
            SettingType::List => 7,
        },
        doc: row.setting.doc,
    })
    .collect()
}

/// Every key of the broker's configuration. They are read when it starts: none can be changed here.
fn broker_rows(config: &BrokerConfig, broker: BrokerId) -> Vec<Row> {
    let table = |config: &BrokerConfig| toml::Table::try_from(config).unwrap_or_default();
    let (values, defaults) = (table(config), table(&BrokerConfig::default()));
    SETTINGS
        .iter()
        .map(|Setting { key, unit, doc }| {
            let (value, default) = (values.get(*key), defaults.get(*key));
            let source = if value == default { SOURCE_DEFAULT } else { SOURCE_BROKER_FILE };
            let config_type = match value.or(default) {
                Some(toml::Value::Boolean(_)) => 1,
                Some(toml::Value::Integer(_)) => 5,
                Some(toml::Value::Float(_)) => 6,
                Some(toml::Value::Array(_)) => 7,
                None if *unit == "number" => 3,
                Some(_) | None => 2,
            };
            let mut row = Row {
                name: key,
                value: value.map(text),
                default: default.map(text),
                source,
                is_read_only: true,
                config_type,
                doc,
            };
            // Left out, it was given by the coordinator; either way it is what it is.
            if *key == "broker_id" {
                row = Row {
                    value: Some(broker.0.to_string()),
                    source: SOURCE_BROKER_FILE,
                    config_type: 3,
                    ..row
                };
            }
            row
        })
        .collect()
}

/// A value as Kafka's tools print it.
fn text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_protocol::cluster::TopicImage;
    use levada_record::{TopicConfig, TopicId};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn topic(configs: &[(&str, &str)]) -> TopicView {
        let image = TopicImage {
            id: TopicId([1; 16]),
            name: TopicName::new("t").unwrap(),
            configs: BTreeMap::new(),
            partitions: Vec::new(),
        };
        let config = TopicConfig::parse(configs.iter().copied()).unwrap();
        TopicView { image: Arc::new(image), config }
    }

    fn asked(keys: Option<&[&'static str]>) -> DescribeConfigsResource<'static> {
        DescribeConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).into()).collect()),
        }
    }

    #[test]
    fn a_setting_shows_its_value_its_source_and_where_else_it_could_come_from() {
        let rows = topic_rows(&topic(&[("retention.ms", "5")]));
        let only = asked(Some(&["retention.ms", "no.such"]));
        let shown = result(&only, Ok(rows.clone()), true, true);
        assert_eq!(shown.configs.len(), 1);
        let row = &shown.configs[0];
        assert_eq!((row.value.as_deref(), row.config_source), (Some("5"), SOURCE_TOPIC));
        assert!(!row.read_only && !row.is_sensitive);
        assert_eq!(row.config_type, 5);
        let synonyms: Vec<_> =
            row.synonyms.iter().map(|other| (other.value.as_deref(), other.source)).collect();
        assert_eq!(synonyms, [(Some("5"), SOURCE_TOPIC), (Some("604800000"), SOURCE_DEFAULT)]);
        assert!(row.documentation.as_deref().unwrap().ends_with('.'));
        let bare = result(&only, Ok(rows), false, false);
        assert_eq!((bare.configs[0].synonyms.len(), &bare.configs[0].documentation), (0, &None));
    }

    #[test]
    fn null_and_empty_lists_of_names_mean_all_settings() {
        let rows = topic_rows(&topic(&[]));
        for keys in [None, Some(&[] as &[&str])] {
            let shown = result(&asked(keys), Ok(rows.clone()), false, false);
            assert_eq!(shown.configs.len(), rows.len());
            let sources = shown.configs.iter().map(|row| row.config_source);
            assert!(sources.into_iter().all(|source| source == SOURCE_DEFAULT));
        }
    }

    #[test]
    fn a_broker_tells_every_key_of_its_file_and_none_can_be_changed() {
        let config = BrokerConfig { shards: 3, ..BrokerConfig::default() };
        let rows = broker_rows(&config, BrokerId(7));
        assert_eq!(rows.len(), SETTINGS.len());
        assert!(rows.iter().all(|row| row.is_read_only));
        let of = |name| rows.iter().find(|row| row.name == name).unwrap();
        let value = |name| of(name).value.as_deref();
        assert_eq!((value("shards"), of("shards").source), (Some("3"), SOURCE_BROKER_FILE));
        assert_eq!(value("broker_id"), Some("7"));
        assert_eq!((value("rack"), of("rack").source), (None, SOURCE_DEFAULT));
        assert_eq!((value("listen"), of("listen").config_type), (Some("127.0.0.1:9092"), 2));
        assert_eq!(of("coordinators").config_type, 7);
        assert_eq!((value("pin_shards"), of("pin_shards").config_type), (Some("true"), 1));
    }

    #[test]
    fn an_unknown_topic_and_an_illegal_name_have_different_codes() {
        assert_eq!(no_topic("x").code, ErrorCode::UnknownTopicOrPartition);
        assert_eq!(no_topic("a/b").code, ErrorCode::InvalidTopic);
    }
}
