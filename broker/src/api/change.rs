//! Changes of the cluster that clients ask for: the controller makes them; the answer waits until
//! this broker shows them, on all its shards, for as long as the client has patience.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::FutureExt as _;
use levada_protocol::cluster::Refusal;
use levada_protocol::cluster::reply::{Outcomes, Reply, TopicOutcomes, TopicSummary};
use levada_protocol::cluster::request::Request;
use levada_protocol::kafka::ErrorCode;
use levada_record::{PartitionId, TopicId};

use super::error_code;
use crate::controller_link::{ASK_WITHIN, ControllerError};
use crate::image::{ImageView, TopicView};
use crate::shard::Shard;

/// Bytes of the items in one question to the controller, by estimate; more of them are asked in
/// several. Leaves room for the frame's own parts.
const QUESTION_BYTES: usize = levada_protocol::cluster::MAX_REQUEST_BYTES / 2;

/// Why one item of a request was not done, as its client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why, for programs.
    pub code: ErrorCode,
    /// Why, for people.
    pub message: String,
}

impl Refused {
    /// A refusal of our own.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The request contradicts itself or asks for what does not exist.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { code: error_code::of_refusal(refusal.code), message: refusal.message }
    }
}

impl From<ControllerError> for Refused {
    fn from(error: ControllerError) -> Self {
        let code = error_code::of_controller(&error);
        match error {
            ControllerError::Refused(refusal) => refusal.into(),
            error @ (ControllerError::Unavailable | ControllerError::TimedOut) => {
                Self::new(code, error.to_string())
            }
        }
    }
}

/// Refuses a request that names more than `admin_items_max` topics, partitions or resources.
///
/// # Errors
/// [`ErrorCode::InvalidRequest`] with the limit.
pub fn check_count(shard: &Shard, items: usize) -> Result<(), Refused> {
    let max = shard.config.admin_items_max;
    if items as u64 <= max {
        return Ok(());
    }
    Err(Refused::invalid(format!("{items} items in one request, {max} are possible")))
}

/// Which of `items` are there more than once.
pub fn repeated<T: Eq + Hash>(items: impl Iterator<Item = T>) -> HashMap<T, bool> {
    let mut repeated = HashMap::new();
    for item in items {
        repeated.entry(item).and_modify(|is_repeated| *is_repeated = true).or_insert(false);
    }
    repeated
}

/// For how long a client waits until what it asked for is in effect.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    begun_ns: u64,
    /// `None`: the client does not wait for effects.
    wait_ms: Option<u64>,
}

impl Patience {
    /// As the request says; never longer than `admin_timeout_max_ms`.
    pub fn new(shard: &Shard, timeout_ms: i32) -> Self {
        let wait_ms = wait_ms(timeout_ms, shard.config.admin_timeout_max_ms);
        Self { begun_ns: shard.runtime.now().monotonic_ns, wait_ms }
    }

    /// For requests that carry no time.
    pub fn usual(shard: &Shard) -> Self {
        let wait_ms = u64::try_from(ASK_WITHIN.as_millis()).ok();
        Self { begun_ns: shard.runtime.now().monotonic_ns, wait_ms }
    }

    /// What is left; `None` when the client does not wait.
    pub fn left(self, shard: &Shard) -> Option<Duration> {
        let passed_ns = shard.runtime.now().monotonic_ns.saturating_sub(self.begun_ns);
        let wait_ns = self.wait_ms?.saturating_mul(1_000_000);
        Some(Duration::from_nanos(wait_ns.saturating_sub(passed_ns)))
    }

    /// What a client is told whose time is over, though the change was made.
    pub fn exhausted(self, what: &str) -> Refused {
        let wait_ms = self.wait_ms.unwrap_or_default();
        Refused::new(ErrorCode::RequestTimedOut, format!("{what} after {wait_ms} ms; it goes on"))
    }
}

/// How long to wait for a client that says `timeout_ms`; `None` when it does not want to.
fn wait_ms(timeout_ms: i32, max_ms: u64) -> Option<u64> {
    u64::try_from(timeout_ms).ok().filter(|wait_ms| 0 < *wait_ms).map(|wait_ms| wait_ms.min(max_ms))
}

/// Whether something came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InTime {
    /// It did.
    Yes,
    /// The time was over first, or the broker stops.
    No,
}

/// What the controller made of a list of items.
#[derive(Debug)]
pub struct Changed<T> {
    /// The image that shows all of it; 0 when nothing was done.
    pub index: u64,
    /// One outcome per item, in order.
    pub outcomes: Vec<Result<T, Refused>>,
}

