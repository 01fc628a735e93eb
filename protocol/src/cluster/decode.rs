//! FlatBuffers to owned messages: total on any bytes. `[P]`
//!
//! The verifier runs before anything is read. Its budget of visited bytes is a small multiple of the
//! bytes at hand, so a message that names one part many times cannot grow when it is copied out.

use std::collections::BTreeMap;

use flatbuffers::{ForwardsUOffset, InvalidFlatbuffer, Vector, Verifiable, VerifierOptions};
use levada_record::epoch::LeaderEpoch;
use levada_record::id::{BrokerId, PartitionId, PartitionIndex, ProducerId, ShardIndex, TopicId};
use levada_record::name::{NameError, TopicName};

use super::frame::{Message, Push};
use super::id::{BrokerEpoch, ClusterId, DirectoryId, Incarnation, PartitionEpoch};
use super::image::{
    Address, ApplyError, BrokerImage, BrokerState, Change, ClusterImage, Committed, PartitionImage,
    ReplicaImage, TopicImage,
};
use super::reply::{
    BrokerStatus, HeartbeatAck, Leave, Member, MemberRole, Outcomes, ProducerIdBlock, Refusal,
    RefusalCode, Registered, Reply, Status, TopicOutcomes, TopicSummary,
};
use super::request::{
    AlterConfigs, AlterKind, ConfigAlteration, ConfigChange, ConfigOp, ConfigResource,
    CreatePartitions, CreateTopics, Heartbeat, LastStop, Mode, NewPartitions, NewTopic, Placement,
    Register, Request, TopicRef, Wish,
};
use crate::generated::cluster::levada::cluster as fb;

/// Received bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The sender announces more than this side takes.
    #[error("frame of {got_bytes} B exceeds {max_bytes} B")]
    TooLarge {
        /// Announced, in bytes.
        got_bytes: usize,
        /// Taken at most, in bytes.
        max_bytes: usize,
    },
    /// Shorter than any frame, or not as long as it says.
    #[error("frame of {got_bytes} B is not whole (header {min_bytes} B)")]
    Length {
        /// Length, in bytes.
        got_bytes: usize,
        /// Shortest possible, in bytes.
        min_bytes: usize,
    },
    /// No frame of ours: the peer speaks something else.
    #[error("frame starts with {got:02x?}, which is not this protocol")]
    Magic {
        /// The bytes where the magic should be.
        got: [u8; 4],
    },
    /// The peer is newer or older.
    #[error("peer or file uses version {got}, this program knows {known}: upgrade the older one")]
    Version {
        /// Its version.
        got: u16,
        /// Ours.
        known: u16,
    },
    /// Damaged on the way.
    #[error("checksum {stored:08x} does not match the bytes ({computed:08x})")]
    Checksum {
        /// As sent.
        stored: u32,
        /// Over what came.
        computed: u32,
    },
    /// Not a valid FlatBuffers table.
    #[error("message is malformed: {0}")]
    Malformed(InvalidFlatbuffer),
    /// A kind of message, change or command that this program does not know.
    #[error("{what} of unknown kind {kind}: the sender is newer")]
    UnknownKind {
        /// What has the kind.
        what: &'static str,
        /// The number.
        kind: u16,
    },
    /// A field with a value out of its range.
    #[error("{field} cannot be {value}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// A part that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// The part.
        field: &'static str,
    },
    /// A topic name breaks the rules.
    #[error("topic name: {0}")]
    Name(NameError),
    /// The parts of an image contradict each other.
    #[error("image contradicts itself: {0}")]
    Image(ApplyError),
}

impl From<InvalidFlatbuffer> for DecodeError {
    fn from(error: InvalidFlatbuffer) -> Self {
        Self::Malformed(error)
    }
}

impl From<NameError> for DecodeError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

type Result<T, E = DecodeError> = std::result::Result<T, E>;

/// A vector of tables.
pub(super) type Tables<'a, T> = Vector<'a, ForwardsUOffset<T>>;

/// Tables nest no deeper than message, list of topics, topic, partition.
const DEPTH_MAX: usize = 8;

/// The verifier counts a byte each time it meets it, offsets and field tables included; honest
/// messages stay below this many visits per byte.
const VISITS_PER_BYTE: usize = 8;

