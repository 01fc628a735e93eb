//! Sides against each other: ratios with a verdict, or a refusal where they cannot be compared.

pub mod side;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::BenchError;
use crate::number::{duration, rate};
use crate::recorder::Series;
use crate::result::QUANTILES;
use crate::verdict::{Change, FailIf, Good, Verdict, change, overall};
use side::Side;

/// Options that may differ between runs that are compared.
const MAY_DIFFER: [&str; 6] = ["name", "seed", "pin", "timeout_s", "verify", "lag_limit_us"];

/// A figure of all sides.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name: `response.p99`, `throughput`.
    pub metric: String,
    /// Whether the verdict over all looks at it.
    pub decides: bool,
    /// Of each side, the median over its runs; ns, or records a second. `None` where a side
    /// does not have it.
    pub values: Vec<Option<f64>>,
    /// Of each side but the first, against the first.
    pub changes: Vec<Option<Change>>,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Names of the sides.
    pub sides: Vec<String>,
    /// How many runs each has.
    pub runs: Vec<usize>,
    /// What they were measured with.
    pub title: String,
    /// What is not alike.
    pub unlike: Vec<String>,
    /// The figures.
    pub rows: Vec<Row>,
    /// Of each side but the first.
    pub verdicts: Vec<Verdict>,
    /// Conditions that are met: reasons to fail.
    pub failed: Vec<String>,
}

/// Whether sides that are not alike may be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlike {
    /// They may not.
    Refused,
    /// Somebody wants it so.
    Allowed,
}

/// Compares every side with the first.
///
/// # Errors
/// [`BenchError::Unlike`] when they are not, and a condition that names no figure.
pub fn compare(
    sides: &[Side],
    fail_if: &[FailIf],
    unlike_may: Unlike,
) -> Result<Comparison, BenchError> {
    let unlike = differences(sides);
    if unlike_may == Unlike::Refused && !unlike.is_empty() {
        return Err(BenchError::Unlike(unlike.join("; ")));
    }
    let first =
        sides.first().ok_or_else(|| BenchError::option("A B", "there is nothing to compare"))?;
    let closed = sides
        .iter()
        .flat_map(|side| &side.runs)
        .any(|run| run.file.as_ref().is_some_and(|file| file.options.is_closed_loop()));
    let mut rows = Vec::new();
    for series in Series::ALL {
        for (name, _) in QUANTILES {
            let figures = |side: &Side| side.figures(|run| run.percentile(series, name));
            // The generator's lag says nothing about the system.
            let decides = !closed
                && matches!(series, Series::Response | Series::EndToEnd)
                && matches!(name, "p50" | "p99");
            let metric = format!("{}.{name}", series.name());
            rows.extend(row(metric, decides, sides, Good::Less, figures));
        }
    }
    let throughput = |side: &Side| side.figures(|run| run.throughput);
    rows.extend(row("throughput".to_owned(), true, sides, Good::More, throughput));
    let verdicts = (1..sides.len()).map(|place| {
        let of_row = |row: &Row| row.changes.get(place - 1).copied().flatten();
        overall(
            rows.iter().filter(|row| row.decides).filter_map(of_row).map(|change| change.verdict),
        )
    });
    let verdicts: Vec<Verdict> = verdicts.collect();
    let mut failed = Vec::new();
    for condition in fail_if {
        let headline = if closed { Series::Service } else { Series::Response };
        let long = format!("{}.{}", headline.name(), condition.metric);
        let row = rows.iter().find(|row| row.metric == condition.metric || row.metric == long);
        let row = row.ok_or_else(|| {
            let names: Vec<&str> = rows.iter().map(|row| row.metric.as_str()).collect();
            let reason =
                format!("there is no {:?} here, but {}", condition.metric, names.join(", "));
            BenchError::option("--fail-if", reason)
        })?;
        for (change, side) in row.changes.iter().zip(sides.iter().skip(1)) {
            if let Some(change) = change.filter(|change| condition.is_met(change)) {
                let percent = (change.ratio - 1.0) * 100.0;
                failed.push(format!(
                    "{}: {} of {} is {percent:+.1} %",
                    condition.text, row.metric, side.name
                ));
            }
        }
    }
    Ok(Comparison {
        sides: sides.iter().map(|side| side.name.clone()).collect(),
        runs: sides.iter().map(|side| side.runs.len()).collect(),
        title: first.title(),
        unlike,
        rows,
        verdicts,
        failed,
    })
}

/// A row; none when fewer than two sides have the figure.
fn row(
    metric: String,
    decides: bool,
    sides: &[Side],
    good: Good,
    figures: impl Fn(&Side) -> Vec<f64>,
) -> Option<Row> {
    let all: Vec<Vec<f64>> = sides.iter().map(figures).collect();
    let first = all.first()?;
    let changes: Vec<_> = all.iter().skip(1).map(|other| change(first, other, good)).collect();
    if changes.iter().all(Option::is_none) {
        return None;
    }
    let values = all.into_iter().map(median).collect();
    Some(Row { metric, decides, values, changes })
}

