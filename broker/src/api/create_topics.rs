//! `CreateTopics`: the controller makes them; the answer comes once they can be written.

use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

use levada_protocol::cluster::reply::TopicSummary;
use levada_protocol::cluster::request::{CreateTopics, Mode, NewTopic, Placement, Request};
use levada_protocol::kafka::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};
use levada_protocol::kafka::{ErrorCode, Uuid};
use levada_record::{BrokerId, TopicConfig, TopicName};

use super::change::{self, Changed, InTime, Patience, Refused};
use super::context::{Context, owned, wire_id};
use super::describe_configs::source_of_topic_setting;

/// Reads the request at once, and gives the rest of the work.
pub fn handle(
    context: &Rc<Context>,
    request: &CreateTopicsRequest<'_>,
) -> impl Future<Output = CreateTopicsResponse<'static>> + use<> {
    let shard = Rc::clone(&context.shard);
    let patience = Patience::new(&shard, request.timeout_ms);
    let mode = if request.validate_only { Mode::ValidateOnly } else { Mode::Execute };
    let room = change::check_count(&shard, request.topics.len());
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let repeated = change::repeated(request.topics.iter().map(|topic| &*topic.name));
    let wanted: Vec<_> = request
        .topics
        .iter()
        .map(|topic| {
            room.clone()?;
            if repeated.get(&*topic.name) == Some(&true) {
                return Err(Refused::invalid("the topic is more than once in this request"));
            }
            new_topic(topic)
        })
        .collect();
    async move {
        let question = |topics| Request::CreateTopics(CreateTopics { topics, mode });
        let Changed { index, mut outcomes } =
            change::ask::<_, TopicSummary>(&shard, patience, wanted, weight_bytes, question).await;
        if mode == Mode::Execute {
            let created: Vec<_> =
                outcomes.iter().flatten().map(|topic| topic.name.clone()).collect();
            if change::until_served(&shard, patience, index, created).await == InTime::No {
                for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                    *outcome = Err(patience.exhausted("the topic exists, not all partitions do"));
                }
            }
        }
        let topics =
            names.iter().zip(outcomes).map(|(name, outcome)| result(name, outcome, mode)).collect();
        CreateTopicsResponse { throttle_time_ms: 0, topics }
    }
}

/// What the controller is asked for.
fn new_topic(topic: &CreatableTopic<'_>) -> Result<NewTopic, Refused> {
    if let Err(error) = TopicName::new(&topic.name) {
        return Err(Refused::new(ErrorCode::InvalidTopic, error.to_string()));
    }
    let mut configs = Vec::with_capacity(topic.configs.len());
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let message = format!("topic setting {} has no value", config.name);
            return Err(Refused::new(ErrorCode::InvalidConfig, message));
        };
        configs.push((config.name.to_string(), value.to_string()));
    }
    let placement = placement(topic)?;
    Ok(NewTopic { name: topic.name.to_string(), id: None, placement, configs })
}

