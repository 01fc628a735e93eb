//! Produce path 5/9: finds the shard of a partition; a call on this one, mail to another; from
//! `api/produce.rs`; to `partition/leader.rs`.

use std::future::Future;
use std::rc::Rc;

use levada_record::{BrokerId, PartitionId, ShardIndex};

use super::Shard;
use super::mailbox::{self, AppendMail, Mail, MailSender, ShardGone};
use crate::image::ImageView;

/// Where a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// On this shard.
    Here,
    /// On another shard of this broker.
    Shard(ShardIndex),
    /// On no shard of this broker.
    Elsewhere,
}

/// Knows all shards of the broker.
#[derive(Debug)]
pub struct Router {
    me: ShardIndex,
    senders: Vec<MailSender>,
}

impl Router {
    /// The router of shard `me`; `senders` are those of all shards.
    pub fn new(me: ShardIndex, senders: Vec<MailSender>) -> Self {
        Self { me, senders }
    }

    /// The shard that holds `broker`'s replica of `partition`.
    pub fn owner(&self, image: &ImageView, broker: BrokerId, partition: PartitionId) -> Owner {
        match image.shard_of(partition, broker) {
            Some(shard) if shard == self.me => Owner::Here,
            Some(shard) if usize::from(shard.0) < self.senders.len() => Owner::Shard(shard),
            _ => Owner::Elsewhere,
        }
    }

    /// Every shard, this one included.
    pub fn shards(&self) -> impl Iterator<Item = ShardIndex> + use<> {
        let count = u16::try_from(self.senders.len()).unwrap_or(u16::MAX);
        (0..count).map(ShardIndex)
    }

    /// Sends batches to another shard, waiting for room in its mailbox.
    ///
    /// # Errors
    /// [`ShardGone`] when that shard has stopped.
    pub async fn append(&self, to: ShardIndex, mail: AppendMail) -> Result<(), ShardGone> {
        self.sender(to)?.send_async(Mail::Append(mail)).await.map_err(|_| ShardGone)
    }

    /// Runs `work` on shard `to` and gives what it returns; on this shard at once, else by mail.
    ///
    /// # Errors
    /// [`ShardGone`] when that shard has stopped.
    pub async fn call<T, W, F>(
        &self,
        here: &Rc<Shard>,
        to: ShardIndex,
        work: W,
    ) -> Result<T, ShardGone>
    where
        T: Send + 'static,
        W: FnOnce(Rc<Shard>) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        if to == self.me {
            return Ok(work(Rc::clone(here)).await);
        }
        mailbox::call(self.sender(to)?, work).await
    }

    fn sender(&self, to: ShardIndex) -> Result<&MailSender, ShardGone> {
        self.senders.get(usize::from(to.0)).ok_or(ShardGone)
    }
}
