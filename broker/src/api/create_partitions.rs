//! `CreatePartitions`: topics grow; the answer comes once the new partitions can be written.

use std::future::Future;
use std::rc::Rc;

use levada_protocol::cluster::request::{CreatePartitions, Mode, NewPartitions, Request, TopicRef};
use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};
use levada_record::{BrokerId, TopicName};

use super::change::{self, Changed, InTime, Patience, Refused};
use super::context::{Context, owned};

/// Reads the request at once, and gives the rest of the work.
pub fn handle(
    context: &Rc<Context>,
    request: &CreatePartitionsRequest<'_>,
) -> impl Future<Output = CreatePartitionsResponse<'static>> + use<> {
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
            new_partitions(topic)
        })
        .collect();
    async move {
        let question = |topics| Request::CreatePartitions(CreatePartitions { topics, mode });
        let Changed { index, mut outcomes } =
            change::ask::<_, ()>(&shard, patience, wanted, weight_bytes, question).await;
        if mode == Mode::Execute {
            let grown = names.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
            let grown: Vec<_> = grown.map(|(name, _)| name.clone()).collect();
            if change::until_served(&shard, patience, index, grown).await == InTime::No {
                for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                    *outcome = Err(patience.exhausted("the topic grew, not all partitions exist"));
                }
            }
        }
        let results = names.iter().zip(outcomes).map(|(name, outcome)| result(name, outcome));
        CreatePartitionsResponse { throttle_time_ms: 0, results: results.collect() }
    }
}

/// What the controller is asked for.
fn new_partitions(topic: &CreatePartitionsTopic<'_>) -> Result<NewPartitions, Refused> {
    if let Err(error) = TopicName::new(&topic.name) {
        return Err(Refused::new(ErrorCode::UnknownTopicOrPartition, error.to_string()));
    }
    let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect();
    let assignment = topic.assignments.as_ref().map(|partitions| {
        partitions.iter().map(|partition| brokers(&partition.broker_ids)).collect()
    });
    let topic_ref = TopicRef::Name(topic.name.to_string());
    Ok(NewPartitions { topic: topic_ref, total: topic.count, assignment })
}

/// What a topic takes in a question to the controller, by estimate.
fn weight_bytes(new: &NewPartitions) -> usize {
    let assigned: usize =
        new.assignment.iter().flatten().map(|brokers| 24 + 4 * brokers.len()).sum();
    let name = match &new.topic {
        TopicRef::Name(name) => name.len(),
        TopicRef::Id(_) => 16,
    };
    96 + name + assigned
}

fn result(name: &str, outcome: Result<(), Refused>) -> CreatePartitionsTopicResult<'static> {
    let refused = outcome.err();
    CreatePartitionsTopicResult {
        name: owned(name),
        error_code: refused.as_ref().map_or(ErrorCode::None, |refused| refused.code).to_i16(),
        error_message: refused.map(|refused| refused.message.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_protocol::kafka::create_partitions::CreatePartitionsAssignment;

    #[test]
    fn without_an_assignment_the_cluster_chooses() {
        let mut topic = CreatePartitionsTopic { name: "t".into(), count: 3, ..Default::default() };
        assert_eq!(new_partitions(&topic).unwrap().assignment, None);
        let assignment = CreatePartitionsAssignment { broker_ids: vec![2, 1] };
        topic.assignments = Some(vec![assignment]);
        let assigned = new_partitions(&topic).unwrap().assignment.unwrap();
        assert_eq!(assigned, [[BrokerId(2), BrokerId(1)]]);
        topic.name = "a/b".into();
        let refused = new_partitions(&topic).unwrap_err();
        assert_eq!(refused.code, ErrorCode::UnknownTopicOrPartition);
    }
}