fn placement(topic: &CreatableTopic<'_>) -> Result<Placement, Refused> {
    if topic.assignments.is_empty() {
        let or_default = |number: i32| (number != -1).then_some(number);
        return Ok(Placement::Automatic {
            partitions: or_default(topic.num_partitions),
            replication_factor: or_default(i32::from(topic.replication_factor)),
        });
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        return Err(Refused::invalid(
            "with replicas assigned by hand, the numbers of partitions and replicas must be -1",
        ));
    }
    let mut assigned = BTreeMap::new();
    for assignment in &topic.assignments {
        let brokers: Vec<_> = assignment.broker_ids.iter().copied().map(BrokerId).collect();
        if assigned.insert(assignment.partition_index, brokers).is_some() {
            let message = format!("partition {} is assigned twice", assignment.partition_index);
            return Err(Refused::new(ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    if !assigned.keys().copied().eq((0..).take(assigned.len())) {
        let message = "assigned partitions must be numbered from 0 on without a hole";
        return Err(Refused::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    Ok(Placement::Explicit(assigned.into_values().collect()))
}

/// What a topic takes in a question to the controller, by estimate.
fn weight_bytes(topic: &NewTopic) -> usize {
    let configs: usize =
        topic.configs.iter().map(|(name, value)| 48 + name.len() + value.len()).sum();
    let assigned: usize = match &topic.placement {
        Placement::Explicit(partitions) => partitions.iter().map(|p| 24 + 4 * p.len()).sum(),
        Placement::Automatic { .. } => 0,
    };
    128 + topic.name.len() + configs + assigned
}

fn result(
    name: &str,
    outcome: Result<TopicSummary, Refused>,
    mode: Mode,
) -> CreatableTopicResult<'static> {
    match outcome {
        Ok(summary) => CreatableTopicResult {
            name: owned(name),
            // One that was only tried has no id.
            topic_id: if mode == Mode::Execute { wire_id(summary.id) } else { Uuid::ZERO },
            num_partitions: summary.partitions,
            replication_factor: i16::try_from(summary.replication_factor).unwrap_or(i16::MAX),
            configs: Some(configs(&summary)),
            ..CreatableTopicResult::default()
        },
        Err(refused) => CreatableTopicResult {
            name: owned(name),
            error_code: refused.code.to_i16(),
            error_message: Some(refused.message.into()),
            // Null would break Java clients.
            configs: Some(Vec::new()),
            ..CreatableTopicResult::default()
        },
    }
}

/// All settings of a topic that was made.
fn configs(summary: &TopicSummary) -> Vec<CreatableTopicConfigs<'static>> {
    let given = summary.configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let config = TopicConfig::parse(given).unwrap_or_default();
    let replicas = u32::try_from(summary.replication_factor).unwrap_or(1);
    let rows = config.describe(replicas).into_iter();
    rows.map(|row| CreatableTopicConfigs {
        name: row.setting.name.into(),
        config_source: source_of_topic_setting(&row),
        value: Some(row.value.into()),
        read_only: false,
        is_sensitive: false,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_protocol::kafka::create_topics::{CreatableReplicaAssignment, CreatableTopicConfig};
    use levada_record::TopicId;

    fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic<'_> {
        CreatableTopic {
            name: name.into(),
            num_partitions,
            replication_factor,
            ..CreatableTopic::default()
        }
    }

    fn assigned(partitions: &[i32]) -> CreatableTopic<'static> {
        let assignments = partitions
            .iter()
            .map(|index| CreatableReplicaAssignment {
                partition_index: *index,
                broker_ids: vec![*index + 10],
            })
            .collect();
        CreatableTopic { assignments, ..topic("t", -1, -1) }
    }

    #[test]
    fn minus_one_leaves_the_numbers_to_the_cluster() {
        let placement = |topic| new_topic(&topic).unwrap().placement;
        let of = |partitions, replication_factor| Placement::Automatic {
            partitions,
            replication_factor,
        };
        assert_eq!(placement(topic("t", -1, -1)), of(None, None));
        assert_eq!(placement(topic("t", 3, 2)), of(Some(3), Some(2)));
        // Senseless numbers are the controller's to refuse.
        assert_eq!(placement(topic("t", 0, -7)), of(Some(0), Some(-7)));
    }

    #[test]
    fn replicas_by_hand_are_put_in_order_and_may_have_no_hole() {
        let explicit = Placement::Explicit(vec![vec![BrokerId(10)], vec![BrokerId(11)]]);
        assert_eq!(new_topic(&assigned(&[1, 0])).unwrap().placement, explicit);
        let refused = |topic| new_topic(&topic).unwrap_err().code;
        assert_eq!(refused(assigned(&[1, 2])), ErrorCode::InvalidReplicaAssignment);
        assert_eq!(refused(assigned(&[0, 0])), ErrorCode::InvalidReplicaAssignment);
        assert_eq!(refused(assigned(&[-1, 0])), ErrorCode::InvalidReplicaAssignment);
        let mut both = assigned(&[0]);
        both.num_partitions = 1;
        assert_eq!(refused(both), ErrorCode::InvalidRequest);
    }

    #[test]
    fn bad_names_and_settings_without_a_value_are_refused() {
        let refused = |topic: &CreatableTopic<'_>| new_topic(topic).unwrap_err();
        assert_eq!(refused(&topic("a/b", 1, 1)).code, ErrorCode::InvalidTopic);
        let setting = CreatableTopicConfig { name: "retention.ms".into(), value: None };
        let topic = CreatableTopic { configs: vec![setting], ..topic("t", 1, 1) };
        let refused = refused(&topic);
        assert_eq!(refused.code, ErrorCode::InvalidConfig);
        assert!(refused.message.contains("retention.ms"), "{}", refused.message);
    }

    #[test]
    fn settings_are_all_shown_with_a_source_and_errors_carry_an_empty_list() {
        let summary = TopicSummary {
            name: "t".into(),
            id: TopicId([3; 16]),
            partitions: 2,
            replication_factor: 3,
            configs: vec![("retention.ms".into(), "5".into())],
        };
        let made = result("t", Ok(summary.clone()), Mode::Execute);
        assert_eq!((made.num_partitions, made.replication_factor), (2, 3));
        assert_eq!(made.topic_id, Uuid([3; 16]));
        let configs = made.configs.unwrap();
        let of = |name: &str| {
            let row = configs.iter().find(|row| row.name == name).unwrap();
            (row.value.as_deref().unwrap().to_owned(), row.config_source)
        };
        assert_eq!(of("retention.ms"), ("5".to_owned(), 1));
        assert_eq!(of("min.insync.replicas"), ("2".to_owned(), 5));
        assert_eq!(result("t", Ok(summary), Mode::ValidateOnly).topic_id, Uuid::ZERO);
        let refused = result("t", Err(Refused::invalid("no")), Mode::Execute);
        assert_eq!(refused.configs, Some(Vec::new()));
    }
}
