//! `cargo xtask starts`: how long a broker with ten thousand segments takes to start after a clean stop, and after a
//! kill with a full journal.

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
    let small = topic(&settings, "small", PARTITIONS, &[])?;
    let load = fill_journal(&settings, small, broker)?;
    let journal = count_bytes(&data, "journal")?;
    let mut broker = Broker::spawn(&settings)?;
    let killed = broker.wait_until_ready()?;
    super::wait_for_leaders(settings.address, &load.targets)?;
    let mut findings = judge::ends_are_kept(&load)?;
    broker.stop()?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "starts: {segments} segments, made in {made:.1?}; clean stop in {stopped:.2?}")?;
    writeln!(out, "starts: ready {clean:.3?} after the clean stop (mark: {CLEAN_MARK:?})")?;
    writeln!(
        out,
        "starts: ready {killed:.3?} after a kill with {} MiB of journal files (mark: {KILLED_MARK:?})",
        journal >> 20
    )?;
    for (name, taken, mark) in [("clean", clean, CLEAN_MARK), ("killed", killed, KILLED_MARK)] {
        if taken > mark {
            findings.push(format!("the {name} start takes {taken:?}"));
        }
    }
    ensure!(findings.is_empty(), "{}; see {}", findings.join("; "), directory.path.display());
    directory.remove()
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