/// Verifies `bytes` and gives their root table.
pub(super) fn root<'a, T>(bytes: &'a [u8]) -> Result<T::Inner>
where
    T: flatbuffers::Follow<'a> + Verifiable + 'a,
{
    let options = VerifierOptions {
        max_depth: DEPTH_MAX,
        max_tables: bytes.len() / 4 + 1,
        max_apparent_size: bytes.len().saturating_mul(VISITS_PER_BYTE).saturating_add(1024),
        ignore_missing_null_terminator: false,
    };
    Ok(flatbuffers::root_with_opts::<T>(&options, bytes)?)
}

/// Reads what [`encode_image`](super::encode_image) wrote.
///
/// # Errors
/// [`DecodeError`] when the bytes are no image, or its parts contradict each other.
pub fn decode_image(bytes: &[u8]) -> Result<ClusterImage> {
    image(root::<fb::Image<'_>>(bytes)?)
}

pub(super) fn decode_message(bytes: &[u8]) -> Result<Message> {
    let message = root::<fb::Message<'_>>(bytes)?;
    if let Some(request) = decode_request(&message)? {
        return Ok(Message::Request(request));
    }
    if let Some(reply) = decode_reply(&message)? {
        return Ok(Message::Reply(reply));
    }
    if let Some(table) = message.body_as_image() {
        return Ok(Message::Push(Push::Image(Box::new(image(table)?))));
    }
    if let Some(table) = message.body_as_committed() {
        return Ok(Message::Push(Push::Changes(committed(table)?)));
    }
    Err(DecodeError::UnknownKind { what: "message", kind: u16::from(message.body_type().0) })
}

fn decode_request(message: &fb::Message<'_>) -> Result<Option<Request>> {
    Ok(Some(if let Some(table) = message.body_as_register() {
        Request::Register(Register {
            broker: optional_broker("broker", table.broker())?,
            incarnation: Incarnation(bytes(table.incarnation())),
            directory: DirectoryId(bytes(table.directory())),
            addresses: addresses(table.addresses())?,
            rack: table.rack().map(str::to_owned),
            shards: table.shards(),
            last_stop: last_stop(table.clean()),
        })
    } else if let Some(table) = message.body_as_heartbeat() {
        Request::Heartbeat(Heartbeat {
            broker: broker("broker", table.broker())?,
            epoch: BrokerEpoch(table.epoch()),
            seen_index: table.seen_index(),
            wish: if table.want_shutdown() { Wish::Stop } else { Wish::Serve },
        })
    } else if let Some(table) = message.body_as_subscribe() {
        Request::Subscribe { from_index: table.from_index() }
    } else if let Some(table) = message.body_as_create_topics() {
        let topics = all(table.topics(), new_topic)?;
        Request::CreateTopics(CreateTopics { topics, mode: mode(table.validate_only()) })
    } else if let Some(table) = message.body_as_delete_topics() {
        Request::DeleteTopics { topics: all(table.topics(), topic_ref)? }
    } else if let Some(table) = message.body_as_create_partitions() {
        let topics = all(table.topics(), new_partitions)?;
        Request::CreatePartitions(CreatePartitions { topics, mode: mode(table.validate_only()) })
    } else if let Some(table) = message.body_as_alter_configs() {
        let resources = all(table.resources(), config_alteration)?;
        Request::AlterConfigs(AlterConfigs { resources, mode: mode(table.validate_only()) })
    } else if let Some(table) = message.body_as_allocate_producer_ids() {
        Request::AllocateProducerIds {
            broker: broker("broker", table.broker())?,
            epoch: BrokerEpoch(table.epoch()),
        }
    } else if let Some(table) = message.body_as_confirm_replicas() {
        Request::ConfirmReplicas {
            broker: broker("broker", table.broker())?,
            epoch: BrokerEpoch(table.epoch()),
            partitions: partition_refs(table.partitions())?,
        }
    } else if message.body_as_status_query().is_some() {
        Request::Status
    } else {
        return Ok(None);
    }))
}

fn decode_reply(message: &fb::Message<'_>) -> Result<Option<Reply>> {
    Ok(Some(if let Some(table) = message.body_as_refusal() {
        Reply::Refused(refusal(table)?)
    } else if let Some(table) = message.body_as_registered() {
        Reply::Registered(Registered {
            broker: broker("broker", table.broker())?,
            epoch: BrokerEpoch(table.epoch()),
            cluster: ClusterId(bytes(table.cluster())),
            index: table.index(),
        })
    } else if let Some(table) = message.body_as_heartbeat_ack() {
        Reply::Heartbeat(HeartbeatAck {
            state: broker_state(table.state())?,
            leave: if table.may_stop() { Leave::Now } else { Leave::NotYet },
            index: table.index(),
        })
    } else if let Some(table) = message.body_as_subscribed() {
        Reply::Subscribed { index: table.index() }
    } else if let Some(table) = message.body_as_topic_outcomes() {
        let outcomes = all(table.outcomes(), topic_outcome)?;
        Reply::Topics(TopicOutcomes { index: table.index(), outcomes })
    } else if let Some(table) = message.body_as_outcomes() {
        let outcomes = all(table.outcomes(), |outcome: fb::Outcome<'_>| {
            outcome.refusal().map_or(Ok(Ok(())), |table| refusal(table).map(Err))
        })?;
        Reply::Outcomes(Outcomes { index: table.index(), outcomes })
    } else if let Some(table) = message.body_as_producer_ids() {
        let first = ProducerId(not_negative("first", table.first())?);
        Reply::ProducerIds(ProducerIdBlock { first, count: table.count() })
    } else if let Some(table) = message.body_as_confirmed() {
        Reply::Confirmed { index: table.index() }
    } else if let Some(table) = message.body_as_status() {
        Reply::Status(Box::new(status(table)?))
    } else {
        return Ok(None);
    }))
}

