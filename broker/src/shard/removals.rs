//! Logs of this shard that the cluster has given up and the disk still holds.

use std::cell::RefCell;
use std::collections::HashMap;

use levada_record::TopicId;

use crate::runtime::event::Bell;

/// Counts, per topic, the logs whose files are still to go.
#[derive(Debug, Default)]
pub struct Removals {
    under_way: RefCell<HashMap<TopicId, usize>>,
    ended: Bell,
}

impl Removals {
    /// A log of `topic` is to go.
    pub fn begin(&self, topic: TopicId) {
        *self.under_way.borrow_mut().entry(topic).or_default() += 1;
    }

    /// The files of a log of `topic` are gone, and their space is back. One that cannot be removed
    /// never gets here: whoever waits for it is not told that it did.
    pub fn end(&self, topic: TopicId) {
        let mut under_way = self.under_way.borrow_mut();
        if let Some(count) = under_way.get_mut(&topic) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&topic);
            }
        }
        drop(under_way);
        self.ended.ring();
    }

    /// Waits until none of the removals that have begun for `topics` is under way.
    pub async fn all_ended(&self, topics: &[TopicId]) {
        loop {
            let seen = self.ended.count();
            let is_any_left = {
                let under_way = self.under_way.borrow();
                topics.iter().any(|topic| under_way.contains_key(topic))
            };
            if !is_any_left {
                return;
            }
            self.ended.after(seen).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn who_waits_for_a_topic_is_woken_by_its_last_log_and_by_no_other_topic() {
        let removals = Removals::default();
        let (mine, other) = (TopicId([1; 16]), TopicId([2; 16]));
        removals.begin(mine);
        removals.begin(mine);
        removals.begin(other);
        let topics = [mine];
        let mut wait = Box::pin(removals.all_ended(&topics));
        assert!(block_on(poll_once(&mut wait)).is_none());
        removals.end(mine);
        removals.end(other);
        assert!(block_on(poll_once(&mut wait)).is_none());
        removals.end(mine);
        block_on(wait);
        block_on(removals.all_ended(&[mine, other]));
    }
}
