//! All that a handler may touch.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use levada_protocol::cluster::{Address, BrokerImage, BrokerState};
use levada_protocol::kafka::{ApiKey, Encode, Uuid, encode_response};
use levada_record::{BrokerId, TopicId};

use super::Outcome;
use crate::budget::{FrameHold, Permit};
use crate::config::split_host_port;
use crate::image::ImageView;
use crate::net::connection::CloseReason;
use crate::net::reply::{Chunk, Reply};
use crate::shard::Shard;

/// Name of the listener for Kafka clients in a broker's registration.
pub const KAFKA_LISTENER: &str = "kafka";

/// Name of the listener of shard 0 in a broker's registration; each further shard listens a port behind.
pub const SHARD_LISTENER: &str = "shards";

/// A request as it came, with what it holds of the budgets.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The frame without its length.
    pub bytes: Bytes,
    /// Held until dropped.
    pub held: Arc<FrameHold>,
}

/// One connection, as its handlers see it.
pub struct Context {
    /// The shard that the connection lives on.
    pub shard: Rc<Shard>,
    /// The address on which the client reached us.
    pub local: SocketAddr,
    /// The client.
    pub peer: SocketAddr,
}

/// Which request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Which API.
    pub api: ApiKey,
    /// In which version.
    pub version: i16,
    /// The number the reply carries.
    pub correlation_id: i32,
}

impl Asked {
    /// The reply with this body.
    pub fn answer(self, body: &dyn Encode) -> Outcome {
        match encode_response(self.api, self.version, self.correlation_id, body) {
            Ok(encoded) => Outcome::Reply(Reply::plain(encoded)),
            Err(error) => unanswerable(self.api, &error),
        }
    }

    /// The reply with this body, whose external records are `payloads`.
    pub fn answer_gathered(
        self,
        body: &dyn Encode,
        payloads: &[Vec<Chunk>],
        held: Vec<Permit>,
    ) -> Outcome {
        match encode_response(self.api, self.version, self.correlation_id, body) {
            Ok(encoded) => Outcome::Reply(Reply::gathered(encoded, payloads, held)),
            Err(error) => unanswerable(self.api, &error),
        }
    }
}

fn unanswerable(api: ApiKey, error: &dyn std::fmt::Display) -> Outcome {
    tracing::error!(%api, %error, "a reply cannot be encoded");
    Outcome::Close(CloseReason::Malformed(format!("the answer to {api} cannot be encoded")))
}

/// A broker, as clients are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: BrokerId,
    /// Where clients reach it.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// Where it stands.
    pub rack: Option<String>,
}

impl Context {
    /// The context of a connection on `shard`.
    pub fn new(shard: Rc<Shard>, local: SocketAddr, peer: SocketAddr) -> Self {
        Self { shard, local, peer }
    }

    /// Every broker that is not fenced, and this one.
    pub fn nodes(&self, image: &ImageView) -> Vec<Node> {
        image
            .image
            .brokers()
            .filter(|broker| broker.state != BrokerState::Fenced || broker.id == self.shard.broker)
            .filter_map(|broker| self.node(broker))
            .collect()
    }

    /// One broker as this client should reach it: this one under the address that the client used
    /// already, unless another is configured.
    pub fn node(&self, broker: &BrokerImage) -> Option<Node> {
        let (host, port) = if broker.id == self.shard.broker {
            match self.shard.config.advertised.as_deref().and_then(split_host_port) {
                Some((host, port)) => (host.to_owned(), port),
                None => (self.local.ip().to_canonical().to_string(), self.local.port()),
            }
        } else {
            let is_ours = |address: &&Address| address.listener == KAFKA_LISTENER;
            let address = broker.addresses.iter().find(is_ours)?;
            (address.host.clone(), address.port)
        };
        Some(Node { id: broker.id, host, port: i32::from(port), rack: broker.rack.clone() })
    }
}

/// A topic's id on the wire.
pub fn wire_id(id: TopicId) -> Uuid {
    Uuid(id.0)
}

/// A topic's id from the wire.
pub fn topic_id(id: Uuid) -> TopicId {
    TopicId(id.0)
}

/// A string that outlives the request.
pub fn owned(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}