fn status(table: fb::Status<'_>) -> Result<Status> {
    Ok(Status {
        cluster: ClusterId(bytes(table.cluster())),
        cluster_name: table.cluster_name().map(str::to_owned),
        controller: table.controller(),
        term: table.term(),
        members: all(table.members(), |member: fb::Member<'_>| {
            let role =
                if member.is_controller() { MemberRole::Controller } else { MemberRole::Follower };
            Ok(Member { id: member.id(), address: member.address().to_owned(), role })
        })?,
        index: table.index(),
        snapshot_index: table.snapshot_index(),
        log_bytes: table.log_bytes(),
        brokers: all(table.brokers(), |status: fb::BrokerStatus<'_>| {
            Ok(BrokerStatus {
                broker: broker_image(status.broker())?,
                lease_age_ms: u64::try_from(status.lease_age_ms()).ok(),
                seen_index: status.seen_index(),
                replicas: status.replicas(),
                leaders: status.leaders(),
            })
        })?,
        topics: table.topics(),
        partitions: table.partitions(),
        leaderless: table.leaderless(),
        out_of_sync: table.out_of_sync(),
        unconfirmed: table.unconfirmed(),
        uptime_ms: table.uptime_ms(),
    })
}

fn refusal(table: fb::Refusal<'_>) -> Result<Refusal> {
    let code = RefusalCode::from_number(table.code())
        .ok_or(DecodeError::UnknownKind { what: "refusal", kind: table.code() })?;
    let message = table.message().to_owned();
    Ok(Refusal { code, message, subject: table.subject().map(str::to_owned) })
}

fn topic_outcome(
    table: fb::TopicOutcome<'_>,
) -> Result<std::result::Result<TopicSummary, Refusal>> {
    if let Some(table) = table.refusal() {
        return refusal(table).map(Err);
    }
    Ok(Ok(TopicSummary {
        name: table.name().ok_or(DecodeError::Missing { field: "name" })?.to_owned(),
        id: topic_id(table.id().ok_or(DecodeError::Missing { field: "id" })?),
        partitions: table.partitions(),
        replication_factor: table.replication_factor(),
        configs: config_list(table.configs()),
    }))
}

fn new_topic(table: fb::NewTopic<'_>) -> Result<NewTopic> {
    let placement = match table.assignment() {
        Some(assignment) => Placement::Explicit(assignments(assignment)?),
        None => Placement::Automatic {
            partitions: (table.partitions() != -1).then(|| table.partitions()),
            replication_factor: (table.replication_factor() != -1)
                .then(|| table.replication_factor()),
        },
    };
    Ok(NewTopic {
        name: table.name().to_owned(),
        id: table.id().map(topic_id),
        placement,
        configs: config_list(table.configs()),
    })
}

fn topic_ref(table: fb::TopicRef<'_>) -> Result<TopicRef> {
    match (table.name(), table.id()) {
        (Some(name), _) => Ok(TopicRef::Name(name.to_owned())),
        (None, Some(id)) => Ok(TopicRef::Id(topic_id(id))),
        (None, None) => Err(DecodeError::Missing { field: "topic name or id" }),
    }
}

