//! What the bare machine can do: its disk and its loopback, asked as the broker would ask them, with
//! nothing of ours in between. Threads stand for the depth of a queue.

pub mod disk;
pub mod loopback;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::error::BenchError;
use crate::number::{duration, float, share};
use crate::options::Mode;
use crate::result::{Percentiles, Ratios, RunFile, headline};
use disk::{FileState, TestFile};

/// Version of what [`Limits`] looks like in a file.
pub const SCHEMA: u32 = 1;
/// How far before and after a run may be apart for a ratio to mean anything.
pub const DRIFT_MAX: f64 = 0.15;

/// Sizes of blocks that are written and read.
const BLOCKS: [u32; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Blocks under way at once.
const DEPTHS: [u32; 3] = [1, 4, 16];
/// Sizes of writes that are followed by a sync.
const SYNC_SIZES: [u32; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Sizes of writes to the loopback.
const LOOPBACK_SIZES: [u32; 3] = [64 << 10, 256 << 10, 1 << 20];
/// Block and depth of the short check around a run: those that are best on most devices.
const QUICK: (u32, u32) = (1 << 20, 4);

/// Sequential writes or reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Writes, with `O_DIRECT`, without a sync.
    Write,
    /// Reads, with `O_DIRECT`.
    Read,
}

/// How fast blocks of one size went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Which way.
    pub direction: Direction,
    /// Into what.
    pub state: FileState,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Blocks under way at once.
    pub depth: u32,
    /// 10^6 bytes a second.
    pub mb_per_s: f64,
}

/// How long a write and fdatasync took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncTime {
    /// Into what.
    pub state: FileState,
    /// Bytes of the write.
    pub bytes: u32,
    /// Both calls together.
    pub latency: Percentiles,
    /// 10^6 bytes a second, one after the other.
    pub mb_per_s: f64,
}

/// How fast bytes went from one socket to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loopback {
    /// Bytes of a write.
    pub block_bytes: u32,
    /// 10^6 bytes a second.
    pub mb_per_s: f64,
}

/// The bare machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Which machine and directory.
    pub environment: Environment,
    /// Sequential writes and reads.
    pub disk: Vec<Throughput>,
    /// Writes with sync.
    pub sync: Vec<SyncTime>,
    /// Loopback.
    pub loopback: Vec<Loopback>,
    /// There and back, 100 B each way.
    pub round_trip: Percentiles,
}

/// How thorough to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// Length of the test file.
    pub file_bytes: u64,
    /// For each point.
    pub point_s: f64,
}

impl Limits {
    /// Fastest of a direction, in 10^6 bytes a second.
    pub fn best(&self, direction: Direction) -> f64 {
        let points = self.disk.iter().filter(|point| point.direction == direction);
        points.map(|point| point.mb_per_s).fold(0.0, f64::max)
    }

    /// Fastest loopback.
    pub fn best_loopback(&self) -> f64 {
        self.loopback.iter().map(|point| point.mb_per_s).fold(0.0, f64::max)
    }

    /// The sync time into an overwritten file, as the broker's journal is one, nearest to `bytes`.
    pub fn sync_near(&self, bytes: u64) -> Option<&SyncTime> {
        let points = self.sync.iter().filter(|point| point.state == FileState::Overwritten);
        points.min_by_key(|point| u64::from(point.bytes).abs_diff(bytes))
    }
}

