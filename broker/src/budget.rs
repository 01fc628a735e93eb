//! Byte budgets: how much of something may be held at once. Whoever wants more waits its turn;
//! permits may be given back from any thread. Not `[P]`: it wakes tasks, but it knows no executor.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;

/// A budget of one shard. Waiting is first come, first served; a request larger than the whole
/// budget is granted when nothing else is held, so that it cannot wait for ever.
#[derive(Debug)]
pub struct Budget {
    shared: Arc<Shared>,
    waiting: RefCell<Waiting>,
}

#[derive(Debug)]
struct Shared {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    /// The task at the front of the queue, to be woken when bytes come back.
    front: AtomicWaker,
}

#[derive(Debug, Default)]
struct Waiting {
    next_ticket: u64,
    queue: VecDeque<(u64, Option<Waker>)>,
}

impl Budget {
    /// A budget of `limit_bytes`, all of it free.
    pub fn new(limit_bytes: u64) -> Self {
        let shared =
            Shared { limit_bytes, used_bytes: AtomicU64::new(0), front: AtomicWaker::new() };
        Self { shared: Arc::new(shared), waiting: RefCell::default() }
    }

    /// The whole budget, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.shared.limit_bytes
    }

    /// What is held, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes.load(Ordering::Acquire)
    }

    /// How many wait for bytes.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().queue.len()
    }

    /// Takes `bytes` if they are free and nobody waits.
    pub fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        if self.waiting() > 0 {
            return None;
        }
        self.take(bytes)
    }

    /// Takes `bytes`, waiting behind those who asked before.
    pub fn acquire(&self, bytes: u64) -> Acquire<'_> {
        Acquire { budget: self, bytes, ticket: None }
    }

    /// Only tasks of the owning shard take; so used bytes can fall meanwhile, but not grow.
    fn take(&self, bytes: u64) -> Option<Permit> {
        let bytes = bytes.min(self.shared.limit_bytes);
        if self.used_bytes() + bytes > self.shared.limit_bytes {
            return None;
        }
        self.shared.used_bytes.fetch_add(bytes, Ordering::AcqRel);
        Some(Permit { shared: Arc::clone(&self.shared), bytes })
    }
}

/// Bytes that are held. Dropping it gives them back.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Permit {
    /// How many bytes it holds; at most the whole budget.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes over what another permit of the same budget holds.
    pub fn absorb(&mut self, mut other: Self) {
        assert!(Arc::ptr_eq(&self.shared, &other.shared), "permits of two budgets");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives back what exceeds `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.shared.give_back(self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.give_back(self.bytes);
    }
}

/// What a request frame holds of the budgets of its shard and of its connection, until its bytes are
/// copied or handled. Shared by the batches in it.
#[derive(Debug)]
pub struct FrameHold {
    /// Of the shard's budget.
    pub shard: Permit,
    /// Of the connection's.
    pub connection: Permit,
}

impl Shared {
    fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            let before = self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
            assert!(before >= bytes, "budget held {before} B, {bytes} B came back");
            self.front.wake();
        }
    }
}

/// Waits for bytes; see [`Budget::acquire`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<'a> {
    budget: &'a Budget,
    bytes: u64,
    ticket: Option<u64>,
}

impl Future for Acquire<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let ticket = if let Some(ticket) = self.ticket {
            ticket
        } else {
            if let Some(permit) = self.budget.try_acquire(self.bytes) {
                return Poll::Ready(permit);
            }
            let mut waiting = self.budget.waiting.borrow_mut();
            let ticket = waiting.next_ticket;
            waiting.next_ticket += 1;
            waiting.queue.push_back((ticket, None));
            drop(waiting);
            self.ticket = Some(ticket);
            ticket
        };
        let at_front = {
            let mut waiting = self.budget.waiting.borrow_mut();
            let at_front = waiting.queue.front().is_some_and(|(first, _)| *first == ticket);
            if let Some((_, waker)) = waiting.queue.iter_mut().find(|(other, _)| *other == ticket) {
                *waker = Some(context.waker().clone());
            }
            at_front
        };
        if !at_front {
            return Poll::Pending;
        }
        // Registered before the look, so bytes that come back in between are not missed.
        self.budget.shared.front.register(context.waker());
        match self.budget.take(self.bytes) {
            Some(permit) => {
                self.leave();
                Poll::Ready(permit)
            }
            None => Poll::Pending,
        }
    }
}

impl Acquire<'_> {
    /// Leaves the queue, and lets the next one look when this was the first.
    fn leave(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut waiting = self.budget.waiting.borrow_mut();
        waiting.queue.retain(|(other, _)| *other != ticket);
        let next = waiting.queue.front_mut().and_then(|(_, waker)| waker.take());
        drop(waiting);
        if let Some(next) = next {
            next.wake();
        }
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_budget_is_never_exceeded_and_comes_back_whole() {
        let budget = Budget::new(100);
        let first = budget.try_acquire(60).unwrap();
        assert!(budget.try_acquire(41).is_none());
        let second = budget.try_acquire(40).unwrap();
        assert_eq!(budget.used_bytes(), 100);
        drop((first, second));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_request_above_the_limit_is_granted_alone() {
        let budget = Budget::new(100);
        let held = budget.try_acquire(1).unwrap();
        assert!(budget.try_acquire(1000).is_none());
        drop(held);
        let all = block_on(budget.acquire(1000));
        assert_eq!(all.bytes(), 100);
        assert!(budget.try_acquire(1).is_none());
    }

    #[test]
    fn those_who_wait_are_served_in_order_and_none_is_overtaken() {
        let budget = Budget::new(10);
        let held = budget.try_acquire(10).unwrap();
        let mut large = Box::pin(budget.acquire(8));
        let mut small = Box::pin(budget.acquire(1));
        assert!(block_on(poll_once(&mut large)).is_none());
        assert!(block_on(poll_once(&mut small)).is_none());
        let mut held = held;
        held.shrink_to(5);
        assert!(block_on(poll_once(&mut small)).is_none(), "overtook the larger request");
        assert!(budget.try_acquire(1).is_none(), "overtook both");
        drop(held);
        let granted = block_on(large);
        assert_eq!(granted.bytes(), 8);
        assert_eq!(block_on(small).bytes(), 1);
    }

    #[test]
    fn who_gives_up_waiting_does_not_block_the_next() {
        let budget = Budget::new(10);
        let held = budget.try_acquire(5).unwrap();
        let mut large = Box::pin(budget.acquire(8));
        assert!(block_on(poll_once(&mut large)).is_none());
        let small = budget.acquire(5);
        drop(large);
        assert_eq!(block_on(small).bytes(), 5);
        drop(held);
    }

    #[test]
    fn bytes_given_back_by_another_thread_wake_the_waiter() {
        let budget = Budget::new(10);
        let held = budget.try_acquire(10).unwrap();
        let other = std::thread::spawn(move || drop(held));
        assert_eq!(block_on(budget.acquire(10)).bytes(), 10);
        other.join().unwrap();
    }
}
