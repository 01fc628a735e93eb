//! Workload files of the `OpenMessaging` Benchmark, read unchanged. `[P]`
//! Source: `Workload.java`. What a file asks for and we cannot do is refused, never left out silently.

use serde::Deserialize;

use crate::error::BenchError;
use crate::options::{Keys, Mode, Options};
use crate::schedule::Rate;

/// The fields of a file, in its own names.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Workload {
    name: Option<String>,
    topics: Option<u32>,
    partitions_per_topic: Option<u32>,
    key_distributor: Option<String>,
    message_size: Option<u32>,
    #[serde(default)]
    use_randomized_payloads: bool,
    random_bytes_ratio: Option<f64>,
    randomized_payload_pool_size: Option<u32>,
    /// A file of bytes to send; we make our own of the same length.
    #[serde(rename = "payloadFile")]
    _payload_file: Option<String>,
    subscriptions_per_topic: Option<u32>,
    producers_per_topic: Option<u32>,
    consumer_per_subscription: Option<u32>,
    producer_rate: Option<f64>,
    #[serde(rename = "consumerBacklogSizeGB")]
    consumer_backlog_size_gb: Option<f64>,
    /// How a drained backlog is recognised there; we read to the end.
    #[serde(rename = "backlogDrainRatio")]
    _backlog_drain_ratio: Option<f64>,
    test_duration_minutes: Option<f64>,
    warmup_duration_minutes: Option<f64>,
}

/// Puts what the file says into `options`; what it leaves out stays.
///
/// # Errors
/// [`BenchError::Option`] when it is no such file, or asks for something that we do not have.
pub fn apply(text: &str, options: &mut Options) -> Result<(), BenchError> {
    let refuse = |reason: String| BenchError::option("--workload", reason);
    let workload: Workload =
        serde_saphyr::from_str(text).map_err(|error| refuse(error.to_string()))?;
    let set = |slot: &mut u32, value: Option<u32>| *slot = value.unwrap_or(*slot);
    options.name = workload.name.unwrap_or_else(|| options.name.clone());
    set(&mut options.topics, workload.topics);
    set(&mut options.partitions, workload.partitions_per_topic);
    set(&mut options.message_bytes, workload.message_size);
    set(&mut options.consumers, workload.consumer_per_subscription);
    set(&mut options.payloads, workload.randomized_payload_pool_size);
    options.keys = match workload.key_distributor.as_deref() {
        None => options.keys,
        Some("NO_KEY") => Keys::None,
        Some("KEY_ROUND_ROBIN") => Keys::RoundRobin,
        Some("RANDOM_NANO") => Keys::Random,
        Some(other) => return Err(refuse(format!("keyDistributor {other} is none that we know"))),
    };
    if workload.use_randomized_payloads {
        options.random_share = workload.random_bytes_ratio.unwrap_or(options.random_share);
    }
    if let Some(producers) = workload.producers_per_topic {
        options.producers = producers.saturating_mul(options.topics);
    }
    match workload.subscriptions_per_topic {
        Some(0) => options.mode = Mode::Produce,
        Some(subscriptions) => {
            (options.mode, options.subscriptions) = (Mode::EndToEnd, subscriptions);
        }
        None => {}
    }
    if workload.consumer_backlog_size_gb.is_some_and(|size| size > 0.0) {
        return Err(refuse("consumerBacklogSizeGB: use --mode consume --backlog".to_owned()));
    }
    // There, 0 asks for the maximum.
    options.rate = match workload.producer_rate {
        None => options.rate,
        Some(0.0) => Rate::Maximum,
        Some(rate) if rate > 0.0 && rate.is_finite() => Rate::Fixed(rate),
        Some(rate) => return Err(refuse(format!("producerRate {rate} is no rate"))),
    };
    for (slot, minutes) in [
        (&mut options.duration_s, workload.test_duration_minutes),
        (&mut options.warmup_s, workload.warmup_duration_minutes),
    ] {
        if let Some(minutes) = minutes {
            *slot = u32::try_from(crate::number::whole(minutes * 60.0)).unwrap_or(u32::MAX);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `workloads/1-topic-16-partitions-1kb.yaml` of the benchmark, licence header and all.
    const FILE: &str = r#"#
# Licensed under the Apache License, Version 2.0 (the "License");
#

name: 1 topic / 16 partitions / 1Kb

topics: 1
partitionsPerTopic: 16
keyDistributor: "NO_KEY"
messageSize: 1024
payloadFile: "payload/payload-1Kb.data"
subscriptionsPerTopic: 2
consumerPerSubscription: 1
producersPerTopic: 1
producerRate: 50000
consumerBacklogSizeGB: 0
testDurationMinutes: 15
"#;

    #[test]
    fn a_file_of_the_benchmark_is_read_unchanged() {
        let mut options = Options::default();
        apply(FILE, &mut options).unwrap();
        assert_eq!(options.name, "1 topic / 16 partitions / 1Kb");
        assert_eq!((options.partitions, options.subscriptions, options.duration_s), (16, 2, 900));
        assert_eq!((options.rate, options.mode), (Rate::Fixed(50_000.0), Mode::EndToEnd));
        options.validate().unwrap();
    }

    #[test]
    fn what_we_cannot_do_is_refused_by_name() {
        for (text, word) in [
            ("consumerBacklogSizeGB: 5", "consumerBacklogSizeGB"),
            ("keyDistributor: X", "keyDistributor"),
            ("producerRate: -1", "producerRate"),
            ("surprise: 1", "surprise"),
            ("topics: [", "--workload"),
        ] {
            let error = apply(text, &mut Options::default()).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
