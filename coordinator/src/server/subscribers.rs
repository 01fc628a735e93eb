//! Who follows the image. Each has a queue bounded in bytes; who falls behind it is disconnected and
//! starts over with a full image, so a slow broker costs neither memory nor anybody's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use levada_protocol::cluster::frame::{Envelope, Message, Push};
use levada_protocol::cluster::{ClusterId, ClusterImage, Committed, MAX_FRAME_BYTES};
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// A connection, for as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A frame that several connections send.
pub type SharedFrame = Arc<[u8]>;

/// Most frames in one queue, whatever their size.
const FRAMES_MAX: usize = 4096;

/// The loop's end of a subscriber's queue.
#[derive(Debug)]
pub struct PushSender {
    frames: mpsc::Sender<SharedFrame>,
    queued_bytes: Arc<AtomicUsize>,
    max_bytes: usize,
}

/// The connection's end of its queue.
#[derive(Debug)]
pub struct PushReceiver {
    frames: mpsc::Receiver<SharedFrame>,
    queued_bytes: Arc<AtomicUsize>,
}

/// A queue for one subscriber that holds at most `max_bytes`, or one frame.
pub fn push_queue(max_bytes: usize) -> (PushSender, PushReceiver) {
    let (sender, receiver) = mpsc::channel(FRAMES_MAX);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&queued_bytes);
    (
        PushSender { frames: sender, queued_bytes, max_bytes },
        PushReceiver { frames: receiver, queued_bytes: shared },
    )
}

impl PushSender {
    /// Queues a frame; `false` when there is no room or nobody reads. An empty queue takes any frame,
    /// so an image is never too large for it.
    fn try_push(&self, frame: SharedFrame) -> bool {
        let bytes = frame.len();
        let queued_bytes = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if 0 < queued_bytes && self.max_bytes < queued_bytes.saturating_add(bytes) {
            return false;
        }
        self.frames.try_send(frame).is_ok()
    }
}

impl PushReceiver {
    /// The next frame; `None` once the loop has dropped this subscriber and the queue is empty.
    /// Its bytes count as queued until [`sent`](Self::sent).
    pub async fn next(&mut self) -> Option<SharedFrame> {
        self.frames.recv().await
    }

    /// Notes that a frame has left.
    pub fn sent(&self, frame: &SharedFrame) {
        self.queued_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
    }
}

/// All subscribers.
#[derive(Debug)]
pub struct Subscribers {
    all: Vec<(ConnectionId, PushSender)>,
    /// The image as it was last sent, for those who ask at the same time.
    image: Option<(u64, SharedFrame)>,
    metrics: Arc<Metrics>,
}

impl Subscribers {
    /// Nobody yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { all: Vec::new(), image: None, metrics }
    }

    /// Sends `image` to a connection that has the one of `from_index`, and every change from now on.
    pub fn add(
        &mut self,
        connection: ConnectionId,
        from_index: u64,
        pushes: PushSender,
        image: &ClusterImage,
    ) {
        self.remove(connection);
        if from_index != image.index() {
            let Some(frame) = self.image_frame(image) else { return };
            if !pushes.try_push(frame) {
                self.metrics.subscribers_dropped.count();
                return;
            }
        }
        self.all.push((connection, pushes));
        self.update_metrics();
    }

    /// Forgets a connection.
    pub fn remove(&mut self, connection: ConnectionId) {
        self.all.retain(|(known, _)| *known != connection);
        self.update_metrics();
    }

    /// Sends changes to everybody; whoever has no room is dropped, which closes its connection.
    pub fn push(&mut self, cluster: ClusterId, committed: Committed) {
        self.image = None;
        if self.all.is_empty() {
            return;
        }
        let index = committed.index;
        let Some(frame) = encode(cluster, Push::Changes(committed)) else {
            // Nobody can have the changes: everybody gets the image that has them.
            tracing::warn!(index, "changes exceed a frame, every subscriber starts over");
            self.all.clear();
            self.update_metrics();
            return;
        };
        let metrics = &self.metrics;
        self.all.retain(|(connection, pushes)| {
            let is_kept = pushes.try_push(Arc::clone(&frame));
            if !is_kept {
                tracing::warn!(
                    connection = connection.0,
                    index,
                    "subscriber reads too slowly, it must start over"
                );
                metrics.subscribers_dropped.count();
            }
            is_kept
        });
        self.update_metrics();
    }

    fn image_frame(&mut self, image: &ClusterImage) -> Option<SharedFrame> {
        if let Some((index, frame)) = &self.image
            && *index == image.index()
        {
            return Some(Arc::clone(frame));
        }
        let frame = encode(image.cluster(), Push::Image(Box::new(image.clone())))?;
        self.image = Some((image.index(), Arc::clone(&frame)));
        Some(frame)
    }

    fn update_metrics(&self) {
        self.metrics.subscribers.set(u64::try_from(self.all.len()).unwrap_or(u64::MAX));
    }
}

fn encode(cluster: ClusterId, push: Push) -> Option<SharedFrame> {
    let envelope = Envelope { cluster: Some(cluster), request_id: 0, message: Message::Push(push) };
    match envelope.encode(MAX_FRAME_BYTES) {
        Ok(frame) => Some(frame.into()),
        Err(error) => {
            tracing::error!(%error, "image or changes cannot be sent");
            None
        }
    }
}
