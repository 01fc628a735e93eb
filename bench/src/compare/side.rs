//! The runs of one side, from our directories or from other tools' files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

use crate::error::BenchError;
use crate::files::{HLOG_FILE, RUN_FILE, read_run};
use crate::number::{float, share, whole};
use crate::options::Mode;
use crate::recorder::{Series, histogram};
use crate::result::{QUANTILES, RunFile};

/// Quantile and value in ns, rising.
pub type Curve = Vec<(f64, f64)>;

/// One run.
#[derive(Debug, Clone)]
pub struct SideRun {
    /// Its file, when it is ours.
    pub file: Option<RunFile>,
    /// A curve per series.
    pub curves: BTreeMap<Series, Curve>,
    /// Records a second.
    pub throughput: Option<f64>,
}

/// What is compared: a run, or several of the same.
#[derive(Debug, Clone)]
pub struct Side {
    /// How people call it.
    pub name: String,
    /// Its runs.
    pub runs: Vec<SideRun>,
}

impl SideRun {
    /// A percentile in ns by its name.
    pub fn percentile(&self, series: Series, name: &str) -> Option<f64> {
        if let Some(file) = &self.file {
            return file.latency.get(&series)?.at.get(name).map(|ns| float(*ns));
        }
        let (_, quantile) = QUANTILES.into_iter().find(|(known, _)| *known == name)?;
        let curve = self.curves.get(&series)?;
        // What is shown with six decimals of a percent.
        let place = curve.iter().position(|(at, _)| quantile - 1e-9 <= *at)?;
        curve.get(place).map(|(_, value)| *value)
    }
}

impl Side {
    /// Reads a directory of a run or of several, an interval log, a percentile table (in ms) or a
    /// result of the `OpenMessaging` Benchmark.
    ///
    /// # Errors
    /// [`BenchError`] when it is none of these.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let runs = match path.extension().and_then(|extension| extension.to_str()) {
            _ if path.is_dir() => directories(path)?
                .iter()
                .map(|directory| own(directory))
                .collect::<Result<_, _>>()?,
            Some("hlog") => vec![foreign(not_empty(path, interval_log(path)?)?)],
            Some("hgrm") => {
                vec![foreign(BTreeMap::from([(Series::Response, percentile_table(path)?)]))]
            }
            Some("json") => vec![omb(path)?],
            _ => {
                let reason = "neither a run's directory nor .hlog, .hgrm or .json";
                return Err(BenchError::file(path, reason));
            }
        };
        Ok(Self { name, runs })
    }

    /// A figure of every run that has it.
    pub fn figures(&self, figure: impl Fn(&SideRun) -> Option<f64>) -> Vec<f64> {
        self.runs.iter().filter_map(figure).collect()
    }

    /// What it was measured with.
    pub fn title(&self) -> String {
        let file = self.runs.iter().find_map(|run| run.file.as_ref());
        file.map_or_else(|| format!("{}, measured elsewhere", self.name), |file| file.title.clone())
    }
}

fn foreign(curves: BTreeMap<Series, Curve>) -> SideRun {
    SideRun { file: None, curves, throughput: None }
}

/// The directory itself when it is a run's, else those in it, by name.
fn directories(path: &Path) -> Result<Vec<PathBuf>, BenchError> {
    if path.join(RUN_FILE).is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries =
        fs::read_dir(path).map_err(BenchError::system(format!("read {}", path.display())))?;
    let inside = entries.flatten().map(|entry| entry.path());
    let mut runs: Vec<PathBuf> = inside.filter(|path| path.join(RUN_FILE).is_file()).collect();
    runs.sort();
    if runs.is_empty() {
        return Err(BenchError::file(path, "no run is in it: a run's directory has a run.json"));
    }
    Ok(runs)
}

fn own(directory: &Path) -> Result<SideRun, BenchError> {
    let file = read_run(directory)?;
    let log = directory.join(HLOG_FILE);
    let mut curves = interval_log(&log)?;
    // A run that only consumes measures no latency.
    if !file.latency.is_empty() {
        curves = not_empty(&log, curves)?;
    }
    let totals = &file.totals;
    let throughput = match file.options.mode {
        Mode::Consume => totals.received_per_s,
        Mode::Produce | Mode::EndToEnd => totals.acked_per_s,
    };
    Ok(SideRun { throughput: Some(throughput), curves, file: Some(file) })
}

