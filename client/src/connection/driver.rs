//! The task behind a connection: the only one that touches the socket.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use levada_protocol::frame::FrameBuffer;
use levada_protocol::kafka::{ApiKey, Encoded};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep_until};

use super::Shared;
use crate::error::CallError;

/// Most pieces handed to the system in one call.
const WRITE_SLICES_MAX: usize = 16;

/// Bytes that may wait for the socket before no further request is taken from the queue.
const UNWRITTEN_BYTES_MAX: usize = 4 << 20;

/// A request on its way to the socket.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) correlation_id: i32,
    pub(super) api: ApiKey,
    pub(super) chunks: Vec<Bytes>,
    pub(super) reply: ReplyTo,
    pub(super) deadline: Instant,
    /// How long the broker was asked to wait.
    pub(super) wait: Duration,
}

/// Who wants to know.
#[derive(Debug)]
pub(super) enum ReplyTo {
    /// Somebody waits for the answer.
    Frame(oneshot::Sender<Result<Bytes, CallError>>),
    /// There will be none; somebody waits until it is written.
    Written(Written),
}

/// The pieces of a request: its own bytes with `payloads` where they are spliced in.
pub(super) fn chunks(encoded: Encoded, payloads: &[Bytes]) -> Vec<Bytes> {
    let mut rest = Bytes::from(encoded.bytes);
    let mut chunks = Vec::with_capacity(2 * encoded.splices.len() + 1);
    let mut at = 0;
    for splice in encoded.splices {
        chunks.push(rest.split_to(splice.at - at));
        at = splice.at;
        let payload = usize::try_from(splice.token).ok().and_then(|token| payloads.get(token));
        let payload = payload.expect("every token is an index into the payloads").clone();
        assert_eq!(
            payload.len(),
            splice.len as usize,
            "a payload was announced with another length"
        );
        chunks.push(payload);
    }
    chunks.push(rest);
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

type Written = oneshot::Sender<Result<(), CallError>>;

#[derive(Debug)]
struct Waiting {
    reply: oneshot::Sender<Result<Bytes, CallError>>,
    api: ApiKey,
    deadline: Instant,
    wait: Duration,
}

#[derive(Debug)]
pub(super) struct Driver {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Outgoing>,
    /// No handle is left.
    orphaned: bool,
    /// Pieces of requests; the last of a request that is not answered tells when it is written.
    unwritten: VecDeque<(Bytes, Option<Written>)>,
    unwritten_bytes: usize,
    waiting: HashMap<i32, Waiting>,
    deadlines: BTreeSet<(Instant, i32)>,
    frames: FrameBuffer,
}

/// What the socket, the queue or the clock brought.
enum Happened {
    Request(Option<Outgoing>),
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
    Deadline,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, queue: mpsc::Receiver<Outgoing>) -> Self {
        let frames = FrameBuffer::new(shared.options.max_response_bytes);
        Self {
            shared,
            queue,
            orphaned: false,
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            waiting: HashMap::new(),
            deadlines: BTreeSet::new(),
            frames,
        }
    }

    /// Works until something goes wrong or nobody is interested any more.
    pub(super) async fn run(mut self, mut stream: TcpStream) {
        let reason = match self.drive(&mut stream).await {
            Ok(()) => Arc::from("closed by this client"),
            Err(reason) => {
                tracing::debug!(address = &*self.shared.address, reason, "connection ended");
                Arc::from(reason)
            }
        };
        let reason: &Arc<str> = self.shared.end.get_or_init(|| reason);
        let closed = CallError::Closed {
            address: Arc::clone(&self.shared.address),
            reason: Arc::clone(reason),
        };
        self.queue.close();
        for (_, waiting) in self.waiting.drain() {
            // Nobody may be interested any more; that is fine.
            drop(waiting.reply.send(Err(closed.clone())));
        }
    }

    async fn drive(&mut self, stream: &mut TcpStream) -> Result<(), String> {
        let (mut reader, mut writer) = stream.split();
        loop {
            if self.orphaned && self.unwritten.is_empty() && self.waiting.is_empty() {
                return Ok(());
            }
            let may_take = !self.orphaned && self.unwritten_bytes < UNWRITTEN_BYTES_MAX;
            let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
            let happened = tokio::select! {
                read = reader.read_buf(self.frames.spare()) => Happened::Read(read),
                wrote = write_some(&mut writer, &self.unwritten), if !self.unwritten.is_empty() => {
                    Happened::Wrote(wrote)
                }
                request = self.queue.recv(), if may_take => Happened::Request(request),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    Happened::Deadline
                }
            };
            match happened {
                Happened::Request(Some(request)) => self.on_request(request),
                Happened::Request(None) => self.orphaned = true,
                Happened::Read(Ok(0)) => return Err("the broker closed it".to_owned()),
                Happened::Read(Ok(read_bytes)) => self.on_read(read_bytes)?,
                Happened::Wrote(Ok(0)) => return Err("the broker takes no more bytes".to_owned()),
                Happened::Wrote(Ok(wrote_bytes)) => self.on_wrote(wrote_bytes),
                Happened::Read(Err(error)) | Happened::Wrote(Err(error)) => {
                    return Err(error.to_string());
                }
                Happened::Deadline => self.on_deadline(Instant::now())?,
            }
        }
    }

    fn on_request(&mut self, request: Outgoing) {
        let mut written = None;
        match request.reply {
            ReplyTo::Written(reply) => written = Some(reply),
            ReplyTo::Frame(reply) => {
                self.deadlines.insert((request.deadline, request.correlation_id));
                let (api, deadline, wait) = (request.api, request.deadline, request.wait);
                let waiting = Waiting { reply, api, deadline, wait };
                self.waiting.insert(request.correlation_id, waiting);
            }
        }
        let last = request.chunks.len().saturating_sub(1);
        for (index, chunk) in request.chunks.into_iter().enumerate() {
            self.unwritten_bytes += chunk.len();
            let written = if index == last { written.take() } else { None };
            self.unwritten.push_back((chunk, written));
        }
    }

    fn on_wrote(&mut self, mut wrote_bytes: usize) {
        self.unwritten_bytes -= wrote_bytes;
        while wrote_bytes > 0 {
            let (chunk, _) = self.unwritten.front_mut().expect("wrote no more than there was");
            if wrote_bytes < chunk.len() {
                chunk.advance(wrote_bytes);
                return;
            }
            wrote_bytes -= chunk.len();
            if let Some((_, Some(written))) = self.unwritten.pop_front() {
                drop(written.send(Ok(())));
            }
        }
    }

    fn on_read(&mut self, read_bytes: usize) -> Result<(), String> {
        self.frames.note_read(read_bytes);
        while let Some(frame) = self.frames.next_frame().map_err(|error| error.to_string())? {
            let id = frame.first_chunk().copied().map(i32::from_be_bytes);
            let waiting = id.and_then(|id| self.waiting.remove(&id).map(|waiting| (id, waiting)));
            let Some((id, waiting)) = waiting else {
                return Err("an answer came to a request that was not made".to_owned());
            };
            self.deadlines.remove(&(waiting.deadline, id));
            drop(waiting.reply.send(Ok(frame)));
        }
        Ok(())
    }

    /// Answers come in order, so the first that is late holds up all behind it.
    fn on_deadline(&mut self, now: Instant) -> Result<(), String> {
        let Some(&(deadline, id)) = self.deadlines.first() else { return Ok(()) };
        if now < deadline {
            return Ok(());
        }
        self.deadlines.pop_first();
        let Some(waiting) = self.waiting.remove(&id) else { return Ok(()) };
        let after = self.shared.options.request_timeout + waiting.wait;
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let (address, api) = (Arc::clone(&self.shared.address), waiting.api);
        drop(waiting.reply.send(Err(CallError::TimedOut { address, api, after_ms })));
        Err(format!("{api} was not answered within {after_ms} ms"))
    }
}

/// Hands as much to the system as it takes at once.
async fn write_some<T>(
    writer: &mut tokio::net::tcp::WriteHalf<'_>,
    unwritten: &VecDeque<(Bytes, T)>,
) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
    let mut used = 0;
    for (slice, (chunk, _)) in slices.iter_mut().zip(unwritten) {
        *slice = IoSlice::new(chunk);
        used += 1;
    }
    writer.write_vectored(slices.get(..used).unwrap_or_default()).await
}
