//! A disk that forgets: an in-memory tree that outlives the processes on it, with a volatile cache, a
//! seeded power cut and faults by name.
//!
//! * A write sits in the file's cache from its start; readers see it when it completes, after a seeded
//!   time. [`crate::disk::File::sync`] saves exactly the writes that had completed when it was called.
//! * [`SimDisk::crash`]: of every block with an unsaved write, in flight or not, each comes back old,
//!   new or damaged, on its own. Unsaved lengths, allocations and name changes are kept or lost.
//! * [`SimDisk::crash_with_late_writes`]: only the process dies; what it had in flight lands later, and
//!   keeps the file's lock until then.
//! * [`Faults`]: EIO, a sync that fails and then lies, lost, misdirected and hung writes, full disk.
//!
//! Everything follows from the seed; every operation feeds the trace of the [`SimRuntime`].

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use xxhash_rust::xxh3::xxh3_64;

use super::{DirectoryEntry, Disk, File, IoFuture, OpenMode, SharedDisk, Space};
use crate::runtime::simulated::SimRuntime;

pub use fault::{Fault, Faults, Latency, OperationKind};
pub use tamper::Image;

use content::BLOCK_BYTES;
use file::SimFile;
use tree::{NodeId, Tree};

mod content;
mod fault;
mod file;
mod ranges;
mod tamper;
#[cfg(test)]
mod tests;
mod tree;

/// Size of a new simulated disk, in bytes.
pub const CAPACITY_BYTES_DEFAULT: u64 = 1 << 40;

/// Raw error number of a disk that cannot do it.
const EIO: i32 = 5;

/// Raw error number of a read-only file system.
const EROFS: i32 = 30;

/// What a power cut does to data that no sync covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Each block old, new or damaged, each name change kept or lost, by the seed.
    Any,
    /// All is lost, nothing is damaged.
    Lost,
    /// All that had completed is kept: the kindest power cut.
    Kept,
    /// Every block with an unsaved write is damaged; lengths and names by the seed.
    Damaged,
}

/// Which state of the disk is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What a reader sees.
    Visible,
    /// What would surely survive a power cut.
    Durable,
}

/// How often what was done, since the disk was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Operations of any kind.
    pub operations: u64,
    /// Reads of files.
    pub reads: u64,
    /// Writes to files.
    pub writes: u64,
    /// Bytes in these writes.
    pub written_bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Writes that began while another write to one of their blocks was in flight.
    pub overlapping_writes: u64,
}

/// A simulated disk; clones are the same disk. It survives the processes that use it.
#[derive(Clone)]
pub struct SimDisk {
    state: Rc<State>,
}

struct State {
    runtime: SimRuntime,
    inner: RefCell<Inner>,
}

struct Inner {
    tree: Tree,
    handles: BTreeMap<u64, Handle>,
    pending: BTreeMap<u64, Pending>,
    next_id: u64,
    /// Order of completions; never repeats.
    moment: u64,
    capacity_blocks: u64,
    used_blocks: u64,
    latency: Latency,
    faults: Faults,
    latency_rng: Pcg64,
    fault_rng: Pcg64,
    fate_rng: Pcg64,
    counts: Counts,
    /// The power is gone: nothing starts or ends any more until [`SimDisk::crash`].
    frozen: bool,
    crash_at: Option<u64>,
    read_only: bool,
}

/// An open descriptor.
struct Handle {
    node: NodeId,
    in_flight: u32,
    closed: bool,
    waiting_close: Vec<Waker>,
}

/// An operation on its way. It ends whether or not somebody still waits for it.
struct Pending {
    due_ns: u64,
    handle: Option<u64>,
    effect: Box<dyn FnOnce(&mut Inner) -> Ended>,
}

/// Whom to wake after an operation, and the slot with its result, to be let go after that.
type Ended = (Option<Waker>, Rc<dyn Any>);

/// Where the result of an operation is put for the one who waits.
struct Slot<T> {
    result: RefCell<Option<io::Result<T>>>,
    waker: Cell<Option<Waker>>,
}

struct Completion<T> {
    slot: Rc<Slot<T>>,
}

