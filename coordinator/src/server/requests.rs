//! Requests, one by one: each is planned on top of the image, proposed, and answered once applied.

use levada_protocol::cluster::command::Command;
use levada_protocol::cluster::reply::{HeartbeatAck, Leave, Reply};
use levada_protocol::cluster::request::{Heartbeat, Mode, Register, Request, Wish};
use levada_protocol::cluster::{BrokerState, Refusal, RefusalCode};
use levada_record::id::{BrokerId, TopicId};
use tokio::sync::oneshot;

use super::Server;
use super::answer::{self, Answer, PlannedTopic};
use super::subscribers::ConnectionId;
use crate::controller::plan::{self, Plan};
use crate::controller::policy::ITEMS_MAX;
use crate::storage::StorageError;

impl Server {
    /// Plans a request and proposes what it takes.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(super) fn on_request(
        &mut self,
        connection: Option<ConnectionId>,
        request: Request,
        reply: oneshot::Sender<Reply>,
    ) -> Result<(), StorageError> {
        self.metrics.count_request(name(&request));
        if let Some(refusal) = check_items(&request) {
            self.finish(Answer::Refused(refusal), reply);
            return Ok(());
        }
        match request {
            Request::Register(register) => self.on_register(connection, &register, reply),
            Request::Heartbeat(heartbeat) => self.on_heartbeat(heartbeat, reply),
            Request::Subscribe { .. } => {
                let message = "subscriptions need a connection";
                let refusal = Refusal::new(RefusalCode::InvalidRequest, message);
                self.finish(Answer::Refused(refusal), reply);
                Ok(())
            }
            Request::CreateTopics(create) => {
                let mut plan = Plan::new(&self.image, &self.policy);
                let planned: Vec<_> = create
                    .topics
                    .iter()
                    .map(|topic| {
                        let id = TopicId::from_random_bytes(uuid::Uuid::new_v4().into_bytes());
                        plan.create_topic(topic, id)
                    })
                    .collect();
                self.execute_topics(planned, create.mode, reply)
            }
            Request::DeleteTopics { topics } => {
                let plan = Plan::new(&self.image, &self.policy);
                let planned = topics.iter().map(|topic| plan.delete_topic(topic)).collect();
                self.execute_topics(planned, Mode::Execute, reply)
            }
            Request::CreatePartitions(create) => {
                let mut plan = Plan::new(&self.image, &self.policy);
                let planned =
                    create.topics.iter().map(|new| plan.create_partitions(new).map(Some)).collect();
                self.execute_items(planned, create.mode, reply)
            }
            Request::AlterConfigs(alter) => {
                let mut plan = Plan::new(&self.image, &self.policy);
                let planned = alter
                    .resources
                    .iter()
                    .map(|alteration| plan.alter_configs(alteration))
                    .collect();
                self.execute_items(planned, alter.mode, reply)
            }
            Request::AllocateProducerIds { broker, epoch } => {
                let count = self.policy.producer_id_block;
                self.propose(
                    vec![(0, Command::AllocateProducerIds { broker, epoch, count })],
                    Answer::ProducerIds { count },
                    reply,
                )
            }
            Request::ConfirmReplicas { broker, epoch, partitions } => self.propose(
                vec![(0, Command::ConfirmReplicas { broker, epoch, partitions })],
                Answer::Confirmed,
                reply,
            ),
            Request::Status => {
                let status = self.status();
                answer::send(reply, Reply::Status(Box::new(status)));
                Ok(())
            }
        }
    }

    fn on_register(
        &mut self,
        connection: Option<ConnectionId>,
        register: &Register,
        reply: oneshot::Sender<Reply>,
    ) -> Result<(), StorageError> {
        match plan::register(&self.image, register) {
            Ok((broker, command)) => {
                if let Some(connection) = connection {
                    self.registered.retain(|(_, known)| *known != broker);
                    self.registered.push((connection, broker));
                }
                tracing::info!(%broker, incarnation = %register.incarnation, "broker registers");
                self.propose(vec![(0, command)], Answer::Registered { broker }, reply)
            }
            Err(refusal) => {
                tracing::warn!(%refusal, "registration of a broker is refused");
                self.finish(Answer::Refused(refusal), reply);
                Ok(())
            }
        }
    }

    fn on_heartbeat(
        &mut self,
        heartbeat: Heartbeat,
        reply: oneshot::Sender<Reply>,
    ) -> Result<(), StorageError> {
        let Heartbeat { broker, epoch, seen_index, wish } = heartbeat;
        let known = match plan::check_epoch(&self.image, broker, epoch) {
            Ok(known) => known,
            Err(refusal) => {
                self.finish(Answer::Refused(refusal), reply);
                return Ok(());
            }
        };
        self.leases.on_heard(broker, epoch, seen_index, self.now_ms);
        // It knows its own registration, so it acts on what it was told then.
        let is_caught_up = u64::try_from(epoch.0).is_ok_and(|epoch| epoch <= seen_index);
        let state = match (known.state, wish) {
            (BrokerState::Fenced, Wish::Serve) if is_caught_up => Some(BrokerState::Active),
            (BrokerState::Active, Wish::Stop) => Some(BrokerState::Draining),
            _ => None,
        };
        let commands = state
            .map(|state| (0, Command::SetBrokerState { broker, epoch, state }))
            .into_iter()
            .collect();
        self.propose(commands, Answer::Heartbeat { broker, wish }, reply)
    }

    fn execute_topics(
        &mut self,
        planned: Vec<Result<PlannedTopic, Refusal>>,
        mode: Mode,
        reply: oneshot::Sender<Reply>,
    ) -> Result<(), StorageError> {
        let mut commands = Vec::new();
        let mut outcomes = Vec::with_capacity(planned.len());
        for (item, planned) in planned.into_iter().enumerate() {
            outcomes.push(planned.map(|(command, summary)| {
                commands.push((item, command));
                summary
            }));
        }
        if mode == Mode::ValidateOnly {
            commands.clear();
        }
        self.propose(commands, Answer::Topics(outcomes), reply)
    }

    fn execute_items(
        &mut self,
        planned: Vec<Result<Option<Command>, Refusal>>,
        mode: Mode,
        reply: oneshot::Sender<Reply>,
    ) -> Result<(), StorageError> {
        let mut commands = Vec::new();
        let mut outcomes = Vec::with_capacity(planned.len());
        for (item, planned) in planned.into_iter().enumerate() {
            outcomes.push(planned.map(|command| {
                commands.extend(command.map(|command| (item, command)));
            }));
        }
        if mode == Mode::ValidateOnly {
            commands.clear();
        }
        self.propose(commands, Answer::Items(outcomes), reply)
    }

    /// What a heartbeat is told, from the image as it is now.
    pub(super) fn heartbeat_ack(&self, broker: BrokerId, wish: Wish) -> Reply {
        let state = self.image.broker(broker).map_or(BrokerState::Fenced, |known| known.state);
        let leave = match wish {
            Wish::Serve => Leave::NotYet,
            // Draining moved away in one step whatever others can lead.
            Wish::Stop if state == BrokerState::Active => Leave::NotYet,
            Wish::Stop => Leave::Now,
        };
        Reply::Heartbeat(HeartbeatAck { state, leave, index: self.image.index() })
    }
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Register(_) => "register",
        Request::Heartbeat(_) => "heartbeat",
        Request::Subscribe { .. } => "subscribe",
        Request::CreateTopics(_) => "create-topics",
        Request::DeleteTopics { .. } => "delete-topics",
        Request::CreatePartitions(_) => "create-partitions",
        Request::AlterConfigs(_) => "alter-configs",
        Request::AllocateProducerIds { .. } => "allocate-producer-ids",
        Request::ConfirmReplicas { .. } => "confirm-replicas",
        Request::Status => "status",
    }
}

/// Refuses a request with more items than one may have.
fn check_items(request: &Request) -> Option<Refusal> {
    let items = match request {
        Request::CreateTopics(create) => create.topics.len(),
        Request::DeleteTopics { topics } => topics.len(),
        Request::CreatePartitions(create) => create.topics.len(),
        Request::AlterConfigs(alter) => alter.resources.len(),
        Request::ConfirmReplicas { partitions, .. } => partitions.len(),
        Request::Register(_)
        | Request::Heartbeat(_)
        | Request::Subscribe { .. }
        | Request::AllocateProducerIds { .. }
        | Request::Status => 0,
    };
    (ITEMS_MAX < items).then(|| {
        let message = format!("{items} items in one request, {ITEMS_MAX} are possible");
        Refusal::new(RefusalCode::TooLarge, message)
    })
}
