//! Wake-ups between tasks of one shard. Knows no executor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
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
        keep_waker(&mut self.waker.borrow_mut(), context.waker());
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

/// Keeps `waker` in `place`; costs nothing when it is there already.
pub(crate) fn keep_waker(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) => known.clone_from(waker),
        None => *place = Some(waker.clone()),
    }
}

/// Wakers of tasks that wait for the same thing; each leaves when its wait ends, however that is.
#[derive(Debug, Default)]
struct Waiting {
    next_place: Cell<u64>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
}

impl Waiting {
    /// Keeps `waker` at the place of a waiter, which gets one when it has none.
    fn keep(&self, place: &mut Option<u64>, waker: &Waker) {
        let at = *place.get_or_insert_with(|| {
            let next = self.next_place.get();
            self.next_place.set(next + 1);
            next
        });
        let mut wakers = self.wakers.borrow_mut();
        match wakers.get_mut(&at) {
            Some(known) => known.clone_from(waker),
            None => drop(wakers.insert(at, waker.clone())),
        }
    }

    fn leave(&self, place: Option<u64>) {
        if let Some(place) = place {
            self.wakers.borrow_mut().remove(&place);
        }
    }

    fn wake_all(&self) {
        for waker in self.wakers.take().into_values() {
            waker.wake();
        }
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
    waiting: Waiting,
}

impl Flag {
    /// Raises it and wakes everyone.
    pub fn raise(&self) {
        self.inner.raised.set(true);
        self.inner.waiting.wake_all();
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.inner.raised.get()
    }

    /// Waits until it was raised.
    pub fn raised(&self) -> Raised<'_> {
        Raised { flag: self, place: None }
    }
}

/// See [`Flag::raised`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Raised<'a> {
    flag: &'a Flag,
    place: Option<u64>,
}

impl Future for Raised<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.flag.is_raised() {
            return Poll::Ready(());
        }
        let flag = self.flag;
        flag.inner.waiting.keep(&mut self.place, context.waker());
        Poll::Pending
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.flag.inner.waiting.leave(self.place);
    }
}

/// Rings again and again; any number of tasks of one shard may wait for the next time. A task that
/// notes [`Bell::count`] before it looks at a state cannot miss the ring that changes it.
#[derive(Debug, Default)]
pub struct Bell {
    count: Cell<u64>,
    waiting: Waiting,
}

impl Bell {
    /// How often it rang.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Rings, and wakes everyone.
    pub fn ring(&self) {
        self.count.set(self.count.get() + 1);
        self.waiting.wake_all();
    }

    /// Waits until it has rung more than `seen` times.
    pub fn after(&self, seen: u64) -> After<'_> {
        After { bell: self, seen, place: None }
    }
}

/// See [`Bell::after`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct After<'a> {
    bell: &'a Bell,
    seen: u64,
    place: Option<u64>,
}

impl Future for After<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.bell.count() > self.seen {
            return Poll::Ready(());
        }
        let bell = self.bell;
        bell.waiting.keep(&mut self.place, context.waker());
        Poll::Pending
    }
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        self.bell.waiting.leave(self.place);
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

    #[test]
    fn who_gives_up_waiting_leaves_nothing_behind() {
        let (flag, bell) = (Flag::default(), Bell::default());
        for _ in 0..3 {
            assert!(block_on(poll_once(flag.raised())).is_none());
            assert!(block_on(poll_once(bell.after(0))).is_none());
        }
        assert!(flag.inner.waiting.wakers.borrow().is_empty());
        assert!(bell.waiting.wakers.borrow().is_empty());
    }

    #[test]
    fn a_bell_that_rang_before_the_wait_is_not_missed() {
        let bell = Bell::default();
        let seen = bell.count();
        bell.ring();
        block_on(bell.after(seen));
        assert!(block_on(poll_once(bell.after(seen + 1))).is_none());
    }
}