/// Everything, point by point; `told` hears each result in a line.
///
/// # Errors
/// [`BenchError::System`] when the directory cannot be written with `O_DIRECT`.
pub fn measure(
    directory: &Path,
    effort: Effort,
    told: &mut dyn FnMut(&str),
) -> Result<Limits, BenchError> {
    let mut limits = empty(directory);
    for state in [FileState::Fresh, FileState::Overwritten] {
        for block_bytes in BLOCKS {
            for depth in DEPTHS {
                let file = TestFile::create(directory, effort.file_bytes, state)?;
                let point = throughput(&file, Direction::Write, block_bytes, depth, effort)?;
                told(&format!("{state} {}", line(&point)));
                limits.disk.push(point);
            }
        }
    }
    let file = TestFile::create(directory, effort.file_bytes, FileState::Overwritten)?;
    for block_bytes in BLOCKS {
        for depth in DEPTHS {
            let point = throughput(&file, Direction::Read, block_bytes, depth, effort)?;
            told(&line(&point));
            limits.disk.push(point);
        }
    }
    for state in [FileState::Fresh, FileState::Overwritten] {
        for bytes in SYNC_SIZES {
            let file = TestFile::create(directory, effort.file_bytes, state)?;
            let point = sync_time(&file, bytes, effort)?;
            let at = |name: &str| {
                point.latency.at.get(name).map_or_else(String::new, |ns| duration(*ns))
            };
            told(&format!(
                "{state} write and fdatasync {}: p50 {} p99 {}",
                crate::number::bytes(bytes.into()),
                at("p50"),
                at("p99")
            ));
            limits.sync.push(point);
        }
    }
    for block_bytes in LOOPBACK_SIZES {
        let mb_per_s = loopback::throughput(block_bytes, effort.point_s)?;
        told(&format!("loopback {}: {mb_per_s:.0} MB/s", crate::number::bytes(block_bytes.into())));
        limits.loopback.push(Loopback { block_bytes, mb_per_s });
    }
    limits.round_trip = Percentiles::of(&loopback::round_trips(effort.point_s)?);
    Ok(limits)
}

/// A few seconds' worth: the best points, and syncs of `sync_bytes`.
///
/// # Errors
/// As [`measure`].
pub fn quick(directory: &Path, sync_bytes: u64, effort: Effort) -> Result<Limits, BenchError> {
    let mut limits = empty(directory);
    let (block_bytes, depth) = QUICK;
    for state in [FileState::Fresh, FileState::Overwritten] {
        let file = TestFile::create(directory, effort.file_bytes, state)?;
        limits.disk.push(throughput(&file, Direction::Write, block_bytes, depth, effort)?);
        if state == FileState::Overwritten {
            limits.disk.push(throughput(&file, Direction::Read, block_bytes, depth, effort)?);
            let blocks = sync_bytes.div_ceil(4096).clamp(1, 256);
            let bytes = u32::try_from(blocks * 4096).unwrap_or(block_bytes);
            limits.sync.push(sync_time(&file, bytes, effort)?);
        }
    }
    let mb_per_s = loopback::throughput(block_bytes, effort.point_s)?;
    limits.loopback.push(Loopback { block_bytes, mb_per_s });
    Ok(limits)
}

/// Puts a run into relation to what was measured before and after it.
pub fn ratios(run: &RunFile, before: &Limits, after: &Limits) -> Ratios {
    let lower = |of: &dyn Fn(&Limits) -> f64| of(before).min(of(after));
    let apart = |of: &dyn Fn(&Limits) -> f64| {
        share((of(before) - of(after)).abs(), of(before).max(of(after)))
    };
    let write = |limits: &Limits| limits.best(Direction::Write);
    let loopback = |limits: &Limits| limits.best_loopback();
    let read = |limits: &Limits| limits.best(Direction::Read);
    let disk_write_mb_per_s = lower(&write);
    let disk_read_mb_per_s = lower(&read);
    let loopback_mb_per_s = lower(&loopback);
    // Only afterwards is known how many bytes a batch had, and so what to compare with.
    let sync = after.sync.first();
    let sync_ns = |name: &str| sync.and_then(|sync| sync.latency.at.get(name).copied());
    let names = ["p50", "p99", "p99.9"];
    let sync_ns = names.map(sync_ns);
    let own = headline(run).map(|(_, percentiles)| percentiles);
    let mut latency = [None; 3];
    for ((slot, name), bare) in latency.iter_mut().zip(names).zip(sync_ns) {
        let at = own.and_then(|own| own.at.get(name));
        *slot = at.zip(bare).map(|(ns, bare)| share(float(*ns), float(bare)));
    }
    let (reached_mb_per_s, disk_mb_per_s, disk_drift) = match run.options.mode {
        Mode::Consume => (run.totals.received_mb_per_s, disk_read_mb_per_s, apart(&read)),
        Mode::Produce | Mode::EndToEnd => {
            (run.totals.acked_mb_per_s, disk_write_mb_per_s, apart(&write))
        }
    };
    let drift = disk_drift.max(apart(&loopback));
    Ratios {
        disk_write_mb_per_s,
        disk_read_mb_per_s,
        loopback_mb_per_s,
        drift,
        valid: drift <= DRIFT_MAX,
        throughput: share(reached_mb_per_s, disk_mb_per_s.min(loopback_mb_per_s)),
        sync_bytes: sync.map_or(0, |sync| sync.bytes.into()),
        sync_ns,
        latency,
    }
}