impl<T> Future for Completion<T> {
    type Output = io::Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if let Some(result) = self.slot.result.borrow_mut().take() {
            return Poll::Ready(result);
        }
        self.slot.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl SimDisk {
    /// An empty disk of [`CAPACITY_BYTES_DEFAULT`] whose choices follow from `seed`.
    pub fn new(runtime: &SimRuntime, seed: u64) -> Self {
        let rng = |salt: u64| Pcg64::seed_from_u64(seed ^ salt);
        let inner = Inner {
            tree: Tree::default(),
            handles: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_id: 1,
            moment: 0,
            capacity_blocks: CAPACITY_BYTES_DEFAULT / BLOCK_BYTES as u64,
            used_blocks: 0,
            latency: Latency::default(),
            faults: Faults::none(),
            latency_rng: rng(0x006c_6174_656e_6379),
            fault_rng: rng(0x0066_6175_6c74),
            fate_rng: rng(0x0066_6174_6573),
            counts: Counts::default(),
            frozen: false,
            crash_at: None,
            read_only: false,
        };
        let state = State { runtime: runtime.clone(), inner: RefCell::new(inner) };
        Self { state: Rc::new(state) }
    }

    /// This disk as the engine holds it.
    pub fn shared(&self) -> SharedDisk {
        Rc::new(self.clone())
    }

    /// Sets the disk's size, in bytes. May be less than is in use: then it is full.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.inner().capacity_blocks = bytes / BLOCK_BYTES as u64;
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> u64 {
        self.inner().used_blocks * BLOCK_BYTES as u64
    }

    /// Sets how long operations take from now on.
    pub fn set_latency(&self, latency: Latency) {
        self.inner().latency = latency;
    }

    /// Replaces what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// Adds a fault that strikes once; see [`Faults::with_once`].
    pub fn fail_once(&self, fault: Fault, path_contains: &str, skip: u64) {
        let mut inner = self.inner();
        inner.faults = std::mem::take(&mut inner.faults).with_once(fault, path_contains, skip);
    }

    /// Makes the file system read-only, as the kernel does after an error of its own: whatever would change
    /// something fails with EROFS.
    pub fn set_read_only(&self, read_only: bool) {
        self.inner().read_only = read_only;
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// Cuts the power just before the operation with this number (see [`Counts::operations`]) takes effect:
    /// it and all later ones hang, and the runtime is interrupted so that the test can call a crash.
    pub fn cut_power_at_operation(&self, operation: u64) {
        self.inner().crash_at = Some(operation);
    }

    /// Power cut and restart, with [`Fate::Any`]. Kill the tasks too: their descriptors are void.
    pub fn crash(&self) {
        self.crash_with(Fate::Any);
    }

    /// Power cut and restart.
    pub fn crash_with(&self, fate: Fate) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        inner.tree.crash(fate, &mut inner.fate_rng);
        let pending = std::mem::take(&mut inner.pending);
        let handles = std::mem::take(&mut inner.handles);
        (inner.frozen, inner.crash_at) = (false, None);
        inner.recount();
        let numbers = [inner.moment, pending.len() as u64, inner.used_blocks];
        drop(guard);
        drop((pending, handles));
        self.state.runtime.note("disk crash", &numbers);
    }

    /// The process died, the machine did not: its descriptors are void, but what it had in flight lands
    /// within `latest` from now and keeps its files locked until then. Hung operations stay hung.
    pub fn crash_with_late_writes(&self, latest: Duration) {
        let now_ns = self.state.runtime.now_ns();
        let latest_ns = u64::try_from(latest.as_nanos()).unwrap_or(u64::MAX);
        let mut guard = self.inner();
        let inner = &mut *guard;
        let mut delayed = Vec::new();
        for (id, pending) in &mut inner.pending {
            if pending.due_ns != u64::MAX {
                let delay_ns = inner.latency_rng.random_range(0..=latest_ns);
                pending.due_ns = now_ns.saturating_add(delay_ns);
                delayed.push((*id, pending.due_ns));
            }
        }
        let open: Vec<u64> = inner.handles.keys().copied().collect();
        for handle in open {
            inner.close_handle(handle);
        }
        (inner.frozen, inner.crash_at) = (false, None);
        let numbers = [inner.moment, delayed.len() as u64];
        drop(guard);
        for (id, due_ns) in delayed {
            self.schedule(id, due_ns);
        }
        self.state.runtime.note("process crash", &numbers);
    }

    /// Lets hung operations go on: they end now, in the order they began.
    pub fn release_hung(&self) {
        let now_ns = self.state.runtime.now_ns();
        let mut inner = self.inner();
        let mut released = Vec::new();
        for (id, pending) in &mut inner.pending {
            if pending.due_ns == u64::MAX {
                pending.due_ns = now_ns;
                released.push(*id);
            }
        }
        drop(inner);
        for id in released {
            self.schedule(id, now_ns);
        }
    }

    /// Operations that have begun and not ended.
    pub fn in_flight(&self) -> usize {
        self.inner().pending.len()
    }

    fn inner(&self) -> std::cell::RefMut<'_, Inner> {
        self.state.inner.borrow_mut()
    }

