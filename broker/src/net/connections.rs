//! All client connections of one shard: counted, looked at for deadlines, complained of at a bounded
//! rate.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::connection::{CloseReason, Connection};
use crate::shard::Shard;

/// Complaints that are logged within one window.
const COMPLAINTS_PER_WINDOW: u32 = 20;

/// Length of a window of complaints, in nanoseconds.
const WINDOW_NS: u64 = 10_000_000_000;

/// Ticks for which somebody must wait for the request budget before an unfinished request that
/// holds some of it is thrown out.
const PRESSED_TICKS: u32 = 10;

/// A request that will be whole within so long, in nanoseconds, is not thrown out.
const NEARLY_WHOLE_NS: u64 = 2_000_000_000;

/// See the top of this file.
#[derive(Default)]
pub struct Connections {
    open: RefCell<BTreeMap<u64, Rc<Connection>>>,
    next_id: Cell<u64>,
    window_began_ns: Cell<u64>,
    complaints: Cell<u32>,
    kept_quiet: Cell<u32>,
    pressed_ticks: Cell<u32>,
}

impl Connections {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enters one; gives the number to take it out with.
    pub fn enter(&self, connection: &Rc<Connection>) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        self.open.borrow_mut().insert(id, Rc::clone(connection));
        id
    }

    /// Takes one out.
    pub fn leave(&self, id: u64) {
        self.open.borrow_mut().remove(&id);
    }

    /// Closes those whose deadline has passed, and one that stands in the way of others.
    pub fn on_tick(&self, shard: &Shard, now_ns: u64) {
        let open: Vec<_> = self.open.borrow().values().cloned().collect();
        for connection in &open {
            if let Some(reason) = connection.overdue(now_ns, &shard.config) {
                connection.close(reason);
            } else {
                connection.shrink_when_idle();
            }
        }
        let pressed = if shard.requests.waiting() > 0 { self.pressed_ticks.get() + 1 } else { 0 };
        self.pressed_ticks.set(pressed);
        if pressed >= PRESSED_TICKS {
            let slowest = open
                .iter()
                .filter_map(|connection| Some((connection.whole_in_ns(now_ns)?, connection)))
                .max_by_key(|(whole_in_ns, _)| *whole_in_ns);
            if let Some((whole_in_ns, connection)) = slowest
                && whole_in_ns > NEARLY_WHOLE_NS
            {
                self.pressed_ticks.set(0);
                connection.close(CloseReason::InTheWay);
            }
        }
    }

    /// Has all of them read no more, answer what was asked, and end.
    pub fn drain_all(&self) {
        for connection in self.open.borrow().values() {
            connection.drain();
        }
    }

    /// Closes all of them; replies that are owed are not sent any more.
    pub fn close_all(&self) {
        for connection in self.open.borrow().values() {
            connection.close(CloseReason::Stopping);
        }
    }

    /// Logs why a peer was turned away, unless too much is logged already.
    pub fn complain(&self, shard: &Shard, peer: SocketAddr, reason: &dyn std::fmt::Display) {
        if self.may_log(shard) {
            tracing::warn!(%peer, %reason, "connection closed");
        }
    }

    /// The same for connections that never came to be.
    pub fn complain_of_accept(&self, shard: &Shard, error: &io::Error) {
        if self.may_log(shard) {
            tracing::warn!(%error, "accept failed");
        }
    }

    fn may_log(&self, shard: &Shard) -> bool {
        let now_ns = shard.runtime.now().monotonic_ns;
        if now_ns.saturating_sub(self.window_began_ns.get()) > WINDOW_NS {
            let kept_quiet = self.kept_quiet.take();
            if kept_quiet > 0 {
                tracing::warn!(
                    count = kept_quiet,
                    "more connections closed, not logged one by one"
                );
            }
            self.window_began_ns.set(now_ns);
            self.complaints.set(0);
        }
        if self.complaints.get() < COMPLAINTS_PER_WINDOW {
            self.complaints.set(self.complaints.get() + 1);
            return true;
        }
        self.kept_quiet.set(self.kept_quiet.get() + 1);
        false
    }
}
