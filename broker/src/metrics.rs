//! Every metric: name, unit, meaning. Each shard counts for itself; a scrape asks all shards and adds
//! up what they say. Served as Prometheus text by `admin.rs`.

pub mod histogram;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;

use levada_protocol::kafka::ApiKey;

pub use histogram::{BOUNDS_US, Histogram, HistogramSnapshot};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One metric without labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Name without the prefix `levada_`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it counts, with its unit.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($kind:ident $name:ident $help:literal;)*) => {
        /// The figures of one shard.
        #[derive(Debug, Default)]
        pub struct ShardMetrics {
            $(#[doc = $help] pub $name: Cell<u64>,)*
            apis: RefCell<BTreeMap<ApiKey, ApiMetrics>>,
            /// From the first batch of a produce request read to all its batches in their logs.
            pub stage_append: Histogram,
            /// From there to the acknowledgement.
            pub stage_durable: Histogram,
            /// From the last byte of a request to its handler: what it waited for its turn and for
            /// room in budgets.
            pub stage_queue: Histogram,
            /// From a reply to its last byte handed to the kernel.
            pub stage_reply: Histogram,
            /// Time of a round of the journal: write and sync.
            pub round: Histogram,
        }

        /// Every metric without labels.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: stringify!($name), kind: Kind::$kind, help: $help },)*
        ];

        impl ShardMetrics {
            fn values(&self) -> Vec<u64> {
                vec![$(self.$name.get(),)*]
            }
        }
    };
}

metrics! {
    Gauge shards "Shards that answered this scrape.";
    Counter connections_accepted_total "Client connections accepted.";
    Counter connections_refused_total "Client connections closed at once: the limit was reached.";
    Counter connections_late_total "Client connections closed because a deadline passed.";
    Counter connections_malformed_total "Client connections closed because of bytes that are no request.";
    Counter connections_evicted_total "Client connections closed because their unfinished request stood in the way of others.";
    Counter accept_errors_total "Errors of accept, most of them too many open files.";
    Gauge connections_open "Client connections open.";
    Counter request_bytes_total "Bytes of requests read.";
    Counter reply_bytes_total "Bytes of replies sent.";
    Counter produced_batches_total "Batches handed to their logs for producers.";
    Counter produced_bytes_total "Bytes of batches handed to their logs for producers.";
    Counter produce_refused_total "Batches refused.";
    Counter fetched_bytes_total "Bytes of batches sent to consumers.";
    Counter translated_batches_total "Columnar batches translated for readers that know only Kafka's records.";
    Counter fetch_waits_total "Fetches that had to wait for records.";
    Gauge fetch_sessions "Fetch sessions open.";
    Gauge request_budget_bytes "Bytes of requests read and not yet handled.";
    Gauge request_budget_limit_bytes "Most bytes of such requests.";
    Gauge request_budget_waiting "Connections that wait for room in that budget.";
    Gauge response_budget_bytes "Bytes of fetched batches held for replies.";
    Gauge response_budget_limit_bytes "Most bytes of such batches.";
    Gauge append_budget_bytes "Bytes of batches appended and not committed.";
    Gauge append_budget_limit_bytes "Most bytes of such batches.";
    Gauge mailbox_depth "Mails waiting in mailboxes.";
    Counter mails_total "Mails from other shards.";
    Gauge partitions "Partitions on this broker.";
    Gauge partitions_led "Partitions that this broker leads.";
    Gauge partitions_suspect "Partitions that are damaged or missing.";
    Gauge acks_waiting "Batches that wait for their acknowledgement.";
    Gauge appends_queued "Batches that wait for room in their log.";
    Gauge durable_lag_records "Records appended and not yet on stable storage.";
    Gauge durable_lag_bytes "Bytes appended and not yet on stable storage.";
    Gauge log_size_bytes "Bytes of batches in all logs.";
    Counter segments_dropped_total "Segments dropped by retention.";
    Counter rounds_total "Rounds of the journal made durable.";
    Counter journal_bytes_total "Bytes written to the journal.";
    Counter through_bytes_total "Bytes written straight to segments.";
    Counter write_behind_bytes_total "Bytes written to segments behind the journal.";
    Counter checkpoints_total "Checkpoints written.";
    Gauge journal_used_bytes "Bytes of the journal that must be kept.";
    Gauge journal_size_bytes "Bytes of all journal files.";
    Counter journal_room_waits_total "Rounds that waited for room in the journal.";
    Counter disk_full_total "Times that room on the disk was refused.";
    Gauge tail_bytes "Memory of log tails in bytes.";
    Gauge read_ahead_bytes "Memory of what is read ahead in bytes.";
    Counter read_ahead_used_bytes_total "Bytes read ahead that a fetch then needed.";
    Gauge store_failed "Shards whose log directory has failed.";
    Gauge image_index "Index of the cluster image that the broker acts on.";
    Gauge controller_connected "1 while the coordinator is connected.";
}