fn empty(directory: &Path) -> Limits {
    Limits {
        schema: SCHEMA,
        environment: Environment::look(directory),
        disk: Vec::new(),
        sync: Vec::new(),
        loopback: Vec::new(),
        round_trip: Percentiles::default(),
    }
}

fn throughput(
    file: &TestFile,
    direction: Direction,
    block_bytes: u32,
    depth: u32,
    effort: Effort,
) -> Result<Throughput, BenchError> {
    let mb_per_s = file.throughput(direction, block_bytes, depth, effort.point_s)?;
    Ok(Throughput { direction, state: file.state(), block_bytes, depth, mb_per_s })
}

fn sync_time(file: &TestFile, bytes: u32, effort: Effort) -> Result<SyncTime, BenchError> {
    let latency = Percentiles::of(&file.sync_times(bytes, effort.point_s)?);
    let mb_per_s = share(float(bytes.into()) * 1e3, latency.mean_ns);
    Ok(SyncTime { state: file.state(), bytes, latency, mb_per_s })
}

fn line(point: &Throughput) -> String {
    let what = match point.direction {
        Direction::Write => "write",
        Direction::Read => "read",
    };
    let block = crate::number::bytes(point.block_bytes.into());
    format!("{what} {block} × {}: {:.0} MB/s", point.depth, point.mb_per_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::side::tests::run_file;

    #[test]
    fn a_small_effort_gives_every_kind_of_figure() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let effort = Effort { file_bytes: 8 << 20, point_s: 0.02 };
        let limits = quick(directory.path(), 5000, effort).unwrap();
        assert!(limits.best(Direction::Write) > 0.0);
        assert!(limits.best(Direction::Read) > 0.0);
        assert!(limits.best_loopback() > 0.0);
        let sync = limits.sync_near(8192).unwrap();
        assert_eq!(sync.bytes, 8192);
        assert!(sync.latency.at["p50"] > 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files go");
    }

    #[test]
    fn a_run_is_set_beside_what_it_did_to_the_disk() {
        let limits = |write: f64, read: f64| {
            let mut limits = empty(std::path::Path::new("."));
            for (direction, mb_per_s) in [(Direction::Write, write), (Direction::Read, read)] {
                let state = FileState::Overwritten;
                limits.disk.push(Throughput {
                    direction,
                    state,
                    block_bytes: 1 << 20,
                    depth: 4,
                    mb_per_s,
                });
            }
            limits.loopback.push(Loopback { block_bytes: 1 << 20, mb_per_s: 3000.0 });
            limits
        };
        // Reads are steady, writes are not.
        let (before, after) = (limits(1000.0, 500.0), limits(400.0, 500.0));
        let mut run = run_file(1.0);
        run.totals.acked_mb_per_s = 200.0;
        run.totals.received_mb_per_s = 250.0;
        let produced = ratios(&run, &before, &after);
        assert!((produced.throughput - 0.5).abs() < 1e-9, "{produced:?}");
        assert!(!produced.valid);
        run.options.mode = Mode::Consume;
        let consumed = ratios(&run, &before, &after);
        assert!((consumed.throughput - 0.5).abs() < 1e-9, "{consumed:?}");
        assert!(consumed.valid);
        run.totals.received_mb_per_s = 125.0;
        assert!((ratios(&run, &before, &after).throughput - 0.25).abs() < 1e-9);
    }
}
