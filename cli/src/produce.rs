//! `levada produce`: lines of stdin or of a file become records, in order.

mod lines;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use levada_client::producer::{Acks, Delivery, Producer, ProducerOptions, ProducerRecord};
use levada_record::{Compression, RecordHeader};
use serde_json::json;
use tokio::time::Duration;

use crate::args::{AcksArg, CompressionArg, ConnectArgs, Output, parse_pair};
use crate::cluster::{block_on, connect};
use crate::output::{human_bytes, print_json};
use crate::progress::{Counted, Progress};
use lines::{Block, read_blocks};

/// Options of `levada produce`.
#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    /// The topic
    topic: String,
    /// Reads this file instead of stdin
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// The key of a record ends, and its value begins, at the first of these in its line
    #[arg(long, short, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_delimiter: Option<String>,
    /// Writes to this partition only; else the key decides, or chance
    #[arg(long, short)]
    partition: Option<i32>,
    /// A header of every record; may be given several times
    #[arg(long, short = 'H', value_name = "KEY=VALUE", value_parser = parse_pair)]
    header: Vec<(String, String)>,
    /// Who must have a record before it counts
    #[arg(long, value_enum, default_value = "all")]
    acks: AcksArg,
    /// How batches are compressed
    #[arg(long, short = 'z', value_enum, default_value = "none")]
    compression: CompressionArg,
    /// How long a batch waits for more records, in ms
    #[arg(long, default_value_t = 5)]
    linger_ms: u64,
    /// How long a record is tried before the command fails, in ms
    #[arg(long, default_value_t = 120_000)]
    timeout_ms: u64,
}

impl ProduceArgs {
    fn options(&self) -> ProducerOptions {
        ProducerOptions {
            acks: match self.acks {
                AcksArg::Zero => Acks::None,
                AcksArg::One => Acks::Leader,
                AcksArg::All => Acks::All,
            },
            compression: match self.compression {
                CompressionArg::None => Compression::None,
                CompressionArg::Gzip => Compression::Gzip,
                CompressionArg::Snappy => Compression::Snappy,
                CompressionArg::Lz4 => Compression::Lz4,
                CompressionArg::Zstd => Compression::Zstd,
            },
            linger: Duration::from_millis(self.linger_ms),
            delivery_timeout: Duration::from_millis(self.timeout_ms),
            ..ProducerOptions::default()
        }
    }
}

pub(crate) fn run(args: &ProduceArgs, to: &ConnectArgs) -> anyhow::Result<ExitCode> {
    let (source, total_bytes) = lines::open(args.file.as_deref())?;
    block_on(async {
        let producer = Producer::start(connect(to).await?, args.options());
        let blocks = read_blocks(source)?;
        let progress = Progress::new(total_bytes, Counted::Bytes);
        let mut work =
            Work { args, producer, waiting: VecDeque::new(), records: 0, bytes: 0, progress };
        let done = work.produce(blocks).await;
        work.progress.clear();
        // Even then: what was sent before the failure counts.
        if let Err(error) = done {
            eprintln!("{} records were acknowledged before the failure", work.acknowledged());
            return Err(error);
        }
        work.report(to.output)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Records of one batch that wait for its outcome.
struct Unacknowledged {
    delivery: Delivery,
    first_line: u64,
    lines: u64,
}

struct Work<'a> {
    args: &'a ProduceArgs,
    producer: Producer,
    /// In the order of their first lines.
    waiting: VecDeque<Unacknowledged>,
    records: u64,
    bytes: u64,
    progress: Progress,
}

impl Work<'_> {
    async fn produce(
        &mut self,
        mut blocks: tokio::sync::mpsc::Receiver<anyhow::Result<Block>>,
    ) -> anyhow::Result<()> {
        let headers: Vec<RecordHeader<'_>> = self
            .args
            .header
            .iter()
            .map(|(key, value)| RecordHeader { key: key.as_bytes(), value: Some(value.as_bytes()) })
            .collect();
        while let Some(block) = blocks.recv().await {
            let block = block?;
            for line in block.lines() {
                self.send(line, &headers).await?;
            }
            self.settle()?;
            self.progress.set(self.bytes);
        }
        self.producer.flush().await?;
        self.settle()?;
        Ok(())
    }

    async fn send(&mut self, line: &[u8], headers: &[RecordHeader<'_>]) -> anyhow::Result<()> {
        let (key, value) = match &self.args.key_delimiter {
            None => (None, line),
            Some(delimiter) => match split_once(line, delimiter.as_bytes()) {
                Some((key, value)) => (Some(key), value),
                None => (None, line),
            },
        };
        let record = ProducerRecord {
            topic: &self.args.topic,
            partition: self.args.partition,
            key,
            value: Some(value),
            headers,
            ..Default::default()
        };
        let line_number = self.records + 1;
        let delivery =
            self.producer.send(&record).await.with_context(|| format!("line {line_number}"))?;
        self.records += 1;
        self.bytes += line.len() as u64 + 1;
        // Lines of one batch are mostly neighbours, and share its outcome.
        let same = self.waiting.iter_mut().rev().take(8);
        match same.into_iter().find(|waiting| waiting.delivery.is_of_same_batch(&delivery)) {
            Some(batch) => batch.lines += 1,
            None => self.waiting.push_back(Unacknowledged {
                delivery,
                first_line: line_number,
                lines: 1,
            }),
        }
        Ok(())
    }

    /// Lets go of what was delivered; fails with what was not.
    fn settle(&mut self) -> anyhow::Result<()> {
        let mut failed = None;
        self.waiting.retain(|waiting| match waiting.delivery.outcome() {
            None => true,
            Some(Ok(_)) => false,
            Some(Err(error)) => {
                failed.get_or_insert((waiting.first_line, error));
                true
            }
        });
        match failed {
            Some((line, error)) => Err(error).with_context(|| format!("line {line}")),
            None => Ok(()),
        }
    }

    fn acknowledged(&self) -> u64 {
        self.records - self.waiting.iter().map(|waiting| waiting.lines).sum::<u64>()
    }

    fn report(&self, output: Output) -> anyhow::Result<()> {
        let elapsed = self.progress.elapsed();
        match output {
            Output::Json => print_json(&json!({
                "topic": self.args.topic,
                "records": self.records,
                "bytes": self.bytes,
                "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            }))?,
            Output::Table => eprintln!(
                "{} records, {} in {:.1} s",
                self.records,
                human_bytes(self.bytes),
                elapsed.as_secs_f64()
            ),
        }
        Ok(())
    }
}

fn split_once<'a>(line: &'a [u8], delimiter: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line.windows(delimiter.len()).position(|window| window == delimiter)?;
    Some((line.get(..at)?, line.get(at + delimiter.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_delimiter() {
        assert_eq!(split_once(b"a::b::c", b"::"), Some((&b"a"[..], &b"b::c"[..])));
        assert_eq!(split_once(b"::b", b"::"), Some((&b""[..], &b"b"[..])));
        assert_eq!(split_once(b"a:", b"::"), None);
    }
}
