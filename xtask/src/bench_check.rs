//! `cargo xtask bench-check`: the bench measured. A build compared with itself must be noise; a broker that answers a
//! millisecond or a tenth later must be worse, and `--fail-if` must say so.
//!
//! All runs go through a proxy of ours (`proxy.rs`) that holds answers up by what is asked, nothing for a build as it
//! is. Sides take turns, each time in another order, so that what the machine does meanwhile meets all of them: runs
//! of one side behind those of another compare the hours as well.

mod proxy;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::conformance::broker::{self, Broker, BrokerKind};
use crate::conformance::root;
use crate::crash::clock;
use proxy::Proxy;

/// How much is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Comparisons of the build with itself.
    #[arg(long, default_value_t = 20)]
    same: u32,
    /// Comparisons with each delay.
    #[arg(long, default_value_t = 10)]
    delayed: u32,
    /// Runs of each side of a comparison.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=100))]
    repeat: u32,
    /// Seconds measured in each run.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Records a second.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// How long batches wait for more records: most of the latency, and the part of it that does not vary.
    #[arg(long, default_value_t = 20)]
    linger_ms: u32,
    /// Where the runs go.
    #[arg(long, default_value = "target/bench-check")]
    directory: PathBuf,
}

/// The condition that a delay must meet, and a build against itself must not.
const FAIL_IF: &str = "p50>+5%";
const MILLISECOND: Duration = Duration::from_millis(1);
/// Runs that may be void in a row; then the machine is too busy to measure anything.
const VOID_MAX: u32 = 60;
/// Before a void run is made again.
const VOID_PAUSE: Duration = Duration::from_secs(5);

/// A side of a comparison: how late its answers come.
#[derive(Debug, Clone)]
struct Side {
    name: &'static str,
    delay: Duration,
}

/// What a comparison came to.
struct Compared {
    verdict: String,
    /// By how much the median response time of the second side is another one.
    p50_ratio: f64,
    /// Whether `--fail-if` failed it.
    failed: bool,
}

impl Compared {
    fn line(&self) -> String {
        let failed = if self.failed { ", --fail-if met" } else { "" };
        format!("{} (p50 x{:.3}{failed})", self.verdict, self.p50_ratio)
    }
}

/// Everything that runs need.
struct Stand<'a> {
    options: &'a Options,
    binary: PathBuf,
    directory: PathBuf,
    proxy: Proxy,
    /// Runs that were void, and made again.
    void: u32,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let binary = broker::build_with(&["--release"])?;
    let directory = root().join(&options.directory);
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("empty {}", directory.display()))?;
    }
    let proxy = Proxy::start()?;
    let advertised = format!("advertised={}", proxy.address());
    let arguments = ["--shards", "1", "--log", "warn", "--set", &advertised].map(str::to_owned);
    let kind = BrokerKind::Levada { binary: binary.clone(), arguments: arguments.into() };
    let broker = Broker::start(&kind, &directory.join("broker"))?;
    proxy.forward_to(broker.address().parse().context("read the broker's address")?);
    let mut stand = Stand { options, binary, directory, proxy, void: 0 };

    let plain = |name| Side { name, delay: Duration::ZERO };
    let tenth = stand.median_response()? / 10;
    eprintln!("a tenth of the median response time is {} µs", tenth.as_micros());
    let mut same = Vec::new();
    for number in 1..=options.same {
        let place = stand.directory.join(format!("same-{number}"));
        same.extend(stand.compare(&place, &[plain("a"), plain("b")])?);
        eprintln!("itself, {number} of {}: {}", options.same, same[same.len() - 1].line());
    }
    let (mut late, mut tenth_late) = (Vec::new(), Vec::new());
    for number in 1..=options.delayed {
        let place = stand.directory.join(format!("delayed-{number}"));
        let delayed = |name, delay| Side { name, delay };
        let sides = [plain("a"), delayed("late", MILLISECOND), delayed("tenth", tenth)];
        let mut compared = stand.compare(&place, &sides)?.into_iter();
        for (side, into) in sides[1..].iter().zip([&mut late, &mut tenth_late]) {
            let compared = compared.next().context("a comparison per delayed side")?;
            eprintln!("{}, {number} of {}: {}", side.name, options.delayed, compared.line());
            into.push(compared);
        }
    }
    drop(broker);
    let tenth_name = format!("a tenth of the median ({} µs) later", tenth.as_micros());
    let mut lines = vec![format!(
        "{} runs of {} s a side, {} records/s, linger {} ms; {} void runs were made again",
        options.repeat, options.seconds, options.rate, options.linger_ms, stand.void
    )];
    let mut missed = Vec::new();
    lines.push(summary("itself", &same));
    let not_noise = same.iter().filter(|compared| compared.verdict != "noise").count();
    if 1 < not_noise {
        missed.push(format!("{not_noise} comparisons of a build with itself are not noise"));
    }
    for (name, all) in [("a millisecond later", &late), (tenth_name.as_str(), &tenth_late)] {
        lines.push(summary(name, all));
        let is_found = |compared: &&Compared| compared.verdict == "worse" && compared.failed;
        let found = all.iter().filter(is_found).count();
        // Nine of ten.
        if found * 10 < all.len() * 9 {
            missed.push(format!("{name} was found {found} times of {}", all.len()));
        }
    }
    lines.push(String::new());
    std::io::stdout().write_all(lines.join("\n").as_bytes())?;
    ensure!(missed.is_empty(), "{}", missed.join("; "));
    Ok(())
}