fn new_partitions(table: fb::NewPartitions<'_>) -> Result<NewPartitions> {
    Ok(NewPartitions {
        topic: topic_ref(table.topic())?,
        total: table.total(),
        assignment: table.assignment().map(assignments).transpose()?,
    })
}

fn config_alteration(table: fb::ConfigAlteration<'_>) -> Result<ConfigAlteration> {
    let resource = match table.topic() {
        Some(name) => ConfigResource::Topic(name.to_owned()),
        None => ConfigResource::Broker(optional_broker("broker", table.broker())?),
    };
    let kind = if table.replace_all() { AlterKind::ReplaceAll } else { AlterKind::Incremental };
    let changes = all(table.changes(), |change: fb::ConfigChange<'_>| {
        let value = || {
            let value = change.value().ok_or(DecodeError::Missing { field: "config value" });
            value.map(str::to_owned)
        };
        let op = match change.op() {
            fb::ConfigOp::Set => ConfigOp::Set(value()?),
            fb::ConfigOp::Delete => ConfigOp::Delete,
            fb::ConfigOp::Append => ConfigOp::Append(value()?),
            fb::ConfigOp::Subtract => ConfigOp::Subtract(value()?),
            other => {
                let kind = u16::from(other.0);
                return Err(DecodeError::UnknownKind { what: "config operation", kind });
            }
        };
        Ok(ConfigChange { name: change.name().to_owned(), op })
    })?;
    Ok(ConfigAlteration { resource, kind, changes })
}

fn assignments(table: Tables<'_, fb::Assignment<'_>>) -> Result<Vec<Vec<BrokerId>>> {
    all(table, |assignment: fb::Assignment<'_>| broker_ids("replica", assignment.brokers()))
}

fn image(table: fb::Image<'_>) -> Result<ClusterImage> {
    ClusterImage::from_parts(
        ClusterId(bytes(table.cluster())),
        table.index(),
        all(table.brokers(), broker_image)?,
        all(table.topics(), topic_image)?,
        ProducerId(not_negative("next producer id", table.next_producer_id())?),
    )
    .map_err(DecodeError::Image)
}

fn committed(table: fb::Committed<'_>) -> Result<Committed> {
    Ok(Committed {
        previous: table.previous(),
        index: table.index(),
        changes: all(table.changes(), change)?,
    })
}

fn change(table: fb::Change<'_>) -> Result<Change> {
    if let Some(table) = table.body_as_broker_changed() {
        return broker_image(table.broker()).map(Change::Broker);
    }
    if let Some(table) = table.body_as_topic_created() {
        return topic_image(table.topic()).map(Change::TopicCreated);
    }
    if let Some(table) = table.body_as_topic_deleted() {
        return Ok(Change::TopicDeleted(topic_id(table.topic())));
    }
    if let Some(table) = table.body_as_topic_configured() {
        let configs = config_map(Some(table.configs()));
        return Ok(Change::TopicConfigured { topic: topic_id(table.topic()), configs });
    }
    if let Some(table) = table.body_as_partitions_changed() {
        let partitions = all(table.partitions(), partition_image)?;
        return Ok(Change::Partitions { topic: topic_id(table.topic()), partitions });
    }
    if let Some(table) = table.body_as_producer_ids_allocated() {
        let next = ProducerId(not_negative("next producer id", table.next())?);
        return Ok(Change::ProducerIds { next });
    }
    Err(DecodeError::UnknownKind { what: "change", kind: u16::from(table.body_type().0) })
}

fn broker_image(table: fb::Broker<'_>) -> Result<BrokerImage> {
    Ok(BrokerImage {
        id: broker("broker", table.id())?,
        epoch: BrokerEpoch(table.epoch()),
        incarnation: Incarnation(bytes(table.incarnation())),
        directory: DirectoryId(bytes(table.directory())),
        addresses: addresses(table.addresses())?,
        rack: table.rack().map(str::to_owned),
        shards: table.shards(),
        state: broker_state(table.state())?,
    })
}

fn topic_image(table: fb::Topic<'_>) -> Result<TopicImage> {
    Ok(TopicImage {
        id: topic_id(table.id()),
        name: TopicName::new(table.name())?,
        configs: config_map(table.configs()),
        partitions: all(table.partitions(), partition_image)?,
    })
}

fn partition_image(table: fb::Partition<'_>) -> Result<PartitionImage> {
    Ok(PartitionImage {
        index: partition_index(table.index())?,
        replicas: table
            .replicas()
            .iter()
            .map(|replica| {
                Ok(ReplicaImage {
                    broker: broker("replica", replica.broker())?,
                    shard: ShardIndex(replica.shard()),
                    confirmed: replica.confirmed(),
                })
            })
            .collect::<Result<_>>()?,
        leader: optional_broker("leader", table.leader())?,
        leader_epoch: LeaderEpoch(not_negative("leader epoch", table.leader_epoch())?),
        partition_epoch: PartitionEpoch(not_negative("partition epoch", table.partition_epoch())?),
        isr: broker_ids("ISR member", table.isr())?,
        elr: table.elr().map_or(Ok(Vec::new()), |elr| broker_ids("ELR member", elr))?,
    })
}

pub(super) fn addresses(table: Tables<'_, fb::Address<'_>>) -> Result<Vec<Address>> {
    all(table, |address: fb::Address<'_>| {
        Ok(Address {
            listener: address.listener().to_owned(),
            host: address.host().to_owned(),
            port: address.port(),
        })
    })
}