    /// Begins an operation: counts and traces it, lets a fault strike, and has `effect` done to the disk
    /// after a seeded time. `fault` is told to `effect`.
    fn begin<T: 'static>(
        &self,
        kind: OperationKind,
        path: &Path,
        handle: Option<u64>,
        numbers: [u64; 3],
        prepare: impl FnOnce(&mut Inner, Option<Fault>, u64) -> io::Result<Effect<T>>,
    ) -> io::Result<Completion<T>> {
        let slot = Rc::new(Slot { result: RefCell::new(None), waker: Cell::new(None) });
        let completion = Completion { slot: Rc::clone(&slot) };
        let mut guard = self.inner();
        let inner = &mut *guard;
        inner.counts.operations += 1;
        let path_hash = xxh3_64(path.as_os_str().as_encoded_bytes());
        let [first, second, third] = numbers;
        self.state.runtime.note("disk", &[kind as u64, path_hash, first, second, third]);
        if inner.crash_at.is_some_and(|at| inner.counts.operations >= at) {
            (inner.frozen, inner.crash_at) = (true, None);
            self.state.runtime.interrupt();
        }
        if inner.frozen {
            return Ok(completion);
        }
        if inner.read_only && kind.changes_something() {
            return Err(io::Error::from_raw_os_error(EROFS));
        }
        let fault = inner.faults.strike(kind, path, &mut inner.fault_rng);
        let id = inner.take_id();
        let effect = prepare(inner, fault, id)?;
        let latency_ns = inner.latency.draw_ns(kind, &mut inner.latency_rng);
        let due_ns = match fault {
            Some(Fault::WriteHang | Fault::SyncHang) => u64::MAX,
            _ => self.state.runtime.now_ns().saturating_add(latency_ns),
        };
        if let Some(handle) = handle.and_then(|handle| inner.handles.get_mut(&handle)) {
            handle.in_flight += 1;
        }
        let effect = Box::new(move |inner: &mut Inner| {
            let result = effect(inner);
            *slot.result.borrow_mut() = Some(result);
            (slot.waker.take(), slot as Rc<dyn Any>)
        });
        inner.pending.insert(id, Pending { due_ns, handle, effect });
        drop(guard);
        if due_ns != u64::MAX {
            self.schedule(id, due_ns);
        }
        Ok(completion)
    }

    fn schedule(&self, id: u64, due_ns: u64) {
        let disk = self.clone();
        self.state.runtime.call_at(due_ns, move || disk.end(id, due_ns));
    }

    fn end(&self, id: u64, due_ns: u64) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        // A crash may have swept it away or moved it to a later time.
        let is_due = inner.pending.get(&id).is_some_and(|pending| pending.due_ns == due_ns);
        if !is_due || inner.frozen {
            return;
        }
        let Some(pending) = inner.pending.remove(&id) else { return };
        inner.moment += 1;
        let (waker, slot) = (pending.effect)(inner);
        let closers = pending.handle.map(|handle| inner.leave_handle(handle)).unwrap_or_default();
        drop(guard);
        // Only now: a result that nobody waits for may be a file, whose descriptor then closes.
        drop(slot);
        for waker in waker.into_iter().chain(closers) {
            waker.wake();
        }
    }

    /// An operation on names: `effect` happens at once when its time has come.
    fn names<T: 'static>(
        &self,
        kind: OperationKind,
        path: &Path,
        effect: impl FnOnce(&mut Inner) -> io::Result<T> + 'static,
    ) -> IoFuture<T> {
        let (disk, path) = (self.clone(), path.to_owned());
        Box::pin(async move {
            let completion = disk.begin(kind, &path, None, [0; 3], |_, fault, _| {
                let fails = matches!(fault, Some(Fault::NameError | Fault::SyncDirectoryError));
                let effect: Effect<T> = if fails {
                    Box::new(|_| Err(io::Error::from_raw_os_error(EIO)))
                } else {
                    Box::new(effect)
                };
                Ok(effect)
            });
            completion?.await
        })
    }
}

/// What an operation does when its time has come.
type Effect<T> = Box<dyn FnOnce(&mut Inner) -> io::Result<T>>;

impl Inner {
    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn free_blocks(&self) -> u64 {
        self.capacity_blocks.saturating_sub(self.used_blocks)
    }

    /// Counts the blocks in use afresh: those of named files, and of unnamed ones still open.
    fn recount(&mut self) {
        let files = self.tree.files_mut().filter(|file| !file.unnamed || file.open > 0);
        self.used_blocks = files.map(|file| file.content.allocated_blocks()).sum();
    }