/// A reply of the controller with one outcome per item.
pub trait ItemReply: Sized {
    /// The index and the outcomes in `reply`; `None` when it is another reply.
    fn read(reply: Reply) -> Option<(u64, Vec<Result<Self, Refusal>>)>;
}

impl ItemReply for TopicSummary {
    fn read(reply: Reply) -> Option<(u64, Vec<Result<Self, Refusal>>)> {
        match reply {
            Reply::Topics(TopicOutcomes { index, outcomes }) => Some((index, outcomes)),
            _ => None,
        }
    }
}

impl ItemReply for () {
    fn read(reply: Reply) -> Option<(u64, Vec<Result<Self, Refusal>>)> {
        match reply {
            Reply::Outcomes(Outcomes { index, outcomes }) => Some((index, outcomes)),
            _ => None,
        }
    }
}

/// Asks the controller for all of `items`, in as many questions as their size takes. Items that were
/// refused before they got here come out as they went in.
pub async fn ask<I, T: ItemReply>(
    shard: &Shard,
    patience: Patience,
    items: Vec<Result<I, Refused>>,
    weight_bytes: impl Fn(&I) -> usize,
    question: impl Fn(Vec<I>) -> Request,
) -> Changed<T> {
    let mut index = 0;
    let mut slots: Vec<Option<Refused>> = Vec::with_capacity(items.len());
    let mut asked = VecDeque::new();
    for item in items {
        match item {
            Ok(item) => {
                asked.push_back(item);
                slots.push(None);
            }
            Err(refused) => slots.push(Some(refused)),
        }
    }
    let mut answers = VecDeque::with_capacity(asked.len());
    while let Some(part) = take_part(&mut asked, &weight_bytes) {
        let count = part.len();
        let within = patience.left(shard).unwrap_or(ASK_WITHIN);
        let reply = shard.controller.ask(&shard.runtime, question(part), within).await;
        let outcomes = match reply.map(T::read) {
            Ok(Some((at, outcomes))) if outcomes.len() == count => {
                index = index.max(at);
                outcomes.into_iter().map(|outcome| outcome.map_err(Refused::from)).collect()
            }
            Ok(_) => {
                tracing::error!("the controller answered something else than was asked");
                let message = "the controller's answer makes no sense";
                vec_of(count, &Refused::new(ErrorCode::UnknownServerError, message))
            }
            Err(error) => {
                tracing::warn!(%error, "a change of the cluster was not made");
                vec_of(count, &error.into())
            }
        };
        answers.extend(outcomes);
    }
    let next = |slot: Option<Refused>| match slot {
        Some(refused) => Err(refused),
        None => answers.pop_front().unwrap_or_else(|| Err(Refused::invalid("not asked"))),
    };
    Changed { index, outcomes: slots.into_iter().map(next).collect() }
}

fn vec_of<T>(count: usize, refused: &Refused) -> Vec<Result<T, Refused>> {
    (0..count).map(|_| Err(refused.clone())).collect()
}

/// Takes items off the front: as many as one question holds, at least one.
fn take_part<I>(items: &mut VecDeque<I>, weight_bytes: &impl Fn(&I) -> usize) -> Option<Vec<I>> {
    let mut part = vec![items.pop_front()?];
    let mut bytes = part.first().map_or(0, weight_bytes);
    while let Some(item) = items.front() {
        bytes = bytes.saturating_add(weight_bytes(item));
        if QUESTION_BYTES < bytes {
            break;
        }
        part.extend(items.pop_front());
    }
    Some(part)
}

/// Waits until every shard of this broker acts on the image `index`.
pub async fn until_shown(shard: &Rc<Shard>, patience: Patience, index: u64) -> InTime {
    let wait = move |there: Rc<Shard>| async move { there.image.reached(index).await };
    on_every_shard(shard, patience, wait).await
}

/// Waits until all partitions of the topics called `names`, as of the image `index`, can be written:
/// those of this broker are led on their shards, those of others are said to exist.
pub async fn until_served(
    shard: &Rc<Shard>,
    patience: Patience,
    index: u64,
    names: Vec<String>,
) -> InTime {
    let elsewhere = names.clone();
    let wait = move |there: Rc<Shard>| {
        let names = names.clone();
        async move {
            let is_there = |view: &ImageView| {
                index <= view.image.index()
                    && topics(view, &names).all(|topic| is_led_here(&there, topic))
            };
            there.image.until(is_there).await;
        }
    };
    match on_every_shard(shard, patience, wait).await {
        InTime::Yes => {}
        InTime::No => return InTime::No,
    }
    let Some(left) = patience.left(shard) else { return InTime::Yes };
    let waiting = shard
        .image
        .until(|view| topics(view, &elsewhere).all(|topic| exists_elsewhere(shard, topic)));
    in_time(shard, left, waiting).await
}

