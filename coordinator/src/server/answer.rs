//! Replies in the making: what a request waits for, and what it will be told.

use std::collections::BTreeMap;

use levada_protocol::cluster::command::Command;
use levada_protocol::cluster::reply::{
    Outcomes, ProducerIdBlock, Registered, Reply, TopicOutcomes, TopicSummary,
};
use levada_protocol::cluster::request::Wish;
use levada_protocol::cluster::{BrokerEpoch, ClusterImage, Refusal, RefusalCode};
use levada_record::id::{BrokerId, ProducerId};
use tokio::sync::oneshot;

/// A topic's command and what its creator is told.
pub(super) type PlannedTopic = (Command, TopicSummary);

/// What a request will be told once its commands are applied.
#[derive(Debug)]
pub(super) enum Answer {
    Refused(Refusal),
    Registered { broker: BrokerId },
    Heartbeat { broker: BrokerId, wish: Wish },
    Topics(Vec<Result<TopicSummary, Refusal>>),
    Items(Vec<Result<(), Refusal>>),
    ProducerIds { count: i32 },
    Confirmed,
}

impl Answer {
    /// Notes that the command for one item did not fit.
    fn refuse(&mut self, item: usize, refusal: Refusal) {
        match self {
            Self::Topics(outcomes) => {
                if let Some(outcome) = outcomes.get_mut(item) {
                    *outcome = Err(refusal);
                }
            }
            Self::Items(outcomes) => {
                if let Some(outcome) = outcomes.get_mut(item) {
                    *outcome = Err(refusal);
                }
            }
            whole => *whole = Self::Refused(refusal),
        }
    }

    /// Every refusal in it.
    pub(super) fn refusals(&self) -> Vec<&Refusal> {
        match self {
            Self::Refused(refusal) => vec![refusal],
            Self::Topics(outcomes) => {
                outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect()
            }
            Self::Items(outcomes) => {
                outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect()
            }
            Self::Registered { .. }
            | Self::Heartbeat { .. }
            | Self::ProducerIds { .. }
            | Self::Confirmed => Vec::new(),
        }
    }

    /// The reply, from the image that shows the last of its commands.
    pub(super) fn into_reply(self, image: &ClusterImage) -> Reply {
        let index = image.index();
        match self {
            Self::Refused(refusal) => Reply::Refused(refusal),
            Self::Registered { broker } => Reply::Registered(Registered {
                broker,
                epoch: image.broker(broker).map_or(BrokerEpoch(0), |known| known.epoch),
                cluster: image.cluster(),
                index,
            }),
            Self::Topics(outcomes) => Reply::Topics(TopicOutcomes { index, outcomes }),
            Self::Items(outcomes) => Reply::Outcomes(Outcomes { index, outcomes }),
            Self::ProducerIds { count } => {
                let first = ProducerId(image.next_producer_id().0 - i64::from(count));
                Reply::ProducerIds(ProducerIdBlock { first, count })
            }
            Self::Confirmed | Self::Heartbeat { .. } => Reply::Confirmed { index },
        }
    }
}

#[derive(Debug)]
struct Waiting {
    answer: Answer,
    reply: oneshot::Sender<Reply>,
    missing: usize,
}

/// Requests whose commands are proposed and not yet applied.
#[derive(Debug, Default)]
pub(super) struct Pending {
    requests: BTreeMap<u64, Waiting>,
    /// Index of a command, to its request and the item of it.
    commands: BTreeMap<u64, (u64, usize)>,
    next_request: u64,
}

impl Pending {
    /// Keeps a request until the commands at these indexes, each for one item, are applied.
    pub(super) fn insert(
        &mut self,
        commands: impl Iterator<Item = (u64, usize)>,
        answer: Answer,
        reply: oneshot::Sender<Reply>,
    ) {
        let request = self.next_request;
        self.next_request += 1;
        let mut missing = 0;
        for (index, item) in commands {
            self.commands.insert(index, (request, item));
            missing += 1;
        }
        self.requests.insert(request, Waiting { answer, reply, missing });
    }

    /// Forgets every request: what it proposed was dropped. Gives where their replies go.
    pub(super) fn drop_all(&mut self) -> Vec<oneshot::Sender<Reply>> {
        self.commands.clear();
        std::mem::take(&mut self.requests).into_values().map(|waiting| waiting.reply).collect()
    }

    /// Notes that the command at `index` was applied, or refused; gives the request that now has
    /// everything it waited for.
    pub(super) fn on_applied(
        &mut self,
        index: u64,
        refusal: Option<Refusal>,
    ) -> Option<(Answer, oneshot::Sender<Reply>)> {
        let (request, item) = self.commands.remove(&index)?;
        let waiting = self.requests.get_mut(&request)?;
        if let Some(refusal) = refusal {
            waiting.answer.refuse(item, refusal);
        }
        waiting.missing -= 1;
        if waiting.missing == 0 {
            let waiting = self.requests.remove(&request)?;
            return Some((waiting.answer, waiting.reply));
        }
        None
    }
}

/// Sends a reply to a connection, which may be gone by now: then nobody needs it.
pub(super) fn send(to: oneshot::Sender<Reply>, reply: Reply) {
    drop(to.send(reply));
}

/// What everybody is told while the process stops.
pub(crate) fn stopping() -> Reply {
    Reply::Refused(Refusal::new(RefusalCode::Unavailable, "the coordinator is stopping"))
}
