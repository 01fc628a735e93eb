//! One connection to a coordinator: frames out, frames in, replies to those who asked.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;

use levada_protocol::cluster::id::ClusterId;
use levada_protocol::cluster::reply::Reply;
use levada_protocol::cluster::request::Request;
use levada_protocol::cluster::{
    ApplyError, DecodeError, EncodeError, Envelope, FrameReader, MAX_FRAME_BYTES,
    MAX_REQUEST_BYTES, Message, Push, Refusal,
};

use super::ControllerError;
use crate::runtime::socket::Socket;

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// Why a connection to a coordinator ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A name that nobody knows.
    #[error("{address} is not a host and port that can be reached")]
    Unresolved {
        /// The name.
        address: String,
    },
    /// The network.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed it.
    #[error("the coordinator closed the connection")]
    Closed,
    /// It took too long.
    #[error("no {what} in time")]
    TimedOut {
        /// What did.
        what: &'static str,
    },
    /// Bytes that are no frame.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A request that fits no frame.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The peer belongs to another cluster.
    #[error("the peer belongs to cluster {got}, not to {ours}")]
    OtherCluster {
        /// Theirs.
        got: ClusterId,
        /// Ours.
        ours: ClusterId,
    },
    /// A message that does not fit here.
    #[error("the coordinator sent a message that does not fit")]
    Unexpected,
    /// The image went back: this coordinator knows less than we do.
    #[error("the coordinator has image {got}, this broker already {have}")]
    Backwards {
        /// Ours.
        have: u64,
        /// Theirs.
        got: u64,
    },
    /// Changes that do not fit our image.
    #[error(transparent)]
    Image(#[from] ApplyError),
    /// The controller refused the broker.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

type ReplySender = flume::Sender<Result<Reply, ControllerError>>;
type ReplyReceiver = flume::Receiver<Result<Reply, ControllerError>>;

/// See the top of this file.
pub struct Session {
    socket: Socket,
    cluster: Cell<Option<ClusterId>>,
    next_id: Cell<u64>,
    /// Who waits for a reply, oldest first: they come in the order of the requests.
    waiting: RefCell<VecDeque<(u64, ReplySender)>>,
    /// Frames to be sent, and whether somebody is sending.
    outbox: RefCell<VecDeque<Vec<u8>>>,
    sending: Cell<bool>,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// [`SessionError::Io`].
    pub async fn connect(
        address: SocketAddr,
        cluster: Option<ClusterId>,
    ) -> Result<Self, SessionError> {
        Ok(Self {
            socket: Socket::connect(address).await?,
            cluster: Cell::new(cluster),
            next_id: Cell::new(1),
            waiting: RefCell::default(),
            outbox: RefCell::default(),
            sending: Cell::new(false),
        })
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.socket.peer()
    }

    /// From now on frames carry this cluster, and those of another are refused.
    pub fn belongs_to(&self, cluster: ClusterId) {
        self.cluster.set(Some(cluster));
    }

    /// Sends a request; the reply comes out of what is returned.
    ///
    /// # Errors
    /// [`SessionError`]; the session is over.
    pub async fn ask(&self, request: Request) -> Result<ReplyReceiver, SessionError> {
        let (reply, answer) = flume::bounded(1);
        self.ask_for(request, reply).await?;
        Ok(answer)
    }

    /// Sends a request for somebody who waits at `reply`. A request that fits no frame is answered
    /// here.
    ///
    /// # Errors
    /// [`SessionError`]; the session is over.
    pub async fn ask_for(&self, request: Request, reply: ReplySender) -> Result<(), SessionError> {
        let request_id = self.next_id.get();
        self.next_id.set(request_id + 1);
        let message = Message::Request(request);
        let envelope = Envelope { cluster: self.cluster.get(), request_id, message };
        let frame = match envelope.encode(MAX_REQUEST_BYTES) {
            Ok(frame) => frame,
            Err(error) => {
                use levada_protocol::cluster::RefusalCode::TooLarge;
                let refusal = Refusal::new(TooLarge, error.to_string());
                reply.try_send(Err(ControllerError::Refused(refusal))).ok();
                return Ok(());
            }
        };
        self.waiting.borrow_mut().push_back((request_id, reply));
        self.outbox.borrow_mut().push_back(frame);
        self.flush().await
    }

    /// Sends what is in the outbox, unless somebody does already: that one sends ours, too.
    async fn flush(&self) -> Result<(), SessionError> {
        if self.sending.replace(true) {
            return Ok(());
        }
        loop {
            let next = self.outbox.borrow_mut().pop_front();
            let Some(frame) = next else { break };
            self.socket.send_all(&mut [IoSlice::new(&frame)], || ()).await?;
        }
        self.sending.set(false);
        Ok(())
    }

    /// Reads until the connection ends; replies go to those who wait, pushes to `on_push`.
    ///
    /// # Errors
    /// Always ends with one.
    pub async fn read_all(
        &self,
        on_push: impl Fn(Push) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let mut frames = FrameReader::new(MAX_FRAME_BYTES);
        let mut buffer = Vec::with_capacity(READ_BYTES);
        loop {
            buffer.clear();
            if self.socket.read(&mut buffer).await? == 0 {
                return Err(SessionError::Closed);
            }
            frames.feed(&buffer);
            while let Some(envelope) = frames.next_frame()? {
                self.on_envelope(envelope, &on_push)?;
            }
        }
    }

    fn on_envelope(
        &self,
        envelope: Envelope,
        on_push: &impl Fn(Push) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        if let (Some(got), Some(ours)) = (envelope.cluster, self.cluster.get())
            && got != ours
        {
            return Err(SessionError::OtherCluster { got, ours });
        }
        match envelope.message {
            Message::Push(push) => on_push(push),
            Message::Reply(reply) => {
                let next = self.waiting.borrow_mut().pop_front();
                match next {
                    Some((id, waiting)) if id == envelope.request_id => {
                        // Who asked may have given up.
                        waiting.try_send(Ok(reply)).ok();
                        Ok(())
                    }
                    _ => Err(SessionError::Unexpected),
                }
            }
            Message::Request(_) => Err(SessionError::Unexpected),
        }
    }

    /// Ends the connection; whoever waits for a reply is told.
    pub fn close(&self) {
        self.socket.shutdown();
        for (_, waiting) in self.waiting.borrow_mut().drain(..) {
            waiting.try_send(Err(ControllerError::Unavailable)).ok();
        }
    }
}
