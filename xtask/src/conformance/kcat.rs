//! kcat: a command per operation, with the librdkafka 2.0 that distributions carry.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use serde_json::Value;

use super::client::{Column, Outcome, Request, Unsupported};
use super::command::{Running, run};
use super::operation::{
    KEY_PARTITIONS, LARGE_BYTES, ORDER_RECORDS, RESTART_RECORDS, TOO_LARGE_BYTES,
};
use super::{clock, wire};

/// A fetch waits for at most this long in `long_poll`; the record must come much earlier.
const LONG_POLL_MS: u64 = 20_000;

/// kcat as unpacked from its package, with its libraries.
pub(crate) struct Kcat {
    binary: PathBuf,
    library_path: OsString,
    /// For files that kcat reads.
    scratch: PathBuf,
}

impl Kcat {
    /// kcat below `root`; checks that it runs.
    ///
    /// # Errors
    /// When it does not start, for instance because a library is missing.
    pub(crate) fn new(root: &Path, scratch: &Path) -> anyhow::Result<Self> {
        let mut directories = Vec::new();
        for parent in ["usr/lib", "lib"].map(|parent| root.join(parent)) {
            let Ok(entries) = fs::read_dir(&parent) else { continue };
            directories.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
            directories.push(parent);
        }
        let library_path = std::env::join_paths(directories)?;
        let kcat =
            Self { binary: root.join("usr/bin/kcat"), library_path, scratch: scratch.to_owned() };
        run(kcat.command().arg("-V"), b"", Duration::from_secs(10))?;
        Ok(kcat)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        // A configuration of the user would make the runs differ.
        command.env("LD_LIBRARY_PATH", &self.library_path).env("HOME", &self.scratch);
        command
    }
}

impl Column for Kcat {
    fn perform(&mut self, request: &mut Request<'_>) -> Outcome {
        let limit = request.operation.limit;
        Outcome::of(Check { kcat: self, limit }.perform(request))
    }
}

/// One operation under its time limit.
struct Check<'k> {
    kcat: &'k Kcat,
    limit: Duration,
}

