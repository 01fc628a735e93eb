//! What a simulated disk does wrong, and when: by chance, or once at a chosen operation.

use std::path::Path;
use std::time::Duration;

use rand::Rng;
use rand_pcg::Pcg64;

/// Kind of a disk operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// [`crate::disk::File::read_at`]
    Read,
    /// [`crate::disk::File::write_at`]
    Write,
    /// [`crate::disk::File::sync`]
    Sync,
    /// [`crate::disk::File::allocate`]
    Allocate,
    /// [`crate::disk::File::truncate`]
    Truncate,
    /// [`crate::disk::Disk::open`]
    Open,
    /// Create, rename and remove: all that changes names, but not their syncs.
    Name,
    /// [`crate::disk::Disk::sync_directory`]
    SyncDirectory,
    /// Lengths, lists and free space.
    Inquiry,
}

impl OperationKind {
    /// Whether a read-only file system refuses it. Opening depends on whether it creates.
    pub(super) fn changes_something(self) -> bool {
        match self {
            Self::Write | Self::Allocate | Self::Truncate | Self::Name => true,
            Self::Read | Self::Sync | Self::Open | Self::SyncDirectory | Self::Inquiry => false,
        }
    }
}

/// One way to go wrong. Each concerns one kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A read returns EIO.
    ReadError,
    /// A write returns EIO; each of its blocks may have landed or not.
    WriteError,
    /// A write reports success and never lands.
    LostWrite,
    /// A write reports success and lands in another block, of this or another file.
    MisdirectedWrite,
    /// A write hangs until [`super::SimDisk::release_hung`].
    WriteHang,
    /// A sync returns EIO and the device forgets what it covered; the next sync returns Ok.
    SyncError,
    /// A sync hangs until [`super::SimDisk::release_hung`].
    SyncHang,
    /// An allocation is refused as if the disk were full.
    AllocateRefused,
    /// Create, rename or remove returns EIO and does nothing.
    NameError,
    /// A directory sync returns EIO and does nothing.
    SyncDirectoryError,
}

impl Fault {
    /// What it can happen to.
    pub fn concerns(self) -> OperationKind {
        match self {
            Self::ReadError => OperationKind::Read,
            Self::WriteError | Self::LostWrite | Self::MisdirectedWrite | Self::WriteHang => {
                OperationKind::Write
            }
            Self::SyncError | Self::SyncHang => OperationKind::Sync,
            Self::AllocateRefused => OperationKind::Allocate,
            Self::NameError => OperationKind::Name,
            Self::SyncDirectoryError => OperationKind::SyncDirectory,
        }
    }
}

/// Faults by chance and by appointment.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    chances: Vec<(Fault, u32)>,
    appointments: Vec<Appointment>,
}

#[derive(Debug, Clone)]
struct Appointment {
    fault: Fault,
    /// Part of the path; empty is any.
    path_contains: String,
    /// Matching operations to let pass first.
    skip: u64,
}

impl Faults {
    /// A disk that does no wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// `fault` befalls each operation it concerns with this chance, in millionths.
    #[must_use]
    pub fn with_chance(mut self, fault: Fault, per_million: u32) -> Self {
        self.chances.push((fault, per_million));
        self
    }

    /// `fault` befalls, once, the operation it concerns that comes after `skip` others of that kind whose
    /// path contains `path_contains` (empty: any).
    #[must_use]
    pub fn with_once(mut self, fault: Fault, path_contains: &str, skip: u64) -> Self {
        let path_contains = path_contains.to_owned();
        self.appointments.push(Appointment { fault, path_contains, skip });
        self
    }

    /// The fault that befalls this operation.
    pub(super) fn strike(
        &mut self,
        kind: OperationKind,
        path: &Path,
        rng: &mut Pcg64,
    ) -> Option<Fault> {
        let path = path.to_string_lossy();
        let mut due = None;
        for (index, appointment) in self.appointments.iter_mut().enumerate() {
            let matches = appointment.fault.concerns() == kind
                && path.contains(appointment.path_contains.as_str());
            if !matches {
                continue;
            }
            if appointment.skip == 0 {
                due = due.or(Some(index));
            } else {
                appointment.skip -= 1;
            }
        }
        if let Some(index) = due {
            return Some(self.appointments.remove(index).fault);
        }
        let chances = self.chances.iter().filter(|(fault, _)| fault.concerns() == kind);
        chances
            .copied()
            .find(|(_, per_million)| rng.random_range(0..1_000_000) < *per_million)
            .map(|c| c.0)
    }
}

/// How long operations take, in virtual time; each draws from its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    /// Per read: shortest and longest.
    pub read: (Duration, Duration),
    /// Per write: shortest and longest.
    pub write: (Duration, Duration),
    /// Per sync of a file or directory: shortest and longest.
    pub sync: (Duration, Duration),
    /// Everything else: shortest and longest.
    pub other: (Duration, Duration),
}

impl Default for Latency {
    fn default() -> Self {
        let micros = |from, to| (Duration::from_micros(from), Duration::from_micros(to));
        Self {
            read: micros(40, 200),
            write: micros(30, 300),
            sync: micros(50, 800),
            other: micros(2, 100),
        }
    }
}

impl Latency {
    /// Every operation takes `factor` times as long: a slow disk.
    #[must_use]
    pub fn slowed(&self, factor: u32) -> Self {
        let slow = |range: (Duration, Duration)| (range.0 * factor, range.1 * factor);
        Self {
            read: slow(self.read),
            write: slow(self.write),
            sync: slow(self.sync),
            other: slow(self.other),
        }
    }

    pub(super) fn draw_ns(&self, kind: OperationKind, rng: &mut Pcg64) -> u64 {
        let (from, to) = match kind {
            OperationKind::Read => self.read,
            OperationKind::Write => self.write,
            OperationKind::Sync | OperationKind::SyncDirectory => self.sync,
            OperationKind::Allocate
            | OperationKind::Truncate
            | OperationKind::Open
            | OperationKind::Name
            | OperationKind::Inquiry => self.other,
        };
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        rng.random_range(nanos(from)..=nanos(to.max(from)))
    }
}
