//! A fetch that waits for records: it is woken when enough bytes were committed in any of the
//! partitions it watches.

use std::cell::Cell;
use std::rc::Rc;

use crate::runtime::event::Event;

/// One waiting fetch on one shard. Partitions hold it weakly: dropped, it is forgotten.
#[derive(Debug)]
pub struct Watch {
    missing_bytes: Cell<u64>,
    enough: Event,
}

impl Watch {
    /// Waits for `missing_bytes` (at least 1) in all partitions together.
    pub fn new(missing_bytes: u64) -> Rc<Self> {
        Rc::new(Self { missing_bytes: Cell::new(missing_bytes.max(1)), enough: Event::default() })
    }

    /// `bytes` were committed in one of the partitions.
    pub fn on_committed(&self, bytes: u64) {
        let missing = self.missing_bytes.get();
        self.missing_bytes.set(missing.saturating_sub(bytes));
        if missing <= bytes {
            self.enough.notify();
        }
    }

    /// Waits until enough was committed.
    pub async fn enough(&self) {
        self.enough.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_fetch_sleeps_until_enough_bytes_came_together() {
        let watch = Watch::new(10);
        watch.on_committed(4);
        let mut wait = Box::pin(watch.enough());
        assert!(block_on(poll_once(&mut wait)).is_none());
        watch.on_committed(6);
        block_on(wait);
    }
}
