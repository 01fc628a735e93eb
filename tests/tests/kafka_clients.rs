//! A real Kafka client, librdkafka, against a coordinator and a broker in this process: what it produces it reads
//! back, also after the broker stopped and started again.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "kafka_clients/encodings.rs"]
mod encodings;
#[path = "local/cluster.rs"]
mod local;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use futures_lite::future::block_on;
use levada_broker::Broker;
use local::LocalCluster;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster of one broker, and clients of it.
struct Cluster {
    local: LocalCluster,
}

impl Cluster {
    fn start() -> Self {
        Self { local: LocalCluster::start(|_| ()) }
    }

    fn restart(&mut self) {
        let LocalCluster { broker, config, .. } = &mut self.local;
        broker.take().unwrap().stop().unwrap();
        *broker = Some(Broker::start(config.clone()).unwrap());
    }

    fn client(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.local.config.listen.to_string());
        for (name, value) in settings {
            client.set(*name, *value);
        }
        client
    }

    fn create_topic(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> Result<(), RDKafkaErrorCode> {
        let admin: AdminClient<DefaultClientContext> = self.client(&[]).create().unwrap();
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let mut outcomes = block_on(admin.create_topics(&[new], &options)).unwrap();
        outcomes.pop().unwrap().map(drop).map_err(|(_, code)| code)
    }

    fn producer(&self, settings: &[(&str, &str)]) -> TestProducer {
        let (sender, deliveries) = mpsc::channel();
        let producer = self.client(settings).create_with_context(Deliveries(sender)).unwrap();
        TestProducer { producer, deliveries }
    }

    fn consumer(&self) -> BaseConsumer {
        // No test joins a group; librdkafka wants its name all the same. Without this setting its close would wait
        // for a group coordinator, to commit to.
        let settings =
            [("group.id", "unused"), ("enable.auto.commit", "false"), ("check.crcs", "true")];
        self.client(&settings).create().unwrap()
    }

    /// Every record of `partition` from `start` to the end of the log.
    fn read(&self, topic: &str, partition: i32, start: i64) -> Vec<OwnedMessage> {
        let consumer = self.consumer();
        let (_, end) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(start)).unwrap();
        consumer.assign(&assignment).unwrap();
        let mut records = Vec::new();
        while start + i64::try_from(records.len()).unwrap() < end {
            let record = consumer.poll(PATIENCE).expect("a record in time").unwrap();
            records.push(record.detach());
        }
        records
    }
}

/// What became of one record: its offset, or why it was refused.
type Delivery = Result<i64, RDKafkaErrorCode>;

struct Deliveries(mpsc::Sender<Delivery>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let delivery = match result {
            Ok(record) => Ok(record.offset()),
            Err((KafkaError::MessageProduction(code), _)) => Err(*code),
            Err((error, _)) => panic!("{error}"),
        };
        self.0.send(delivery).expect("the test collects what comes");
    }
}

struct TestProducer {
    producer: BaseProducer<Deliveries>,
    deliveries: mpsc::Receiver<Delivery>,
}

impl TestProducer {
    fn send(&self, topic: &str, partition: i32, value: &str, timestamp: i64) {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "length", value: Some(&value.len().to_string()) });
        let record = BaseRecord::to(topic)
            .partition(partition)
            .key("key")
            .payload(value)
            .timestamp(timestamp)
            .headers(headers);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    /// Waits for all that was sent; the offsets in the order of sending.
    fn flush(&self) -> Vec<Delivery> {
        self.producer.flush(PATIENCE).unwrap();
        self.deliveries.try_iter().collect()
    }
}

fn values(records: &[OwnedMessage]) -> Vec<String> {
    let text = |record: &OwnedMessage| String::from_utf8(record.payload().unwrap().to_vec());
    records.iter().map(|record| text(record).unwrap()).collect()
}

const BASE_TIME: i64 = 1_700_000_000_000;

