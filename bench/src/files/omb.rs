//! The result as the `OpenMessaging` Benchmark writes it, so that its charts take ours. `[P]`
//! Source: `TestResult.java`; latencies in ms, delays in µs, a window is a second here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::number::float;
use crate::recorder::Series;
use crate::result::{RunFile, ms};
use crate::run::Outcome;

/// Names of the arrays, and their quantiles.
const QUANTILES: [(&str, f64); 7] = [
    ("50pct", 0.5),
    ("75pct", 0.75),
    ("95pct", 0.95),
    ("99pct", 0.99),
    ("999pct", 0.999),
    ("9999pct", 0.9999),
    ("Max", 1.0),
];

/// The whole of it.
pub fn result(run: &RunFile, outcome: &Outcome) -> Value {
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
    put("workload", json!(run.options.name));
    put("driver", json!(format!("levada-bench {:?}", run.options.client)));
    put("messageSize", json!(run.options.message_bytes));
    put("topics", json!(run.options.topics));
    put("partitions", json!(run.options.partitions));
    put("producersPerTopic", json!(run.options.producers / run.options.topics.max(1)));
    put("consumersPerTopic", json!(run.options.consumers * run.options.subscriptions));
    let windows = |of: &dyn Fn(&crate::recorder::Interval) -> f64| -> Value {
        outcome.intervals.iter().map(of).collect()
    };
    put("publishRate", windows(&|window| float(window.counts.acked)));
    put("publishErrorRate", windows(&|window| float(window.counts.failed)));
    put("consumeRate", windows(&|window| float(window.counts.received)));
    let mut backlog = 0_i64;
    let fan_out = i64::from(run.options.subscriptions);
    let backlogs: Vec<i64> = outcome
        .intervals
        .iter()
        .map(|window| {
            let whole = |count| i64::try_from(count).unwrap_or(i64::MAX);
            backlog += whole(window.counts.acked) * fan_out - whole(window.counts.received);
            backlog.max(0)
        })
        .collect();
    put("backlog", json!(backlogs));
    let publish = if run.options.is_closed_loop() { Series::Service } else { Series::Response };
    let named = [
        ("publishLatency", "PublishLatency", publish, 1.0),
        ("publishDelayLatency", "PublishDelayLatency", Series::Lag, 1000.0),
        ("endToEndLatency", "EndToEndLatency", Series::EndToEnd, 1.0),
    ];
    for (name, capital, series, scale) in named {
        let at = |samples: Option<&hdrhistogram::Histogram<u64>>, quantile: f64| {
            samples.map_or(0.0, |samples| ms(samples.value_at_quantile(quantile)) * scale)
        };
        let mean = |samples: Option<&hdrhistogram::Histogram<u64>>| {
            samples.map_or(0.0, |samples| samples.mean() / 1e6 * scale)
        };
        put(&format!("{name}Avg"), windows(&|window| mean(window.series.get(&series))));
        let total = outcome.samples(series);
        put(&format!("aggregated{capital}Avg"), json!(mean(total.as_ref())));
        for (quantile_name, quantile) in QUANTILES {
            let of = |window: &crate::recorder::Interval| at(window.series.get(&series), quantile);
            put(&format!("{name}{quantile_name}"), windows(&of));
            let value = json!(at(total.as_ref(), quantile));
            put(&format!("aggregated{capital}{quantile_name}"), value);
        }
        let mut quantiles: BTreeMap<String, f64> = BTreeMap::new();
        if let Some(total) = &total {
            for step in total.iter_quantiles(5) {
                let key = format!("{:.6}", step.quantile_iterated_to() * 100.0);
                quantiles.insert(key, ms(step.value_iterated_to()) * scale);
            }
        }
        put(&format!("aggregated{capital}Quantiles"), json!(quantiles));
    }
    Value::Object(all)
}
