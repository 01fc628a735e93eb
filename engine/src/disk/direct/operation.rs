//! Operations that run to their end whether or not somebody still waits for them.
//!
//! Glommio cancels what a dropped future had under way: a write not yet submitted never happens, one
//! in the kernel perhaps. Nobody could say which. So a dropped operation is moved into a task.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::disk::IoFuture;
use crate::runtime::LocalFuture;

/// Counts what is under way and wakes those who wait for the last of it. Clones are the same gauge.
#[derive(Clone, Default)]
pub(super) struct Gauge {
    shared: Rc<GaugeState>,
}

#[derive(Default)]
struct GaugeState {
    count: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

impl Gauge {
    pub(super) fn count(&self) -> usize {
        self.shared.count.get()
    }

    pub(super) async fn idle(&self) {
        poll_fn(|context| {
            if self.count() == 0 {
                return Poll::Ready(());
            }
            self.shared.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn enter(&self) {
        self.shared.count.set(self.count() + 1);
    }

    fn leave(&self) {
        self.shared.count.set(self.count() - 1);
        if self.count() == 0 {
            for waker in self.shared.waiting.take() {
                waker.wake();
            }
        }
    }
}

/// Wraps the work of one operation, counted by `gauges` from its first poll to its end.
pub(super) fn operation<T: 'static>(
    gauges: [Option<Gauge>; 2],
    work: LocalFuture<io::Result<T>>,
) -> IoFuture<T> {
    Box::pin(Operation { gauges, work: Some(work), begun: false })
}

struct Operation<T: 'static> {
    gauges: [Option<Gauge>; 2],
    work: Option<LocalFuture<io::Result<T>>>,
    begun: bool,
}

impl<T: 'static> Future for Operation<T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if !self.begun {
            self.begun = true;
            self.gauges.iter().flatten().for_each(Gauge::enter);
        }
        let work = self.work.as_mut().expect("an operation is not polled after its end");
        let Poll::Ready(result) = work.as_mut().poll(context) else { return Poll::Pending };
        // First what the work holds, then the word that it is over: a close waits for that.
        self.work = None;
        self.gauges.iter().flatten().for_each(Gauge::leave);
        Poll::Ready(result)
    }
}

impl<T: 'static> Drop for Operation<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        if !self.begun {
            return;
        }
        let gauges = std::mem::take(&mut self.gauges);
        let rest = async move {
            drop(work.await);
            gauges.iter().flatten().for_each(Gauge::leave);
        };
        // Outside an executor there is nothing left to run it on: glommio panics, the operation ends here.
        let spawned = AssertUnwindSafe(|| glommio::spawn_local(rest).detach());
        if std::panic::catch_unwind(spawned).is_err() {
            tracing::error!("disk operation dropped outside its executor: outcome unknown");
        }
    }
}
