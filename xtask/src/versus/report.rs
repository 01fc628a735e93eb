//! The table of a comparison: medians over the runs of each load on each broker.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value;

use super::loads::Load;

/// One run.
pub(super) struct Run {
    pub(super) load: &'static str,
    pub(super) broker: &'static str,
    /// Its `run.json`.
    pub(super) file: Value,
}

impl Run {
    /// Whether its figures may not be believed.
    pub(super) fn is_void(&self) -> bool {
        self.file["void"].as_array().is_none_or(|reasons| !reasons.is_empty())
    }

    /// Records a second: acknowledged, or read where nothing was written.
    fn records_per_s(&self) -> Option<f64> {
        let totals = &self.file["totals"];
        let field = if self.is_consume() { "received_per_s" } else { "acked_per_s" };
        totals[field].as_f64()
    }

    fn is_consume(&self) -> bool {
        self.file["options"]["mode"] == "consume"
    }

    /// A percentile of the latency that counts, in ms: to the delivery where there is one, else to the acknowledgement.
    fn percentile_ms(&self, name: &str) -> Option<f64> {
        let latency = &self.file["latency"];
        let order = ["end_to_end", "response", "service"];
        let series = order.into_iter().find(|series| latency[*series].is_object())?;
        Some(latency[series]["at"][name].as_f64()? / 1e6)
    }

    fn broker_cpu(&self) -> Option<f64> {
        self.file["broker"]["cpu_s_per_million_records"].as_f64()
    }

    fn broker_memory_mib(&self) -> Option<f64> {
        Some(self.file["broker"]["memory_bytes_peak"].as_f64()? / f64::from(1 << 20))
    }
}

/// The whole report.
pub(super) fn markdown(title: &str, loads: &[Load], runs: &[Run]) -> String {
    let mut text = format!("# Levada and Apache Kafka\n\n{title}.\n\n");
    text.push_str(
        "| load | broker | records/s | p50 ms | p99 ms | p99.9 ms | broker CPU s per 10^6 records | peak MiB |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for load in loads {
        let mut brokers: Vec<&str> = Vec::new();
        for run in runs.iter().filter(|run| run.load == load.name) {
            if !brokers.contains(&run.broker) {
                brokers.push(run.broker);
            }
        }
        for broker in brokers {
            let of_both = |run: &&Run| run.load == load.name && run.broker == broker;
            let good: Vec<&Run> =
                runs.iter().filter(of_both).filter(|run| !run.is_void()).collect();
            let cell = |figure: &dyn Fn(&Run) -> Option<f64>, decimals: usize| {
                let figures: Vec<f64> = good.iter().filter_map(|run| figure(run)).collect();
                median(figures)
                    .map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
            };
            let cells = [
                cell(&Run::records_per_s, 0),
                cell(&|run| run.percentile_ms("p50"), 2),
                cell(&|run| run.percentile_ms("p99"), 2),
                cell(&|run| run.percentile_ms("p99.9"), 2),
                cell(&Run::broker_cpu, 2),
                cell(&Run::broker_memory_mib, 0),
            ];
            let row = format!("| {} | {broker} | {} |\n", load.about, cells.join(" | "));
            text.push_str(&row);
        }
    }
    text.push('\n');
    for run in runs.iter().filter(|run| run.is_void()) {
        let line = format!("* void: {} on {}: {}\n", run.load, run.broker, run.file["void"]);
        text.push_str(&line);
    }
    let environment = runs.first().map(|run| &run.file["environment"]);
    if let Some(environment) = environment {
        writeln!(text, "\nMachine: `{environment}`").expect("a string takes everything");
    }
    text
}

/// The middle one; the mean of two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = *values.get(half)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(half - 1)?, upper))
}

/// To stdout.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::versus::loads::LOADS;

    #[test]
    fn medians_of_the_runs_that_count_stand_in_the_table() {
        let run = |broker, acked: f64, void: &[&str]| Run {
            load: "maximum",
            broker,
            file: json!({
                "void": void, "options": {"mode": "produce"}, "environment": {"cpu": "x"},
                "totals": {"acked_per_s": acked},
                "latency": {"service": {"at": {"p50": 2_000_000}}},
            }),
        };
        let runs = [
            run("a", 5.0, &[]),
            run("a", 7.0, &[]),
            run("a", 100.0, &["the generator lagged"]),
            run("b", 1.0, &[]),
        ];
        let text = markdown("title", &LOADS[..1], &runs);
        assert!(text.contains("| a | 6 | 2.00 | - | - | - | - |"), "{text}");
        assert!(text.contains("| b | 1 | 2.00 |"), "{text}");
        assert!(text.contains("* void: maximum on a: [\"the generator lagged\"]"), "{text}");
    }
}
