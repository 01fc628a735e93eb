//! The loop without sockets and with a clock of our own.

use std::path::Path;

use levada_protocol::cluster::frame::Envelope;
use levada_protocol::cluster::reply::{HeartbeatAck, Leave, Registered};
use levada_protocol::cluster::request::{
    AlterConfigs, AlterKind, ConfigAlteration, ConfigChange, ConfigOp, ConfigResource,
    CreatePartitions, CreateTopics, Heartbeat, LastStop, Mode, NewPartitions, TopicRef, Wish,
};
use levada_protocol::cluster::{Message, Push};
use levada_record::id::{PartitionId, PartitionIndex};
use tempfile::TempDir;

use super::subscribers::{PushReceiver, push_queue};
use super::*;
use crate::controller::fixture::{new_topic, registration};
use crate::controller::policy::ITEMS_MAX;

const CONNECTION: ConnectionId = ConnectionId(1);
const SESSION_MS: u64 = 5000;

struct World {
    directory: TempDir,
    server: Option<Server>,
}

fn config(directory: &Path) -> CoordinatorConfig {
    CoordinatorConfig { data_dir: directory.to_owned(), ..CoordinatorConfig::default() }
}

fn start(directory: &Path) -> Server {
    Server::open(config(directory), "here:1".into(), Arc::new(Metrics::default())).unwrap()
}