/// The curve of a histogram.
pub fn curve(samples: &Histogram<u64>) -> Curve {
    let steps = samples.iter_quantiles(5);
    steps.map(|step| (step.quantile_iterated_to(), float(step.value_iterated_to()))).collect()
}

/// The curves of a log, when it has any.
fn not_empty(
    path: &Path,
    curves: BTreeMap<Series, Curve>,
) -> Result<BTreeMap<Series, Curve>, BenchError> {
    if curves.is_empty() {
        return Err(BenchError::file(path, "there is no histogram in it"));
    }
    Ok(curves)
}

/// All intervals of a log added up by tag; what has no tag of ours counts as response.
fn interval_log(path: &Path) -> Result<BTreeMap<Series, Curve>, BenchError> {
    let bytes = fs::read(path).map_err(BenchError::system(format!("read {}", path.display())))?;
    let mut sums: BTreeMap<Series, Histogram<u64>> = BTreeMap::new();
    let mut deserializer = Deserializer::new();
    for entry in IntervalLogIterator::new(&bytes) {
        let entry = entry.map_err(|error| BenchError::file(path, format!("{error:?}")))?;
        let LogEntry::Interval(interval) = entry else { continue };
        let samples: Histogram<u64> =
            crate::files::hdr::decode(interval.encoded_histogram(), &mut deserializer)
                .map_err(|reason| BenchError::file(path, reason))?;
        let series = interval.tag().and_then(|tag| Series::of_name(tag.as_str()));
        let sum = sums.entry(series.unwrap_or(Series::Response)).or_insert_with(histogram);
        // Other tools' histograms have other bounds; ours take all values up to an hour.
        for step in samples.iter_recorded() {
            sum.saturating_record_n(step.value_iterated_to(), step.count_at_value());
        }
    }
    Ok(sums.into_iter().map(|(series, samples)| (series, curve(&samples))).collect())
}

/// The lines of a percentile table, whose values are taken for ms.
fn percentile_table(path: &Path) -> Result<Curve, BenchError> {
    let text =
        fs::read_to_string(path).map_err(BenchError::system(format!("read {}", path.display())))?;
    let point = |line: &str| {
        let mut fields = line.split_whitespace();
        let value: f64 = fields.next()?.parse().ok()?;
        let quantile: f64 = fields.next()?.parse().ok()?;
        (0.0..=1.0).contains(&quantile).then_some((quantile, value * 1e6))
    };
    let curve: Curve = text.lines().filter_map(point).collect();
    if curve.is_empty() {
        return Err(BenchError::file(path, "there is no percentile in it"));
    }
    Ok(curve)
}

