//! Any records, either encoding, any client: what Levada's client writes in columns or as Kafka does, and what
//! librdkafka writes, both clients read back equal.

use levada_client::{
    AutoCreate, ClusterOptions, Consumer, ConsumerOptions, Encoding, Position, Producer,
    ProducerOptions, ProducerRecord,
};
use levada_record::{Compression, RecordHeader, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use rdkafka::Message;
use rdkafka::message::{Header, Headers, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer as _};

use crate::{BASE_TIME, Cluster, PATIENCE};

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    time: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        vec(any::<u8>(), 0..40),
        (any::<u8>(), 0..40_000usize).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

fn record() -> impl Strategy<Value = Owned> {
    // librdkafka takes 0 for the present.
    let time = prop_oneof![Just(BASE_TIME), 1..BASE_TIME];
    let headers = vec(("[a-zäß€]{1,12}", option::of(vec(any::<u8>(), 0..12))), 0..3);
    (time, option::of(bytes()), option::of(bytes()), headers)
        .prop_map(|(time, key, value, headers)| Owned { time, key, value, headers })
}

/// Writes the records with Levada's client.
async fn write(
    cluster: &levada_client::Cluster,
    topic: &str,
    how: ProducerOptions,
    records: &[Owned],
) {
    let producer = Producer::start(cluster.clone(), how);
    let mut deliveries = Vec::new();
    for Owned { time, key, value, headers } in records {
        let headers: Vec<_> = headers
            .iter()
            .map(|(key, value)| RecordHeader { key: key.as_bytes(), value: value.as_deref() })
            .collect();
        let record = ProducerRecord {
            topic,
            partition: Some(0),
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
            timestamp: Timestamp(*time),
        };
        deliveries.push(producer.send(&record).await.unwrap());
    }
    producer.flush().await.unwrap();
    for delivery in deliveries {
        delivery.wait().await.unwrap();
    }
}

/// Reads partition 0 with Levada's client, and tells which encodings came.
async fn read(
    cluster: &levada_client::Cluster,
    topic: &str,
) -> (Vec<Owned>, Vec<levada_record::Encoding>) {
    cluster.topic(topic, AutoCreate::Never).await.unwrap();
    let mut consumer = Consumer::new(cluster.clone(), ConsumerOptions::default());
    consumer.assign_all(topic, &[0], Position::Start).await.unwrap();
    let end = consumer.offsets(topic, &[0], Position::End).await.unwrap()[&0];
    let (mut read, mut encodings) = (Vec::new(), Vec::new());
    let mut scratch = Vec::new();
    while consumer.position(topic, 0).is_none_or(|at| at < end) {
        for records in consumer.poll(PATIENCE).await.unwrap() {
            let seen = records.visit(&mut scratch, |record| {
                assert_eq!(record.offset.0, i64::try_from(read.len()).unwrap());
                let headers = record.headers.iter().map(|header| {
                    let key = String::from_utf8(header.key.to_vec()).unwrap();
                    (key, header.value.map(<[u8]>::to_vec))
                });
                read.push(Owned {
                    time: record.timestamp.0,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: headers.collect(),
                });
                Ok::<(), ()>(())
            });
            seen.unwrap();
            let seen = records.visit_batches::<()>(|batch| {
                encodings.push(batch.encoding());
                Ok(())
            });
            seen.unwrap();
        }
    }
    (read, encodings)
}

/// Writes the records with librdkafka.
fn write_as_kafka(cluster: &Cluster, topic: &str, codec: Compression, records: &[Owned]) {
    let producer = cluster.producer(&[
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("compression.codec", codec.name()),
        ("linger.ms", "10"),
    ]);
    for Owned { time, key, value, headers } in records {
        let headers = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(Header { key, value: value.as_deref() })
        });
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).timestamp(*time);
        record = record.headers(headers);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.producer.flush(PATIENCE).unwrap();
    assert!(producer.deliveries.try_iter().all(|delivery| delivery.is_ok()));
}

fn owned(record: &OwnedMessage) -> Owned {
    let headers = record.headers().map(|headers| headers.iter()).into_iter().flatten();
    Owned {
        time: record.timestamp().to_millis().unwrap(),
        key: record.key().map(<[u8]>::to_vec),
        value: record.payload().map(<[u8]>::to_vec),
        headers: headers
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    }
}

#[test]
fn any_records_in_either_encoding_are_the_same_to_every_client() {
    let mut cluster = Cluster::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config::with_cases(12));
    let mut cases = Vec::new();
    let any_case = (vec(record(), 1..25), proptest::sample::select(&Compression::ALL[..]));
    for number in 0..12 {
        let case = any_case.new_tree(&mut runner).unwrap().current();
        cases.push((format!("case-{number}"), case));
    }
    // Every codec whatever chance says, and nulls beside emptiness.
    for codec in Compression::ALL {
        let plain = |value: &str| Owned {
            time: BASE_TIME,
            key: None,
            value: Some(value.as_bytes().to_vec()),
            headers: vec![],
        };
        let records = vec![plain("a"), Owned { value: None, ..plain("") }, plain("")];
        cases.push((format!("codec-{codec}"), (records, codec)));
    }
    for (topic, (records, codec)) in &cases {
        cluster.create_topic(topic, 1, &[]).unwrap();
        let bootstrap = cluster.local.config.listen.to_string();
        runtime.block_on(async {
            let levada = levada_client::Cluster::connect(&bootstrap, ClusterOptions::default());
            let levada = levada.await.unwrap();
            for encoding in [Encoding::Columnar, Encoding::Kafka, Encoding::Auto] {
                let compression = *codec;
                let how = ProducerOptions { encoding, compression, ..ProducerOptions::default() };
                write(&levada, topic, how, records).await;
            }
        });
        write_as_kafka(&cluster, topic, *codec, records);
    }
    // From memory first, then from the files.
    for _ in 0..2 {
        for (topic, (records, codec)) in &cases {
            let expected = vec![records.clone(); 4].concat();
            let said = format!("{topic} with {codec}: {records:?}");
            let bootstrap = cluster.local.config.listen.to_string();
            let (read, encodings) = runtime.block_on(async {
                let levada = levada_client::Cluster::connect(&bootstrap, ClusterOptions::default());
                read(&levada.await.unwrap(), topic).await
            });
            assert!(read == expected, "Levada's client: {said}");
            for encoding in [levada_record::Encoding::Columnar, levada_record::Encoding::KafkaV2] {
                assert!(encodings.contains(&encoding), "no {encoding} batch: {said}");
            }
            let read: Vec<_> = cluster.read(topic, 0, 0).iter().map(owned).collect();
            assert!(read == expected, "librdkafka: {said}");
        }
        cluster.restart();
    }
}
