//! What a run came to, as it stands in `run.json`: judged, with everything it was measured with. `[P]`

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::check::Findings;
use crate::environment::Environment;
use crate::number::{count, duration, float, share, whole};
use crate::options::{Mode, Options};
use crate::recorder::{Counts, Series, histogram};
use crate::run::Outcome;
use crate::title::title;

/// Version of `run.json`; raised when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Share of a CPU that measuring itself may take before a run is void.
const OVERHEAD_SHARE_MAX: f64 = 0.2;
/// Share of a CPU from which on a sending thread counts as the bottleneck of a schedule.
const BUSY_SHARE_MAX: f64 = 0.97;
/// Samples behind a percentile that make it worth telling.
const SAMPLES_BEHIND_MIN: f64 = 10.0;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// [`SCHEMA`].
    pub schema: u32,
    /// One sentence with everything that a figure depends on.
    pub title: String,
    /// Wall-clock time of the first intended moment, ms since 1970.
    pub started_unix_ms: u64,
    /// What was asked for.
    pub options: Options,
    /// What it ran on.
    pub environment: Environment,
    /// Why nothing here may be believed; empty when it may.
    pub void: Vec<String>,
    /// Whether somebody ended it before its time; void then, too.
    #[serde(default)]
    pub interrupted: bool,
    /// What to keep in mind.
    pub notes: Vec<String>,
    /// Records and bytes.
    pub totals: Totals,
    /// Percentiles by series.
    pub latency: BTreeMap<Series, Percentiles>,
    /// What the check of the payloads found.
    pub findings: Option<Findings>,
    /// What the broker used, when it is on this machine.
    pub broker: Option<Cost>,
    /// What the generator used, and how far to trust it.
    pub generator: GeneratorCost,
    /// The bare machine before and after, when it was asked.
    #[serde(default)]
    pub limits: Option<Ratios>,
}

/// Records and bytes of the measured time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Measured time in s.
    pub seconds: f64,
    /// All that was counted, with what came after the end.
    pub counts: Counts,
    /// Acknowledged records a second.
    pub acked_per_s: f64,
    /// Acknowledged keys and values, 10^6 bytes a second.
    pub acked_mb_per_s: f64,
    /// Records a second that consumers got.
    pub received_per_s: f64,
    /// Keys and values that consumers got, 10^6 bytes a second.
    pub received_mb_per_s: f64,
    /// Records of a batch, on average.
    pub records_per_batch: f64,
}

/// Percentiles in ns. Those with too few samples behind them are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many samples.
    pub samples: u64,
    /// Least.
    pub min_ns: u64,
    /// Mean.
    pub mean_ns: f64,
    /// Most.
    pub max_ns: u64,
    /// By name: `p50`, `p99.9`.
    pub at: BTreeMap<String, u64>,
}

/// The percentiles that are told.
pub const QUANTILES: [(&str, f64); 8] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("p99.999", 0.99999),
];

impl Percentiles {
    /// Of a histogram.
    pub fn of(samples: &Histogram<u64>) -> Self {
        let number = float(samples.len());
        let enough =
            |quantile: f64| SAMPLES_BEHIND_MIN <= number * (1.0 - quantile) || quantile <= 0.5;
        let told = QUANTILES.into_iter().filter(|(_, quantile)| enough(*quantile));
        Self {
            samples: samples.len(),
            min_ns: samples.min(),
            mean_ns: samples.mean(),
            max_ns: samples.max(),
            at: told
                .map(|(name, quantile)| (name.to_owned(), samples.value_at_quantile(quantile)))
                .collect(),
        }
    }
}

/// What a process used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time in s.
    pub cpu_s: f64,
    /// CPU time for 10^6 records, in s.
    pub cpu_s_per_million_records: f64,
    /// CPU time for 10^9 bytes, in s.
    pub cpu_s_per_gb: f64,
    /// Most memory it ever had, in bytes.
    pub memory_bytes_peak: u64,
}

