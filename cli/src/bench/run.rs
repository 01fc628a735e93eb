//! `levada bench run`: from the command line to runs, their directories and a summary.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use levada_bench::clock::unix_ms;
use levada_bench::environment::Environment;
use levada_bench::limits::{self, Effort};
use levada_bench::options::{
    AcksOption, ClientKind, CompressionOption, Durability, Encoding, Keys, Mode, Options,
};
use levada_bench::result::{RunFile, judge, request_bytes};
use levada_bench::run::{Interrupt, Live, Place};
use levada_bench::schedule::{Arrivals, Rate};
use levada_bench::{files, process};
use serde_json::json;

use super::embedded::EmbeddedBroker;
use crate::args::{AcksArg, CompressionArg, ConnectArgs, Output};
use crate::output::{print_json, print_line};

/// Around every run: some three seconds before and after.
const EFFORT: Effort = Effort { file_bytes: 256 << 20, point_s: 0.7 };

/// Options of `levada bench run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// How many runs: `compare` takes the run as its unit
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
}

/// What is sent and read.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// A workload file of the `OpenMessaging` Benchmark; what it says goes before other options
    #[arg(long, short, value_name = "YAML")]
    workload: Option<PathBuf>,
    /// What the run is called
    #[arg(long, default_value = "run")]
    name: String,
    /// What is measured
    #[arg(long, value_enum, default_value = "end-to-end")]
    mode: ModeArg,
    /// Whose code speaks to the broker
    #[arg(long, value_enum, default_value = "levada")]
    client: ClientArg,
    /// How batches are laid out
    #[arg(long, value_enum, default_value = "auto")]
    encoding: EncodingArg,
    /// Records a second of all producers together: max, a number, or FROM..TO
    #[arg(long, default_value = "max", value_parser = Rate::parse)]
    rate: Rate,
    /// How the records are spread over a second
    #[arg(long, value_enum, default_value = "even")]
    arrivals: ArrivalsArg,
    /// Of everything that is left to chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes of a record's value
    #[arg(long, short = 's', default_value_t = 1024)]
    message_bytes: u32,
    /// Share of a value that is noise, 0 to 1: the rest is zeros, for codecs to find
    #[arg(long, default_value_t = 1.0)]
    random: f64,
    /// How many different values there are
    #[arg(long, default_value_t = 64)]
    payloads: u32,
    /// Which records have keys
    #[arg(long, value_enum, default_value = "none")]
    keys: KeysArg,
    /// How many different keys
    #[arg(long, default_value_t = 1000)]
    key_count: u32,
    /// Topics
    #[arg(long, default_value_t = 1)]
    topics: u32,
    /// Partitions of each topic
    #[arg(long, short, default_value_t = 1)]
    partitions: u32,
    /// Replicas of each partition
    #[arg(long, short, default_value_t = 1)]
    replicas: u16,
    /// What acknowledged means; default is the broker's own
    #[arg(long, value_enum, default_value = "default")]
    durability: DurabilityArg,
    /// Producers, spread over topics and threads
    #[arg(long, default_value_t = 1)]
    producers: u32,
    /// How often every record is read: fan-out
    #[arg(long, default_value_t = 1)]
    subscriptions: u32,
    /// Consumers that share a subscription
    #[arg(long, default_value_t = 1)]
    consumers: u32,
    /// Threads that send, and as many that read
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Pins the threads to this CPU and the next ones
    #[arg(long, value_name = "CPU")]
    pin: Option<u32>,
    /// Who must have a record before it counts
    #[arg(long, value_enum, default_value = "all")]
    acks: AcksArg,
    /// How batches are compressed
    #[arg(long, short = 'z', value_enum, default_value = "none")]
    compression: CompressionArg,
    /// How long a batch waits for more records, in ms
    #[arg(long, default_value_t = 5)]
    linger_ms: u32,
    /// Most bytes of a batch
    #[arg(long, default_value_t = 256 << 10)]
    batch_bytes: u32,
    /// Requests of a producer in flight to a broker
    #[arg(long, default_value_t = 5)]
    in_flight: u32,
    /// Memory of a producer for records that are not acknowledged
    #[arg(long, default_value_t = 64 << 20)]
    memory_bytes: u32,
    /// Seconds at the beginning that are not measured
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    warmup: u32,
    /// Seconds that are measured
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    duration: u32,
    /// Records that are there before, with --mode consume
    #[arg(long, value_name = "RECORDS", default_value_t = 1_000_000)]
    backlog: u64,
    /// Seconds that a record is tried, and that the end is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u32,
    /// Does not read back what was only produced
    #[arg(long)]
    no_verify: bool,
    /// The generator's own lag, 99th percentile, above which a run is void
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 1000)]
    lag_limit_us: u64,
}