/// The middle one, the mean of two.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    let lower = *figures.get((figures.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// What differs in the options of any two runs, or makes a run useless.
fn differences(sides: &[Side]) -> Vec<String> {
    let mut unlike = BTreeSet::new();
    let files: Vec<_> =
        sides.iter().flat_map(|side| side.runs.iter().map(move |run| (side, run))).collect();
    let mut first = None;
    for (side, run) in &files {
        let Some(file) = &run.file else { continue };
        for reason in &file.void {
            unlike.insert(format!("a run of {} is void ({reason})", side.name));
        }
        let Ok(serde_json::Value::Object(options)) = serde_json::to_value(&file.options) else {
            continue;
        };
        let Some((name, known)) = &first else {
            first = Some((side.name.clone(), options));
            continue;
        };
        for (key, value) in &options {
            let known = known.get(key).unwrap_or(&serde_json::Value::Null);
            if known != value && !MAY_DIFFER.contains(&key.as_str()) {
                unlike.insert(format!("{key} is {known} in {name} and {value} in {}", side.name));
            }
        }
    }
    unlike.into_iter().collect()
}

impl Comparison {
    /// For people, in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.title);
        for difference in &self.unlike {
            add!(text, "**Unlike: {difference}.**\n\n");
        }
        let named = self.sides.iter().zip(&self.runs);
        let heads: Vec<String> =
            named.map(|(side, runs)| format!("{side} ({runs} runs)")).collect();
        add!(text, "| | {} | ratio | 99 % interval | verdict |\n", heads.join(" | "));
        add!(text, "|---|{}---:|---:|---|\n", "---:|".repeat(heads.len()));
        for row in &self.rows {
            let shown = |value: &Option<f64>| match value {
                Some(value) if row.metric == "throughput" => format!("{}/s", rate(*value)),
                Some(value) => duration(crate::number::whole(*value)),
                None => "-".to_owned(),
            };
            let values: Vec<String> = row.values.iter().map(shown).collect();
            let join = |of: &dyn Fn(&Change) -> String| {
                let cells = row.changes.iter();
                let cells = cells.map(|change| change.as_ref().map_or_else(|| "-".to_owned(), of));
                cells.collect::<Vec<_>>().join(", ")
            };
            let interval = |change: &Change| match change.interval {
                Some((low, high)) => format!("{} to {}", bound(low), bound(high)),
                None => "-".to_owned(),
            };
            add!(
                text,
                "| {} | {} | {} | {} | {} |\n",
                row.metric,
                values.join(" | "),
                join(&|change| format!("{:.3}", change.ratio)),
                join(&interval),
                join(&|change| change.verdict.to_string())
            );
        }
        text.push('\n');
        text + &self.verdict_lines()
    }

    /// What it came to: a line for each side but the first, and one for each condition that is met.
    pub fn verdict_lines(&self) -> String {
        let mut text = String::new();
        for (side, verdict) in self.sides.iter().skip(1).zip(&self.verdicts) {
            add!(
                text,
                "{side} against {}: **{verdict}**",
                self.sides.first().map_or("", String::as_str)
            );
            if *verdict == Verdict::Undecided {
                text.push_str(" (it takes at least two runs a side: `bench run --repeat 5`)");
            }
            text.push_str("\n\n");
        }
        for failed in &self.failed {
            add!(text, "FAILED {failed}\n");
        }
        text
    }
}

/// Beyond a factor of this, an interval only says that too few runs were made.
const RATIO_SHOWN_MAX: f64 = 1000.0;

/// An end of an interval, for people.
fn bound(ratio: f64) -> String {
    if RATIO_SHOWN_MAX < ratio {
        "∞".to_owned()
    } else if ratio < 1.0 / RATIO_SHOWN_MAX {
        "0".to_owned()
    } else {
        format!("{ratio:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::side::tests::side;
    use super::*;

    #[test]
    fn a_slower_side_is_worse_and_meets_a_condition() {
        let sides = [side("a", &[1.0, 1.01, 0.99]), side("b", &[1.5, 1.51, 1.49])];
        let fail = [FailIf::parse("p99>+5%").unwrap(), FailIf::parse("throughput<-5%").unwrap()];
        let compared = compare(&sides, &fail, Unlike::Refused).unwrap();
        assert_eq!(compared.verdicts, [Verdict::Worse]);
        assert_eq!(compared.failed.len(), 1, "{:?}", compared.failed);
        assert!(compared.markdown().contains("response.p99"));
        let wrong = [FailIf::parse("p98>+5%").unwrap()];
        assert!(
            compare(&sides, &wrong, Unlike::Refused).unwrap_err().to_string().contains("--fail-if")
        );
    }

    #[test]
    fn an_interval_of_two_wild_runs_is_short_to_write() {
        let sides = [side("a", &[1.0, 50.0]), side("b", &[1.0, 50.0])];
        let text = compare(&sides, &[], Unlike::Refused).unwrap().markdown();
        assert!(text.contains("| 0 to ∞ | noise |"), "{text}");
    }

    #[test]
    fn unlike_runs_are_refused_by_what_differs_unless_told_to() {
        let mut other = side("b", &[1.0, 1.0]);
        for run in &mut other.runs {
            run.file.as_mut().unwrap().options.linger_ms = 77;
        }
        let sides = [side("a", &[1.0, 1.0]), other];
        let error = compare(&sides, &[], Unlike::Refused).unwrap_err().to_string();
        assert!(error.contains("linger_ms is 5 in a and 77 in b"), "{error}");
        assert_eq!(compare(&sides, &[], Unlike::Allowed).unwrap().unlike.len(), 1);
    }

    #[test]
    fn a_void_run_is_not_compared() {
        let mut void = side("b", &[1.0]);
        void.runs[0].file.as_mut().unwrap().void.push("3 records failed".to_owned());
        let error = compare(&[side("a", &[1.0]), void], &[], Unlike::Refused).unwrap_err();
        assert!(error.to_string().contains("3 records failed"), "{error}");
    }
}
