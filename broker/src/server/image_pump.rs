//! Takes each new image through its steps, on shard 0: every shard creates what is new, the controller
//! hears of it, every shard swaps the image. Images that come meanwhile are taken together.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use levada_protocol::cluster::reply::Reply;
use levada_protocol::cluster::request::Request;
use levada_protocol::cluster::{BrokerState, ClusterImage};
use levada_record::PartitionId;

use super::shard_main::Report;
use crate::controller_link::{ASK_WITHIN, ControllerLink};
use crate::shard::Shard;
use crate::shard::mailbox::ShardGone;

/// Pause before something that failed is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Replicas confirmed in one request.
const CONFIRMED_AT_ONCE: usize = 10_000;

/// See the top of this file.
pub(super) struct ImagePump {
    link: Rc<ControllerLink>,
    shard: Rc<Shard>,
    reports: flume::Sender<Report>,
}

impl ImagePump {
    pub(super) fn new(
        link: Rc<ControllerLink>,
        shard: Rc<Shard>,
        reports: flume::Sender<Report>,
    ) -> Self {
        Self { link, shard, reports }
    }

    /// Pumps until the broker stops.
    pub(super) async fn run(self) {
        let mut acted_on = 0;
        let mut is_prepared = false;
        loop {
            let image = match self.link.image_after(acted_on).await {
                Ok(image) => image,
                Err(reason) => {
                    self.reports.send(Report::Failed { reason }).ok();
                    return;
                }
            };
            let index = image.index();
            match self.take(Arc::clone(&image)).await {
                Ok(Taken::Whole) => acted_on = index,
                // Published, but some logs are still to be made: looked at again after a pause.
                Ok(Taken::InPart) => self.shard.runtime.sleep(TRY_AGAIN_AFTER).await,
                Ok(Taken::NotConfirmed) => {
                    self.shard.runtime.sleep(TRY_AGAIN_AFTER).await;
                    continue;
                }
                Err(ShardGone) => return,
            }
            self.link.acts_on(index);
            let broker = self.shard.broker;
            let state = image.broker(broker).map(|broker| broker.state);
            if !is_prepared && state == Some(BrokerState::Active) {
                is_prepared = true;
                self.reports.send(Report::Prepared { broker }).ok();
            }
        }
    }

    async fn take(&self, image: Arc<ClusterImage>) -> Result<Taken, ShardGone> {
        let mut to_confirm = Vec::new();
        let mut has_failed = false;
        for to in self.shard.router.shards() {
            let image = Arc::clone(&image);
            let work = |shard: Rc<Shard>| shard.prepare(image);
            let prepared = self.shard.router.call(&self.shard, to, work).await?;
            to_confirm.extend(prepared.to_confirm);
            has_failed |= !prepared.failed.is_empty();
        }
        if !self.confirm(&to_confirm).await {
            return Ok(Taken::NotConfirmed);
        }
        for to in self.shard.router.shards() {
            let image = Arc::clone(&image);
            let work = |shard: Rc<Shard>| async move { shard.take_roles(&image) };
            self.shard.router.call(&self.shard, to, work).await?;
        }
        for to in self.shard.router.shards() {
            let image = Arc::clone(&image);
            let work = |shard: Rc<Shard>| async move { shard.publish(image) };
            self.shard.router.call(&self.shard, to, work).await?;
        }
        Ok(if has_failed { Taken::InPart } else { Taken::Whole })
    }

    /// Tells the controller which replicas exist now; whether it knows.
    async fn confirm(&self, partitions: &[PartitionId]) -> bool {
        for partitions in partitions.chunks(CONFIRMED_AT_ONCE) {
            let Some(registration) = self.link.registration() else { return false };
            let request = Request::ConfirmReplicas {
                broker: registration.broker,
                epoch: registration.epoch,
                partitions: partitions.to_vec(),
            };
            match self.shard.controller.ask(&self.shard.runtime, request, ASK_WITHIN).await {
                Ok(Reply::Confirmed { .. }) => {}
                Ok(_) => return false,
                Err(error) => {
                    tracing::warn!(%error, "replicas not confirmed; trying again");
                    return false;
                }
            }
        }
        true
    }
}

/// How far an image was taken.
enum Taken {
    /// All of it.
    Whole,
    /// Published, but some logs could not be created.
    InPart,
    /// The controller does not know of the new replicas: nothing was published.
    NotConfirmed,
}
