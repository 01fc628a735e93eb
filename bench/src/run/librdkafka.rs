//! librdkafka under load: the judge that is not ours. Behind the cargo feature `librdkafka`.

mod deliveries;
mod producer;
mod reader;

use std::time::Duration;

use rdkafka::ClientConfig;

use crate::options::{AcksOption, CompressionOption, Options};

pub(super) use producer::LibrdkafkaTargets;
pub(super) use reader::LibrdkafkaReader;

/// Least for the largest request that librdkafka makes, its own default.
const MESSAGE_BYTES_MAX: u64 = 1_000_000;
/// Room for what surrounds records in a request.
const REQUEST_OVERHEAD_BYTES: u64 = 4096;
/// With more partitions than that there are no statistics: a report tells of each partition, and the one
/// thread that writes it also has to hear of deliveries.
const STATISTICS_PARTITIONS_MAX: u32 = 200;
/// Most records of a batch that librdkafka knows.
const BATCH_RECORDS_MAX: &str = "1000000";

/// How long an operation may take.
fn patience(options: &Options) -> Duration {
    Duration::from_secs(options.timeout_s.into())
}

/// The settings of a producer, by librdkafka's names.
fn producer_config(bootstrap: &str, options: &Options) -> ClientConfig {
    let acks = match options.acks {
        AcksOption::Zero => "0",
        AcksOption::One => "1",
        AcksOption::All => "all",
    };
    let idempotent = options.acks == AcksOption::All;
    let compression = match options.compression {
        CompressionOption::None => "none",
        CompressionOption::Gzip => "gzip",
        CompressionOption::Snappy => "snappy",
        CompressionOption::Lz4 => "lz4",
        CompressionOption::Zstd => "zstd",
    };
    let request_bytes = u64::from(options.batch_bytes.max(options.message_bytes));
    let request_bytes = (request_bytes + REQUEST_OVERHEAD_BYTES).max(MESSAGE_BYTES_MAX);
    let partitions = options.topics.saturating_mul(options.partitions);
    let statistics_ms = if partitions <= STATISTICS_PARTITIONS_MAX { "1000" } else { "0" };
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("linger.ms", options.linger_ms.to_string())
        .set("batch.size", options.batch_bytes.to_string())
        .set("batch.num.messages", BATCH_RECORDS_MAX)
        .set("message.max.bytes", request_bytes.to_string())
        .set("acks", acks)
        .set("enable.idempotence", idempotent.to_string())
        .set("compression.type", compression)
        .set("max.in.flight.requests.per.connection", options.in_flight.to_string())
        .set("queue.buffering.max.kbytes", options.memory_bytes.div_ceil(1024).to_string())
        // Bytes are the limit, as in our own client.
        .set("queue.buffering.max.messages", "0")
        .set("message.timeout.ms", patience(options).as_millis().to_string())
        .set("statistics.interval.ms", statistics_ms);
    config
}

/// The settings of a consumer.
fn consumer_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        // No group is joined; librdkafka wants a name all the same.
        .set("group.id", "levada-bench")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        // Its default of a second is a pause for every consumer that is faster than the broker.
        .set("fetch.queue.backoff.ms", "10");
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafka_takes_every_setting() {
        for acks in [AcksOption::Zero, AcksOption::One, AcksOption::All] {
            let options = Options { acks, batch_bytes: 16 << 20, ..Options::default() };
            let config = producer_config("127.0.0.1:1", &options);
            config.create_native_config().unwrap();
            assert_eq!(config.get("enable.idempotence") == Some("true"), acks == AcksOption::All);
        }
        consumer_config("127.0.0.1:1").create_native_config().unwrap();
    }
}
