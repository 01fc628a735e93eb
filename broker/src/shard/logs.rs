//! Makes the logs of a shard what the cluster image says: first all that are new are created and
//! stable, then the image is swapped in, then those that are gone are removed.

use std::rc::Rc;
use std::sync::Arc;

use levada_engine::{LogConfig, StoreError};
use levada_protocol::cluster::{ClusterImage, PartitionImage, TopicImage};
use levada_record::{Durability, PartitionId, TopicConfig};

use super::Shard;
use crate::image::ImageView;
use crate::partition::append_job::AppendFailure;
use crate::partition::leader::{LeaderHint, Reign};

/// What [`Shard::prepare`] did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Replicas whose files exist and whom the controller does not know to exist.
    pub to_confirm: Vec<PartitionId>,
    /// Replicas whose files could not be created; to be tried again.
    pub failed: Vec<PartitionId>,
}

impl Shard {
    /// Creates the logs that `image` wants on this shard. Nothing else sees them yet.
    pub async fn prepare(self: Rc<Self>, image: Arc<ClusterImage>) -> Prepared {
        let mut prepared = Prepared::default();
        let Some(store) = self.store().cloned() else { return prepared };
        let mut lost = Vec::new();
        for (topic, partition, replica) in image.replicas_on(self.broker) {
            if replica.shard != self.index {
                continue;
            }
            let id = PartitionId::new(topic.id, partition.index);
            let is_here = self.partition(id).is_some();
            if !is_here && replica.confirmed {
                lost.push(id);
            } else if !is_here {
                let config = topic_config(topic);
                match store.create_log(id, log_config(&config)).await {
                    Ok(log) => {
                        self.enter(log);
                        prepared.to_confirm.push(id);
                    }
                    Err(StoreError::Exists) => {
                        if let Some(log) = store.log(id) {
                            self.enter(log);
                        }
                        prepared.to_confirm.push(id);
                    }
                    Err(error) => {
                        tracing::error!(topic = %topic.name, partition = partition.index.0, %error, "create a log");
                        prepared.failed.push(id);
                    }
                }
                self.runtime.yield_if_needed().await;
            } else if !replica.confirmed {
                prepared.to_confirm.push(id);
            }
        }
        self.note_missing(lost);
        prepared
    }

    /// Absence is not emptiness: what was there once and is not is never created anew.
    fn note_missing(&self, lost: Vec<PartitionId>) {
        let mut missing = self.missing.borrow_mut();
        for id in &lost {
            if !missing.contains(id) {
                tracing::error!(
                    partition = %id,
                    "the files of this partition are gone; it is not served. If the data is lost \
                     for good, delete the topic and create it again"
                );
            }
        }
        *missing = lost.into_iter().collect();
    }

    /// Leads what `image` wants led here, with the settings it has. Requests still go by the image
    /// before: who sees a new topic, on whatever shard, finds its leader ready.
    pub fn take_roles(&self, image: &ClusterImage) {
        for partition in self.partitions() {
            let id = partition.id();
            let Some((topic, state)) = self.ours(image, id) else { continue };
            let config = topic_config(topic);
            partition.log().set_config(log_config(&config));
            if state.leader == Some(self.broker) {
                partition.lead(reign(&config, state));
            } else {
                partition.resign(LeaderHint { leader: state.leader, epoch: state.leader_epoch });
            }
        }
    }

    fn ours<'a>(
        &self,
        image: &'a ClusterImage,
        id: PartitionId,
    ) -> Option<(&'a TopicImage, &'a PartitionImage)> {
        let topic = image.topic(id.topic)?;
        let state = topic.partition(id.index)?;
        let replica = state.replica_on(self.broker)?;
        (replica.shard == self.index).then_some((&**topic, state))
    }

    /// Acts on `image` from now on. Logs that it has no more are removed behind it.
    pub fn publish(self: &Rc<Self>, image: Arc<ClusterImage>) {
        let before = self.image.get();
        let view = ImageView::derive(image, Some(&before));
        let mut gone = self.partitions();
        gone.retain(|partition| self.ours(&view.image, partition.id()).is_none());
        self.image.set(view);
        for partition in gone {
            self.partitions.borrow_mut().remove(&partition.id());
            partition.fail_everyone(&AppendFailure::UnknownPartition);
            self.removals.begin(partition.id().topic);
            let shard = Rc::clone(self);
            self.runtime.spawn(
                "remove-log",
                Box::pin(async move {
                    let id = partition.id();
                    drop(partition);
                    let Some(store) = shard.store().cloned() else { return };
                    match store.remove_log(id).await {
                        Ok(()) => {
                            tracing::info!(partition = %id, "log removed");
                            shard.removals.end(id.topic);
                        }
                        Err(error) => tracing::error!(partition = %id, %error, "remove a log"),
                    }
                }),
            );
        }
    }
}

fn topic_config(topic: &TopicImage) -> TopicConfig {
    let overrides = topic.configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    TopicConfig::parse(overrides).unwrap_or_default()
}

/// The settings of a topic that act in the engine.
pub fn log_config(config: &TopicConfig) -> LogConfig {
    LogConfig {
        segment_bytes: u64::from(config.segment_bytes),
        segment_ms: config.segment_ms,
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        tell_written: config.durability == Durability::Replicated,
    }
}

fn reign(config: &TopicConfig, state: &PartitionImage) -> Reign {
    let replicas = u32::try_from(state.replicas.len()).unwrap_or(u32::MAX);
    Reign {
        epoch: state.leader_epoch,
        replicas,
        in_sync: u32::try_from(state.isr.len()).unwrap_or(u32::MAX),
        min_in_sync: config.min_insync(replicas),
        durability: config.durability,
    }
}
