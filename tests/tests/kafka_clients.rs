//! A real Kafka client, librdkafka, against a coordinator and a broker in this process: what it produces it reads
//! back.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use futures_lite::future::block_on;
use levada_broker::{Broker, BrokerConfig, BrokerHandle};
use levada_coordinator::{Coordinator, CoordinatorConfig, Handle};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster of one broker, and clients of it.
struct Cluster {
    // Stopped in this order.
    _broker: BrokerHandle,
    config: BrokerConfig,
    _coordinator: Handle,
    _directory: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let coordinator = Coordinator::start(CoordinatorConfig {
            listen: loopback,
            http_enabled: false,
            data_dir: directory.path().join("coordinator"),
            ..CoordinatorConfig::default()
        })
        .unwrap();
        let mut config = BrokerConfig {
            data_dir: directory.path().join("broker"),
            listen: loopback,
            admin_listen: String::new(),
            coordinators: vec![coordinator.address().to_string()],
            shards: 2,
            pin_shards: false,
            io_memory_bytes: 64 << 10,
            journal_file_bytes: 4 << 20,
            ..BrokerConfig::default()
        };
        let broker = Broker::start(config.clone()).unwrap();
        config.listen = broker.kafka_address();
        Self { _broker: broker, config, _coordinator: coordinator, _directory: directory }
    }

    fn client(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.config.listen.to_string());
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
        // No test joins a group; librdkafka wants its name all the same, and would look for the
        // group's owner to commit offsets when it closes.
        let settings =
            [("group.id", "unused"), ("enable.auto.commit", "false"), ("check.crcs", "true")];
        self.client(&settings).create().unwrap()
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

const BASE_TIME: i64 = 1_700_000_000_000;

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
