//! `DeleteTopics`: gone for everyone at once; the answer waits until the space is back. Needs no room
//! on the disk: a full one is relieved by it.

use std::future::Future;
use std::rc::Rc;

use levada_protocol::cluster::reply::TopicSummary;
use levada_protocol::cluster::request::{Request, TopicRef};
use levada_protocol::kafka::delete_topics::{
    DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse,
};
use levada_protocol::kafka::{ErrorCode, Uuid};
use levada_record::{TopicId, TopicName};

use super::change::{self, Changed, InTime, Patience, Refused};
use super::context::{Context, owned, topic_id, wire_id};
use crate::image::ImageView;

/// First version that names topics by id, too.
const IDS_FROM: i16 = 6;

/// A topic as the client named it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: Option<String>,
    id: Uuid,
}

/// What two names of the same topic have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Identity {
    Known(TopicId),
    Unknown(Option<String>, [u8; 16]),
}

/// Reads the request at once, and gives the rest of the work.
pub fn handle(
    context: &Rc<Context>,
    request: &DeleteTopicsRequest<'_>,
    version: i16,
) -> impl Future<Output = DeleteTopicsResponse<'static>> + use<> {
    let shard = Rc::clone(&context.shard);
    let patience = Patience::new(&shard, request.timeout_ms);
    let named = named(request, version);
    let room = change::check_count(&shard, named.len());
    let wanted = wanted(&shard.image.get(), &named);
    let wanted = wanted.into_iter().map(|topic| room.clone().and(topic)).collect();
    async move {
        let question = |topics| Request::DeleteTopics { topics };
        let Changed { index, mut outcomes } =
            change::ask::<_, TopicSummary>(&shard, patience, wanted, weight_bytes, question).await;
        let gone: Vec<_> = outcomes.iter().flatten().map(|topic| topic.id).collect();
        if change::until_removed(&shard, patience, index, gone).await == InTime::No {
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = Err(patience.exhausted("the topic is gone, not all its files are"));
            }
        }
        let responses =
            named.into_iter().zip(outcomes).map(|(named, outcome)| result(named, outcome));
        DeleteTopicsResponse { throttle_time_ms: 0, responses: responses.collect() }
    }
}

fn named(request: &DeleteTopicsRequest<'_>, version: i16) -> Vec<Named> {
    if version < IDS_FROM {
        let names = request.topic_names.iter();
        return names.map(|name| Named { name: Some(name.to_string()), id: Uuid::ZERO }).collect();
    }
    let topics = request.topics.iter();
    topics
        .map(|topic| Named { name: topic.name.as_deref().map(str::to_owned), id: topic.topic_id })
        .collect()
}

/// What the controller is asked for.
fn wanted(image: &ImageView, named: &[Named]) -> Vec<Result<TopicRef, Refused>> {
    let identity = |named: &Named| {
        let known = match &named.name {
            Some(name) => image.topic_named(name),
            None => image.topic(topic_id(named.id)),
        };
        known.map_or_else(
            || Identity::Unknown(named.name.clone(), named.id.0),
            |topic| Identity::Known(topic.image.id),
        )
    };
    let repeated = change::repeated(named.iter().map(identity));
    named
        .iter()
        .map(|topic| match (&topic.name, topic.id.is_zero()) {
            (Some(_), false) | (None, true) => {
                Err(Refused::invalid("a topic is named either by its name or by its id"))
            }
            _ if repeated.get(&identity(topic)) == Some(&true) => {
                Err(Refused::invalid("the topic is more than once in this request"))
            }
            // No topic can have such a name.
            (Some(name), true) => {
                TopicName::new(name).map(|_| TopicRef::Name(name.clone())).map_err(|error| {
                    Refused::new(ErrorCode::UnknownTopicOrPartition, error.to_string())
                })
            }
            (None, false) => Ok(TopicRef::Id(topic_id(topic.id))),
        })
        .collect()
}

/// What a topic takes in a question to the controller, by estimate.
fn weight_bytes(topic: &TopicRef) -> usize {
    match topic {
        TopicRef::Name(name) => 64 + name.len(),
        TopicRef::Id(_) => 64,
    }
}

fn result(named: Named, outcome: Result<TopicSummary, Refused>) -> DeletableTopicResult<'static> {
    match outcome {
        Ok(summary) => DeletableTopicResult {
            name: Some(owned(&summary.name)),
            topic_id: wire_id(summary.id),
            ..DeletableTopicResult::default()
        },
        Err(refused) => DeletableTopicResult {
            name: named.name.map(Into::into),
            topic_id: named.id,
            error_code: refused.code.to_i16(),
            error_message: Some(refused.message.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_protocol::cluster::{Change, ClusterId, ClusterImage, Committed, TopicImage};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn view() -> ImageView {
        let mut image = ClusterImage::empty(ClusterId([1; 16]));
        let topic = TopicImage {
            id: TopicId([7; 16]),
            name: TopicName::new("known").unwrap(),
            configs: BTreeMap::new(),
            partitions: Vec::new(),
        };
        let changes = vec![Change::TopicCreated(topic)];
        image.apply(&Committed { previous: 0, index: 1, changes }).unwrap();
        ImageView::derive(Arc::new(image), None)
    }

    fn by_name(name: &str) -> Named {
        Named { name: Some(name.into()), id: Uuid::ZERO }
    }

    fn by_id(id: u8) -> Named {
        Named { name: None, id: Uuid([id; 16]) }
    }

    #[track_caller]
    fn check(named: &[Named], expected: &[Result<TopicRef, ErrorCode>]) {
        let got: Vec<_> = wanted(&view(), named)
            .into_iter()
            .map(|wanted| wanted.map_err(|refused| refused.code))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn topics_are_named_by_name_or_by_id_but_not_by_both_or_neither() {
        check(
            &[by_name("known"), by_id(9)],
            &[Ok(TopicRef::Name("known".into())), Ok(TopicRef::Id(TopicId([9; 16])))],
        );
        let both = Named { id: Uuid([7; 16]), ..by_name("x") };
        let invalid = Err(ErrorCode::InvalidRequest);
        check(&[both, by_id(0)], &[invalid.clone(), invalid]);
    }

    #[test]
    fn a_topic_that_is_there_twice_is_refused_even_under_two_names() {
        let invalid = || Err(ErrorCode::InvalidRequest);
        check(
            &[by_name("known"), by_id(7), by_name("other")],
            &[invalid(), invalid(), Ok(TopicRef::Name("other".into()))],
        );
        check(&[by_name("x"), by_name("x")], &[invalid(), invalid()]);
    }

    #[test]
    fn a_name_that_no_topic_can_have_is_unknown() {
        check(&[by_name("a/b")], &[Err(ErrorCode::UnknownTopicOrPartition)]);
    }
}