/// Waits until this broker has no log of these topics left, and their space is back.
pub async fn until_removed(
    shard: &Rc<Shard>,
    patience: Patience,
    index: u64,
    topics: Vec<TopicId>,
) -> InTime {
    let wait = move |there: Rc<Shard>| {
        let topics = topics.clone();
        async move {
            there.image.reached(index).await;
            there.removals.all_ended(&topics).await;
        }
    };
    on_every_shard(shard, patience, wait).await
}

/// The topics that still exist.
fn topics<'a>(
    view: &'a ImageView,
    names: &'a [String],
) -> impl Iterator<Item = &'a Rc<TopicView>> + use<'a> {
    names.iter().filter_map(|name| view.topic_named(name))
}

/// Whether this shard leads what it is to lead of a topic. What was lost for good is not waited for.
fn is_led_here(shard: &Shard, topic: &TopicView) -> bool {
    topic.image.partitions.iter().all(|state| {
        let id = PartitionId::new(topic.image.id, state.index);
        let is_ours = state.leader == Some(shard.broker)
            && state.replica_on(shard.broker).is_some_and(|replica| replica.shard == shard.index);
        !is_ours
            || shard.is_missing(id)
            || shard.partition(id).is_some_and(|partition| partition.standing(None).is_ok())
    })
}

/// Whether every leader on another broker has said that its files exist.
fn exists_elsewhere(shard: &Shard, topic: &TopicView) -> bool {
    topic.image.partitions.iter().all(|state| match state.leader {
        Some(leader) if leader != shard.broker => {
            state.replica_on(leader).is_some_and(|replica| replica.confirmed)
        }
        Some(_) | None => true,
    })
}

/// Runs `wait` on every shard, one after another. A client without patience waits for nothing.
async fn on_every_shard<W, F>(shard: &Rc<Shard>, patience: Patience, wait: W) -> InTime
where
    W: Fn(Rc<Shard>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    for to in shard.router.shards() {
        let Some(left) = patience.left(shard) else { return InTime::Yes };
        let wait = wait.clone();
        let work = move |there: Rc<Shard>| async move {
            let waiting = wait(Rc::clone(&there));
            in_time(&there, left, waiting).await
        };
        if !matches!(shard.router.call(shard, to, work).await, Ok(InTime::Yes)) {
            return InTime::No;
        }
    }
    InTime::Yes
}

async fn in_time(shard: &Shard, left: Duration, waiting: impl Future<Output = ()>) -> InTime {
    let waiting = async {
        waiting.await;
        InTime::Yes
    };
    let over = async {
        shard.runtime.sleep(left).or(shard.stopping.raised()).await;
        InTime::No
    };
    waiting.or(over).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_protocol::cluster::RefusalCode;

    #[test]
    fn a_client_waits_as_long_as_it_says_but_not_longer_than_the_limit() {
        for (timeout_ms, expected) in
            [(1, Some(1)), (500, Some(500)), (501, Some(500)), (i32::MAX, Some(500))]
        {
            assert_eq!(wait_ms(timeout_ms, 500), expected);
        }
        assert_eq!(wait_ms(0, 500), None);
        assert_eq!(wait_ms(-1, 500), None);
    }

    #[test]
    fn items_go_into_as_few_questions_as_their_size_allows_and_an_oversized_one_goes_alone() {
        let mut items = VecDeque::from([
            QUESTION_BYTES / 2,
            QUESTION_BYTES / 2,
            1,
            QUESTION_BYTES,
            QUESTION_BYTES + 1,
            7,
        ]);
        let mut parts = Vec::new();
        while let Some(part) = take_part(&mut items, &|item| *item) {
            parts.push(part.len());
        }
        assert_eq!(parts, [2, 1, 1, 1, 1]);
    }

    #[test]
    fn what_the_controller_says_reaches_the_client_in_its_words() {
        let refusal = Refusal::new(RefusalCode::TopicExists, "topic t exists already");
        let refused = Refused::from(ControllerError::Refused(refusal));
        assert_eq!(refused, Refused::new(ErrorCode::TopicAlreadyExists, "topic t exists already"));
        assert_eq!(Refused::from(ControllerError::Unavailable).code, ErrorCode::NotController);
    }

    #[test]
    fn only_what_is_there_twice_is_repeated() {
        let repeated = repeated(["a", "b", "a"].into_iter());
        assert_eq!(repeated.get("a"), Some(&true));
        assert_eq!(repeated.get("b"), Some(&false));
    }
}
