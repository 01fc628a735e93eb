//! A row per measured second, for spreadsheets. `[P]`

use std::fmt::Write as _;

use crate::recorder::Series;
use crate::result::ms;
use crate::run::Outcome;

/// The quantiles of a row.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The table: seconds since the start of the warm-up, counts, and per series quantiles in ms, empty
/// where there are no samples.
pub fn rows(outcome: &Outcome) -> String {
    let mut text =
        "second,sent,acked,acked_bytes,failed,batches,received,received_bytes".to_owned();
    for series in Series::ALL {
        for (name, _) in QUANTILES {
            add!(text, ",{}_{name}_ms", series.name());
        }
    }
    text.push('\n');
    for interval in &outcome.intervals {
        let c = &interval.counts;
        let line = write!(
            text,
            "{},{},{},{},{},{},{},{}",
            interval.index,
            c.sent,
            c.acked,
            c.acked_bytes,
            c.failed,
            c.batches,
            c.received,
            c.received_bytes
        );
        line.expect("a string takes everything");
        for series in Series::ALL {
            for (_, quantile) in QUANTILES {
                text.push(',');
                if let Some(samples) = interval.series.get(&series) {
                    add!(text, "{:.4}", ms(samples.value_at_quantile(quantile)));
                }
            }
        }
        text.push('\n');
    }
    text
}
