//! Apache Kafka's command-line tools: their main classes, a JVM per command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::client::{Column, Outcome, Request, Unsupported};
use super::command::{run, run_any};
use super::operation::{LARGE_BYTES, ORDER_RECORDS};
use super::{clock, wire};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";
const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
const API_VERSIONS: &str = "org.apache.kafka.tools.BrokerApiVersionsCommand";
const PERFORMANCE: &str = "org.apache.kafka.tools.ProducerPerformance";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

/// The tools, from the jars that Maven fetched.
pub(crate) struct ConsoleTools {
    jars: PathBuf,
    /// For files that the tools read.
    scratch: PathBuf,
}

impl ConsoleTools {
    /// The tools in `jars`.
    ///
    /// # Errors
    /// When `scratch` cannot be created.
    pub(crate) fn new(jars: PathBuf, scratch: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(scratch).with_context(|| format!("create {}", scratch.display()))?;
        Ok(Self { jars, scratch: scratch.to_owned() })
    }
}

impl Column for ConsoleTools {
    fn perform(&mut self, request: &mut Request<'_>) -> Outcome {
        let check = Check {
            tools: self,
            address: &request.bootstrap,
            topic: &request.topic,
            limit: request.operation.limit,
        };
        Outcome::of(check.perform(request.operation.name))
    }
}

/// One operation on its topic, under its time limit.
struct Check<'r> {
    tools: &'r ConsoleTools,
    address: &'r str,
    topic: &'r str,
    limit: Duration,
}

