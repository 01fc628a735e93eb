//! A coordinator and a broker in this process, and a client that sends Kafka frames over a plain
//! socket. Used by several test programs, each of which uses a part of it.
#![expect(dead_code, unreachable_pub, reason = "every test program uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use levada_broker::{Broker, BrokerConfig, BrokerHandle};
use levada_coordinator::{Coordinator, CoordinatorConfig, Handle};
use levada_protocol::cluster::request::{CreateTopics, Mode, NewTopic, Placement};
use levada_protocol::cluster::{ClusterId, Envelope, FrameReader, Message};
use levada_protocol::kafka::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use levada_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic};
use levada_protocol::kafka::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use levada_protocol::kafka::{
    Decode as _, Reader, RecordBytes, Request, decode_response_header, encode_request,
};
use levada_record::{
    BatchBuilder, Compression, NewRecord, ProducerEpoch, ProducerId, Timestamp, VerifyLimits,
    next_batch,
};
use tempfile::TempDir;

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster of one broker.
pub struct Cluster {
    pub coordinator: Handle,
    pub broker: Option<BrokerHandle>,
    pub config: BrokerConfig,
    pub directory: TempDir,
}

/// What a broker in a test is configured with.
pub fn config(directory: &TempDir, coordinator: SocketAddr, shards: u16) -> BrokerConfig {
    BrokerConfig {
        data_dir: directory.path().join("broker"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        admin_listen: "127.0.0.1:0".into(),
        coordinators: vec![coordinator.to_string()],
        shards,
        pin_shards: false,
        io_memory_bytes: 64 << 10,
        journal_file_bytes: 1 << 20,
        ..BrokerConfig::default()
    }
}

impl Cluster {
    pub fn start(shards: u16) -> Self {
        Self::start_with(shards, |_| ())
    }

    pub fn start_with(shards: u16, adjust: impl FnOnce(&mut BrokerConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::start(CoordinatorConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            http_enabled: false,
            data_dir: directory.path().join("coordinator"),
            ..CoordinatorConfig::default()
        })
        .unwrap();
        let mut config = config(&directory, coordinator.address(), shards);
        adjust(&mut config);
        let broker = Broker::start(config.clone()).unwrap();
        Self { coordinator, broker: Some(broker), config, directory }
    }

    pub fn broker(&self) -> &BrokerHandle {
        self.broker.as_ref().unwrap()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.broker().kafka_address())
    }

    /// Stops the broker cleanly and starts it again.
    pub fn restart(&mut self) {
        self.broker.take().unwrap().stop().unwrap();
        self.broker = Some(Broker::start(self.config.clone()).unwrap());
    }

    /// Creates a topic at the coordinator and waits until the broker serves it.
    pub fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let configs = configs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let topic = NewTopic {
            name: name.into(),
            id: None,
            placement: Placement::Automatic {
                partitions: Some(partitions),
                replication_factor: Some(1),
            },
            configs: configs.collect(),
        };
        let request = levada_protocol::cluster::Request::CreateTopics(CreateTopics {
            topics: vec![topic],
            mode: Mode::Execute,
        });
        let mut client = self.client();
        let cluster = client.call(12, &MetadataRequest::default(), |response| {
            response.cluster_id.unwrap().parse::<ClusterId>().unwrap()
        });
        let message = Message::Request(request);
        let envelope = Envelope { cluster: Some(cluster), request_id: 1, message };
        let mut stream = TcpStream::connect(self.coordinator.address()).unwrap();
        stream.write_all(&envelope.encode(1 << 20).unwrap()).unwrap();
        let mut frames = FrameReader::new(1 << 24);
        let mut buffer = [0; 4096];
        let reply = loop {
            if let Some(envelope) = frames.next_frame().unwrap() {
                break envelope.message;
            }
            let bytes = stream.read(&mut buffer).unwrap();
            assert!(bytes > 0, "the coordinator hung up");
            frames.feed(&buffer[..bytes]);
        };
        let Message::Reply(levada_protocol::cluster::Reply::Topics(outcomes)) = reply else {
            panic!("{reply:?}")
        };
        assert!(outcomes.outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        // Each connection may land on another shard, and shards learn of the topic one after the other.
        let mut in_a_row = 0;
        while in_a_row < CONNECTIONS_THAT_MEET_EVERY_SHARD {
            let knows = self.client().metadata(name, false).leader.is_some();
            in_a_row = if knows { in_a_row + 1 } else { 0 };
        }
    }
}

/// So many connections meet each of a few shards, all but surely.
const CONNECTIONS_THAT_MEET_EVERY_SHARD: u32 = 32;

/// What Metadata says of one topic.
#[derive(Debug)]
pub struct TopicFacts {
    pub error_code: i16,
    pub id: [u8; 16],
    pub partitions: usize,
    /// Of partition 0.
    pub leader: Option<i32>,
    pub host: String,
    pub port: i32,
}