/// Where it takes place.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line are bools")]
pub(crate) struct PlaceArgs {
    /// Starts a broker of its own for each run, with its data in the output directory
    #[arg(long)]
    embedded: bool,
    /// Shards of that broker; 0 takes one per CPU
    #[arg(long, default_value_t = 1, requires = "embedded")]
    shards: u16,
    /// The broker's process on this machine, when the port does not tell
    #[arg(long, value_name = "PID", conflicts_with = "embedded")]
    broker_pid: Option<u32>,
    /// Leaves the topics
    #[arg(long)]
    keep_topics: bool,
    /// Where the results go; levada-bench/TIME-NAME when left out
    #[arg(long, short = 'd', value_name = "PATH")]
    directory: Option<PathBuf>,
    /// Does not ask the bare disk and loopback before and after
    #[arg(long)]
    no_limits: bool,
    /// No live view
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// Producers alone; read back and checked afterwards
    Produce,
    /// Consumers alone
    Consume,
    /// Both, and the way from one to the other
    EndToEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClientArg {
    /// Ours
    Levada,
    /// librdkafka, a judge that is not ours; needs a build with `--features librdkafka`
    Librdkafka,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ArrivalsArg {
    /// Evenly
    Even,
    /// As of independent senders
    Poisson,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EncodingArg {
    /// In columns where the broker takes them
    Auto,
    /// In columns
    Columnar,
    /// As Kafka does, for any broker
    Kafka,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeysArg {
    None,
    RoundRobin,
    Random,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DurabilityArg {
    Fsync,
    Replicated,
    Default,
}

impl LoadArgs {
    /// As the bench calls it, all of it checked.
    pub(crate) fn options(&self) -> anyhow::Result<Options> {
        let mut options = self.typed();
        if let Some(path) = &self.workload {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read {}", path.display()))?;
            levada_bench::workload::apply(&text, &mut options)?;
        }
        options.validate()?;
        Ok(options)
    }

    fn typed(&self) -> Options {
        Options {
            name: self.name.clone(),
            mode: match self.mode {
                ModeArg::Produce => Mode::Produce,
                ModeArg::Consume => Mode::Consume,
                ModeArg::EndToEnd => Mode::EndToEnd,
            },
            client: match self.client {
                ClientArg::Levada => ClientKind::Levada,
                ClientArg::Librdkafka => ClientKind::Librdkafka,
            },
            encoding: match self.encoding {
                EncodingArg::Auto => Encoding::Auto,
                EncodingArg::Columnar => Encoding::Columnar,
                EncodingArg::Kafka => Encoding::Kafka,
            },
            rate: self.rate,
            arrivals: match self.arrivals {
                ArrivalsArg::Even => Arrivals::Even,
                ArrivalsArg::Poisson => Arrivals::Poisson,
            },
            seed: self.seed,
            message_bytes: self.message_bytes,
            random_share: self.random,
            payloads: self.payloads,
            keys: match self.keys {
                KeysArg::None => Keys::None,
                KeysArg::RoundRobin => Keys::RoundRobin,
                KeysArg::Random => Keys::Random,
            },
            key_count: self.key_count,
            topics: self.topics,
            partitions: self.partitions,
            replicas: self.replicas,
            durability: match self.durability {
                DurabilityArg::Fsync => Durability::Fsync,
                DurabilityArg::Replicated => Durability::Replicated,
                DurabilityArg::Default => Durability::Default,
            },
            producers: self.producers,
            subscriptions: self.subscriptions,
            consumers: self.consumers,
            workers: self.workers,
            pin: self.pin,
            acks: match self.acks {
                AcksArg::Zero => AcksOption::Zero,
                AcksArg::One => AcksOption::One,
                AcksArg::All => AcksOption::All,
            },
            compression: match self.compression {
                CompressionArg::None => CompressionOption::None,
                CompressionArg::Gzip => CompressionOption::Gzip,
                CompressionArg::Snappy => CompressionOption::Snappy,
                CompressionArg::Lz4 => CompressionOption::Lz4,
                CompressionArg::Zstd => CompressionOption::Zstd,
            },
            linger_ms: self.linger_ms,
            batch_bytes: self.batch_bytes,
            in_flight: self.in_flight,
            memory_bytes: self.memory_bytes,
            warmup_s: self.warmup,
            duration_s: self.duration,
            backlog_records: self.backlog,
            timeout_s: self.timeout,
            verify: !self.no_verify,
            lag_limit_us: self.lag_limit_us,
        }
    }
}

impl PlaceArgs {
    /// The directory of the results.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.directory.clone().unwrap_or_else(|| {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
            let name: String = name.chars().map(plain).collect();
            Path::new("levada-bench").join(format!("{}-{name}", unix_ms()))
        })
    }

    pub(crate) fn live(&self) -> Live {
        Live::new(self.quiet)
    }
}

/// Runs, writes, prints; exit code 1 when a run is void, as an interrupted one is.
pub(crate) fn run(
    args: &RunArgs,
    connect: &ConnectArgs,
    interrupt: &Interrupt,
) -> anyhow::Result<ExitCode> {
    let options = args.load.options()?;
    let directory = args.place.directory(&options.name);
    let live = args.place.live();
    let mut files = Vec::new();
    for number in 1..=args.repeat {
        let directory = match args.repeat {
            1 => directory.clone(),
            _ => directory.join(number.to_string()),
        };
        let file = one(&options, &args.place, connect, &directory, &live, interrupt)?;
        if connect.output == Output::Table {
            print_line(&files::summary::markdown(&file))?;
        }
        files.push(file);
        if interrupt.is_asked() {
            break;
        }
    }
    let void = files.iter().any(|file| !file.void.is_empty());
    match connect.output {
        Output::Json => print_json(&json!({ "directory": directory, "runs": files }))?,
        Output::Table => print_line(&format!("results in {}", directory.display()))?,
    }
    Ok(if void { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One run, with its broker if it is to have one, and its directory.
pub(crate) fn one(
    options: &Options,
    place: &PlaceArgs,
    connect: &ConnectArgs,
    directory: &Path,
    live: &Live,
    interrupt: &Interrupt,
) -> anyhow::Result<RunFile> {
    let start = || EmbeddedBroker::start(directory, place.shards);
    let embedded = place.embedded.then(start).transpose()?;
    let at = match &embedded {
        Some(broker) => Place {
            bootstrap: broker.bootstrap().to_owned(),
            broker_pid: Some(broker.pid()),
            keep_topics: true,
        },
        None => Place {
            bootstrap: connect.bootstrap.clone(),
            broker_pid: place.broker_pid.or_else(|| process::listener(&connect.bootstrap)),
            keep_topics: place.keep_topics,
        },
    };
    // A broker elsewhere has another disk and another network.
    let limits_wanted = !place.no_limits && at.broker_pid.is_some();
    let bare = |sync_bytes| {
        live.phase("asking the bare disk and loopback");
        limits::quick(directory, sync_bytes, EFFORT)
    };
    let before = if limits_wanted { Some(bare(options.message_bytes.into())?) } else { None };
    let outcome = levada_bench::run::run(options, &at, live, interrupt);
    live.clear();
    let outcome = outcome?;
    let mut file = judge(options, &outcome, Environment::look(directory));
    if let Some(before) = before.filter(|_| !interrupt.is_asked()) {
        let after = bare(request_bytes(&file))?;
        file.limits = Some(limits::ratios(&file, &before, &after));
        live.clear();
    }
    files::write(directory, &file, &outcome)
        .with_context(|| format!("write the results to {}", directory.display()))?;
    Ok(file)
}
