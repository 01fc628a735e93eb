//! Every metric of a coordinator: name, unit, meaning. Prometheus text.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use levada_protocol::cluster::RefusalCode;

/// A number that anybody may count up or set.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Counts one.
    pub fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Takes one back.
    pub fn uncount(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Makes it `value`.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the buckets of durations, in microseconds.
const BUCKETS_US: [u64; 10] = [100, 250, 500, 1000, 2500, 5000, 10_000, 50_000, 250_000, 1_000_000];

/// How long something took.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [Number; BUCKETS_US.len()],
    count: Number,
    sum_us: AtomicU64,
}

impl Durations {
    /// Counts one that took `microseconds`.
    pub fn record(&self, microseconds: u64) {
        for (bound, bucket) in BUCKETS_US.iter().zip(&self.buckets) {
            if microseconds <= *bound {
                bucket.count();
            }
        }
        self.count.count();
        self.sum_us.fetch_add(microseconds, Relaxed);
    }
}

/// Numbers per name of a fixed list.
#[derive(Debug)]
struct PerName {
    names: &'static [&'static str],
    numbers: Vec<Number>,
}

impl PerName {
    fn new(names: &'static [&'static str]) -> Self {
        Self { names, numbers: names.iter().map(|_| Number::default()).collect() }
    }

    fn count(&self, name: &str) {
        let position = self.names.iter().position(|known| *known == name);
        if let Some(number) = position.and_then(|position| self.numbers.get(position)) {
            number.count();
        }
    }
}

const REQUESTS: &[&str] = &[
    "register",
    "heartbeat",
    "subscribe",
    "create-topics",
    "delete-topics",
    "create-partitions",
    "alter-configs",
    "allocate-producer-ids",
    "confirm-replicas",
    "status",
];

const COMMANDS: &[&str] = &[
    "register-broker",
    "set-broker-state",
    "create-topic",
    "delete-topic",
    "add-partitions",
    "configure-topic",
    "allocate-producer-ids",
    "confirm-replicas",
];

/// All metrics of one coordinator.
#[derive(Debug)]
pub struct Metrics {
    requests: PerName,
    commands: PerName,
    refusals: Vec<Number>,
    /// From proposing commands until they are on stable storage.
    pub commit: Durations,
    /// Open connections.
    pub connections: Number,
    /// Connections closed at once, because there were too many.
    pub connections_refused: Number,
    /// Connections closed because of what the peer sent, or did not send in time.
    pub connections_dropped: Number,
    /// Subscribers.
    pub subscribers: Number,
    /// Subscribers disconnected because they read too slowly.
    pub subscribers_dropped: Number,
    /// Index of the image.
    pub index: Number,
    /// Index of the last snapshot.
    pub snapshot_index: Number,
    /// Length of the command log.
    pub log_bytes: Number,
    /// Upper bound of the bytes of the image.
    pub image_bytes: Number,
    /// Brokers that are active or draining.
    pub brokers_alive: Number,
    /// Brokers that are fenced.
    pub brokers_fenced: Number,
    /// Brokers fenced because they were silent.
    pub leases_lapsed: Number,
    /// Writes that were not begun because the disk is full.
    pub storage_full: Number,
    /// Topics.
    pub topics: Number,
    /// Partitions.
    pub partitions: Number,
    /// Partitions that nobody leads.
    pub leaderless: Number,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: PerName::new(REQUESTS),
            commands: PerName::new(COMMANDS),
            refusals: RefusalCode::ALL.iter().map(|_| Number::default()).collect(),
            commit: Durations::default(),
            connections: Number::default(),
            connections_refused: Number::default(),
            connections_dropped: Number::default(),
            subscribers: Number::default(),
            subscribers_dropped: Number::default(),
            index: Number::default(),
            snapshot_index: Number::default(),
            log_bytes: Number::default(),
            image_bytes: Number::default(),
            brokers_alive: Number::default(),
            brokers_fenced: Number::default(),
            leases_lapsed: Number::default(),
            storage_full: Number::default(),
            topics: Number::default(),
            partitions: Number::default(),
            leaderless: Number::default(),
        }
    }
}

impl Metrics {
    /// Counts a request of this name.
    pub fn count_request(&self, name: &str) {
        self.requests.count(name);
    }

    /// Counts a command that was applied.
    pub fn count_command(&self, name: &str) {
        self.commands.count(name);
    }

    /// Counts a refusal.
    pub fn count_refusal(&self, code: RefusalCode) {
        let position = RefusalCode::ALL.iter().position(|known| *known == code);
        if let Some(number) = position.and_then(|position| self.refusals.get(position)) {
            number.count();
        }
    }

