//! `HdrHistogram`'s own formats: the interval log, which loses nothing, and the percentile table,
//! which every plotter reads.
//! Source: `HistogramLogWriter` and `outputPercentileDistribution` of the Java library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use crate::error::BenchError;
use crate::number::float;
use crate::recorder::INTERVAL_NS;
use crate::result::RunFile;
use crate::run::Outcome;

/// Values are nanoseconds, columns milliseconds.
const NS_PER_MS: f64 = 1e6;
/// Lines of the percentile table per halving of the distance to 1.
const TICKS: u32 = 5;

/// The interval log: a row per second and series, tagged with the series' name, V2 and deflate.
///
/// # Errors
/// [`BenchError::System`]; nothing in memory fails.
pub fn log(run: &RunFile, outcome: &Outcome) -> Result<Vec<u8>, BenchError> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let start: SystemTime = UNIX_EPOCH + Duration::from_millis(outcome.started_unix_ms);
    let failed = |error: String| BenchError::System {
        what: "write the interval log".to_owned(),
        source: std::io::Error::other(error),
    };
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment(&format!("levada bench: {}", run.title)).with_start_time(start);
    builder.with_base_time(start).with_max_value_divisor(NS_PER_MS);
    let mut log = builder
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| failed(error.to_string()))?;
    for interval in &outcome.intervals {
        for (series, samples) in &interval.series {
            let at = Duration::from_nanos(u64::from(interval.index) * INTERVAL_NS);
            let length = Duration::from_nanos(INTERVAL_NS);
            let tag = Tag::new(series.name());
            log.write_histogram(samples, at, length, tag)
                .map_err(|error| failed(format!("{error:?}")))?;
        }
    }
    Ok(bytes)
}

/// The percentile table of a histogram of nanoseconds, in milliseconds.
pub fn percentiles(samples: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut seen = 0;
    for step in samples.iter_quantiles(TICKS) {
        seen += step.count_since_last_iteration();
        let value = float(step.value_iterated_to()) / NS_PER_MS;
        let quantile = step.quantile_iterated_to();
        if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            add!(text, "{value:12.6} {quantile:2.12} {seen:10} {inverse:14.2}\n");
        } else {
            add!(text, "{value:12.6} {quantile:2.12} {seen:10}\n");
        }
    }
    let ms = |ns: f64| ns / NS_PER_MS;
    add!(
        text,
        "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]\n",
        ms(samples.mean()),
        ms(samples.stdev())
    );
    add!(
        text,
        "#[Max     = {:12.6}, Total count    = {:12}]\n",
        ms(float(samples.max())),
        samples.len()
    );
    let sub_buckets = 2048;
    add!(
        text,
        "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]\n",
        samples.distinct_values() / sub_buckets
    );
    text
}

/// A histogram as it stands in a row of an interval log: base64 of V2, with or without deflate.
///
/// # Errors
/// What is wrong with it.
pub fn decode(text: &str, deserializer: &mut Deserializer) -> Result<Histogram<u64>, String> {
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| e.to_string())?;
    deserializer.deserialize(&mut bytes.as_slice()).map_err(|error| format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::histogram;

    #[test]
    fn the_percentile_table_has_the_lines_that_plotters_look_for() {
        let mut samples = histogram();
        for ms in 1..=1000_u64 {
            samples.record(ms * 1_000_000).unwrap();
        }
        let text = percentiles(&samples);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
        );
        let half = lines.iter().find(|line| line.contains(" 0.500000000000 ")).unwrap();
        let value: f64 = half.split_whitespace().next().unwrap().parse().unwrap();
        assert!((value - 500.0).abs() < 1.0, "{half}");
        assert!(lines.iter().any(|line| line.starts_with("#[Max     =") && line.contains("1000")));
    }
}