/// What the generator used, and how far to trust it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneratorCost {
    /// The process.
    pub cost: Cost,
    /// Lag that nothing but the generator is to blame for, 99th percentile.
    pub own_lag_p99_ns: u64,
    /// CPU share of the busiest sending thread.
    pub busiest_worker: f64,
    /// What measuring costs for a record.
    pub overhead_ns: f64,
}

/// The bare machine, and a run as a share of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratios {
    /// Sequential writes to the bare disk, 10^6 bytes a second, the lower of before and after.
    pub disk_write_mb_per_s: f64,
    /// Sequential reads from it, the same.
    #[serde(default)]
    pub disk_read_mb_per_s: f64,
    /// The bare loopback, the same.
    pub loopback_mb_per_s: f64,
    /// Largest difference between before and after, as a share.
    pub drift: f64,
    /// Whether the machine was steady enough, 15 %, for the ratios to mean anything.
    pub valid: bool,
    /// Acknowledged bytes to the lower of disk writes and loopback; of a run that only consumes, bytes read to the lower
    /// of disk reads and loopback.
    pub throughput: f64,
    /// Bytes of a write with fdatasync that was measured, near what the run's requests had.
    pub sync_bytes: u64,
    /// Percentiles of that write, in ns: p50, p99, p99.9; `None` with too few samples.
    pub sync_ns: [Option<u64>; 3],
    /// The run's percentiles (response, or service when there is none) to those.
    pub latency: [Option<f64>; 3],
}

impl Outcome {
    /// All samples of a series.
    pub fn samples(&self, series: Series) -> Option<Histogram<u64>> {
        let mut sum = None;
        for samples in self.intervals.iter().filter_map(|interval| interval.series.get(&series)) {
            let sum = sum.get_or_insert_with(histogram);
            sum.add(samples).expect("all histograms have the same bounds");
        }
        sum
    }
}

/// Judges an outcome.
pub fn judge(options: &Options, outcome: &Outcome, environment: Environment) -> RunFile {
    let totals = totals(options, outcome);
    let latency: BTreeMap<Series, Percentiles> = Series::ALL
        .into_iter()
        .filter_map(|series| Some((series, Percentiles::of(&outcome.samples(series)?))))
        .collect();
    let records =
        if options.mode == Mode::Consume { totals.received_per_s } else { totals.acked_per_s };
    let megabytes = if options.mode == Mode::Consume {
        totals.received_mb_per_s
    } else {
        totals.acked_mb_per_s
    };
    let (records, gigabytes) = (records * totals.seconds, megabytes * totals.seconds / 1e3);
    let cost = |used: crate::run::Used| Cost {
        cpu_s: used.cpu_s,
        cpu_s_per_million_records: share(used.cpu_s, records / 1e6),
        cpu_s_per_gb: share(used.cpu_s, gigabytes),
        memory_bytes_peak: used.memory_bytes_peak,
    };
    let mut file = RunFile {
        schema: SCHEMA,
        title: title(options),
        started_unix_ms: outcome.started_unix_ms,
        options: options.clone(),
        environment,
        void: outcome.problems.clone(),
        interrupted: outcome.interrupted,
        notes: Vec::new(),
        totals,
        latency,
        findings: outcome.findings,
        broker: outcome.broker.map(cost),
        generator: GeneratorCost {
            cost: cost(outcome.generator),
            own_lag_p99_ns: outcome.own_lag_p99_ns,
            busiest_worker: outcome.busiest_worker,
            overhead_ns: outcome.overhead_ns,
        },
        limits: None,
    };
    let void = reasons(&file, outcome);
    file.void.extend(void);
    file.notes = notes(&file);
    file
}