pub(super) fn partition_refs(refs: Vector<'_, fb::PartitionRef>) -> Result<Vec<PartitionId>> {
    refs.iter()
        .map(|partition| {
            let index = partition_index(partition.index())?;
            Ok(PartitionId { topic: topic_id(partition.topic()), index })
        })
        .collect()
}

pub(super) fn config_map(table: Option<Tables<'_, fb::Config<'_>>>) -> BTreeMap<String, String> {
    table
        .into_iter()
        .flatten()
        .map(|config| (config.name().to_owned(), config.value().to_owned()))
        .collect()
}

fn config_list(table: Option<Tables<'_, fb::Config<'_>>>) -> Vec<(String, String)> {
    table
        .into_iter()
        .flatten()
        .map(|config| (config.name().to_owned(), config.value().to_owned()))
        .collect()
}

/// Every table of a vector through `decode`. The vector's length is verified, so what is allocated
/// is bounded by the frame.
pub(super) fn all<'a, T, O>(
    table: Tables<'a, T>,
    decode: impl FnMut(T::Inner) -> Result<O>,
) -> Result<Vec<O>>
where
    T: flatbuffers::Follow<'a> + 'a,
{
    table.iter().map(decode).collect()
}

fn broker_ids(field: &'static str, ids: Vector<'_, i32>) -> Result<Vec<BrokerId>> {
    ids.iter().map(|id| broker(field, id)).collect()
}

pub(super) fn broker(field: &'static str, id: i32) -> Result<BrokerId> {
    not_negative(field, id).map(BrokerId)
}

fn optional_broker(field: &'static str, id: i32) -> Result<Option<BrokerId>> {
    if id == -1 { Ok(None) } else { broker(field, id).map(Some) }
}

pub(super) fn partition_index(index: i32) -> Result<PartitionIndex> {
    not_negative("partition index", index).map(PartitionIndex)
}

fn not_negative<N: Copy + Default + PartialOrd + Into<i64>>(
    field: &'static str,
    number: N,
) -> Result<N> {
    if number < N::default() {
        return Err(DecodeError::Field { field, value: number.into() });
    }
    Ok(number)
}

pub(super) fn broker_state(state: fb::BrokerState) -> Result<BrokerState> {
    match state {
        fb::BrokerState::Fenced => Ok(BrokerState::Fenced),
        fb::BrokerState::Active => Ok(BrokerState::Active),
        fb::BrokerState::Draining => Ok(BrokerState::Draining),
        other => Err(DecodeError::UnknownKind { what: "broker state", kind: u16::from(other.0) }),
    }
}

pub(super) fn last_stop(clean: bool) -> LastStop {
    if clean { LastStop::Clean } else { LastStop::Unclean }
}

fn mode(validate_only: bool) -> Mode {
    if validate_only { Mode::ValidateOnly } else { Mode::Execute }
}

pub(super) fn bytes(id: &fb::Uuid) -> [u8; 16] {
    id.0
}

pub(super) fn topic_id(id: &fb::Uuid) -> TopicId {
    TopicId(id.0)
}
