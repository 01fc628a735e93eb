//! Produce path 9/9: who waits for which offset, freed by the watermark; from the engine's rounds
//! through `partition.rs`; to `net/connection.rs`. `[P]`
//!
//! A producer with acks=1 waits for the log's own end, one with acks=all for the high watermark. A
//! duplicate waits for the offsets of its original, so that it is never answered earlier.

use std::collections::VecDeque;

use levada_record::Offset;

/// Those who wait for one watermark, ordered by the end they wait for.
#[derive(Debug)]
pub struct AckQueue<T> {
    waiting: VecDeque<Waiter<T>>,
}

#[derive(Debug)]
struct Waiter<T> {
    end: Offset,
    deadline_ns: u64,
    token: T,
}

impl<T> Default for AckQueue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T> AckQueue<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// `token` waits until everything below `end` (exclusive) is there, at most until
    /// `deadline_ns`. O(1) for appends, which come in order of their ends.
    pub fn wait(&mut self, end: Offset, deadline_ns: u64, token: T) {
        let at = self.waiting.iter().rposition(|other| other.end <= end).map_or(0, |at| at + 1);
        self.waiting.insert(at, Waiter { end, deadline_ns, token });
    }

    /// Takes out the next one whose end is reached by `watermark` (exclusive).
    pub fn release(&mut self, watermark: Offset) -> Option<T> {
        let reached = self.waiting.front().is_some_and(|waiter| waiter.end <= watermark);
        reached.then(|| self.waiting.pop_front().map(|waiter| waiter.token)).flatten()
    }

    /// Takes out those whose deadline is at or before `now_ns`. O(waiters).
    pub fn expire(&mut self, now_ns: u64) -> Vec<T> {
        if self.waiting.iter().all(|waiter| waiter.deadline_ns > now_ns) {
            return Vec::new();
        }
        let (expired, waiting): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|w| w.deadline_ns <= now_ns);
        self.waiting = waiting;
        expired.into_iter().map(|waiter| waiter.token).collect()
    }

    /// Takes out everyone.
    pub fn drain(&mut self) -> Vec<T> {
        self.waiting.drain(..).map(|waiter| waiter.token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(queue: &mut AckQueue<&'static str>, watermark: i64) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.release(Offset(watermark))).collect()
    }

    #[test]
    fn waiters_are_freed_in_order_up_to_the_watermark_and_no_further() {
        let mut queue = AckQueue::default();
        queue.wait(Offset(10), u64::MAX, "a");
        queue.wait(Offset(20), u64::MAX, "b");
        assert!(released(&mut queue, 9).is_empty());
        assert_eq!(released(&mut queue, 10), ["a"]);
        assert_eq!(released(&mut queue, 100), ["b"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_duplicate_is_freed_with_its_original_not_with_its_successor() {
        let mut queue = AckQueue::default();
        queue.wait(Offset(10), u64::MAX, "original");
        queue.wait(Offset(20), u64::MAX, "next");
        queue.wait(Offset(10), u64::MAX, "duplicate");
        assert_eq!(released(&mut queue, 15), ["original", "duplicate"]);
    }

    #[test]
    fn the_expired_leave_and_the_others_stay_in_order() {
        let mut queue = AckQueue::default();
        queue.wait(Offset(1), 5, "early");
        queue.wait(Offset(2), 50, "late");
        queue.wait(Offset(3), 5, "early too");
        assert!(queue.expire(4).is_empty());
        assert_eq!(queue.expire(5), ["early", "early too"]);
        assert_eq!(released(&mut queue, 9), ["late"]);
    }
}