/// A connection of a test.
pub struct Client {
    pub stream: TcpStream,
    next_id: i32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, next_id: 1 }
    }

    /// The same connection once more, to read while the other writes.
    pub fn twin(&self) -> Self {
        Self { stream: self.stream.try_clone().unwrap(), next_id: 1 }
    }

    /// Sends a request without waiting; gives its number.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let id = self.next_id;
        self.next_id += 1;
        let encoded = encode_request(version, id, Some("test"), request).unwrap();
        self.stream.write_all(&encoded.bytes).unwrap();
        id
    }

    /// The next frame; `None` when the broker hung up.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame).ok()?;
        Some(frame)
    }

    /// Sends a request and hands its response to `read`.
    pub fn call<R: Request, T>(
        &mut self,
        version: i16,
        request: &R,
        read: impl FnOnce(R::Response<'_>) -> T,
    ) -> T {
        let id = self.send(version, request);
        let frame = self.next_frame().expect("the broker hung up");
        read_response::<R, T>(&frame, version, id, read)
    }

    pub fn metadata(&mut self, topic: &str, may_create: bool) -> TopicFacts {
        let topics = vec![MetadataRequestTopic { name: Some(topic.into()), ..Default::default() }];
        let request = MetadataRequest {
            topics: Some(topics),
            allow_auto_topic_creation: may_create,
            ..MetadataRequest::default()
        };
        self.call(12, &request, |response| {
            let topic = &response.topics[0];
            let partition = topic.partitions.first();
            let broker = &response.brokers[0];
            TopicFacts {
                error_code: topic.error_code,
                id: topic.topic_id.0,
                partitions: topic.partitions.len(),
                leader: partition.map(|p| p.leader_id).filter(|leader| *leader >= 0),
                host: broker.host.to_string(),
                port: broker.port,
            }
        })
    }

    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        batch: &[u8],
    ) -> PartitionProduceResponse<'static> {
        let request = produce_request(topic, partition, acks, batch);
        self.call(9, &request, |response| own(&response.responses[0].partition_responses[0]))
    }

    /// Fetches from one partition; gives the error and the bytes.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64, max_wait_ms: i32) -> Fetched {
        let request = fetch_request(topic, partition, offset, max_wait_ms, 1 << 20);
        self.call(11, &request, |response| fetched(&response))
    }
}

pub fn read_response<R: Request, T>(
    frame: &[u8],
    version: i16,
    id: i32,
    read: impl FnOnce(R::Response<'_>) -> T,
) -> T {
    let mut reader = Reader::new(frame);
    assert_eq!(decode_response_header(&mut reader, R::API, version).unwrap(), id);
    read(R::Response::decode_all(reader, version).unwrap())
}

fn own(response: &PartitionProduceResponse<'_>) -> PartitionProduceResponse<'static> {
    PartitionProduceResponse {
        index: response.index,
        error_code: response.error_code,
        base_offset: response.base_offset,
        log_append_time_ms: response.log_append_time_ms,
        log_start_offset: response.log_start_offset,
        ..PartitionProduceResponse::default()
    }
}

/// What came of one partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Fetched {
    pub error_code: i16,
    pub high_watermark: i64,
    pub log_start: i64,
    pub session_id: i32,
    pub records: Vec<u8>,
}

pub fn fetched(response: &FetchResponse<'_>) -> Fetched {
    let nothing = PartitionData::default();
    let partition = response.responses.first().map_or(&nothing, |topic| &topic.partitions[0]);
    Fetched {
        error_code: partition.error_code.max(response.error_code),
        high_watermark: partition.high_watermark,
        log_start: partition.log_start_offset,
        session_id: response.session_id,
        records: partition.records.as_slice().unwrap_or_default().to_vec(),
    }
}

pub fn produce_request<'a>(
    topic: &'a str,
    partition: i32,
    acks: i16,
    batch: &'a [u8],
) -> ProduceRequest<'a> {
    let data = PartitionProduceData { index: partition, records: RecordBytes::Borrowed(batch) };
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![data],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

pub fn fetch_request(
    topic: &str,
    partition: i32,
    offset: i64,
    max_wait_ms: i32,
    max_bytes: i32,
) -> FetchRequest<'_> {
    let how = FetchPartition {
        partition,
        fetch_offset: offset,
        partition_max_bytes: max_bytes,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        ..FetchPartition::default()
    };
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![how],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// A batch of records with these values.
pub fn batch(values: &[&[u8]]) -> Vec<u8> {
    producer_batch(values, None)
}

/// The same from an idempotent producer: its id, epoch and first sequence.
pub fn producer_batch(values: &[&[u8]], producer: Option<(i64, i16, i32)>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(epoch), sequence);
    }
    for value in values {
        let record = NewRecord { timestamp: now(), value: Some(value), ..NewRecord::default() };
        builder.push(&record).unwrap();
    }
    builder.finish().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "records carry the time of the test")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

/// Values of all records in fetched bytes, with their offsets.
pub fn values(bytes: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let mut values = Vec::new();
    let mut rest = bytes;
    while let Some((batch, tail)) = next_batch(rest, &VerifyLimits::DEFAULT).unwrap() {
        for record in batch.plain_records().unwrap() {
            let record = record.unwrap();
            values.push((record.offset.0, record.value.unwrap().to_vec()));
        }
        rest = tail;
    }
    values
}

/// Status and body of an HTTP GET.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}
