//! `cargo xtask crash`: a broker under load is killed again and again; at the end everything that it acknowledged
//! must be there, once, in order.
//!
//! Several idempotent producers with `acks=all` and five requests in flight write unique values to several
//! partitions. At a random moment, sometimes while the broker still starts, it gets SIGKILL and is started again; what
//! had no answer is sent again with the same sequences. The end reads every partition and compares.

pub(crate) mod batch;
pub(crate) mod broker;
pub(crate) mod clock;
pub(crate) mod judge;
pub(crate) mod producer;
pub(crate) mod random;
pub(crate) mod sequential;
pub(crate) mod starts;
pub(crate) mod stop;
pub(crate) mod wire;

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

use broker::{Broker, BrokerSettings};
use judge::Verdict;
use producer::{Ledger, Load};
use random::Random;
use wire::{Connection, Target};

/// How often, and which broker.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Kills.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// A `levada` that is built already.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Decides moments and sizes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Producers that write at the same time.
    #[arg(long, default_value_t = 4)]
    producers: u32,
}

/// What a run of kills is made of; the power cut has another crash.
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) seed: u64,
    pub(crate) producers: u32,
    /// Above so many bytes there are small batches only.
    pub(crate) bytes_max: u64,
}

const TOPICS: [&str; 2] = ["orders", "events"];
const PARTITIONS: i32 = 6;
/// Small, so that logs roll under the load.
const SEGMENT_BYTES: &str = "4194304";
/// How long partitions may be without a leader after a start.
const LEADERS_LIMIT: Duration = Duration::from_secs(20);

/// Runs the kills.
///
/// # Errors
/// When a record is lost, there twice or out of order, or the broker does not come back.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let directory = fresh_directory("crash")?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => broker::build(&["--release"])?,
    };
    let settings = BrokerSettings::new(
        &binary,
        &directory.path.join("data"),
        &directory.path.join("broker.log"),
    )?;
    let plan = Plan {
        rounds: options.rounds,
        seed: options.seed,
        producers: options.producers,
        bytes_max: 2 << 30,
    };
    let outcome = run_rounds(&plan, &settings, &mut |broker, _| broker.kill())?;
    outcome.report("crash", &plan)?;
    ensure!(outcome.verdict.is_clean(), "promises were broken; see {}", directory.path.display());
    directory.remove()
}

/// What a run of kills gave.
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    batches: u64,
    unknown: u64,
    refused: u64,
    starts: Vec<Duration>,
}

impl Outcome {
    /// Prints the counts and every finding.
    ///
    /// # Errors
    /// When stdout is closed.
    pub(crate) fn report(&self, name: &str, plan: &Plan) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        for finding in &self.verdict.findings {
            writeln!(out, "FOUND {finding}")?;
        }
        let slowest = self.starts.iter().max().copied().unwrap_or_default();
        writeln!(
            out,
            "{name}: {} rounds, seed {}: {} batches, {} records acknowledged, {} read; {} batches of unknown fate and \
             {} refused were sent again; slowest start {slowest:.2?}",
            plan.rounds,
            plan.seed,
            self.batches,
            self.verdict.acked,
            self.verdict.read,
            self.unknown,
            self.refused
        )?;
        writeln!(
            out,
            "{name}: {} lost, {} twice, {} out of order, {} never sent",
            self.verdict.lost,
            self.verdict.duplicates,
            self.verdict.disordered,
            self.verdict.foreign
        )?;
        Ok(())
    }
}