#[test]
fn each_codec_brings_back_what_went_in() {
    let cluster = Cluster::start();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("codec-{codec}");
        cluster.create_topic(&topic, 2, &[]).unwrap();
        let producer = cluster.producer(&[
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("compression.codec", codec),
            ("linger.ms", "10"),
        ]);
        let sent: Vec<_> = (0..500).map(|number| format!("{codec} {number} ").repeat(10)).collect();
        for (time, value) in (BASE_TIME..).zip(&sent) {
            producer.send(&topic, 1, value, time);
        }
        let offsets: Result<Vec<_>, _> = producer.flush().into_iter().collect();
        assert_eq!(offsets, Ok((0..500).collect()), "{codec}");

        let records = cluster.read(&topic, 1, 0);
        assert_eq!(values(&records), sent, "{codec}");
        for (time, record) in (BASE_TIME..).zip(&records) {
            assert_eq!(record.key(), Some(&b"key"[..]));
            assert_eq!(record.timestamp().to_millis(), Some(time));
            let header = record.headers().unwrap().get(0);
            let length = record.payload().map_or(0, <[u8]>::len).to_string();
            assert_eq!((header.key, header.value), ("length", Some(length.as_bytes())));
        }
        assert_eq!(cluster.read(&topic, 0, 0).len(), 0);
    }
}

#[test]
fn times_find_the_first_record_that_is_not_older() {
    let cluster = Cluster::start();
    cluster.create_topic("times", 1, &[]).unwrap();
    let producer = cluster.producer(&[("acks", "all")]);
    for number in 0..10 {
        producer.send("times", 0, "v", BASE_TIME + number * 1000);
        // A batch each: the search goes over batches and inside them.
        if number % 3 == 0 {
            assert!(producer.flush().iter().all(Result::is_ok));
        }
    }
    producer.flush();

    let consumer = cluster.consumer();
    let found = |time: i64| {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset("times", 0, Offset::Offset(time)).unwrap();
        let found = consumer.offsets_for_times(asked, PATIENCE).unwrap();
        found.find_partition("times", 0).unwrap().offset()
    };
    assert_eq!(found(BASE_TIME - 1), Offset::Offset(0));
    assert_eq!(found(BASE_TIME + 4000), Offset::Offset(4));
    assert_eq!(found(BASE_TIME + 4001), Offset::Offset(5));
    assert_eq!(found(BASE_TIME + 9001), Offset::End);
}

#[test]
fn a_producer_goes_on_after_a_restart_and_nothing_is_lost_or_doubled() {
    const RECORDS: i32 = 3_000;
    let mut cluster = Cluster::start();
    cluster.create_topic("restart", 3, &[]).unwrap();
    let producer = cluster.producer(&[
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("reconnect.backoff.max.ms", "200"),
    ]);
    let send = |range: std::ops::Range<i32>| {
        for number in range {
            producer.send("restart", number % 3, &number.to_string(), BASE_TIME);
        }
    };
    send(0..RECORDS / 2);
    assert!(producer.flush().iter().all(Result::is_ok));
    // These are on their way, or not yet sent, when the broker goes.
    send(RECORDS / 2..RECORDS);
    cluster.restart();
    assert!(producer.flush().iter().all(Result::is_ok));

    for partition in 0..3 {
        let wanted: Vec<_> =
            (0..RECORDS).filter(|number| number % 3 == partition).map(|n| n.to_string()).collect();
        assert_eq!(values(&cluster.read("restart", partition, 0)), wanted);
    }
}

#[test]
fn refusals_carry_kafkas_own_codes() {
    let cluster = Cluster::start();
    let small = [("max.message.bytes", "2000")];
    assert_eq!(cluster.create_topic("small", 1, &small), Ok(()));
    let refusals = BTreeMap::from([
        ("twice", cluster.create_topic("small", 1, &[])),
        ("name", cluster.create_topic("no/such name", 1, &[])),
        ("setting", cluster.create_topic("other", 1, &[("no.such.setting", "1")])),
    ]);
    let wanted = BTreeMap::from([
        ("twice", Err(RDKafkaErrorCode::TopicAlreadyExists)),
        ("name", Err(RDKafkaErrorCode::InvalidTopic)),
        ("setting", Err(RDKafkaErrorCode::InvalidConfig)),
    ]);
    assert_eq!(refusals, wanted);

    let producer = cluster.producer(&[("acks", "all")]);
    producer.send("small", 0, &"x".repeat(4000), BASE_TIME);
    assert_eq!(producer.flush(), [Err(RDKafkaErrorCode::MessageSizeTooLarge)]);
    producer.send("small", 0, "fits", BASE_TIME);
    assert_eq!(producer.flush(), [Ok(0)]);
}
