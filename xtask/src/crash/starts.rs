//! `cargo xtask starts`: how long a broker with ten thousand segments takes to start after a clean stop, and after
//! kills with a full journal: one that speaks of few logs and one that speaks of a thousand.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::broker::{self, Broker, BrokerSettings};
use super::producer::{self, Load};
use super::sequential::SequentialProducer;
use super::wire::{Connection, Target};
use super::{clock, judge, stop};

/// Which broker, and how many segments.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Segments that the logs have together.
    #[arg(long, default_value_t = 10_000)]
    segments: usize,
    /// A `levada` that is built already.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

const CLEAN_MARK: Duration = Duration::from_secs(1);
const KILLED_MARK: Duration = Duration::from_secs(2);
const TOPIC: &str = "rolls";
const PARTITIONS: i32 = 16;
const MANY_PARTITIONS: i32 = 1_000;
/// How full a journal is at a kill is chance; the slowest start of these is reported.
const KILLS: usize = 3;
/// Two batches of [`VALUE_BYTES`] roll.
const SEGMENT_BYTES: &str = "65536";
const VALUE_BYTES: usize = 40_000;
/// More than all journal files of both shards hold.
const JOURNAL_LOAD_BYTES: u64 = 1 << 30;
const LOAD_LIMIT: Duration = Duration::from_mins(2);

/// Makes the segments and measures.
///
/// # Errors
/// When a start takes longer than its mark, or loses something.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let directory = super::fresh_directory("starts")?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => broker::build(&["--release"])?,
    };
    let data = directory.path.join("data");
    let settings = BrokerSettings::new(&binary, &data, &directory.path.join("broker.log"))?;
    let mut broker = Broker::spawn(&settings)?;
    broker.wait_until_ready()?;
    let rolls = topic(&settings, TOPIC, PARTITIONS, &[("segment.bytes", SEGMENT_BYTES)])?;
    let begin = clock::now();
    make_segments(&settings, &rolls, &data, options.segments)?;
    let (segments, made) = (count_segments(&data)?, clock::now() - begin);
    let stopped = broker.stop()?;

    let mut broker = Broker::spawn(&settings)?;
    let clean = broker.wait_until_ready()?;
    let few = topic(&settings, "few", PARTITIONS, &[])?;
    let many = topic(&settings, "many", MANY_PARTITIONS, &[])?;
    let mut findings = Vec::new();
    let mut killed = Vec::new();
    for targets in [&few, &many] {
        let mut slowest = Killed { ready: Duration::ZERO, journal_bytes: 0 };
        for _ in 0..KILLS {
            let load = fill_journal(&settings, targets.clone(), broker)?;
            let journal_bytes = count_bytes(&data, "journal")?;
            broker = Broker::spawn(&settings)?;
            let ready = broker.wait_until_ready()?;
            super::wait_for_leaders(settings.address, &load.targets)?;
            findings.extend(judge::ends_are_kept(&load)?);
            slowest = slowest.max(Killed { ready, journal_bytes });
        }
        killed.push((targets.len(), slowest));
    }
    broker.stop()?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "starts: {segments} segments, made in {made:.1?}; clean stop in {stopped:.2?}")?;
    writeln!(out, "starts: ready {clean:.3?} after the clean stop (mark: {CLEAN_MARK:?})")?;
    let mut measured = vec![("clean".to_owned(), clean, CLEAN_MARK)];
    for (partitions, slowest) in killed {
        writeln!(
            out,
            "starts: ready {:.3?} after the worst of {KILLS} kills under load on {partitions} partitions, with {} MiB of \
             journal files (mark: {KILLED_MARK:?})",
            slowest.ready,
            slowest.journal_bytes >> 20
        )?;
        measured.push((format!("killed ({partitions} partitions)"), slowest.ready, KILLED_MARK));
    }
    for (name, taken, mark) in measured {
        if taken > mark {
            findings.push(format!("the {name} start takes {taken:?}"));
        }
    }
    ensure!(findings.is_empty(), "{}; see {}", findings.join("; "), directory.path.display());
    directory.remove()
}

/// A start after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Killed {
    ready: Duration,
    journal_bytes: u64,
}

fn topic(
    settings: &BrokerSettings,
    name: &str,
    partitions: i32,
    overrides: &[(&str, &str)],
) -> anyhow::Result<Vec<Target>> {
    Connection::open(settings.address)?.create_topic(name, partitions, overrides)?;
    let targets: Vec<_> =
        (0..partitions).map(|partition| Target { topic: name.to_owned(), partition }).collect();
    super::wait_for_leaders(settings.address, &targets)?;
    Ok(targets)
}

fn make_segments(
    settings: &BrokerSettings,
    targets: &[Target],
    data: &Path,
    wanted: usize,
) -> anyhow::Result<()> {
    const PRODUCERS: usize = 8;
    let per_producer = targets.len() / PRODUCERS;
    while count_segments(data)? < wanted {
        stop::check()?;
        let missing = wanted - count_segments(data)?;
        let each = missing / targets.len() + 2;
        let threads: Vec<_> = targets
            .chunks(per_producer)
            .zip(1_u32..)
            .map(|(targets, client)| {
                let (address, targets) = (settings.address, targets.to_vec());
                thread::spawn(move || -> anyhow::Result<()> {
                    let mut producer = SequentialProducer::new(address, client, &targets)?;
                    for _ in 0..each {
                        for target in 0..targets.len() {
                            producer.produce(target, 1, VALUE_BYTES)?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("a producer panicked")?;
        }
        eprintln!("{} segments", count_segments(data)?);
    }
    Ok(())
}

/// Kills the broker under a load of small batches that has gone through the whole journal.
fn fill_journal(
    settings: &BrokerSettings,
    targets: Vec<Target>,
    broker: Broker,
) -> anyhow::Result<Arc<Load>> {
    let load = Arc::new(Load::new(settings.address, targets, u64::MAX));
    let producers: Vec<_> = (0..8)
        .map(|client| {
            let load = Arc::clone(&load);
            thread::spawn(move || producer::run(load, client, 7))
        })
        .collect();
    let end = clock::now() + LOAD_LIMIT;
    while load.bytes.load(Ordering::Relaxed) < JOURNAL_LOAD_BYTES && clock::now() < end {
        stop::check()?;
        clock::wait(Duration::from_millis(20));
    }
    broker.kill()?;
    load.giving_up.store(true, Ordering::Relaxed);
    for producer in producers {
        producer.join().expect("a producer panicked")?;
    }
    Ok(load)
}

fn count_segments(directory: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    walk(directory, &mut |path, _| {
        count += usize::from(path.extension().is_some_and(|e| e == "log"));
    })?;
    Ok(count)
}

fn count_bytes(directory: &Path, name: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    walk(directory, &mut |path, length| {
        if path.to_string_lossy().contains(name) {
            bytes += length;
        }
    })?;
    Ok(bytes)
}

fn walk(directory: &Path, see: &mut dyn FnMut(&Path, u64)) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        // Files may go while this looks.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), see)?;
        } else {
            see(&entry.path(), metadata.len());
        }
    }
    Ok(())
}