/// Starts the broker, loads it, crashes it with `crash` as often as planned, and judges.
///
/// # Errors
/// When the broker does not start, ends by itself, or does not take what it is sent.
pub(crate) fn run_rounds(
    plan: &Plan,
    settings: &BrokerSettings,
    crash: &mut dyn FnMut(Broker, &mut Random) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let mut random = Random::new(plan.seed, 0);
    let mut broker = Broker::spawn(settings)?;
    let mut starts = vec![broker.wait_until_ready()?];
    let targets = create_topics(settings.address)?;
    let load = Arc::new(Load::new(settings.address, targets, plan.bytes_max));
    let producers: Vec<_> = (0..plan.producers)
        .map(|client| {
            let (load, seed) = (Arc::clone(&load), plan.seed);
            thread::spawn(move || producer::run(load, client, seed))
        })
        .collect();
    let guard = GiveUp(Arc::clone(&load));

    let mut early = Vec::new();
    for round in 1..=plan.rounds {
        stop::check()?;
        wait_for_acks(&load)?;
        clock::wait(Duration::from_millis(random.range(10, 900)));
        crash(broker, &mut random)?;
        while random.chance(20) {
            let unready = Broker::spawn(settings)?;
            clock::wait(Duration::from_millis(random.range(0, 120)));
            crash(unready, &mut random).context("killed while it started")?;
        }
        broker = Broker::spawn(settings)?;
        let start = broker.wait_until_ready().with_context(|| format!("round {round}"))?;
        starts.push(start);
        wait_for_leaders(settings.address, &load.targets)
            .with_context(|| format!("after round {round}"))?;
        early = judge::ends_are_kept(&load)
            .with_context(|| format!("look at the ends after round {round}"))?
            .into_iter()
            .map(|finding| format!("after round {round}: {finding}"))
            .collect();
        let bytes = load.bytes.load(Ordering::Relaxed) >> 20;
        let batches = load.acked_batches.load(Ordering::Relaxed);
        eprintln!(
            "round {round}: ready in {start:.2?}; {batches} batches acknowledged, {bytes} MiB sent"
        );
        if !early.is_empty() {
            break;
        }
    }

    if early.is_empty() {
        wait_for_acks(&load)?;
        load.ending.store(true, Ordering::Relaxed);
    } else {
        // Sequences that are gone let no producer go on.
        load.giving_up.store(true, Ordering::Relaxed);
    }
    let mut ledgers: Vec<Ledger> = Vec::new();
    for producer in producers {
        ledgers.push(producer.join().expect("a producer panicked")?);
    }
    drop(guard);
    eprintln!("reading everything");
    let mut verdict = judge::judge(settings.address, &load.targets, &ledgers)?;
    verdict.findings.extend(early);
    broker.stop().context("the clean stop at the end")?;
    Ok(Outcome {
        verdict,
        batches: load.acked_batches.load(Ordering::Relaxed),
        unknown: ledgers.iter().map(|ledger| ledger.unknown).sum(),
        refused: ledgers.iter().map(|ledger| ledger.refused).sum(),
        starts,
    })
}

/// Ends the producers of a run that failed.
struct GiveUp(Arc<Load>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.giving_up.store(true, Ordering::Relaxed);
    }
}

/// A kill before the first acknowledgement tests nothing.
fn wait_for_acks(load: &Load) -> anyhow::Result<()> {
    let before = load.acked_batches.load(Ordering::Relaxed);
    let end = clock::now() + LEADERS_LIMIT;
    while load.acked_batches.load(Ordering::Relaxed) < before + 20 {
        stop::check()?;
        ensure!(clock::now() < end, "the broker acknowledges nothing for {LEADERS_LIMIT:?}");
        clock::wait(Duration::from_millis(5));
    }
    Ok(())
}

fn create_topics(address: SocketAddr) -> anyhow::Result<Vec<Target>> {
    let mut connection = Connection::open(address)?;
    let mut targets = Vec::new();
    for topic in TOPICS {
        connection.create_topic(topic, PARTITIONS, &[("segment.bytes", SEGMENT_BYTES)])?;
        targets
            .extend((0..PARTITIONS).map(|partition| Target { topic: topic.to_owned(), partition }));
    }
    wait_for_leaders(address, &targets)?;
    Ok(targets)
}

/// Metadata reaches a broker a moment after the controller's answer.
///
/// # Errors
/// When a partition has no leader for too long.
pub(crate) fn wait_for_leaders(address: SocketAddr, targets: &[Target]) -> anyhow::Result<()> {
    let end = clock::now() + LEADERS_LIMIT;
    let mut connection = Connection::open(address)?;
    for target in targets {
        while connection.latest_offset(target)?.0 != 0 {
            stop::check()?;
            ensure!(clock::now() < end, "{target:?} has no leader after {LEADERS_LIMIT:?}");
            clock::wait(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// A directory of one run, below target/; it stays, as evidence, unless the run went well.
pub(crate) struct RunDirectory {
    pub(crate) path: PathBuf,
}

impl RunDirectory {
    /// Removes it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }
}

/// A new, empty directory for a run of `task`.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn fresh_directory(task: &str) -> anyhow::Result<RunDirectory> {
    let path = root().join("target").join(task).join(std::process::id().to_string());
    fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    eprintln!("data and logs: {}", path.display());
    Ok(RunDirectory { path })
}
