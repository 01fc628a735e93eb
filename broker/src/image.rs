//! The cluster image as a shard sees it: swapped whole, never changed in place. One per shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use levada_protocol::cluster::{ClusterImage, PartitionImage, TopicImage};
use levada_record::{BrokerId, PartitionId, ShardIndex, TopicConfig, TopicId};

use crate::runtime::event::Bell;

/// A topic with its settings read.
#[derive(Debug)]
pub struct TopicView {
    /// The topic.
    pub image: Arc<TopicImage>,
    /// Its settings.
    pub config: TopicConfig,
}

impl TopicView {
    fn read(image: &Arc<TopicImage>) -> Rc<Self> {
        let overrides = image.configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let config = TopicConfig::parse(overrides).unwrap_or_else(|error| {
            // The controller checked it; a newer one may know settings that we do not.
            tracing::error!(topic = %image.name, %error, "settings not understood, defaults act");
            TopicConfig::default()
        });
        Rc::new(Self { image: Arc::clone(image), config })
    }
}

/// One image with what this shard derived from it.
#[derive(Debug)]
pub struct ImageView {
    /// The image.
    pub image: Arc<ClusterImage>,
    topics: HashMap<TopicId, Rc<TopicView>>,
}

impl ImageView {
    /// Derives what is needed; topics that did not change since `before` are taken over.
    pub fn derive(image: Arc<ClusterImage>, before: Option<&ImageView>) -> Self {
        let topics = image
            .topics()
            .map(|topic| {
                let known = before
                    .and_then(|before| before.topics.get(&topic.id))
                    .filter(|known| Arc::ptr_eq(&known.image, topic));
                (topic.id, known.map_or_else(|| TopicView::read(topic), Rc::clone))
            })
            .collect();
        Self { image, topics }
    }

    /// The topic called `name`.
    pub fn topic_named(&self, name: &str) -> Option<&Rc<TopicView>> {
        self.topics.get(&self.image.topic_named(name)?.id)
    }

    /// The topic `id`.
    pub fn topic(&self, id: TopicId) -> Option<&Rc<TopicView>> {
        self.topics.get(&id)
    }

    /// The partition `id`.
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionImage> {
        self.image.partition(id)
    }

    /// The shard of `broker` that holds a replica of `id`.
    pub fn shard_of(&self, id: PartitionId, broker: BrokerId) -> Option<ShardIndex> {
        Some(self.partition(id)?.replica_on(broker)?.shard)
    }
}

/// The current image of one shard.
#[derive(Debug)]
pub struct ImageCell {
    current: RefCell<Rc<ImageView>>,
    swapped: Bell,
}

impl ImageCell {
    /// Begins with `image`.
    pub fn new(image: Arc<ClusterImage>) -> Self {
        let view = Rc::new(ImageView::derive(image, None));
        Self { current: RefCell::new(view), swapped: Bell::default() }
    }

    /// The image as of now; keep it for the length of one decision.
    pub fn get(&self) -> Rc<ImageView> {
        Rc::clone(&self.current.borrow())
    }

    /// Swaps it, and wakes those who wait for it.
    pub fn set(&self, view: ImageView) {
        *self.current.borrow_mut() = Rc::new(view);
        self.swapped.ring();
    }

    /// Waits until the image shows everything up to `index` (inclusive).
    pub async fn reached(&self, index: u64) {
        self.until(|view| view.image.index() >= index).await;
    }

    /// Waits until `is_there` says yes; asked now, and whenever an image was swapped in.
    pub async fn until(&self, is_there: impl Fn(&ImageView) -> bool) {
        loop {
            let seen = self.swapped.count();
            let view = self.get();
            if is_there(&view) {
                return;
            }
            drop(view);
            self.swapped.after(seen).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use levada_protocol::cluster::{Change, ClusterId, Committed};
    use levada_record::TopicName;
    use std::collections::BTreeMap;

    fn topic(id: u8, name: &str) -> TopicImage {
        TopicImage {
            id: TopicId([id; 16]),
            name: TopicName::new(name).unwrap(),
            configs: BTreeMap::from([("retention.ms".into(), "5".into())]),
            partitions: Vec::new(),
        }
    }

    fn next(image: &ClusterImage, change: Change) -> Arc<ClusterImage> {
        let mut image = image.clone();
        let previous = image.index();
        let index = previous + 1;
        image.apply(&Committed { previous, index, changes: vec![change] }).unwrap();
        Arc::new(image)
    }

    #[test]
    fn topics_that_did_not_change_are_not_read_again() {
        let image = ClusterImage::empty(ClusterId([1; 16]));
        let first = next(&image, Change::TopicCreated(topic(1, "a")));
        let second = next(&first, Change::TopicCreated(topic(2, "b")));
        let before = ImageView::derive(first, None);
        let after = ImageView::derive(second, Some(&before));
        let (old, new) = (before.topic_named("a").unwrap(), after.topic_named("a").unwrap());
        assert!(Rc::ptr_eq(old, new));
        assert_eq!(after.topic_named("b").unwrap().config.retention_ms, Some(5));
        assert!(after.topic_named("c").is_none());
    }

    #[test]
    fn who_waits_for_an_index_is_woken_by_it_and_not_before() {
        let image = ClusterImage::empty(ClusterId([1; 16]));
        let cell = ImageCell::new(Arc::new(image.clone()));
        let mut wait = Box::pin(cell.reached(2));
        let first = next(&image, Change::TopicCreated(topic(1, "a")));
        cell.set(ImageView::derive(Arc::clone(&first), None));
        assert!(block_on(poll_once(&mut wait)).is_none());
        let second = next(&first, Change::TopicDeleted(TopicId([1; 16])));
        cell.set(ImageView::derive(second, None));
        block_on(wait);
    }
}
