//! The one sentence over every chart: no figure without what it was measured with. `[P]`

use crate::number::bytes;
use crate::options::{
    AcksOption, ClientKind, CompressionOption, Durability, Encoding, Mode, Options,
};

/// Workload, durability, linger and batch size of a run.
pub fn title(options: &Options) -> String {
    let mode = match options.mode {
        Mode::Produce => "produce".to_owned(),
        Mode::Consume => format!("consume ×{}", options.subscriptions),
        Mode::EndToEnd if options.subscriptions > 1 => {
            format!("fan-out ×{}", options.subscriptions)
        }
        Mode::EndToEnd => "end to end".to_owned(),
    };
    let client = match (options.client, options.encoding) {
        (ClientKind::Levada, Encoding::Auto) => {
            "levada client, columnar batches where they are taken"
        }
        (ClientKind::Levada, Encoding::Columnar) => "levada client, columnar batches",
        (ClientKind::Levada, Encoding::Kafka) => "levada client, Kafka batches",
        (ClientKind::Librdkafka, _) => "librdkafka client",
    };
    let acks = match options.acks {
        AcksOption::Zero => "0",
        AcksOption::One => "1",
        AcksOption::All => "all",
    };
    let durability = match options.durability {
        Durability::Fsync => "fsync",
        Durability::Replicated => "replicated",
        Durability::Default => "the broker's default",
    };
    let compression = match options.compression {
        CompressionOption::None => "",
        CompressionOption::Gzip => ", gzip",
        CompressionOption::Snappy => ", snappy",
        CompressionOption::Lz4 => ", lz4",
        CompressionOption::Zstd => ", zstd",
    };
    let topics = match options.topics {
        1 => String::new(),
        topics => format!("{topics} topics × "),
    };
    format!(
        "{mode}, {} × {}, {topics}{} partition(s), acks {acks}, durability {durability}, {} replica(s), \
         linger {} ms, batch {}{compression}, {client}",
        options.rate,
        bytes(options.message_bytes.into()),
        options.partitions,
        options.replicas,
        options.linger_ms,
        bytes(options.batch_bytes.into()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Rate;

    #[test]
    fn the_title_tells_durability_linger_and_batch() {
        let options = Options { rate: Rate::Fixed(5000.0), linger_ms: 0, ..Options::default() };
        let title = title(&options);
        for part in
            ["5000 records/s", "1 KiB", "durability", "linger 0 ms", "batch 256 KiB", "acks all"]
        {
            assert!(title.contains(part), "{title}");
        }
        let judged = super::title(&Options { client: ClientKind::Librdkafka, ..options });
        assert!(judged.ends_with(", librdkafka client"), "{judged}");
    }
}