    /// Everything, as Prometheus reads it.
    pub fn text(&self) -> String {
        let mut text = Text(String::new());
        text.head("requests_total", "counter", "Requests by kind.");
        for (name, number) in self.requests.names.iter().zip(&self.requests.numbers) {
            text.labelled("requests_total", "kind", name, number);
        }
        text.head("commands_total", "counter", "Commands applied, by kind.");
        for (name, number) in self.commands.names.iter().zip(&self.commands.numbers) {
            text.labelled("commands_total", "kind", name, number);
        }
        text.head("refusals_total", "counter", "Refusals, by reason.");
        for (code, number) in RefusalCode::ALL.iter().zip(&self.refusals) {
            text.labelled("refusals_total", "reason", code.as_str(), number);
        }
        text.durations("commit_seconds", "Until commands are on stable storage.", &self.commit);
        for (name, kind, help, number) in [
            ("connections", "gauge", "Open connections.", &self.connections),
            (
                "connections_refused_total",
                "counter",
                "Connections closed because there were too many.",
                &self.connections_refused,
            ),
            (
                "connections_dropped_total",
                "counter",
                "Connections closed because of what the peer sent or did not send in time.",
                &self.connections_dropped,
            ),
            ("subscribers", "gauge", "Brokers that follow the image.", &self.subscribers),
            (
                "subscribers_dropped_total",
                "counter",
                "Subscribers disconnected because they read too slowly.",
                &self.subscribers_dropped,
            ),
            ("image_index", "gauge", "Last command that the image shows.", &self.index),
            (
                "snapshot_index",
                "gauge",
                "Last command that the snapshot shows.",
                &self.snapshot_index,
            ),
            ("log_bytes", "gauge", "Length of the command log.", &self.log_bytes),
            ("image_bytes", "gauge", "Upper bound of the image's bytes.", &self.image_bytes),
            ("brokers_alive", "gauge", "Brokers active or draining.", &self.brokers_alive),
            ("brokers_fenced", "gauge", "Brokers fenced.", &self.brokers_fenced),
            (
                "leases_lapsed_total",
                "counter",
                "Brokers fenced because they were silent.",
                &self.leases_lapsed,
            ),
            (
                "storage_full_total",
                "counter",
                "Writes that were not begun because the disk is full.",
                &self.storage_full,
            ),
            ("topics", "gauge", "Topics.", &self.topics),
            ("partitions", "gauge", "Partitions.", &self.partitions),
            ("partitions_leaderless", "gauge", "Partitions that nobody leads.", &self.leaderless),
        ] {
            text.head(name, kind, help);
            text.line(format_args!("levada_coordinator_{name} {}", number.get()));
        }
        text.0
    }
}

struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        if self.0.write_fmt(line).is_ok() {
            self.0.push('\n');
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP levada_coordinator_{name} {help}"));
        self.line(format_args!("# TYPE levada_coordinator_{name} {kind}"));
    }

    fn labelled(&mut self, name: &str, label: &str, value: &str, number: &Number) {
        let number = number.get();
        self.line(format_args!("levada_coordinator_{name}{{{label}=\"{value}\"}} {number}"));
    }

    fn durations(&mut self, name: &str, help: &str, durations: &Durations) {
        self.head(name, "histogram", help);
        for (bound_us, bucket) in BUCKETS_US.iter().zip(&durations.buckets) {
            let bound = seconds(*bound_us);
            let count = bucket.get();
            self.line(format_args!("levada_coordinator_{name}_bucket{{le=\"{bound}\"}} {count}"));
        }
        let count = durations.count.get();
        let sum = seconds(durations.sum_us.load(Relaxed));
        self.line(format_args!("levada_coordinator_{name}_bucket{{le=\"+Inf\"}} {count}"));
        self.line(format_args!("levada_coordinator_{name}_sum {sum}"));
        self.line(format_args!("levada_coordinator_{name}_count {count}"));
    }
}

/// Microseconds as a decimal number of seconds.
fn seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_count() {
        let metrics = Metrics::default();
        metrics.count_request("heartbeat");
        metrics.count_command("create-topic");
        metrics.count_refusal(RefusalCode::TopicExists);
        metrics.commit.record(300);
        metrics.index.set(42);
        let text = metrics.text();
        for line in [
            "levada_coordinator_requests_total{kind=\"heartbeat\"} 1",
            "levada_coordinator_commands_total{kind=\"create-topic\"} 1",
            "levada_coordinator_refusals_total{reason=\"topic exists\"} 1",
            "levada_coordinator_commit_seconds_bucket{le=\"0.000250\"} 0",
            "levada_coordinator_commit_seconds_bucket{le=\"0.000500\"} 1",
            "levada_coordinator_commit_seconds_sum 0.000300",
            "levada_coordinator_image_index 42",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