/// Figures of one API.
#[derive(Debug, Default)]
pub struct ApiMetrics {
    requests: Cell<u64>,
    request_bytes: Cell<u64>,
    reply_bytes: Cell<u64>,
    total: Histogram,
}

/// Adds to a counter or gauge.
pub fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get().wrapping_add(more));
}

/// Takes from a gauge.
pub fn subtract(cell: &Cell<u64>, less: u64) {
    cell.set(cell.get().saturating_sub(less));
}

impl ShardMetrics {
    /// A request was answered.
    pub fn on_answered(&self, api: ApiKey, request_bytes: u64, reply_bytes: u64, total_us: u64) {
        let mut apis = self.apis.borrow_mut();
        let metrics = apis.entry(api).or_default();
        add(&metrics.requests, 1);
        add(&metrics.request_bytes, request_bytes);
        add(&metrics.reply_bytes, reply_bytes);
        metrics.total.record_us(total_us);
        add(&self.request_bytes_total, request_bytes);
        add(&self.reply_bytes_total, reply_bytes);
    }

    /// Everything as of now.
    pub fn snapshot(&self) -> Snapshot {
        let apis = self.apis.borrow();
        let apis = apis.iter().map(|(api, metrics)| {
            let snapshot = ApiSnapshot {
                requests: metrics.requests.get(),
                request_bytes: metrics.request_bytes.get(),
                reply_bytes: metrics.reply_bytes.get(),
                total: metrics.total.snapshot(),
            };
            (*api, snapshot)
        });
        Snapshot {
            values: self.values(),
            apis: apis.collect(),
            stages: vec![
                ("queue", self.stage_queue.snapshot()),
                ("append", self.stage_append.snapshot()),
                ("durable", self.stage_durable.snapshot()),
                ("reply", self.stage_reply.snapshot()),
            ],
            round: self.round.snapshot(),
        }
    }
}

/// Figures of one API that may cross threads.
#[derive(Debug, Clone, Copy, Default)]
pub struct ApiSnapshot {
    /// Requests answered.
    pub requests: u64,
    /// Bytes of them.
    pub request_bytes: u64,
    /// Bytes of the replies.
    pub reply_bytes: u64,
    /// From the last byte of the request to the last byte of the reply.
    pub total: HistogramSnapshot,
}

/// One figure of an API.
type Figure = fn(&ApiSnapshot) -> u64;

/// Figures of one shard, or of several added up.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// One per row of [`METRICS`].
    pub values: Vec<u64>,
    /// Per API.
    pub apis: BTreeMap<ApiKey, ApiSnapshot>,
    /// Stages of a request, by name.
    pub stages: Vec<(&'static str, HistogramSnapshot)>,
    /// Rounds of the journal.
    pub round: HistogramSnapshot,
}

impl Snapshot {
    /// Adds the figures of another shard.
    pub fn add(&mut self, other: &Self) {
        for (value, more) in self.values.iter_mut().zip(&other.values) {
            *value = value.wrapping_add(*more);
        }
        for (api, more) in &other.apis {
            let api = self.apis.entry(*api).or_default();
            api.requests += more.requests;
            api.request_bytes += more.request_bytes;
            api.reply_bytes += more.reply_bytes;
            api.total.add(&more.total);
        }
        for ((_, stage), (_, more)) in self.stages.iter_mut().zip(&other.stages) {
            stage.add(more);
        }
        self.round.add(&other.round);
    }

    /// The value of the metric called `name`, without prefix.
    pub fn value(&self, name: &str) -> Option<u64> {
        let at = METRICS.iter().position(|metric| metric.name == name)?;
        self.values.get(at).copied()
    }

