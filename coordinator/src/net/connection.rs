//! One connection: frames in, replies out in the order of the requests, pushes in between.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use levada_protocol::cluster::frame::{Envelope, FrameReader, Message, frame_bytes};
use levada_protocol::cluster::{
    MAX_FRAME_BYTES, MAX_REQUEST_BYTES, Refusal, RefusalCode, Reply, Request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::{BUDGET_UNIT_BYTES, FREE_REQUEST_BYTES, Shared};
use crate::server::subscribers::{ConnectionId, PushReceiver, SharedFrame, push_queue};
use crate::server::{Event, stopping};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 16 << 10;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the peer")]
    Closed,
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("{0}")]
    Malformed(#[from] levada_protocol::cluster::DecodeError),
    #[error("{0}")]
    Unanswerable(#[from] levada_protocol::cluster::EncodeError),
    #[error("sent no whole request in time")]
    Slow,
    #[error("did not read a frame in time")]
    SlowReader,
    #[error("lags too far behind the image")]
    Lagging,
    #[error("sent what only coordinators send")]
    NoRequest,
}

impl End {
    /// What is worth a log line.
    fn complaint(&self, peer: SocketAddr) -> Option<String> {
        match self {
            Self::Closed | Self::Socket(_) => None,
            other => Some(format!("connection of {peer} is closed: {other}")),
        }
    }
}

/// One connection and what it holds.
#[derive(Debug)]
pub(super) struct Connection {
    id: ConnectionId,
    peer: SocketAddr,
    stream: TcpStream,
    shared: Arc<Shared>,
    frames: FrameReader,
    buffer: Vec<u8>,
    budget: Option<OwnedSemaphorePermit>,
    /// When the next request has to have begun.
    begun_by: Instant,
    /// When it has to be whole, once it has begun.
    whole_by: Option<Instant>,
    pushes: Option<PushReceiver>,
}

/// What a connection waits for.
enum Next {
    Request(Box<Envelope>),
    Push(SharedFrame),
}

impl Connection {
    pub(super) fn new(
        id: ConnectionId,
        peer: SocketAddr,
        stream: TcpStream,
        shared: Arc<Shared>,
    ) -> Self {
        let begun_by = Instant::now() + Duration::from_millis(shared.config.first_frame_ms);
        Self {
            id,
            peer,
            stream,
            shared,
            frames: FrameReader::new(MAX_REQUEST_BYTES),
            buffer: vec![0; READ_BYTES],
            budget: None,
            begun_by,
            whole_by: None,
            pushes: None,
        }
    }

    /// Serves it to its end; gives what is worth a log line.
    pub(super) async fn run(mut self) -> Option<String> {
        let end = match self.stream.set_nodelay(true) {
            Ok(()) => self.serve().await,
            Err(error) => Err(End::Socket(error)),
        };
        let complaint = end.err().and_then(|end| end.complaint(self.peer));
        // Whoever stops the loop stops caring about connections, too.
        drop(self.shared.events.send(Event::Disconnected { connection: self.id }).await);
        complaint
    }

    async fn serve(&mut self) -> Result<(), End> {
        loop {
            match self.next().await? {
                Next::Request(envelope) => {
                    let reply = self.on_envelope(*envelope).await?;
                    self.budget = None;
                    let frame = reply.encode(MAX_FRAME_BYTES)?;
                    self.write(&frame).await?;
                }
                Next::Push(frame) => {
                    self.write(&frame).await?;
                    if let Some(pushes) = &self.pushes {
                        pushes.sent(&frame);
                    }
                }
            }
        }
    }

    /// The next thing to do. Nothing is lost when one of several waits wins.
    async fn next(&mut self) -> Result<Next, End> {
        loop {
            if let Some(envelope) = self.frames.next_frame()? {
                let idle = Duration::from_millis(self.shared.config.idle_ms);
                self.begun_by = Instant::now() + idle;
                self.whole_by = None;
                return Ok(Next::Request(Box::new(envelope)));
            }
            self.make_room().await?;
            let Self { stream, buffer, pushes, .. } = self;
            let deadline = self.whole_by.unwrap_or(self.begun_by);
            let read = tokio::select! {
                biased;
                push = next_push(pushes) => {
                    return push.map(Next::Push).ok_or(End::Lagging);
                }
                read = timeout_at(deadline, stream.read(buffer)) => {
                    read.map_err(|_| End::Slow)??
                }
            };
            if read == 0 {
                return Err(End::Closed);
            }
            self.frames.feed(self.buffer.get(..read).unwrap_or_default());
        }
    }

    /// Once a request has begun: it has to be whole in time, and if it is long it waits for room.
    async fn make_room(&mut self) -> Result<(), End> {
        if !self.frames.is_within_frame() {
            return Ok(());
        }
        let patience = Duration::from_millis(self.shared.config.frame_ms);
        let whole_by = *self.whole_by.get_or_insert_with(|| Instant::now() + patience);
        if self.budget.is_none()
            && let Some(total) = frame_bytes(self.frames.rest(), MAX_REQUEST_BYTES)?
            && FREE_REQUEST_BYTES < total
        {
            let units = u32::try_from(total.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.shared.budget).acquire_many_owned(units);
            let room = timeout_at(whole_by, room).await.map_err(|_| End::Slow)?;
            self.budget = room.ok();
        }
        Ok(())
    }

    async fn on_envelope(&mut self, envelope: Envelope) -> Result<Envelope, End> {
        let Message::Request(request) = envelope.message else { return Err(End::NoRequest) };
        let cluster = self.shared.cluster;
        let needs_cluster = !matches!(request, Request::Register(_) | Request::Status);
        let reply = match envelope.cluster {
            Some(other) if other != cluster => Reply::Refused(
                Refusal::new(
                    RefusalCode::WrongCluster,
                    format!("this is cluster {cluster}, not {other}: correct the address or the data directory"),
                )
                .about(cluster.to_string()),
            ),
            None if needs_cluster => Reply::Refused(Refusal::new(
                RefusalCode::InvalidRequest,
                "the request does not say for which cluster it is",
            )),
            _ => self.ask(request).await?,
        };
        let message = Message::Reply(reply);
        Ok(Envelope { cluster: Some(cluster), request_id: envelope.request_id, message })
    }

    /// Hands a request to the loop and waits for its reply.
    async fn ask(&mut self, request: Request) -> Result<Reply, End> {
        let (reply, answered) = oneshot::channel();
        let mut subscription = None;
        let connection = self.id;
        let event = match request {
            Request::Subscribe { from_index } => {
                let (pushes, receiver) = push_queue(self.shared.config.push_budget_bytes);
                subscription = Some(receiver);
                Event::Subscribe { connection, from_index, pushes, reply }
            }
            request => Event::Request { connection: Some(connection), request, reply },
        };
        let patience = Duration::from_millis(self.shared.config.frame_ms);
        match self.shared.events.send_timeout(event, patience).await {
            Ok(()) => {}
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                let message = "the controller is busy, try again";
                return Ok(Reply::Refused(Refusal::new(RefusalCode::Unavailable, message)));
            }
            Err(mpsc::error::SendTimeoutError::Closed(_)) => return Ok(stopping()),
        }
        let Ok(reply) = answered.await else { return Ok(stopping()) };
        if subscription.is_some() {
            self.pushes = subscription;
        }
        Ok(reply)
    }

    async fn write(&mut self, frame: &[u8]) -> Result<(), End> {
        let patience = Duration::from_millis(self.shared.config.write_ms);
        timeout(patience, self.stream.write_all(frame)).await.map_err(|_| End::SlowReader)??;
        Ok(())
    }
}

/// The next push; never, without a subscription.
async fn next_push(pushes: &mut Option<PushReceiver>) -> Option<SharedFrame> {
    match pushes {
        Some(pushes) => pushes.next().await,
        None => std::future::pending().await,
    }
}
