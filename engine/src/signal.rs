//! A counter that tasks of one shard can wait on. Raising it wakes all who wait; nothing is lost between a
//! look at the count and the wait.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use smallvec::SmallVec;

/// Counts how often something happened.
#[derive(Debug, Default)]
pub struct Signal {
    count: Cell<u64>,
    /// Most often nobody or one.
    waiters: RefCell<SmallVec<[Waker; 1]>>,
}

impl Signal {
    /// How often it was raised.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// It happened again.
    pub fn raise(&self) {
        self.count.set(self.count.get() + 1);
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        for waker in waiters {
            waker.wake();
        }
    }

    /// Waits until it was raised more than `seen` times. May be dropped at any time.
    pub async fn after(&self, seen: u64) {
        poll_fn(|context| {
            if self.count.get() > seen {
                return Poll::Ready(());
            }
            let mut waiters = self.waiters.borrow_mut();
            if !waiters.iter().any(|w| w.will_wake(context.waker())) {
                waiters.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
