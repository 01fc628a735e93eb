//! What brokers and coordinators say to each other, and the cluster image both hold. `[P]`
//!
//! A connection carries [frames](frame): length-prefixed, checksummed, each with one FlatBuffers
//! message. Neither side touches the generated code: [`Envelope::encode`] and [`Envelope::decode`]
//! translate to owned types. Decoding is total: any bytes give a message or a [`DecodeError`],
//! with memory bounded by the length of the frame.
//!
//! The conversation, from the broker's side:
//!
//! 1. [`Request::Register`] says who it is; [`Reply::Registered`] gives it an epoch. A broker is
//!    fenced until it has shown that it knows the image of its registration.
//! 2. [`Request::Subscribe`] opens the stream: a [`Push::Image`] (left out when the broker already
//!    has that very index), then every [`Push::Changes`] in commit order. A subscriber that reads
//!    too slowly is disconnected and starts over with a full image.
//! 3. [`Request::Heartbeat`] twice a second, with the index of the image that the broker acts on.
//!    The first that has seen the registration makes it active; silence fences it.
//! 4. [`Request::ConfirmReplicas`] once the files of a replica exist.
//!
//! Every request but [`Request::Register`] and [`Request::Status`] must name the cluster in its
//! frame. Requests on one connection are answered in the order they came; pushes come in between, with
//! request id 0. A reply to a request that changed something carries the index of the image that
//! shows it, so a broker can wait for its own image to reach it before it answers its client.

pub mod id;
pub mod image;
pub mod request;
pub mod reply;
pub mod command;
pub mod frame;
mod encode;
mod decode;
mod encode_command;
mod decode_command;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, decode_image};
pub use encode::{EncodeError, encode_image};
pub use frame::{Envelope, FrameReader, Message, Push};
pub use id::{BrokerEpoch, ClusterId, DirectoryId, Incarnation, PartitionEpoch};
pub use image::{
    Address, ApplyError, BrokerImage, BrokerState, Change, ClusterImage, Committed, PartitionImage,
    ReplicaImage, TopicImage,
};
pub use reply::{Refusal, RefusalCode, Reply};
pub use request::Request;

/// Default port of a coordinator.
pub const COORDINATOR_PORT: u16 = 9190;

/// Largest frame that carries a reply or an image, header included, in bytes. An image that would
/// not fit is never made: the controller refuses the change that would grow it so far.
pub const MAX_FRAME_BYTES: usize = 16 << 20;

/// Largest frame that carries a request, header included, in bytes.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