/// How often each verdict came, and what the medians were.
fn summary(name: &str, all: &[Compared]) -> String {
    let count = |verdict| all.iter().filter(|compared| compared.verdict == verdict).count();
    let verdicts = ["noise", "worse", "better"].map(|name| format!("{} {name}", count(name)));
    let met = all.iter().filter(|compared| compared.failed).count();
    let of = all.len();
    format!("{name}: of {of} {}; {met} met {FAIL_IF}; p50 {}", verdicts.join(", "), range(all))
}

/// Least and greatest ratio of medians.
fn range(all: &[Compared]) -> String {
    if all.is_empty() {
        return "-".to_owned();
    }
    let ratios = || all.iter().map(|compared| compared.p50_ratio);
    format!("x{:.3} to x{:.3}", ratios().fold(f64::MAX, f64::min), ratios().fold(0.0, f64::max))
}

impl Stand<'_> {
    /// Runs every side in turn, and compares all others with the first.
    fn compare(&mut self, place: &Path, sides: &[Side]) -> anyhow::Result<Vec<Compared>> {
        for number in 1..=self.options.repeat {
            let mut order: Vec<&Side> = sides.iter().collect();
            order.rotate_left(number as usize % sides.len());
            for side in order {
                self.measure(side.delay, &place.join(side.name).join(number.to_string()))?;
            }
        }
        let first = sides.first().context("a side to compare with")?;
        let others = sides.iter().skip(1);
        others.map(|other| self.verdict(place, first.name, other.name)).collect()
    }

    fn verdict(&self, place: &Path, first: &str, second: &str) -> anyhow::Result<Compared> {
        let mut command = Command::new(&self.binary);
        command
            .args(["-o", "json", "bench", "compare", first, second, "--fail-if", FAIL_IF])
            .current_dir(place)
            .stderr(Stdio::inherit());
        let output = command.output().context("compare")?;
        let result: Value = serde_json::from_slice(&output.stdout).context("read a comparison")?;
        let rows = result["rows"].as_array().context("rows")?;
        let p50 =
            rows.iter().find(|row| row["metric"] == "response.p50").context("response.p50")?;
        let failed = !result["failed"].as_array().context("failed")?.is_empty();
        let expected = i32::from(failed);
        ensure!(output.status.code() == Some(expected), "{} is not {expected}", output.status);
        Ok(Compared {
            verdict: result["verdicts"][0].as_str().context("verdicts")?.to_owned(),
            p50_ratio: p50["changes"][0]["ratio"].as_f64().context("ratio")?,
            failed,
        })
    }

    /// A run with answers that come so late. A void one is made again: nobody may compare it.
    fn measure(&mut self, delay: Duration, results: &Path) -> anyhow::Result<Value> {
        self.proxy.delay(delay);
        for _ in 0..VOID_MAX {
            let mut command = Command::new(&self.binary);
            command
                .args(["--bootstrap", &self.proxy.address().to_string()])
                .args(["bench", "run", "--quiet", "--no-limits", "--durability", "fsync"])
                .args(["--rate", &self.options.rate.to_string()])
                .args(["--linger-ms", &self.options.linger_ms.to_string()])
                .args(["--warmup", "1", "--duration", &self.options.seconds.to_string()])
                .args(["--lag-limit-us", "2000", "--directory"])
                .arg(results);
            let output = command.output().context("run the bench")?;
            let said = String::from_utf8_lossy(&output.stderr);
            let path = results.join("run.json");
            let file = fs::read(&path).with_context(|| format!("no {}: {said}", path.display()))?;
            let run: Value = serde_json::from_slice(&file).context("read a run")?;
            if output.status.success() {
                return Ok(run);
            }
            eprintln!("void, once more: {}", run["void"]);
            self.void += 1;
            fs::remove_dir_all(results).with_context(|| format!("remove {}", results.display()))?;
            clock::wait(VOID_PAUSE);
        }
        bail!("{VOID_MAX} runs in a row were void: the machine is too busy")
    }

    /// Of three runs, the middle one.
    fn median_response(&mut self) -> anyhow::Result<Duration> {
        let mut medians = Vec::new();
        for number in 1..=3 {
            let place = self.directory.join("pilot").join(number.to_string());
            let run = self.measure(Duration::ZERO, &place)?;
            medians.push(run["latency"]["response"]["at"]["p50"].as_u64().context("p50")?);
        }
        medians.sort_unstable();
        Ok(Duration::from_nanos(medians[1]))
    }
}