    /// A file lost its name: its room is free once nobody has it open.
    fn release_unnamed(&mut self, node: NodeId) {
        if let Some(file) = self.tree.file(node)
            && file.unnamed
            && file.open == 0
        {
            self.used_blocks = self.used_blocks.saturating_sub(file.content.allocated_blocks());
        }
    }

    fn open_handle(&mut self, node: NodeId) -> u64 {
        let id = self.take_id();
        if let Some(file) = self.tree.file_mut(node) {
            file.open += 1;
        }
        let handle = Handle { node, in_flight: 0, closed: false, waiting_close: Vec::new() };
        self.handles.insert(id, handle);
        id
    }

    /// Marks a descriptor closed; it is gone, with its lock, once nothing is in flight on it.
    fn close_handle(&mut self, id: u64) {
        let Some(handle) = self.handles.get_mut(&id) else { return };
        handle.closed = true;
        if handle.in_flight > 0 {
            return;
        }
        let node = handle.node;
        self.handles.remove(&id);
        if let Some(file) = self.tree.file_mut(node) {
            file.open -= 1;
            if file.lock == Some(id) {
                file.lock = None;
            }
        }
        self.release_unnamed(node);
    }

    /// An operation on the descriptor ended; returns those who waited for the close that follows.
    fn leave_handle(&mut self, id: u64) -> Vec<Waker> {
        let Some(handle) = self.handles.get_mut(&id) else { return Vec::new() };
        handle.in_flight -= 1;
        if handle.closed && handle.in_flight == 0 {
            let waiting = std::mem::take(&mut handle.waiting_close);
            self.close_handle(id);
            return waiting;
        }
        Vec::new()
    }
}

impl Disk for SimDisk {
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    fn open(&self, path: &Path, mode: OpenMode) -> IoFuture<Rc<dyn File>> {
        let (disk, owned) = (self.clone(), path.to_owned());
        self.names(OperationKind::Open, path, move |inner| {
            let node = match mode {
                OpenMode::CreateNew if inner.read_only => {
                    return Err(io::Error::from_raw_os_error(EROFS));
                }
                OpenMode::CreateNew => inner.tree.create_file(&owned)?,
                OpenMode::Existing | OpenMode::Stable => inner.tree.file_id(&owned)?,
            };
            let handle = inner.open_handle(node);
            let is_stable = mode == OpenMode::Stable;
            Ok(Rc::new(SimFile::new(disk, handle, owned, is_stable)) as Rc<dyn File>)
        })
    }

    fn create_directory(&self, path: &Path) -> IoFuture<()> {
        let owned = path.to_owned();
        self.names(OperationKind::Name, path, move |inner| inner.tree.create_directory(&owned))
    }

    fn list(&self, path: &Path) -> IoFuture<Vec<DirectoryEntry>> {
        let owned = path.to_owned();
        self.names(OperationKind::Inquiry, path, move |inner| {
            let entries = inner.tree.list(&owned)?.into_iter();
            let entries = entries.map(|(name, is_directory, length_bytes)| DirectoryEntry {
                name,
                is_directory,
                length_bytes,
            });
            Ok(entries.collect())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()> {
        let (owned, to) = (from.to_owned(), to.to_owned());
        self.names(OperationKind::Name, from, move |inner| {
            if let Some(replaced) = inner.tree.rename(&owned, &to)? {
                inner.release_unnamed(replaced);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> IoFuture<()> {
        let owned = path.to_owned();
        self.names(OperationKind::Name, path, move |inner| {
            let node = inner.tree.remove(&owned)?;
            inner.release_unnamed(node);
            Ok(())
        })
    }

    fn remove_directory(&self, path: &Path) -> IoFuture<()> {
        let owned = path.to_owned();
        self.names(OperationKind::Name, path, move |inner| {
            for node in inner.tree.remove_directory(&owned)? {
                inner.release_unnamed(node);
            }
            Ok(())
        })
    }

    fn sync_directory(&self, path: &Path) -> IoFuture<()> {
        let owned = path.to_owned();
        self.names(OperationKind::SyncDirectory, path, move |inner| {
            inner.tree.sync_directory(&owned)
        })
    }

    fn space(&self, path: &Path) -> IoFuture<Space> {
        let owned = path.to_owned();
        self.names(OperationKind::Inquiry, path, move |inner| {
            inner.tree.check_exists(&owned)?;
            let total_bytes = inner.capacity_blocks * BLOCK_BYTES as u64;
            Ok(Space { free_bytes: inner.free_blocks() * BLOCK_BYTES as u64, total_bytes })
        })
    }
}
