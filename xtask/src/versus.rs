//! `cargo xtask versus kafka`: the same loads on Levada and on Apache Kafka, in turn, by the same generator, and one report.
//!
//! Every run gets a broker of its own with an empty data directory, bound to one CPU; the generator has another. Brokers
//! take turns (ABCABC...), so that what the machine does meanwhile meets all of them.

mod cache;
mod loads;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::conformance::broker::{self, Broker, BrokerKind};
use crate::conformance::install;
use loads::{LOADS, Load};
use report::Run;

/// What to compare, and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// With whom.
    #[arg(value_enum)]
    rival: Rival,
    /// Runs of each load on each broker.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Seconds measured in each run.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Seconds before them, for Java to warm up, too.
    #[arg(long, default_value_t = 5)]
    warmup: u32,
    /// Only these loads.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<String>,
    /// CPU of the broker.
    #[arg(long, default_value_t = 0)]
    broker_cpu: u16,
    /// CPU of the generator.
    #[arg(long, default_value_t = 1)]
    generator_cpu: u16,
    /// Where runs and report go.
    #[arg(long, default_value = "target/versus")]
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Rival {
    /// Apache Kafka, as it comes and with a sync per request.
    Kafka,
}

/// A broker under comparison.
struct Contestant {
    name: &'static str,
    kind: BrokerKind,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Rival::Kafka = options.rival;
    let loads = chosen(&options.loads)?;
    let cpus = std::thread::available_parallelism().context("count the CPUs")?.get();
    let last = usize::from(options.broker_cpu.max(options.generator_cpu));
    ensure!(last < cpus, "CPU {last} was asked for, this machine has {cpus}");
    let directory = crate::conformance::root().join(&options.directory);
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("empty {}", directory.display()))?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let downloads = crate::conformance::root().join("target/conformance");
    fs::create_dir_all(&downloads).with_context(|| format!("create {}", downloads.display()))?;
    let jars = install::java(&downloads)
        .context("Apache Kafka needs Java and Maven, and Maven's registry")?;
    let binary = broker::build_with(&["--release", "--features", "librdkafka"])?;
    let contestants = contestants(&binary, &jars);
    let filled = cache::fill(&directory)?;
    eprintln!("page cache: {} MiB written and given back", filled >> 20);

    let mut runs = Vec::new();
    let total = loads.len() * contestants.len() * options.repeat as usize;
    for load in &loads {
        for number in 1..=options.repeat {
            for contestant in &contestants {
                eprintln!(
                    "run {}/{total}: {} on {}, {number} of {}",
                    runs.len() + 1,
                    load.name,
                    contestant.name,
                    options.repeat
                );
                runs.push(one(options, &binary, &directory, load, contestant, number)?);
            }
        }
    }
    let title = format!(
        "{} runs of {} s each per load and broker; broker on CPU {}, generator on CPU {}; page cache filled beforehand: \
         a fresh one costs Kafka up to half",
        options.repeat, options.seconds, options.broker_cpu, options.generator_cpu
    );
    let text = report::markdown(&title, &loads, &runs);
    let path = directory.join("report.md");
    fs::write(&path, &text).with_context(|| format!("write {}", path.display()))?;
    report::print(&text)?;
    eprintln!("report: {}; each run has its own below it", path.display());
    for load in &loads {
        if runs.iter().any(|run| run.load == load.name && run.is_void()) {
            eprintln!("{}: some runs are void, no comparison", load.name);
            continue;
        }
        compare(&binary, &directory, load, &contestants)?;
    }
    let void = runs.iter().filter(|run| run.is_void()).count();
    ensure!(void == 0, "{void} of {total} runs are void; the report says why");
    Ok(())
}

fn contestants(binary: &Path, jars: &Path) -> Vec<Contestant> {
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let kafka = |properties: &[&str]| BrokerKind::Apache {
        jars: jars.to_owned(),
        properties: text(properties),
        // As Kafka's own start script does it.
        jvm: text(&[
            "-Xms1G",
            "-Xmx1G",
            "-server",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:InitiatingHeapOccupancyPercent=35",
            "-XX:+ExplicitGCInvokesConcurrent",
        ]),
    };
    vec![
        Contestant {
            name: "levada",
            kind: BrokerKind::Levada {
                binary: binary.to_owned(),
                arguments: text(&["--shards", "1"]),
            },
        },
        Contestant { name: "kafka", kind: kafka(&[]) },
        Contestant { name: "kafka-synced", kind: kafka(&["log.flush.interval.messages=1"]) },
    ]
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Load>> {
    if let Some(name) = names.iter().find(|name| LOADS.iter().all(|load| load.name != **name)) {
        let known: Vec<_> = LOADS.iter().map(|load| load.name).collect();
        bail!("there is no load {name}; there are {}", known.join(", "));
    }
    let is_chosen = |load: &&Load| names.is_empty() || names.iter().any(|name| name == load.name);
    Ok(LOADS.iter().filter(is_chosen).copied().collect())
}

/// One run on a fresh broker.
fn one(
    options: &Options,
    binary: &Path,
    directory: &Path,
    load: &Load,
    contestant: &Contestant,
    number: u32,
) -> anyhow::Result<Run> {
    let data = directory.join("broker");
    let broker = Broker::start_on(&contestant.kind, &data, Some(options.broker_cpu))?;
    let results = directory.join(load.name).join(contestant.name).join(number.to_string());
    let mut command = Command::new("taskset");
    command
        .args(["-c", &options.generator_cpu.to_string()])
        .arg(binary)
        .args(["--bootstrap", broker.address(), "bench", "run", "--quiet"])
        .args(["--name", &format!("{} {}", contestant.name, load.name)])
        .args(["--duration", &options.seconds.to_string()])
        .args(["--warmup", &options.warmup.to_string()])
        .args(["--broker-pid", &broker.id().to_string()])
        // librdkafka has threads of its own on the generator's CPU; what is compared lies far above this.
        .args(["--lag-limit-us", "10000"])
        .args(load.arguments)
        .arg("--directory")
        .arg(&results);
    let output = command.output().context("run taskset (package util-linux)")?;
    drop(broker);
    fs::remove_dir_all(&data).with_context(|| format!("empty {}", data.display()))?;
    let path = results.join("run.json");
    let file = fs::read_to_string(&path).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{} left no {}: {said}", contestant.name, path.display())
    })?;
    let file = serde_json::from_str(&file).with_context(|| format!("read {}", path.display()))?;
    Ok(Run { load: load.name, broker: contestant.name, file })
}

/// The report of one load, all brokers overlaid.
fn compare(
    binary: &Path,
    directory: &Path,
    load: &Load,
    contestants: &[Contestant],
) -> anyhow::Result<()> {
    let directory = directory.join(load.name);
    let mut command = Command::new(binary);
    command.args(["bench", "compare"]);
    for contestant in contestants {
        command.arg(directory.join(contestant.name));
    }
    command.arg("--report").arg(directory.join("comparison.html"));
    let status = command.stdout(std::process::Stdio::null()).status().context("compare")?;
    ensure!(status.success(), "the comparison of {} ended with {status}", load.name);
    Ok(())
}