impl Check<'_> {
    fn perform(&self, operation: &str) -> anyhow::Result<()> {
        let topic = self.topic;
        match operation {
            "create_topic" => {
                self.topics(&["--create", "--topic", topic])?;
                let listed = self.topics(&["--list"])?;
                ensure!(listed.iter().any(|line| line == topic), "not listed: {listed:?}");
                Ok(())
            }
            "create_topic_configured" => {
                let settings =
                    ["--config", "retention.ms=3600000", "--config", "segment.bytes=16777216"];
                let create = ["--create", "--topic", topic, "--partitions", "6"];
                self.topics(&[&create[..], &settings].concat())?;
                let text = self.topics(&["--describe", "--topic", topic])?.join("\n");
                for part in ["PartitionCount: 6", "retention.ms=3600000", "segment.bytes=16777216"]
                {
                    ensure!(text.contains(part), "no {part} in: {text}");
                }
                Ok(())
            }
            "create_topic_twice" => {
                self.create(1, &[])?;
                self.refused(TOPICS, &["--create", "--topic", topic], "exists")
            }
            "invalid_topic_name" => {
                self.refused(TOPICS, &["--create", "--topic", "no/such name"], "invalid")
            }
            "invalid_partition_count" | "unknown_config" => {
                Err(Unsupported("kafka-topics checks it itself").into())
            }
            "list_topics" => {
                self.create(1, &[])?;
                let listed = self.topics(&["--list"])?;
                ensure!(listed.iter().any(|line| line == topic), "not listed: {listed:?}");
                Ok(())
            }
            "describe_topic" => {
                self.create(3, &[])?;
                let lines = self.topics(&["--describe", "--topic", topic])?;
                let led = lines.iter().filter(|line| line.contains("Leader: ")).count();
                let leaderless = lines.iter().any(|line| line.contains("Leader: none"));
                ensure!(led == 3 && !leaderless, "{}", lines.join("\n"));
                Ok(())
            }
            "unknown_topic" => {
                self.refused(TOPICS, &["--describe", "--topic", topic], "does not exist")
            }
            "create_partitions" => {
                self.create(2, &[])?;
                self.topics(&["--alter", "--topic", topic, "--partitions", "5"])?;
                let text = self.topics(&["--describe", "--topic", topic])?.join("\n");
                ensure!(text.contains("PartitionCount: 5"), "{text}");
                let fewer = ["--alter", "--topic", topic, "--partitions", "3"];
                self.refused(TOPICS, &fewer, "partition")
            }
            "delete_topic" => {
                self.create(1, &[])?;
                self.topics(&["--delete", "--topic", topic])?;
                let listed = self.topics(&["--list"])?;
                ensure!(listed.iter().all(|line| line != topic), "still listed");
                self.refused(TOPICS, &["--delete", "--topic", topic], "does not exist")
            }
            "recreate_topic" => {
                self.create(1, &[])?;
                let before = self.topic_id()?;
                self.topics(&["--delete", "--topic", topic])?;
                self.create(1, &[])?;
                let after = self.topic_id()?;
                ensure!(before != after, "the topic id {before} did not change");
                Ok(())
            }
            "describe_configs" => {
                self.create(1, &[("segment.bytes", "16777216")])?;
                let text = self.settings()?;
                for part in ["segment.bytes=16777216", "retention.ms=604800000"] {
                    ensure!(text.contains(part), "no {part} in: {text}");
                }
                Ok(())
            }
            "alter_configs" => self.alter_settings(),
            "describe_cluster" => {
                let text = self.tool(API_VERSIONS, &[])?.join("\n");
                ensure!(text.contains(self.address), "{text}");
                ensure!(text.contains("Produce(0): 0 to "), "{text}");
                Ok(())
            }
            "describe_log_dirs" => {
                self.create(2, &[])?;
                self.produce(&"x".repeat(10_000), &[])?;
                let lines = self.tool(LOG_DIRS, &["--describe", "--topic-list", topic])?;
                let line = lines.iter().find(|line| line.starts_with('{')).context("no answer")?;
                let answer: Value = serde_json::from_str(line)?;
                let partitions = &answer["brokers"][0]["logDirs"][0]["partitions"];
                let partitions = partitions.as_array().with_context(|| line.clone())?;
                let bytes: u64 = partitions.iter().filter_map(|of| of["size"].as_u64()).sum();
                ensure!(partitions.len() == 2 && bytes >= 10_000, "{line}");
                Ok(())
            }
            "delete_records" => self.delete_records(),
            "acks_0" => self.round_trip(&[
                "--producer-property",
                "acks=0",
                "--producer-property",
                "enable.idempotence=false",
            ]),
            "acks_1" => self.round_trip(&[
                "--producer-property",
                "acks=1",
                "--producer-property",
                "enable.idempotence=false",
            ]),
            "acks_all" => self.round_trip(&[
                "--producer-property",
                "acks=all",
                "--producer-property",
                "enable.idempotence=false",
            ]),
            "idempotent" => self.round_trip(&["--producer-property", "enable.idempotence=true"]),
            codec @ ("gzip" | "snappy" | "lz4" | "zstd") => {
                self.round_trip(&["--compression-codec", codec])
            }
            "headers" => {
                self.create(1, &[])?;
                self.produce("a:1,b:2\tv", &["--reader-property", "parse.headers=true"])?;
                let lines =
                    self.consume("earliest", 1, &["--formatter-property", "print.headers=true"])?;
                ensure!(lines == ["a:1,b:2\tv"], "{lines:?}");
                Ok(())
            }
            "null_key_value" => {
                self.create(1, &[])?;
                let reader = [
                    "--reader-property",
                    "parse.key=true",
                    "--reader-property",
                    "null.marker=NULL",
                ];
                self.produce("NULL\tv\nk\tNULL", &reader)?;
                let print = [
                    "--formatter-property",
                    "print.key=true",
                    "--formatter-property",
                    "null.literal=NULL",
                ];
                let lines = self.consume("earliest", 2, &print)?;
                ensure!(lines == ["NULL\tv", "k\tNULL"], "{lines:?}");
                Ok(())
            }
            "create_time" => self.stamped(&[], "CreateTime:"),
            "log_append_time" => {
                self.stamped(&[("message.timestamp.type", "LogAppendTime")], "LogAppendTime:")
            }
            "large_batch" => {
                self.create(1, &[])?;
                let text = "abcdefgh".repeat(LARGE_BYTES / 8);
                self.produce(&text, &[])?;
                let lines = self.consume("earliest", 1, &[])?;
                ensure!(lines == [text], "the value came back different");
                Ok(())
            }
            "order_100k" => {
                self.create(1, &[])?;
                let count = ORDER_RECORDS.to_string();
                let load = ["--topic", topic, "--num-records", &count, "--throughput", "-1"];
                self.tool(PERFORMANCE, &[&load[..], &["--payload-monotonic"]].concat())?;
                let lines = self.consume("earliest", ORDER_RECORDS, &[])?;
                let ordered = lines.iter().enumerate().all(|(at, line)| *line == at.to_string());
                ensure!(lines.len() == ORDER_RECORDS && ordered, "{} records", lines.len());
                Ok(())
            }
            "from_earliest" => {
                self.create(1, &[])?;
                self.produce(&numbers(10), &[])?;
                let lines = self.consume("earliest", 10, &[])?;
                ensure!(lines.join("\n") == numbers(10), "{lines:?}");
                Ok(())
            }
            "from_offset" => {
                self.create(1, &[])?;
                self.produce(&numbers(100), &[])?;
                let lines = self.consume("57", 43, &[])?;
                ensure!(lines.len() == 43 && lines[0] == "57", "{lines:?}");
                Ok(())
            }
            "offsets_for_times" => {
                self.create(1, &[])?;
                self.produce("earlier", &[])?;
                let between = clock::unix_ms();
                self.produce("later", &[])?;
                ensure!(self.offset(&between.to_string())? == Some(1), "between the two");
                let after = (clock::unix_ms() + 100_000).to_string();
                ensure!(self.offset(&after)?.is_none(), "after both");
                Ok(())
            }
            "max_timestamp" => {
                self.create(1, &[])?;
                self.produce("earlier", &[])?;
                self.produce("later", &[])?;
                let offset = self.offset("-3")?;
                ensure!(offset == Some(1), "{offset:?}");
                Ok(())
            }
            "watermarks" => {
                self.create(1, &[])?;
                self.produce(&numbers(7), &[])?;
                let got = (self.offset("-2")?, self.offset("-1")?);
                ensure!(got == (Some(0), Some(7)), "{got:?}");
                Ok(())
            }
            "subscribe" | "commit_resume" | "list_groups" => self.groups(),
            "transaction" => {
                self.create(1, &[])?;
                let load = ["--topic", topic, "--num-records", "1000", "--throughput", "-1"];
                let in_transactions = ["--record-size", "100", "--transactional-id", topic];
                self.tool(PERFORMANCE, &[&load[..], &in_transactions].concat())?;
                let lines =
                    self.consume("earliest", 1000, &["--isolation-level", "read_committed"])?;
                ensure!(lines.len() == 1000, "{} records", lines.len());
                Ok(())
            }
            "too_large" => Err(Unsupported("kafka-console-producer only logs a refusal").into()),
            "from_latest" | "long_poll" => {
                Err(Unsupported("kafka-console-consumer does not tell when it waits").into())
            }
            _ => Err(Unsupported("Kafka's tools have no such operation").into()),
        }
    }

    fn command(&self, class: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("java");
        // A tool lives for a second: do not optimise what it runs.
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
        command.arg(self.tools.jars.join("*")).arg(class);
        command.args(["--bootstrap-server", self.address]).args(arguments);
        command
    }

    fn tool(&self, class: &str, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
        self.tool_with_input(class, arguments, "")
    }

    fn tool_with_input(
        &self,
        class: &str,
        arguments: &[&str],
        input: &str,
    ) -> anyhow::Result<Vec<String>> {
        let output = run(&mut self.command(class, arguments), input.as_bytes(), self.limit)?;
        Ok(output.into_iter().filter(|line| !line.starts_with("SLF4J")).collect())
    }

    fn topics(&self, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
        self.tool(TOPICS, arguments)
    }

    /// The tool must fail with a message that contains `reason`.
    fn refused(&self, class: &str, arguments: &[&str], reason: &str) -> anyhow::Result<()> {
        let (success, output) = run_any(&mut self.command(class, arguments), b"", self.limit)?;
        let text = output.join("\n");
        ensure!(!success, "not refused: {text}");
        ensure!(text.to_lowercase().contains(reason), "refused without naming {reason}: {text}");
        Ok(())
    }

    fn create(&self, partitions: i32, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        wire::create_topic(self.address, self.topic, partitions, settings)
    }

    fn topic_id(&self) -> anyhow::Result<String> {
        let text = self.topics(&["--describe", "--topic", self.topic])?.join("\n");
        let id = text.split("TopicId: ").nth(1).and_then(|rest| rest.split_whitespace().next());
        id.map(str::to_owned).with_context(|| text.clone())
    }

    fn settings(&self) -> anyhow::Result<String> {
        Ok(self.tool(CONFIGS, &["--describe", "--all", "--topic", self.topic])?.join("\n"))
    }

    fn alter_settings(&self) -> anyhow::Result<()> {
        self.create(1, &[("retention.ms", "7200000")])?;
        let alter = ["--alter", "--topic", self.topic];
        self.tool(CONFIGS, &[&alter[..], &["--add-config", "max.message.bytes=150000"]].concat())?;
        let text = self.settings()?;
        ensure!(text.contains("max.message.bytes=150000"), "{text}");
        ensure!(text.contains("retention.ms=7200000"), "{text}");
        self.tool(CONFIGS, &[&alter[..], &["--delete-config", "max.message.bytes"]].concat())?;
        let text = self.settings()?;
        ensure!(text.contains("max.message.bytes=1048588"), "{text}");
        let senseless = [&alter[..], &["--add-config", "retention.ms=soon"]].concat();
        self.refused(CONFIGS, &senseless, "retention.ms")
    }

    fn delete_records(&self) -> anyhow::Result<()> {
        self.create(1, &[])?;
        self.produce(&numbers(10), &[])?;
        let file = self.tools.scratch.join(self.topic);
        let place = json!({ "topic": self.topic, "partition": 0, "offset": 4 });
        let wanted = json!({ "version": 1, "partitions": [place] });
        fs::write(&file, wanted.to_string())
            .with_context(|| format!("write {}", file.display()))?;
        let path = file.to_str().context("a path that is no text")?;
        let text = self.tool(DELETE_RECORDS, &["--offset-json-file", path])?.join("\n");
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        ensure!(text.contains("low_watermark: 4"), "{text}");
        let first = self.offset("-2")?;
        ensure!(first == Some(4), "starts at {first:?}");
        Ok(())
    }

    fn produce(&self, text: &str, options: &[&str]) -> anyhow::Result<()> {
        let arguments = [&["--topic", self.topic], options].concat();
        self.tool_with_input(PRODUCER, &arguments, &format!("{text}\n")).map(drop)
    }

    /// `count` records of partition 0 from `start` on, without a group.
    fn consume(&self, start: &str, count: usize, options: &[&str]) -> anyhow::Result<Vec<String>> {
        let count = count.to_string();
        let place = ["--topic", self.topic, "--partition", "0", "--offset", start];
        let limits = ["--max-messages", &count, "--timeout-ms", "20000"];
        let output = self.tool(CONSUMER, &[&place[..], &limits, options].concat())?;
        Ok(output.into_iter().filter(|line| !line.starts_with("Processed a total of ")).collect())
    }

    fn round_trip(&self, options: &[&str]) -> anyhow::Result<()> {
        self.create(1, &[])?;
        self.produce(&numbers(200), options)?;
        let lines = self.consume("earliest", 200, &[])?;
        ensure!(lines.join("\n") == numbers(200), "{lines:?}");
        Ok(())
    }

    fn stamped(&self, settings: &[(&str, &str)], kind: &str) -> anyhow::Result<()> {
        self.create(1, settings)?;
        let before = clock::unix_ms().saturating_sub(2000);
        self.produce("v", &[])?;
        let lines =
            self.consume("earliest", 1, &["--formatter-property", "print.timestamp=true"])?;
        let stamp = lines.first().and_then(|line| line.strip_prefix(kind)?.split_once('\t'));
        let stamp = stamp.and_then(|(stamp, _)| stamp.parse::<u128>().ok());
        ensure!(stamp.is_some_and(|stamp| stamp >= before), "no {kind} of now: {lines:?}");
        Ok(())
    }

    /// The offset of partition 0 for `time` (or one of Kafka's negative specials), if there is one.
    fn offset(&self, time: &str) -> anyhow::Result<Option<i64>> {
        let lines = self.tool(OFFSETS, &["--topic", self.topic, "--time", time])?;
        let prefix = format!("{}:0:", self.topic);
        let line = lines.iter().find_map(|line| line.strip_prefix(&prefix));
        // The tool leaves out a partition that has no such offset.
        line.map(|offset| offset.parse().with_context(|| lines.join("\n"))).transpose()
    }

    fn groups(&self) -> anyhow::Result<()> {
        self.create(1, &[])?;
        self.produce(&numbers(20), &[])?;
        let group = format!("{}-group", self.topic);
        let consume = |count: &str| {
            let from = ["--topic", self.topic, "--group", &group, "--from-beginning"];
            let limits = ["--max-messages", count, "--timeout-ms", "20000"];
            self.tool(CONSUMER, &[&from[..], &limits].concat())
        };
        let (first, rest) = (consume("8")?, consume("12")?);
        ensure!(first.iter().any(|line| line == "7"), "{first:?}");
        ensure!(rest.iter().any(|line| line == "8"), "{rest:?}");
        ensure!(rest.iter().all(|line| line != "7"), "{rest:?}");
        let listed = self.tool(GROUPS, &["--list"])?;
        ensure!(listed.contains(&group), "not listed: {listed:?}");
        Ok(())
    }
}

fn numbers(count: usize) -> String {
    (0..count).map(|number| number.to_string()).collect::<Vec<_>>().join("\n")
}
