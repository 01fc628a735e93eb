//! `cargo xtask hostile`: what strangers do to a well-behaved client, and to the broker's memory: next to nothing.
//!
//! One client produces and fetches, one request in flight, for a while alone and for a while under attack, several
//! times in turn; medians are compared, so that a noise of the machine does not decide. The broker has one CPU, this
//! process the other, alone as under attack, so that what is measured is the broker and not the load generator.

mod client;
mod process;
mod strangers;

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::crash::broker::{self, Broker, BrokerSettings};
use crate::crash::{self, clock};
use client::{Client, Latencies};
use process::{Memory, Metrics, Placement};
use strangers::{Strangers, Tally};

/// How long, and which broker.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A `levada` that is built already.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Seconds of each phase: alone, and under attack.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Pairs of phases, of which the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections that send a request of 1 MiB, a byte at a time.
    #[arg(long, value_name = "COUNT", default_value_t = strangers::SLOW)]
    slow_writers: usize,
}

/// How many times slower a well-behaved client may be, at the 99th percentile.
const RATIO_MARK: f64 = 3.0;

/// What a broker may hold without its configured caches and budgets (DESIGN.md 12): 64 MiB.
const IDLE_BYTES: u64 = 64 << 20;
/// `cache_bytes` of this broker; less than the default, so that other memory does not hide below it.
const CACHE_BYTES: u64 = 16 << 20;
/// `shard_request_bytes` of this broker: all that strangers may fill.
const REQUEST_BYTES: u64 = 32 << 20;
/// With one shard, what docs/configuration.md lets the broker hold while nobody has more than a request in flight: the
/// idle broker, the cache of fetches and the budget of unfinished requests. Sockets must do with that, too.
const MEMORY_MARK_BYTES: u64 = IDLE_BYTES + CACHE_BYTES + REQUEST_BYTES;

/// Requests that are answered before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long the broker may take to forget connections that are gone.
const FORGET_LIMIT: Duration = Duration::from_secs(10);

/// Runs the phases.
///
/// # Errors
/// When a mark is missed, or the broker does not answer, keeps what it should close, closes what it should keep, or
/// panics.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.seconds > 0, "--seconds 0 measures nothing");
    ensure!(options.rounds > 0, "--rounds 0 measures nothing");
    process::raise_open_files(strangers::files(options.slow_writers))?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => broker::build(&["--release"])?,
    };
    let directory = crash::fresh_directory("hostile")?;
    let admin = free_address()?;
    let log = directory.path.join("broker.log");
    let mut settings = BrokerSettings::new(&binary, &directory.path.join("data"), &log)?;
    settings.shards = 1;
    settings.arguments = vec!["--admin-listen".to_owned(), admin.to_string()];
    for (key, bytes) in [
        ("cache_bytes", CACHE_BYTES),
        ("shard_request_bytes", REQUEST_BYTES),
        ("max_frame_bytes", REQUEST_BYTES),
    ] {
        settings.arguments.extend(["--set".to_owned(), format!("{key}={bytes}")]);
    }

    let placement = Placement::choose()?;
    process::come_first();
    placement.for_broker()?;
    let mut broker = Broker::spawn(&settings)?;
    placement.for_us()?;
    broker.wait_until_ready()?;
    let phases = measure(options, &settings, admin, broker.id());
    let stopped = broker.stop().context("the clean stop at the end");
    let outcome = phases.and_then(|phases| stopped.map(|_| phases));
    let text = fs::read_to_string(&log).unwrap_or_default();
    let panicked = text.lines().find(|line| line.contains("panicked"));
    let outcome = outcome.and_then(|phases| {
        phases.report(&placement, options, text.lines().count())?;
        let findings = phases.findings();
        ensure!(findings.is_empty(), "{}", findings.join("; "));
        Ok(())
    });
    if let Some(panicked) = panicked {
        bail!("the broker panicked: {panicked}; see {}", directory.path.display());
    }
    outcome.with_context(|| format!("see {}", directory.path.display()))?;
    directory.remove()
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?)
}

/// What all phases gave.
struct Phases {
    alone: Vec<Latencies>,
    attacked: Vec<Latencies>,
    tally: Tally,
    attack_time: Duration,
    before: Memory,
    during_bytes: u64,
    after: Memory,
    metrics: Metrics,
}

