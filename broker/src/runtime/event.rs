//! Wake-ups between tasks of one shard. Knows no executor.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// One task waits, others of the same shard notify it. A notification that comes before the wait
/// is kept; several count as one.
#[derive(Debug, Default)]
pub struct Event {
    set: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Event {
    /// Ends the current wait, or the next one.
    pub fn notify(&self) {
        self.set.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the notification if there is one, else arranges to be woken.
    pub fn poll_wait(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.set.take() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    /// Waits for a notification.
    pub fn wait(&self) -> Wait<'_> {
        Wait { event: self }
    }
}

/// See [`Event::wait`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Wait<'a> {
    event: &'a Event,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.event.poll_wait(context)
    }
}

/// A flag that is raised once and that any number of tasks of one shard may wait for.
#[derive(Debug, Clone, Default)]
pub struct Flag {
    inner: Rc<FlagInner>,
}

#[derive(Debug, Default)]
struct FlagInner {
    raised: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Flag {
    /// Raises it and wakes everyone.
    pub fn raise(&self) {
        self.inner.raised.set(true);
        for waker in self.inner.wakers.take() {
            waker.wake();
        }
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.inner.raised.get()
    }

    /// Ready once it was raised; else arranges to be woken.
    pub fn poll_raised(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_raised() {
            return Poll::Ready(());
        }
        let mut wakers = self.inner.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until it was raised.
    pub async fn raised(&self) {
        std::future::poll_fn(|context| self.poll_raised(context)).await;
    }
}

/// Rings again and again; any number of tasks of one shard may wait for the next time. A task that
/// notes [`Bell::count`] before it looks at a state cannot miss the ring that changes it.
#[derive(Debug, Default)]
pub struct Bell {
    count: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Bell {
    /// How often it rang.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Rings, and wakes everyone.
    pub fn ring(&self) {
        self.count.set(self.count.get() + 1);
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    /// Waits until it has rung more than `seen` times.
    pub async fn after(&self, seen: u64) {
        std::future::poll_fn(|context| {
            if self.count.get() > seen {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_notification_before_the_wait_is_kept_and_counts_once() {
        let event = Event::default();
        event.notify();
        event.notify();
        block_on(event.wait());
        assert!(block_on(poll_once(event.wait())).is_none());
    }

    #[test]
    fn a_flag_wakes_all_and_stays_raised() {
        let flag = Flag::default();
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(flag.raised())).collect();
        for wait in &mut waits {
            assert!(block_on(poll_once(wait)).is_none());
        }
        flag.raise();
        for wait in waits {
            block_on(wait);
        }
        block_on(flag.raised());
    }
}