/// The result of an `OpenMessaging` benchmark.
fn omb(path: &Path) -> Result<SideRun, BenchError> {
    let text =
        fs::read_to_string(path).map_err(BenchError::system(format!("read {}", path.display())))?;
    let value: Value =
        serde_json::from_str(&text).map_err(|error| BenchError::file(path, error.to_string()))?;
    let mut curves = BTreeMap::new();
    for (series, key, unit_ns) in [
        (Series::Response, "aggregatedPublishLatencyQuantiles", 1e6),
        (Series::EndToEnd, "aggregatedEndToEndLatencyQuantiles", 1e6),
        (Series::Lag, "aggregatedPublishDelayLatencyQuantiles", 1e3),
    ] {
        let Some(quantiles) = value.get(key).and_then(Value::as_object) else { continue };
        let point = |(percent, value): (&String, &Value)| {
            Some((percent.parse::<f64>().ok()? / 100.0, value.as_f64()? * unit_ns))
        };
        let mut curve: Curve = quantiles.iter().filter_map(point).collect();
        curve.sort_by(|one, other| one.0.total_cmp(&other.0));
        if !curve.is_empty() {
            curves.insert(series, curve);
        }
    }
    if curves.is_empty() {
        return Err(BenchError::file(path, "no result of the OpenMessaging Benchmark"));
    }
    let rates = value.get("publishRate").and_then(Value::as_array);
    let throughput = rates.map(|rates| {
        let sum: f64 = rates.iter().filter_map(Value::as_f64).sum();
        share(sum, float(crate::number::count(rates.len())))
    });
    Ok(SideRun { file: None, curves, throughput: throughput.filter(|rate| whole(*rate) > 0) })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::environment::Environment;
    use crate::result::judge;
    use crate::run::{Outcome, Used};
    use crate::schedule::Rate;

    /// An outcome whose response times are 1 to 100 ms, times `factor`.
    pub(crate) fn outcome(factor: f64) -> Outcome {
        let mut interval = crate::recorder::Interval::new(5);
        let mut samples = histogram();
        for ms in 1..=20_000_u64 {
            samples.record(whole(float(ms % 100 + 1) * factor * 1e6)).unwrap();
        }
        interval.series.insert(Series::Response, samples);
        interval.counts.acked = 20_000;
        Outcome {
            started_unix_ms: 1,
            intervals: vec![interval],
            seconds: 1.0,
            findings: None,
            problems: Vec::new(),
            failed: 0,
            first_failure: None,
            interrupted: false,
            own_lag_p99_ns: 0,
            busiest_worker: 0.1,
            overhead_ns: 50.0,
            broker: None,
            generator: Used::default(),
        }
    }

    pub(crate) fn run_file(factor: f64) -> RunFile {
        let options = crate::Options { rate: Rate::Fixed(20_000.0), ..Default::default() };
        judge(&options, &outcome(factor), Environment::default())
    }

    pub(crate) fn side(name: &str, factors: &[f64]) -> Side {
        let run = |factor: &f64| SideRun {
            throughput: Some(20_000.0),
            curves: BTreeMap::new(),
            file: Some(run_file(*factor)),
        };
        Side { name: name.to_owned(), runs: factors.iter().map(run).collect() }
    }

    #[test]
    fn a_directory_its_log_its_table_and_its_omb_result_tell_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        crate::files::write(&path, &run_file(1.0), &outcome(1.0)).unwrap();
        let expected =
            Side::read(&path).unwrap().runs[0].percentile(Series::Response, "p99").unwrap();
        assert!((expected - 99e6).abs() < 1e6, "{expected}");
        for file in ["run.hlog", "response.hgrm", "omb.json"] {
            let side = Side::read(&path.join(file)).unwrap();
            let got = side.runs[0].percentile(Series::Response, "p99").unwrap();
            assert!((got / expected - 1.0).abs() < 0.02, "{file}: {got} {expected}");
        }
        assert_eq!(Side::read(directory.path()).unwrap().runs.len(), 1, "a directory of runs");
    }

    #[test]
    fn runs_that_only_consume_are_compared_by_their_throughput() {
        let directory = tempfile::tempdir().unwrap();
        let options = crate::Options { mode: Mode::Consume, ..Default::default() };
        let mut seen = outcome(1.0);
        for interval in &mut seen.intervals {
            interval.series.clear();
            interval.counts.received = 20_000;
        }
        let file = judge(&options, &seen, Environment::default());
        let sides = ["a", "b"].map(|name| {
            let path = directory.path().join(name);
            crate::files::write(&path, &file, &seen).unwrap();
            Side::read(&path).unwrap()
        });
        assert_eq!(sides[0].runs[0].throughput, Some(20_000.0));
        let compared =
            crate::compare::compare(&sides, &[], crate::compare::Unlike::Refused).unwrap();
        let metrics: Vec<_> = compared.rows.iter().map(|row| row.metric.as_str()).collect();
        assert_eq!(metrics, ["throughput"]);
        // A log that is empty though its run has latencies is a damaged one.
        let path = directory.path().join("c");
        crate::files::write(&path, &run_file(1.0), &seen).unwrap();
        assert!(Side::read(&path).is_err());
    }

    #[test]
    fn what_is_no_result_is_refused_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Side::read(directory.path()).is_err());
        for (name, text) in [("x.hlog", "x"), ("x.hgrm", "x"), ("x.json", "{}"), ("x.txt", "")] {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            let error = Side::read(&path).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
