//! Mail from shard to shard: bounded, in order, answered through a slot that comes with the mail.
//!
//! A sender waits for room where it stands: in the reader of a connection, never in the mail loop.
//! Handling a mail never waits: it appends, or it starts a task that answers later.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use levada_record::{BatchHeader, PartitionId, Timestamp};

use super::Shard;
use crate::budget::FrameHold;
use crate::partition::append_job::AppendResult;
use crate::partition::leader::Acks;

/// One batch for a partition of another shard.
#[derive(Debug)]
pub struct MailedBatch {
    /// Where it goes.
    pub partition: PartitionId,
    /// The batch; shares the memory of its frame, which travels with it.
    pub batch: Bytes,
    /// Its header.
    pub header: BatchHeader,
    /// The time the broker put on the records, if it did.
    pub log_append_time: Option<Timestamp>,
}

/// Appends for partitions of one shard.
#[derive(Debug)]
pub struct AppendMail {
    /// The batches, in the order of the request.
    pub batches: Vec<MailedBatch>,
    /// When to answer.
    pub acks: Acks,
    /// For how long to wait, in milliseconds.
    pub timeout_ms: u64,
    /// Keeps the bytes accounted for at the sender.
    pub held: Arc<FrameHold>,
    /// One result per batch goes here.
    pub reply: flume::Sender<Vec<AppendResult>>,
}

/// Work for another shard: runs there as a task of its own.
pub type Work = Box<dyn FnOnce(Rc<Shard>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// What a shard may be sent.
pub enum Mail {
    /// Batches to append.
    Append(AppendMail),
    /// Anything else.
    Call(Work),
}

/// The other shard is gone: the broker is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker is stopping")]
pub struct ShardGone;

/// The receiving end; one per shard.
pub type Mailbox = flume::Receiver<Mail>;

/// A sending end.
pub type MailSender = flume::Sender<Mail>;

/// The mailboxes of a broker with `shards` shards, each for `capacity` mails.
pub fn mailboxes(shards: usize, capacity: usize) -> (Vec<MailSender>, Vec<Mailbox>) {
    (0..shards).map(|_| flume::bounded(capacity)).unzip()
}

/// Runs `work` on the shard behind `sender`, as a task of its own, and gives what it returns.
///
/// # Errors
/// [`ShardGone`] when that shard has stopped.
pub async fn call<T, W, F>(sender: &MailSender, work: W) -> Result<T, ShardGone>
where
    T: Send + 'static,
    W: FnOnce(Rc<Shard>) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (reply, slot) = flume::bounded(1);
    let work = move |shard| -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let result = work(shard).await;
            // Who asked may have given up; then nobody misses the answer.
            reply.try_send(result).ok();
        })
    };
    sender.send_async(Mail::Call(Box::new(work))).await.map_err(|_| ShardGone)?;
    slot.recv_async().await.map_err(|_| ShardGone)
}