fn totals(options: &Options, outcome: &Outcome) -> Totals {
    let mut all = Counts::default();
    let mut in_time = Counts::default();
    for interval in &outcome.intervals {
        all.add(&interval.counts);
        if options.mode == Mode::Consume || interval.index < options.warmup_s + options.duration_s {
            in_time.add(&interval.counts);
        }
    }
    let per_s = |count: u64| share(float(count), outcome.seconds);
    Totals {
        seconds: outcome.seconds,
        counts: all,
        acked_per_s: per_s(in_time.acked),
        acked_mb_per_s: per_s(in_time.acked_bytes) / 1e6,
        received_per_s: per_s(in_time.received),
        received_mb_per_s: per_s(in_time.received_bytes) / 1e6,
        records_per_batch: share(float(all.acked), float(all.batches)),
    }
}

/// Why a run is void, beyond what went wrong in it.
fn reasons(file: &RunFile, outcome: &Outcome) -> Vec<String> {
    let mut reasons = Vec::new();
    let counts = &file.totals.counts;
    if outcome.failed > 0 {
        let first = outcome.first_failure.as_deref().unwrap_or("no reason was given");
        reasons.push(format!("{} records failed, the first: {first}", outcome.failed));
    }
    if let Some(findings) = outcome.findings.filter(|findings| !findings.is_clean()) {
        reasons.push(format!("the records are not what was sent: {findings}"));
    }
    if counts.negative > 0 {
        reasons.push(format!("{} records arrived before they were sent", counts.negative));
    }
    let moved = if file.options.mode == Mode::Consume { counts.received } else { counts.acked };
    if moved == 0 {
        reasons.push("nothing was measured".to_owned());
    }
    if !file.options.is_closed_loop() {
        let limit_ns = file.options.lag_limit_us * 1000;
        if outcome.own_lag_p99_ns > limit_ns {
            reasons.push(format!(
                "the generator lagged by its own fault: p99 {} is more than {} (--lag-limit-us)",
                duration(outcome.own_lag_p99_ns),
                duration(limit_ns)
            ));
        }
        if outcome.busiest_worker > BUSY_SHARE_MAX {
            reasons.push(format!(
                "a sending thread used {:.0} % of a CPU: it could not keep the schedule; add --workers",
                outcome.busiest_worker * 100.0
            ));
        }
    }
    let rate = share(file.totals.acked_per_s, float(file.options.workers.into()));
    let overhead = outcome.overhead_ns * rate / 1e9;
    if overhead > OVERHEAD_SHARE_MAX {
        reasons.push(format!("measuring took {:.0} % of a CPU", overhead * 100.0));
    }
    reasons
}

fn notes(file: &RunFile) -> Vec<String> {
    let mut notes = Vec::new();
    if file.options.is_closed_loop() && file.options.mode != Mode::Consume {
        notes.push(
            "maximum rate: the senders wait for the system, so this is a throughput; service and end-to-end \
             times hold what queued in the client"
                .to_owned(),
        );
    }
    let shown = |name: &str| file.latency.values().any(|series| series.at.contains_key(name));
    if !file.latency.is_empty() && !shown("p99.99") {
        notes.push("too few samples for p99.99".to_owned());
    }
    notes
}

/// A percentile of the series that counts: response, or service when the loop is closed.
pub fn headline(file: &RunFile) -> Option<(Series, &Percentiles)> {
    let order = match file.options.mode {
        Mode::EndToEnd | Mode::Produce => [Series::Response, Series::Service],
        Mode::Consume => [Series::EndToEnd, Series::EndToEnd],
    };
    order.into_iter().find_map(|series| Some((series, file.latency.get(&series)?)))
}

/// Milliseconds, for tables.
pub fn ms(ns: u64) -> f64 {
    float(ns) / 1e6
}

/// The bytes that a request of the run had on average, at least one record.
pub fn request_bytes(file: &RunFile) -> u64 {
    let records = file.totals.records_per_batch.max(1.0);
    whole(records * float(u64::from(file.options.message_bytes)))
}

/// How many intervals a run has, for files.
pub fn seconds_of(outcome: &Outcome) -> u64 {
    count(outcome.intervals.len())
}