fn measure(
    options: &Options,
    settings: &BrokerSettings,
    admin: SocketAddr,
    process: u32,
) -> anyhow::Result<Phases> {
    let phase = Duration::from_secs(options.seconds);
    let mut client = Client::new(settings.address)?;
    client.run(WARM_UP)?;
    let (mut alone, mut attacked) = (Vec::new(), Vec::new());
    let (mut tally, mut attack_time, mut during_bytes) = (Tally::default(), Duration::default(), 0);
    let metrics_before = Metrics::get(admin)?;
    let before = Memory::of(process)?;
    for round in 1..=options.rounds {
        alone.push(client.run(phase)?);
        let strangers = Strangers::arrive(settings.address, options.slow_writers)?;
        let begin = clock::now();
        attacked.push(client.run(phase).context("under attack")?);
        attack_time += clock::now() - begin;
        during_bytes = during_bytes.max(Memory::of(process)?.now_bytes);
        tally.add(&strangers.leave()?);
        wait_until_forgotten(admin)?;
        let (quiet, loud) = (&alone[round - 1], &attacked[round - 1]);
        eprintln!("round {round}: alone {quiet}; under attack {loud}");
    }
    Ok(Phases {
        alone,
        attacked,
        tally,
        attack_time,
        before,
        during_bytes,
        after: Memory::of(process)?,
        metrics: Metrics::get(admin)?.since(&metrics_before),
    })
}

/// Waits until only the well-behaved client is there.
fn wait_until_forgotten(admin: SocketAddr) -> anyhow::Result<()> {
    let end = clock::now() + FORGET_LIMIT;
    loop {
        let open = Metrics::get(admin)?.value("connections_open");
        if open <= 1 {
            return Ok(());
        }
        ensure!(
            clock::now() < end,
            "{open} connections are open {FORGET_LIMIT:?} after the attack"
        );
        clock::wait(Duration::from_millis(50));
    }
}

impl Phases {
    fn ratios(&self) -> [(&'static str, f64); 2] {
        let ratio = |latency: Latency| {
            median(&self.attacked, latency).as_secs_f64()
                / median(&self.alone, latency).as_secs_f64()
        };
        [("produce", ratio(Latencies::produce_p99)), ("fetch", ratio(Latencies::fetch_p99))]
    }

    /// Every mark that was missed.
    fn findings(&self) -> Vec<String> {
        let mut findings = self.tally.findings(self.attack_time);
        for (name, ratio) in self.ratios() {
            if ratio > RATIO_MARK {
                findings
                    .push(format!("the p99 of {name} is {ratio:.1} times that without the attack"));
            }
        }
        let peak = self.after.peak_bytes;
        if peak > MEMORY_MARK_BYTES {
            let (peak, mark) = (peak >> 20, MEMORY_MARK_BYTES >> 20);
            findings.push(format!("{peak} MiB of memory are more than {mark} MiB"));
        }
        let malformed = self.metrics.value("connections_malformed_total");
        if malformed < self.tally.malformed {
            let sent = self.tally.malformed;
            findings.push(format!("{sent} connections sent no request, {malformed} were counted"));
        }
        findings
    }

    fn report(
        &self,
        placement: &Placement,
        options: &Options,
        log_lines: usize,
    ) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let (seconds, rounds) = (options.seconds, options.rounds);
        writeln!(
            out,
            "hostile: {placement}; {rounds} times {seconds} s alone and {seconds} s attacked"
        )?;
        let [produce, fetch] = self.ratios();
        let rows: [(_, Latency, Latency); 2] = [
            (produce, Latencies::produce_p50, Latencies::produce_p99),
            (fetch, Latencies::fetch_p50, Latencies::fetch_p99),
        ];
        for ((name, ratio), p50, p99) in rows {
            writeln!(
                out,
                "hostile: {name} alone p50 {:.2?} p99 {:.2?}, attacked p50 {:.2?} p99 {:.2?}: p99 x {ratio:.2} (mark: \
                 within {RATIO_MARK})",
                median(&self.alone, p50),
                median(&self.alone, p99),
                median(&self.attacked, p50),
                median(&self.attacked, p99)
            )?;
        }
        writeln!(out, "hostile: {}", self.tally.describe(self.attack_time))?;
        writeln!(
            out,
            "hostile: RSS {} MiB before, {} MiB during, {} MiB at the peak, {} MiB after (mark: {} MiB = {} idle broker \
             + {} cache_bytes + {} shard_request_bytes of one shard; connections have no allowance of their own)",
            self.before.now_bytes >> 20,
            self.during_bytes >> 20,
            self.after.peak_bytes >> 20,
            self.after.now_bytes >> 20,
            MEMORY_MARK_BYTES >> 20,
            IDLE_BYTES >> 20,
            CACHE_BYTES >> 20,
            REQUEST_BYTES >> 20
        )?;
        writeln!(
            out,
            "hostile: the broker accepted {} connections, closed {} as malformed, {} as late, {} as in the way, refused \
             {}; {} errors of accept; {log_lines} lines of log",
            self.metrics.value("connections_accepted_total"),
            self.metrics.value("connections_malformed_total"),
            self.metrics.value("connections_late_total"),
            self.metrics.value("connections_evicted_total"),
            self.metrics.value("connections_refused_total"),
            self.metrics.value("accept_errors_total")
        )?;
        Ok(())
    }
}

/// One figure of a phase.
type Latency = fn(&Latencies) -> Duration;

fn median(phases: &[Latencies], latency: Latency) -> Duration {
    let mut all: Vec<_> = phases.iter().map(latency).collect();
    all.sort_unstable();
    all[all.len() / 2]
}