impl World {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let server = Some(start(directory.path()));
        Self { directory, server }
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().unwrap()
    }

    /// The process ends without a word, and a new one starts.
    fn crash(&mut self) {
        self.server = None;
        self.server = Some(start(self.directory.path()));
    }

    #[track_caller]
    fn ask(&mut self, request: Request) -> Reply {
        let (reply, mut answered) = oneshot::channel();
        let connection = Some(CONNECTION);
        self.server().on_event(Event::Request { connection, request, reply }).unwrap();
        answered.try_recv().expect("answered at once")
    }

    fn subscribe(&mut self, from_index: u64, max_bytes: usize) -> PushReceiver {
        let (pushes, receiver) = push_queue(max_bytes);
        let (reply, mut answered) = oneshot::channel();
        let connection = ConnectionId(77);
        self.server().on_event(Event::Subscribe { connection, from_index, pushes, reply }).unwrap();
        assert!(matches!(answered.try_recv(), Ok(Reply::Subscribed { .. })));
        receiver
    }

    #[track_caller]
    fn register(&mut self, id: i32, incarnation: u8) -> Registered {
        match self.ask(Request::Register(registration(id, incarnation, 2))) {
            Reply::Registered(registered) => registered,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn heartbeat(&mut self, of: Registered, seen_index: u64, wish: Wish) -> HeartbeatAck {
        let (broker, epoch) = (of.broker, of.epoch);
        match self.ask(Request::Heartbeat(Heartbeat { broker, epoch, seen_index, wish })) {
            Reply::Heartbeat(ack) => ack,
            other => panic!("{other:?}"),
        }
    }

    fn active_broker(&mut self) -> Registered {
        let registered = self.register(1, 1);
        let ack = self.heartbeat(registered, registered.index, Wish::Serve);
        assert_eq!(ack.state, BrokerState::Active);
        registered
    }

    fn create(&mut self, names: &[&str], partitions: i32, mode: Mode) -> Reply {
        let topics =
            names.iter().map(|name| new_topic(name, Some(partitions), Some(1), &[])).collect();
        self.ask(Request::CreateTopics(CreateTopics { topics, mode }))
    }

    fn at(&mut self, now_ms: u64) {
        // In steps that are no pauses.
        while self.server().now_ms < now_ms {
            let next_ms = (self.server().now_ms + TICK_MS).min(now_ms);
            self.server().set_now_ms(next_ms);
            self.server().on_tick().unwrap();
        }
    }

    fn leader(&mut self, topic: &str) -> Option<i32> {
        let topic = self.server().image.topic_named(topic).unwrap();
        topic.partitions[0].leader.map(|leader| leader.0)
    }
}

fn decode(frame: &[u8]) -> Push {
    match Envelope::decode(frame).unwrap().message {
        Message::Push(push) => push,
        other => panic!("{other:?}"),
    }
}

/// Everything queued; `None` at the end once the loop has dropped the subscriber.
fn drain(receiver: &mut PushReceiver) -> (Vec<Push>, bool) {
    let mut pushes = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let is_dropped = runtime.block_on(async {
        loop {
            tokio::select! {
                biased;
                frame = receiver.next() => match frame {
                    Some(frame) => {
                        receiver.sent(&frame);
                        pushes.push(decode(&frame));
                    }
                    None => break true,
                },
                () = std::future::ready(()) => break false,
            }
        }
    });
    (pushes, is_dropped)
}

#[test]
fn a_broker_is_fenced_until_it_knows_its_registration() {
    let mut world = World::new();
    let registered = world.register(1, 1);
    let early = world.heartbeat(registered, registered.index - 1, Wish::Serve);
    assert_eq!((early.state, early.leave), (BrokerState::Fenced, Leave::NotYet));
    let ack = world.heartbeat(registered, registered.index, Wish::Serve);
    assert_eq!(ack.state, BrokerState::Active);
    assert!(registered.index < ack.index);
}

#[test]
fn a_silent_broker_is_fenced_after_its_session_and_its_next_heartbeat_brings_it_back() {
    let mut world = World::new();
    let registered = world.active_broker();
    world.create(&["orders"], 1, Mode::Execute);
    world.at(SESSION_MS - 1);
    assert_eq!(world.leader("orders"), Some(1));
    world.at(SESSION_MS + TICK_MS);
    assert_eq!(world.leader("orders"), None);
    let ack = world.heartbeat(registered, registered.index, Wish::Serve);
    assert_eq!(ack.state, BrokerState::Active);
    assert_eq!(world.leader("orders"), Some(1));
}

#[test]
fn a_pause_of_the_coordinator_fences_nobody() {
    let mut world = World::new();
    world.active_broker();
    world.server().set_now_ms(60_000);
    world.server().on_tick().unwrap();
    world.create(&["orders"], 1, Mode::Execute);
    assert_eq!(world.leader("orders"), Some(1));
}

#[test]
fn a_new_coordinator_gives_everybody_a_fresh_session() {
    let mut world = World::new();
    let registered = world.active_broker();
    world.create(&["orders"], 1, Mode::Execute);
    world.at(SESSION_MS - 1);
    world.crash();
    world.at(SESSION_MS - 1);
    assert_eq!(world.leader("orders"), Some(1));
    let ack = world.heartbeat(registered, 0, Wish::Serve);
    assert_eq!(ack.state, BrokerState::Active);
}

#[test]
fn an_old_process_is_told_that_its_epoch_is_stale() {
    let mut world = World::new();
    let old = world.active_broker();
    let new = world.register(1, 2);
    assert!(old.epoch < new.epoch);
    for request in [
        Request::Heartbeat(Heartbeat {
            broker: old.broker,
            epoch: old.epoch,
            seen_index: 99,
            wish: Wish::Serve,
        }),
        Request::AllocateProducerIds { broker: old.broker, epoch: old.epoch },
        Request::ConfirmReplicas { broker: old.broker, epoch: old.epoch, partitions: vec![] },
    ] {
        let Reply::Refused(refusal) = world.ask(request) else { panic!("is refused") };
        assert_eq!(refusal.code, RefusalCode::StaleBrokerEpoch);
    }
    let (broker, epoch) = (BrokerId(9), new.epoch);
    let Reply::Refused(refusal) = world.ask(Request::AllocateProducerIds { broker, epoch }) else {
        panic!("is refused")
    };
    assert_eq!(refusal.code, RefusalCode::UnknownBroker);
}

#[test]
fn a_broker_that_wants_to_stop_may_and_is_fenced_when_it_hangs_up() {
    let mut world = World::new();
    let registered = world.active_broker();
    world.create(&["orders"], 1, Mode::Execute);
    let ack = world.heartbeat(registered, registered.index, Wish::Stop);
    assert_eq!((ack.state, ack.leave), (BrokerState::Draining, Leave::Now));
    // Nobody else could lead, so it does as long as it is there.
    assert_eq!(world.leader("orders"), Some(1));
    world.server().on_event(Event::Disconnected { connection: ConnectionId(5) }).unwrap();
    assert_eq!(world.leader("orders"), Some(1));
    world.server().on_event(Event::Disconnected { connection: CONNECTION }).unwrap();
    assert_eq!(world.leader("orders"), None);
}

#[test]
fn items_of_a_request_succeed_and_fail_on_their_own() {
    let mut world = World::new();
    world.active_broker();
    let Reply::Topics(reply) = world.create(&["a", "b/c", "d", "a"], 3, Mode::Execute) else {
        panic!("topics")
    };
    let codes: Vec<_> = reply
        .outcomes
        .iter()
        .map(|outcome| outcome.as_ref().map(|topic| topic.partitions).map_err(|r| r.code))
        .collect();
    let exists = Err(RefusalCode::TopicExists);
    assert_eq!(codes, [Ok(3), Err(RefusalCode::InvalidTopicName), Ok(3), exists]);
    assert_eq!(reply.index, world.server().image.index());
    let topics = vec![TopicRef::Name("d".into()), TopicRef::Name("nowhere".into())];
    let Reply::Topics(reply) = world.ask(Request::DeleteTopics { topics }) else {
        panic!("topics")
    };
    assert!(reply.outcomes[0].is_ok());
    assert_eq!(reply.outcomes[1].as_ref().unwrap_err().code, RefusalCode::UnknownTopic);
}

#[test]
fn validating_answers_as_doing_would_and_changes_nothing() {
    let mut world = World::new();
    world.active_broker();
    world.create(&["orders"], 1, Mode::Execute);
    let before = world.server().image.clone();
    let Reply::Topics(reply) = world.create(&["orders", "new"], 2, Mode::ValidateOnly) else {
        panic!("topics")
    };
    assert_eq!(reply.outcomes[0].as_ref().unwrap_err().code, RefusalCode::TopicExists);
    assert_eq!(reply.outcomes[1].as_ref().unwrap().partitions, 2);
    let topic = TopicRef::Name("orders".into());
    let grow = NewPartitions { topic, total: 5, assignment: None };
    let mode = Mode::ValidateOnly;
    let Reply::Outcomes(reply) =
        world.ask(Request::CreatePartitions(CreatePartitions { topics: vec![grow], mode }))
    else {
        panic!("outcomes")
    };
    assert_eq!(reply.outcomes, [Ok(())]);
    let change = ConfigChange { name: "retention.ms".into(), op: ConfigOp::Set("5".into()) };
    let alteration = |topic: &str| ConfigAlteration {
        resource: ConfigResource::Topic(topic.into()),
        kind: AlterKind::Incremental,
        changes: vec![change.clone()],
    };
    let resources = vec![alteration("orders"), alteration("nowhere")];
    let Reply::Outcomes(reply) = world.ask(Request::AlterConfigs(AlterConfigs { resources, mode }))
    else {
        panic!("outcomes")
    };
    assert_eq!(reply.outcomes[0], Ok(()));
    assert_eq!(reply.outcomes[1].as_ref().unwrap_err().code, RefusalCode::UnknownTopic);
    assert_eq!(world.server().image, before);
}

#[test]
fn everything_acknowledged_survives_a_crash() {
    let mut world = World::new();
    let registered = world.active_broker();
    let (broker, epoch) = (registered.broker, registered.epoch);
    for round in 0..5 {
        world.create(&[&format!("topic-{round}")], 2, Mode::Execute);
        let Reply::ProducerIds(block) = world.ask(Request::AllocateProducerIds { broker, epoch })
        else {
            panic!("producer ids")
        };
        assert_eq!((block.first.0, block.count), (round * 1000, 1000));
        let topic = world.server().image.topic_named(&format!("topic-{round}")).unwrap().id;
        let partitions = vec![PartitionId { topic, index: PartitionIndex(1) }];
        world.ask(Request::ConfirmReplicas { broker, epoch, partitions });
        let before = world.server().image.clone();
        world.crash();
        assert_eq!(world.server().image, before);
    }
}

#[test]
fn a_snapshot_is_written_when_the_log_is_long_and_the_image_survives_it() {
    let mut world = World::new();
    world.active_broker();
    world.server().config.snapshot_log_bytes = 4096;
    for round in 0..60 {
        world.create(&[&format!("topic-{round}")], 1, Mode::Execute);
        let now_ms = world.server().now_ms;
        world.at(now_ms + TICK_MS);
        let registered = Registered {
            broker: BrokerId(1),
            epoch: world.server().image.broker(BrokerId(1)).unwrap().epoch,
            cluster: world.server().cluster(),
            index: 0,
        };
        world.heartbeat(registered, 0, Wish::Serve);
    }
    let before = world.server().image.clone();
    assert!(0 < world.server().consensus.storage().snapshot_index());
    assert!(world.server().consensus.storage().log_bytes() < 8192);
    world.crash();
    assert_eq!(world.server().image, before);
}

#[test]
fn subscribers_follow_from_a_full_image_change_by_change() {
    let mut world = World::new();
    world.active_broker();
    world.create(&["before"], 1, Mode::Execute);
    let mut receiver = world.subscribe(0, 1 << 20);
    world.create(&["after", "b/ad"], 2, Mode::Execute);
    // Refused: moves nothing that a follower could see.
    world.create(&["after"], 2, Mode::Execute);
    world.ask(Request::DeleteTopics { topics: vec![TopicRef::Name("before".into())] });
    let (pushes, is_dropped) = drain(&mut receiver);
    assert!(!is_dropped);
    let mut pushes = pushes.into_iter();
    let Some(Push::Image(mut image)) = pushes.next() else { panic!("image first") };
    assert!(image.topic_named("before").is_some());
    for push in pushes {
        let Push::Changes(committed) = push else { panic!("changes after it") };
        image.apply(&committed).unwrap();
    }
    assert_eq!(*image, world.server().image);
    // Who has the current image needs none.
    let index = world.server().image.index();
    let mut receiver = world.subscribe(index, 1 << 20);
    world.create(&["later"], 1, Mode::Execute);
    let (pushes, _) = drain(&mut receiver);
    let [Push::Changes(committed)] = &pushes[..] else { panic!("{pushes:?}") };
    image.apply(committed).unwrap();
    assert_eq!(*image, world.server().image);
}

#[test]
fn a_subscriber_that_reads_too_slowly_is_dropped_and_others_are_not() {
    let mut world = World::new();
    world.active_broker();
    let mut slow = world.subscribe(0, 8000);
    for round in 0..40 {
        world.create(&[&format!("topic-{round}")], 5, Mode::Execute);
    }
    assert_eq!(world.server().metrics.subscribers_dropped.get(), 1);
    assert_eq!(world.server().metrics.subscribers.get(), 0);
    let (pushes, is_dropped) = drain(&mut slow);
    assert!(is_dropped);
    assert!(pushes.len() < 40, "what was queued is bounded");
    // It starts over and has everything.
    let mut again = world.subscribe(0, 1 << 20);
    let (pushes, _) = drain(&mut again);
    let [Push::Image(image)] = &pushes[..] else { panic!("{pushes:?}") };
    assert_eq!(**image, world.server().image);
}

#[test]
fn a_request_with_too_many_items_is_refused_whole() {
    let mut world = World::new();
    let name = || TopicRef::Name("x".into());
    let topics = vec![name(); ITEMS_MAX + 1];
    let Reply::Refused(refusal) = world.ask(Request::DeleteTopics { topics }) else {
        panic!("is refused")
    };
    assert_eq!(refusal.code, RefusalCode::TooLarge);
    let topics = vec![name(); ITEMS_MAX];
    assert!(matches!(world.ask(Request::DeleteTopics { topics }), Reply::Topics(_)));
}

#[test]
fn an_idle_log_is_sealed() {
    let mut world = World::new();
    world.active_broker();
    let unsealed = world.server().consensus.storage().log_bytes();
    world.at(2 * TICK_MS);
    let sealed = world.server().consensus.storage().log_bytes();
    assert!(unsealed < sealed);
    world.at(10 * TICK_MS);
    assert_eq!(world.server().consensus.storage().log_bytes(), sealed);
}

#[test]
fn status_counts_what_there_is() {
    let mut world = World::new();
    let registered = world.active_broker();
    world.create(&["a", "b"], 3, Mode::Execute);
    world.at(300);
    let Reply::Status(status) = world.ask(Request::Status) else { panic!("status") };
    assert_eq!((status.topics, status.partitions, status.unconfirmed), (2, 6, 6));
    assert_eq!((status.leaderless, status.out_of_sync), (0, 0));
    let [broker] = &status.brokers[..] else { panic!("one broker") };
    assert_eq!((broker.replicas, broker.leaders), (6, 6));
    assert_eq!(broker.lease_age_ms, Some(300));
    assert_eq!(broker.seen_index, registered.index);
    assert_eq!((status.term, status.members.len()), (1, 1));
}

#[test]
fn a_restart_with_fewer_shards_moves_replicas() {
    let mut world = World::new();
    world.active_broker();
    world.create(&["orders"], 2, Mode::Execute);
    let mut register = registration(1, 2, 1);
    register.last_stop = LastStop::Clean;
    let Reply::Registered(_) = world.ask(Request::Register(register)) else { panic!("registers") };
    let topic = world.server().image.topic_named("orders").unwrap();
    assert!(topic.partitions.iter().all(|partition| partition.replicas[0].shard.0 == 0));
}

#[test]
fn a_full_disk_refuses_topics_and_lets_brokers_come_and_go() {
    let mut world = World::new();
    let registered = world.active_broker();
    let log = world.server().consensus.storage_mut().log_mut();
    log.disk_bytes = Some(crate::storage::command_log::GROWTH_BYTES);
    let mut created = 0;
    let refusal = loop {
        match world.create(&[&format!("topic-{created}")], 500, Mode::Execute) {
            Reply::Topics(reply) => assert!(reply.outcomes[0].is_ok()),
            Reply::Refused(refusal) => break refusal,
            other => panic!("{other:?}"),
        }
        created += 1;
    };
    assert_eq!(refusal.code, RefusalCode::Unavailable);
    assert!(refusal.message.contains("free some space"), "{refusal}");
    let before = world.server().image.clone();
    world.at(SESSION_MS + TICK_MS);
    assert_eq!(world.leader("topic-0"), None);
    let again = world.register(1, 2);
    assert!(registered.epoch < again.epoch);
    let ack = world.heartbeat(again, again.index, Wish::Serve);
    assert_eq!(ack.state, BrokerState::Active);
    assert_eq!(world.server().image.topics().len(), before.topics().len());
    world.server().consensus.storage_mut().log_mut().disk_bytes = None;
    world.create(&["after"], 1, Mode::Execute);
    assert_eq!(world.leader("after"), Some(1));
    let image = world.server().image.clone();
    world.crash();
    assert_eq!(world.server().image, image);
}

#[test]
fn a_failed_write_ends_the_loop_and_nobody_is_told_of_success() {
    let mut world = World::new();
    world.active_broker();
    let mut follower = world.subscribe(0, 1 << 20);
    drain(&mut follower);
    world.server().consensus.storage_mut().log_mut().break_disk();
    let topics = vec![new_topic("orders", Some(1), Some(1), &[])];
    let request = Request::CreateTopics(CreateTopics { topics, mode: Mode::Execute });
    let (reply, mut answered) = oneshot::channel();
    let event = Event::Request { connection: Some(CONNECTION), request, reply };
    assert!(world.server().on_event(event).is_err());
    assert!(answered.try_recv().is_err());
    assert!(drain(&mut follower).0.is_empty());
    world.crash();
    assert!(world.server().image.topic_named("orders").is_none());
}