impl Check<'_> {
    fn perform(&self, request: &mut Request<'_>) -> anyhow::Result<()> {
        let (address, topic) = (request.bootstrap.clone(), request.topic.clone());
        let (address, topic) = (address.as_str(), topic.as_str());
        let create = |partitions, settings: &[(&str, &str)]| {
            wire::create_topic(address, topic, partitions, settings)
        };
        match request.operation.name {
            "list_topics" => {
                create(1, &[])?;
                let listed = self.metadata(address, None)?;
                let topics = listed["topics"].as_array().context("no topics")?;
                ensure!(topics.iter().any(|entry| entry["topic"] == topic), "not listed: {listed}");
                Ok(())
            }
            "describe_topic" => {
                create(3, &[])?;
                let described = self.metadata(address, Some(topic))?;
                let partitions = &described["topics"][0]["partitions"];
                let brokers = described["brokers"].as_array().context("no brokers")?;
                let partitions = partitions.as_array().context("no partitions")?;
                ensure!(partitions.len() == 3, "{described}");
                for partition in partitions {
                    let known = brokers.iter().any(|broker| broker["id"] == partition["leader"]);
                    ensure!(known, "a leader that is no broker: {described}");
                }
                Ok(())
            }
            "describe_cluster" => {
                let described = self.metadata(address, None)?;
                let brokers = described["brokers"].as_array().context("no brokers")?;
                ensure!(brokers.iter().any(|broker| broker["name"] == address), "{described}");
                let known = brokers.iter().any(|broker| broker["id"] == described["controllerid"]);
                ensure!(known, "a controller that is no broker: {described}");
                Ok(())
            }
            "unknown_topic" => {
                Err(Unsupported("its request for metadata asks for the topic's creation").into())
            }
            "auto_create" => self.round_trip(address, topic, &[]),
            "acks_0" => create(1, &[]).and_then(|()| self.round_trip(address, topic, &["acks=0"])),
            "acks_1" => create(1, &[]).and_then(|()| self.round_trip(address, topic, &["acks=1"])),
            "acks_all" => {
                create(1, &[]).and_then(|()| self.round_trip(address, topic, &["acks=all"]))
            }
            "idempotent" => create(1, &[])
                .and_then(|()| self.round_trip(address, topic, &["enable.idempotence=true"])),
            codec @ ("gzip" | "snappy" | "lz4" | "zstd") => {
                create(1, &[])?;
                let codec = format!("compression.codec={codec}");
                self.round_trip(address, topic, &[&codec, "linger.ms=50"])
            }
            "murmur2" => {
                create(KEY_PARTITIONS, &[])?;
                self.murmur2(address, topic, request.keys)
            }
            "headers" => {
                create(1, &[])?;
                self.produce(address, topic, "v\n", &["-p", "0", "-H", "a=1", "-H", "a=2"])?;
                let [record] = &self.records(address, topic, &["-p", "0"])?[..] else {
                    return Err(anyhow!("not one record"));
                };
                ensure!(record["headers"] == serde_json::json!(["a", "1", "a", "2"]), "{record}");
                Ok(())
            }
            "null_key_value" => {
                create(1, &[])?;
                self.produce(address, topic, ":v\nk:\n", &["-p", "0", "-K:", "-Z"])?;
                let records = self.records(address, topic, &["-p", "0"])?;
                ensure!(records.len() == 2, "{records:?}");
                ensure!(records[0]["key"].is_null() && records[0]["payload"] == "v", "{records:?}");
                ensure!(records[1]["payload"].is_null() && records[1]["key"] == "k", "{records:?}");
                Ok(())
            }
            "explicit_partition" => {
                create(6, &[])?;
                self.produce(address, topic, "here\n", &["-p", "5"])?;
                let records = self.records(address, topic, &[])?;
                ensure!(records.len() == 1 && records[0]["partition"] == 5, "{records:?}");
                Ok(())
            }
            "log_append_time" => {
                create(1, &[("message.timestamp.type", "LogAppendTime")])?;
                let before = clock::unix_ms().saturating_sub(2000);
                self.produce(address, topic, "v\n", &["-p", "0"])?;
                let records = self.records(address, topic, &["-p", "0"])?;
                ensure!(records.len() == 1 && records[0]["tstype"] == "logappend", "{records:?}");
                let stamp = records[0]["ts"].as_u64().map(u128::from);
                ensure!(stamp.is_some_and(|stamp| stamp >= before), "{records:?}");
                Ok(())
            }
            "create_time" => Err(Unsupported("kcat sets no timestamps").into()),
            "large_batch" => {
                create(1, &[])?;
                let text = letters(LARGE_BYTES);
                self.produce_file(address, topic, &text)?;
                let read = self.values(address, topic, &["-p", "0"])?;
                ensure!(read.len() == 1 && read[0] == text, "the value came back different");
                Ok(())
            }
            "too_large" => {
                create(1, &[])?;
                let error = self.produce_file(address, topic, &letters(TOO_LARGE_BYTES));
                let error = error.err().context("a batch that is too large was accepted")?;
                ensure!(format!("{error:#}").contains("Message size too large"), "{error:#}");
                self.round_trip(address, topic, &[])
            }
            "order_100k" => {
                create(6, &[])?;
                self.produce(address, topic, &lines(0..ORDER_RECORDS), &["-X", "acks=all"])?;
                self.check_order(address, topic, ORDER_RECORDS)
            }
            "from_earliest" => create(1, &[]).and_then(|()| self.round_trip(address, topic, &[])),
            "from_latest" => {
                create(1, &[])?;
                self.tail(address, topic, 500).map(drop)
            }
            "long_poll" => {
                create(1, &[])?;
                let waited = self.tail(address, topic, LONG_POLL_MS)?;
                ensure!(
                    waited < Duration::from_secs(5),
                    "the record came {waited:?} after it was sent"
                );
                Ok(())
            }
            "from_offset" => {
                create(1, &[])?;
                self.produce(address, topic, &lines(0..100), &["-p", "0"])?;
                let values = self.values(address, topic, &["-p", "0", "-o", "57"])?;
                ensure!(values.len() == 43 && values[0] == "57", "{values:?}");
                Ok(())
            }
            "from_timestamp" => {
                create(1, &[])?;
                let between = self.two_times(address, topic)?;
                let start = format!("s@{between}");
                let values = self.values(address, topic, &["-p", "0", "-o", &start])?;
                ensure!(values == ["later"], "{values:?}");
                Ok(())
            }
            "offsets_for_times" => {
                create(1, &[])?;
                let between = self.two_times(address, topic)?;
                ensure!(self.query(address, topic, 1)? == 0, "before all");
                ensure!(self.query(address, topic, i128::try_from(between)?)? == 1, "between");
                let later = i128::try_from(clock::unix_ms() + 100_000)?;
                ensure!(self.query(address, topic, later)? == -1, "after all");
                Ok(())
            }
            "watermarks" => {
                create(1, &[])?;
                self.produce(address, topic, &lines(0..7), &["-p", "0"])?;
                let got = (self.query(address, topic, -2)?, self.query(address, topic, -1)?);
                ensure!(got == (0, 7), "{got:?}");
                Ok(())
            }
            "out_of_range" => {
                create(1, &[])?;
                self.produce(address, topic, &lines(0..4), &["-p", "0"])?;
                let reset = ["-p", "0", "-o", "1000", "-X", "topic.auto.offset.reset=earliest"];
                let values = self.values(address, topic, &reset)?;
                ensure!(values == ["0", "1", "2", "3"], "{values:?}");
                Ok(())
            }
            "restart" => {
                create(3, &[])?;
                let restart = request.restart.as_mut().context("no broker to restart")?;
                self.produce_over_restart(address, topic, restart)?;
                self.check_order(address, topic, RESTART_RECORDS)
            }
            "subscribe" => {
                create(3, &[])?;
                self.produce(address, topic, &lines(0..30), &[])?;
                let mut values = self.in_group(address, topic, 30)?;
                values.sort_by_key(|value| value.parse::<usize>().ok());
                ensure!(values.join("\n") + "\n" == lines(0..30), "{values:?}");
                Ok(())
            }
            "commit_resume" => {
                create(1, &[])?;
                self.produce(address, topic, &lines(0..20), &["-p", "0"])?;
                let (first, rest) =
                    (self.in_group(address, topic, 8)?, self.in_group(address, topic, 12)?);
                ensure!(first[7] == "7" && rest[0] == "8", "{first:?}, then {rest:?}");
                Ok(())
            }
            "transaction" => {
                create(1, &[])?;
                let id = format!("transactional.id={topic}-id");
                self.produce(address, topic, &lines(0..2), &["-p", "0", "-X", &id])?;
                let committed = ["-p", "0", "-X", "isolation.level=read_committed"];
                let values = self.values(address, topic, &committed)?;
                ensure!(values == ["0", "1"], "{values:?}");
                Ok(())
            }
            _ => Err(Unsupported("kcat has no such operation").into()),
        }
    }

    fn produce(
        &self,
        address: &str,
        topic: &str,
        input: &str,
        options: &[&str],
    ) -> anyhow::Result<()> {
        let mut kcat = self.kcat.command();
        kcat.args(["-b", address, "-P", "-t", topic]).args(options);
        run(&mut kcat, input.as_bytes(), self.limit).map(drop)
    }

    fn produce_file(&self, address: &str, topic: &str, text: &str) -> anyhow::Result<()> {
        let file = self.kcat.scratch.join(topic);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let mut kcat = self.kcat.command();
        kcat.args(["-b", address, "-P", "-t", topic, "-p", "0", "-X", "message.max.bytes=2000000"]);
        let result = run(kcat.arg(&file), b"", self.limit);
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        result.map(drop)
    }

    /// What `-C -e` prints: from `-o` (or the start) to the end of the log.
    fn consume(&self, address: &str, topic: &str, options: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut kcat = self.kcat.command();
        kcat.args(["-b", address, "-C", "-q", "-e", "-t", topic]);
        if !options.contains(&"-o") {
            kcat.args(["-o", "beginning"]);
        }
        let output = run(kcat.args(options), b"", self.limit)?;
        // librdkafka's own log lines: `%4|1700000000.000|...`.
        Ok(output.into_iter().filter(|line| !line.starts_with('%')).collect())
    }

    fn values(&self, address: &str, topic: &str, options: &[&str]) -> anyhow::Result<Vec<String>> {
        self.consume(address, topic, options)
    }

    fn records(&self, address: &str, topic: &str, options: &[&str]) -> anyhow::Result<Vec<Value>> {
        let lines = self.consume(address, topic, &[options, &["-J"]].concat())?;
        lines.iter().map(|line| serde_json::from_str(line).with_context(|| line.clone())).collect()
    }

    fn metadata(&self, address: &str, topic: Option<&str>) -> anyhow::Result<Value> {
        let mut kcat = self.kcat.command();
        kcat.args(["-b", address, "-L", "-J"]);
        if let Some(topic) = topic {
            kcat.args(["-t", topic]);
        }
        let output = run(&mut kcat, b"", self.limit)?.join("\n");
        serde_json::from_str(&output).with_context(|| output)
    }

    /// Many lines in, the same lines out; `properties` are librdkafka's.
    fn round_trip(&self, address: &str, topic: &str, properties: &[&str]) -> anyhow::Result<()> {
        let wanted = lines(0..500);
        let mut options = vec!["-p", "0"];
        for property in properties {
            options.extend(["-X", property]);
        }
        self.produce(address, topic, &wanted, &options)?;
        let got = self.values(address, topic, &["-p", "0"])?;
        ensure!(got.join("\n") + "\n" == wanted, "{} values came back different", got.len());
        Ok(())
    }

    fn murmur2(
        &self,
        address: &str,
        topic: &str,
        keys: &BTreeMap<&'static str, i32>,
    ) -> anyhow::Result<()> {
        let input = keys.keys().map(|key| [key, ":v\n"].concat()).collect::<String>();
        self.produce(address, topic, &input, &["-K:", "-X", "topic.partitioner=murmur2"])?;
        let records = self.records(address, topic, &[])?;
        ensure!(records.len() == keys.len(), "{records:?}");
        for record in records {
            let key = record["key"].as_str().unwrap_or_default();
            ensure!(
                keys.get(key).is_some_and(|partition| record["partition"] == *partition),
                "{record}"
            );
        }
        Ok(())
    }

    /// Checks that the numbers below `count` are there, each once and in order per partition.
    fn check_order(&self, address: &str, topic: &str, count: usize) -> anyhow::Result<()> {
        let mut last = BTreeMap::new();
        let mut seen = vec![false; count];
        for line in self.consume(address, topic, &["-f", "%p %s\\n"])? {
            let (partition, number) = line.split_once(' ').context("no partition")?;
            let number: usize = number.parse().with_context(|| line.clone())?;
            let place = seen.get_mut(number).with_context(|| format!("never sent: {number}"))?;
            ensure!(!*place, "twice: {number}");
            *place = true;
            if let Some(before) = last.insert(partition.to_owned(), number) {
                ensure!(before < number, "partition {partition}: {number} after {before}");
            }
        }
        let lost = seen.iter().filter(|seen| !**seen).count();
        ensure!(lost == 0, "{lost} of {count} records are lost");
        Ok(())
    }

    /// Waits at the end of a log, then produces; returns how long the record took.
    fn tail(&self, address: &str, topic: &str, wait_ms: u64) -> anyhow::Result<Duration> {
        self.produce(address, topic, "old\n", &["-p", "0"])?;
        let mut kcat = self.kcat.command();
        kcat.args(["-b", address, "-C", "-t", topic, "-p", "0", "-o", "end", "-c", "1", "-u"]);
        kcat.args(["-X", &format!("fetch.wait.max.ms={wait_ms}"), "-X", "socket.timeout.ms=60000"]);
        let mut consumer = Running::start(&mut kcat)?;
        while let Some(line) = consumer.line(self.limit)? {
            if line.contains("Reached end of topic") {
                break;
            }
        }
        // A fetch that has to wait is out now.
        clock::wait(Duration::from_millis(500));
        let sent = clock::now();
        self.produce(address, topic, "new\n", &["-p", "0"])?;
        let line = consumer.line(self.limit)?;
        ensure!(line.as_deref() == Some("new"), "{line:?}");
        Ok(clock::now().duration_since(sent))
    }

    /// Produces `earlier` and `later`; returns a time between them, in milliseconds.
    fn two_times(&self, address: &str, topic: &str) -> anyhow::Result<u128> {
        self.produce(address, topic, "earlier\n", &["-p", "0"])?;
        clock::pause();
        let between = clock::unix_ms();
        clock::pause();
        self.produce(address, topic, "later\n", &["-p", "0"])?;
        Ok(between)
    }

    fn query(&self, address: &str, topic: &str, time: i128) -> anyhow::Result<i64> {
        let mut kcat = self.kcat.command();
        kcat.args(["-b", address, "-Q", "-t", &format!("{topic}:0:{time}")]);
        let output = run(&mut kcat, b"", self.limit)?.join("\n");
        let offset = output.rsplit(' ').next().and_then(|offset| offset.trim().parse().ok());
        offset.with_context(|| output.clone())
    }

    fn produce_over_restart(
        &self,
        address: &str,
        topic: &str,
        restart: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut kcat = self.kcat.command();
        kcat.args(["-b", address, "-P", "-E", "-t", topic, "-X", "enable.idempotence=true"]);
        let mut producer = Running::start(&mut kcat)?;
        let third = RESTART_RECORDS / 3;
        producer.write(lines(0..third).as_bytes())?;
        let end = clock::now() + self.limit;
        while (0..3).all(|partition| {
            let mut kcat = self.kcat.command();
            kcat.args(["-b", address, "-Q", "-t", &format!("{topic}:{partition}:-1")]);
            run(&mut kcat, b"", self.limit).is_ok_and(|lines| lines.join("").ends_with("offset 0"))
        }) {
            ensure!(clock::now() < end, "nothing arrives");
        }
        producer.write(lines(third..2 * third).as_bytes())?;
        restart()?;
        producer.write(lines(2 * third..RESTART_RECORDS).as_bytes())?;
        let (status, output) = producer.finish(self.limit)?;
        ensure!(status.success(), "{status}: {}", output.join("\n"));
        Ok(())
    }

    fn in_group(&self, address: &str, topic: &str, count: usize) -> anyhow::Result<Vec<String>> {
        let mut kcat = self.kcat.command();
        kcat.args(["-b", address, "-q", "-c", &count.to_string()]);
        kcat.args(["-X", "auto.offset.reset=earliest", "-G", &format!("{topic}-group"), topic]);
        let values: Vec<_> = run(&mut kcat, b"", self.limit)?
            .into_iter()
            .filter(|line| !line.starts_with('%'))
            .collect();
        ensure!(values.len() == count, "{values:?}");
        Ok(values)
    }
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| number.to_string() + "\n").collect()
}

/// A text of one line that does not repeat soon.
fn letters(count: usize) -> String {
    const ALPHABET: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    (0..count).map(|at| char::from(ALPHABET[at / 26 % 19 * at % 26])).collect()
}
