//! How many appended bytes of a shard may be in memory and not yet committed: beyond it appends
//! wait, their frames stay accounted for, and so the shard stops reading from its connections.

use std::cell::Cell;

use crate::runtime::event::Bell;

/// One per shard.
#[derive(Debug)]
pub struct AppendPressure {
    limit_bytes: u64,
    held_bytes: Cell<u64>,
    freed: Bell,
}

impl AppendPressure {
    /// Nothing held, at most `limit_bytes` from now on.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, held_bytes: Cell::new(0), freed: Bell::default() }
    }

    /// Bytes appended and not committed.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.get()
    }

    /// Whether `bytes` more may be appended. A batch above the limit may when nothing is held.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.held_bytes() == 0 || self.held_bytes() + bytes <= self.limit_bytes
    }

    /// Waits until there is room for `bytes`.
    pub async fn until_room(&self, bytes: u64) {
        loop {
            let seen = self.freed.count();
            if self.has_room(bytes) {
                return;
            }
            self.freed.after(seen).await;
        }
    }

    /// `bytes` were appended.
    pub fn add(&self, bytes: u64) {
        self.held_bytes.set(self.held_bytes() + bytes);
    }

    /// `bytes` were committed, or are gone.
    pub fn subtract(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let held = self.held_bytes();
        assert!(bytes <= held, "{bytes} B leave, {held} B are held");
        self.held_bytes.set(held - bytes);
        self.freed.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn appends_wait_at_the_limit_until_bytes_are_committed() {
        let pressure = AppendPressure::new(100);
        pressure.add(90);
        assert!(pressure.has_room(10));
        let mut wait = Box::pin(pressure.until_room(11));
        assert!(block_on(poll_once(&mut wait)).is_none());
        pressure.subtract(1);
        block_on(wait);
    }

    #[test]
    fn a_batch_above_the_limit_goes_alone() {
        let pressure = AppendPressure::new(100);
        assert!(pressure.has_room(1000));
        pressure.add(1);
        assert!(!pressure.has_room(1000));
    }
}