    /// As Prometheus text.
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        for (metric, value) in METRICS.iter().zip(&self.values) {
            head(&mut text, metric.name, metric.kind, metric.help);
            line(&mut text, format_args!("levada_{} {value}", metric.name));
        }
        let per_api: [(&str, &str, Figure); 3] = [
            ("requests_total", "Requests answered, per API.", |api| api.requests),
            ("api_request_bytes_total", "Bytes of requests, per API.", |api| api.request_bytes),
            ("api_reply_bytes_total", "Bytes of replies, per API.", |api| api.reply_bytes),
        ];
        for (name, help, value) in per_api {
            head(&mut text, name, Kind::Counter, help);
            for (api, snapshot) in &self.apis {
                let value = value(snapshot);
                line(&mut text, format_args!("levada_{name}{{api=\"{api}\"}} {value}"));
            }
        }
        let apis = self.apis.iter().map(|(api, snapshot)| (api.name(), &snapshot.total));
        histogram(
            &mut text,
            "request_seconds",
            "From the last byte of a request to the last byte of its reply.",
            "api",
            apis,
        );
        let stages = self.stages.iter().map(|(stage, snapshot)| (*stage, snapshot));
        histogram(&mut text, "stage_seconds", "Parts of that time.", "stage", stages);
        let rounds = std::iter::once(("all", &self.round));
        histogram(&mut text, "round_seconds", "Write and sync of a round.", "round", rounds);
        text
    }
}

fn head(text: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    line(text, format_args!("# HELP levada_{name} {help}\n# TYPE levada_{name} {kind}"));
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a string succeeds");
}

fn histogram<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    label: &str,
    series: impl Iterator<Item = (&'a str, &'a HistogramSnapshot)>,
) {
    line(text, format_args!("# HELP levada_{name} {help}\n# TYPE levada_{name} histogram"));
    for (value, snapshot) in series {
        let mut count = 0;
        for (bound_us, in_bucket) in BOUNDS_US.iter().zip(snapshot.counts) {
            count += in_bucket;
            let le = seconds(*bound_us);
            line(
                text,
                format_args!("levada_{name}_bucket{{{label}=\"{value}\",le=\"{le}\"}} {count}"),
            );
        }
        let count = snapshot.count();
        let labels = format!("{label}=\"{value}\"");
        line(text, format_args!("levada_{name}_bucket{{{labels},le=\"+Inf\"}} {count}"));
        let sum = seconds(snapshot.sum_us);
        line(text, format_args!("levada_{name}_sum{{{labels}}} {sum}"));
        line(text, format_args!("levada_{name}_count{{{labels}}} {count}"));
    }
}

/// Microseconds as seconds, exactly.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_added_up_and_printed() {
        let metrics = ShardMetrics::default();
        metrics.shards.set(1);
        metrics.on_answered(ApiKey::Fetch, 10, 20, 75);
        let mut total = metrics.snapshot();
        total.add(&metrics.snapshot());
        assert_eq!(total.value("shards"), Some(2));
        assert_eq!(total.value("request_bytes_total"), Some(20));
        let text = total.prometheus();
        for expected in [
            "levada_requests_total{api=\"Fetch\"} 2",
            "levada_request_seconds_bucket{api=\"Fetch\",le=\"0.00005\"} 0",
            "levada_request_seconds_bucket{api=\"Fetch\",le=\"0.0001\"} 2",
            "levada_request_seconds_bucket{api=\"Fetch\",le=\"+Inf\"} 2",
            "levada_request_seconds_sum{api=\"Fetch\"} 0.00015",
            "# TYPE levada_connections_open gauge",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn names_follow_the_rules_and_come_once() {
        for (at, metric) in METRICS.iter().enumerate() {
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{metric:?}");
            assert!(metric.help.ends_with('.'), "{metric:?}");
            assert!(METRICS.iter().skip(at + 1).all(|other| other.name != metric.name));
        }
    }

    #[test]
    fn microseconds_print_as_exact_seconds() {
        let texts: Vec<_> = [0, 20, 1_000, 1_500_000, 30_000_000].map(seconds).into();
        assert_eq!(texts, ["0", "0.00002", "0.001", "1.5", "30"]);
    }
}
