//! `cargo xtask fulldisk`: a broker fills a file system of 64 MiB. Produce must get the retriable error, everything else
//! must answer, restarts while full must lose nothing, and the deletion of a topic must bring produce back.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::FulldiskOptions;
use super::mounts::{self, Mount};
use crate::crash::broker::{self, Broker, BrokerSettings};
use crate::crash::sequential::SequentialProducer;
use crate::crash::wire::{Connection, STORAGE_ERROR, Target};
use crate::crash::{self, clock, judge, stop};

const DISK_BYTES: u64 = 64 << 20;
/// The disk counts as full when so many batches in turn were refused, of every partition.
const REFUSALS: u32 = 40;
const FILL_LIMIT: Duration = Duration::from_mins(2);
/// How long produce may stay refused after the deletion.
const BACK_LIMIT: Duration = Duration::from_mins(1);
/// The last target is the topic that stays.
const KEEP: usize = 4;

/// Fills the disk, or says why this machine cannot.
///
/// # Errors
/// When the broker does something else than it should.
pub(crate) fn run(options: &FulldiskOptions) -> anyhow::Result<()> {
    if let Some(reason) = mounts::missing(false) {
        eprintln!("fulldisk: skipped: {reason}");
        return Ok(());
    }
    stop::watch()?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => broker::build(&["--release"])?,
    };
    let directory = crash::fresh_directory("fulldisk")?;
    let image = directory.path.join("disk.img");
    let mount_point = directory.path.join("mount");
    fs::create_dir(&mount_point)?;
    File::create_new(&image)?.set_len(DISK_BYTES)?;
    Mount::format(&image, &["-b", "4096", "-m", "0"])?;
    let mount = Mount::new(&image, &mount_point)?;
    let filled = fill(&binary, &mount_point, &directory.path);
    mount.unmount()?;
    fs::remove_file(&image)?;
    filled.with_context(|| format!("see {}", directory.path.display()))?;
    directory.remove()
}

fn fill(binary: &Path, mount_point: &Path, directory: &Path) -> anyhow::Result<()> {
    let settings =
        BrokerSettings::new(binary, &mount_point.join("data"), &directory.join("broker.log"))?;
    let address = settings.address;
    let mut broker = Broker::spawn(&settings)?;
    broker.wait_until_ready()?;
    let mut control = Connection::open(address)?;
    control.create_topic("fill", 4, &[])?;
    control.create_topic("keep", 1, &[])?;
    let mut targets: Vec<_> =
        (0..4).map(|partition| Target { topic: "fill".to_owned(), partition }).collect();
    targets.push(Target { topic: "keep".to_owned(), partition: 0 });
    crash::wait_for_leaders(address, &targets)?;
    let mut producer = SequentialProducer::new(address, 0, &targets)?;

    let batches = fill_up(&mut producer)?;
    say(&format!("full after {batches} batches of 16 KiB: error {STORAGE_ERROR}"))?;
    answers(address, &targets, &producer)?;
    say("full: metadata, list offsets and fetch answer, everything acknowledged is there")?;

    broker.kill()?;
    let mut broker = Broker::spawn(&settings)?;
    let killed = broker.wait_until_ready().context("the start after a kill while full")?;
    crash::wait_for_leaders(address, &targets)?;
    answers(address, &targets, &producer).context("after a kill while full")?;
    producer.reconnect()?;
    fill_up(&mut producer).context("after a kill while full")?;
    broker.stop().context("the stop while full")?;
    let mut broker = Broker::spawn(&settings)?;
    let clean = broker.wait_until_ready().context("the start after a stop while full")?;
    crash::wait_for_leaders(address, &targets)?;
    answers(address, &targets, &producer).context("after a stop while full")?;
    say(&format!(
        "restarts while full lose nothing: {killed:.2?} after a kill, {clean:.2?} clean"
    ))?;

    producer.reconnect()?;
    Connection::open(address)?.delete_topic("fill")?;
    let begin = clock::now();
    while producer.produce(KEEP, 1, 16 << 10)? != 0 {
        stop::check()?;
        ensure!(clock::now() - begin < BACK_LIMIT, "produce stays refused after the deletion");
        clock::wait(Duration::from_millis(20));
    }
    say(&format!("produce is back {:.2?} after the deletion", clock::now() - begin))?;
    let left = vec![targets[KEEP].clone()];
    let mut ledger = std::mem::take(&mut producer.ledger);
    ledger.sent.drain(..KEEP);
    let verdict = judge::judge(address, &left, &[ledger])?;
    ensure!(verdict.is_clean(), "{verdict:?}");
    broker.stop()?;
    Ok(())
}

/// Produces until every partition is refused again and again; the number of batches that were taken.
fn fill_up(producer: &mut SequentialProducer) -> anyhow::Result<u32> {
    let end = clock::now() + FILL_LIMIT;
    let (mut taken, mut refused) = (0, 0);
    while refused < REFUSALS {
        stop::check()?;
        ensure!(clock::now() < end, "not full after {FILL_LIMIT:?} and {taken} batches");
        for target in 0..=KEEP {
            match producer.produce(target, 1, 16 << 10)? {
                0 => {
                    taken += 1;
                    refused = 0;
                }
                STORAGE_ERROR => refused += 1,
                other => anyhow::bail!("a full disk gives error {other}"),
            }
        }
        if refused > 0 {
            clock::wait(Duration::from_millis(20));
        }
    }
    Ok(taken)
}

fn answers(
    address: std::net::SocketAddr,
    targets: &[Target],
    producer: &SequentialProducer,
) -> anyhow::Result<()> {
    let topics = Connection::open(address)?.topics()?;
    for topic in ["fill", "keep"] {
        ensure!(topics.iter().any(|name| name == topic), "{topic} is not in {topics:?}");
    }
    let verdict = judge::judge(address, targets, std::slice::from_ref(&producer.ledger))?;
    ensure!(verdict.is_clean(), "{verdict:?}");
    Ok(())
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "fulldisk: {line}")?)
}
