//! `[P]` What one simulated run is like, drawn from its seed: which faults exist at all (a swarm: most runs have few),
//! how the logs are set up, what the clients do.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// How large the batches are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// A few bytes each: many rounds, many batches in a block.
    Tiny,
    /// From one byte to a few blocks: the journal.
    Small,
    /// Around what decides between journal and write-through.
    Edge,
    /// All of these, and some far above 64 KiB.
    Mixed,
}

/// Which things go wrong in a run. Each is on or off for the whole run; when it strikes is drawn later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent switches")]
pub struct FaultSet {
    /// The power is cut, at any disk operation.
    pub power_cut: bool,
    /// The process is killed; its writes land later.
    pub kill: bool,
    /// The power is cut during recovery too.
    pub crash_in_recovery: bool,
    /// A sync fails, the next one lies.
    pub sync_error: bool,
    /// A write fails.
    pub write_error: bool,
    /// A read fails.
    pub read_error: bool,
    /// Names cannot be created, renamed, removed or synced.
    pub name_error: bool,
    /// Writes or syncs hang for a while.
    pub hang: bool,
    /// Somebody else fills the disk for a while.
    pub full_disk: bool,
    /// The disk is small from the beginning.
    pub small_disk: bool,
    /// Operations take many times as long.
    pub slow_disk: bool,
    /// Bits rot while the disk is at rest.
    pub rot: bool,
    /// Writes to segments are reported done and never land.
    pub lost_write: bool,
    /// Writes to segments land somewhere else.
    pub misdirected_write: bool,
}

impl FaultSet {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        power_cut: false,
        kill: false,
        crash_in_recovery: false,
        sync_error: false,
        write_error: false,
        read_error: false,
        name_error: false,
        hang: false,
        full_disk: false,
        small_disk: false,
        slow_disk: false,
        rot: false,
        lost_write: false,
        misdirected_write: false,
    };

    /// Whether bytes that were safely stored can go bad, so that loss is allowed as long as it is reported.
    pub fn damages(&self) -> bool {
        self.rot || self.lost_write || self.misdirected_write
    }
}

/// What is done to the logs besides appending and reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent switches")]
pub struct DutySet {
    /// The log's end is cut off.
    pub truncate: bool,
    /// The log's start is moved on by request.
    pub delete_records: bool,
    /// The log's start is moved on by age and size.
    pub retain: bool,
    /// Logs come and go.
    pub create_and_remove: bool,
    /// Checkpoints are asked for.
    pub checkpoint: bool,
    /// Long pauses, so that idle work is done.
    pub pause: bool,
    /// The number of shards changes from life to life.
    pub reshard: bool,
}

/// One run, but for the random numbers in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Lives of the broker's process before the end.
    pub lives: u32,
    /// Shards of the first life.
    pub shards: u16,
    /// Partitions at the beginning.
    pub partitions: u32,
    /// Idempotent producers.
    pub producers: u32,
    /// Batches in flight per producer, at most five.
    pub in_flight: usize,
    /// Readers.
    pub readers: u32,
    /// Size of batches.
    pub sizes: Sizes,
    /// Longest pause of a client between two calls, in microseconds.
    pub think_us: u64,
    /// Longest life, in milliseconds of virtual time.
    pub life_ms: u64,
    /// `segment.bytes` of the logs.
    pub segment_bytes: u64,
    /// `segment.ms` of the logs.
    pub segment_ms: u64,
    /// Most files of a shard's journal.
    pub journal_files: usize,
    /// Memory for recent batches per shard, in bytes.
    pub cache_bytes: usize,
    /// Bytes that a shard lets be appended ahead of the commit.
    pub pressure_bytes: u64,
    /// Size of the disk in bytes, when it is small.
    pub disk_bytes: u64,
    /// Factor of a slow disk.
    pub slow_factor: u32,
    /// What goes wrong.
    pub faults: FaultSet,
    /// What else is done.
    pub duties: DutySet,
}

impl Options {
    /// The options of `seed`.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Pcg64::seed_from_u64(seed ^ 0x006f_7074_696f_6e73);
        let mut on = |percent: u32| rng.random_range(0..100) < percent;
        // Damage changes what may be expected, so most runs have none.
        let is_damaging = on(25);
        let faults = FaultSet {
            power_cut: on(70),
            kill: on(50),
            crash_in_recovery: on(40),
            sync_error: on(25),
            write_error: on(20),
            read_error: on(10),
            name_error: on(10),
            hang: on(10),
            full_disk: on(15),
            small_disk: on(15),
            slow_disk: on(20),
            rot: is_damaging && on(60),
            lost_write: is_damaging && on(40),
            misdirected_write: is_damaging && on(40),
        };
        let duties = DutySet {
            truncate: on(50),
            delete_records: on(40),
            retain: on(40),
            create_and_remove: on(30),
            checkpoint: on(50),
            pause: on(40),
            reshard: on(40),
        };
        let sizes = match rng.random_range(0..100) {
            0..20 => Sizes::Tiny,
            20..50 => Sizes::Small,
            50..75 => Sizes::Edge,
            _ => Sizes::Mixed,
        };
        let segment_bytes = match rng.random_range(0..3) {
            0 => rng.random_range(150_000..300_000),
            1 => rng.random_range(300_000..2_000_000),
            _ => 64 << 20,
        };
        Self {
            lives: rng.random_range(2..=5),
            shards: rng.random_range(1..=3),
            partitions: rng.random_range(1..=8),
            producers: rng.random_range(1..=10),
            in_flight: rng.random_range(1..=5),
            readers: rng.random_range(0..=2),
            sizes,
            think_us: if rng.random_bool(0.5) { 300 } else { rng.random_range(300..20_000) },
            life_ms: rng.random_range(10..400),
            segment_bytes,
            segment_ms: if rng.random_bool(0.3) { rng.random_range(5..200) } else { 604_800_000 },
            journal_files: rng.random_range(2..=4),
            cache_bytes: if rng.random_bool(0.5) { 16 << 10 } else { 1 << 20 },
            pressure_bytes: if rng.random_bool(0.3) { 100_000 } else { 4 << 20 },
            disk_bytes: rng.random_range(16..64) << 20,
            slow_factor: rng.random_range(2..30),
            faults,
            duties,
        }
    }
}
