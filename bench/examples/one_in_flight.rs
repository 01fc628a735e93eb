//! Producers with one record in flight each, as plain Kafka requests over raw sockets: what a small request costs a broker,
//! with next to nothing for the client. One thread, one connection per producer.
//!
//! ```text
//! cargo run --release -p levada-bench --example one_in_flight -- BOOTSTRAP PRODUCERS [SECONDS] [PARTITIONS] [BYTES]
//! ```
//!
//! The latency of a record is from before its batch is built until its acknowledgement was read; the first second does
//! not count. A broker that refuses a record ends the run.

#![expect(clippy::print_stdout, reason = "the figures are the result")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use levada_client::admin::NewTopic;
use levada_client::{Admin, Cluster, ClusterOptions};
use levada_protocol::kafka::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use levada_protocol::kafka::{ApiKey, Reader, RecordBytes, decode_response_header, encode_request};
use levada_record::{BatchBuilder, Compression, NewRecord, Timestamp};
use rand::{RngCore as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, poll};

/// The first without anything that a raw client would have to keep track of.
const PRODUCE_VERSION: i16 = 7;
const WARM_UP: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error>;

struct ProducerSocket {
    stream: TcpStream,
    partition: i32,
    sent_at: Instant,
    number: i32,
    answer: Vec<u8>,
}

fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u32| -> Result<u32, BoxError> {
        Ok(arguments.get(at).map_or(Ok(default), |text| text.parse())?)
    };
    let bootstrap = arguments.first().ok_or("say which broker: HOST:PORT")?;
    let (producers, seconds) = (number(1, 16)?, number(2, 5)?);
    let (partitions, bytes) = (number(3, 16)?, number(4, 1024)?);
    let topic = format!("one-in-flight-{}", std::process::id());
    create_topic(bootstrap, &topic, i32::try_from(partitions)?)?;

    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    let mut value = vec![0; usize::try_from(bytes)?];
    let mut sockets = Vec::new();
    for producer in 0..producers {
        let stream = TcpStream::connect(bootstrap)?;
        stream.set_nodelay(true)?;
        let partition = i32::try_from(producer % partitions)?;
        let (sent_at, number, answer) = (Instant::now(), 0, Vec::new());
        let mut socket = ProducerSocket { stream, partition, sent_at, number, answer };
        random.fill_bytes(&mut value);
        socket.send(&topic, &value)?;
        sockets.push(socket);
    }
    let mut latencies = Histogram::<u64>::new(3)?;
    let started = Instant::now();
    let end = started + WARM_UP + Duration::from_secs(u64::from(seconds));
    while Instant::now() < end {
        let mut ready: Vec<PollFd<'_>> =
            sockets.iter().map(|s| PollFd::new(&s.stream, PollFlags::IN)).collect();
        poll(&mut ready, None)?;
        let ready: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (socket, is_ready) in sockets.iter_mut().zip(ready) {
            if is_ready && socket.receive()? {
                if started.elapsed() > WARM_UP {
                    latencies.record(u64::try_from(socket.sent_at.elapsed().as_nanos())?)?;
                }
                random.fill_bytes(&mut value);
                socket.send(&topic, &value)?;
            }
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "figures to be read")]
    let ms = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e6;
    println!(
        "{producers} producers, {partitions} partitions, {bytes} B: {} acknowledged/s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms",
        latencies.len() / u64::from(seconds),
        ms(0.5),
        ms(0.99),
        ms(0.999),
    );
    Ok(())
}

fn create_topic(bootstrap: &str, name: &str, partitions: i32) -> Result<(), BoxError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let cluster = Cluster::connect(bootstrap, ClusterOptions::default()).await?;
        let topic = NewTopic {
            name: name.to_owned(),
            partitions: Some(partitions),
            replicas: None,
            configs: Vec::new(),
        };
        Admin::new(cluster).create_topic(&topic, false).await?;
        Ok(())
    })
}

impl ProducerSocket {
    fn send(&mut self, topic: &str, value: &[u8]) -> Result<(), BoxError> {
        self.sent_at = Instant::now();
        self.number += 1;
        let mut builder = BatchBuilder::new(Compression::None);
        let timestamp = Timestamp(0);
        builder.push(&NewRecord { timestamp, value: Some(value), ..NewRecord::default() })?;
        let batch = builder.finish()?;
        let partition =
            PartitionProduceData { index: self.partition, records: RecordBytes::Borrowed(&batch) };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData {
                name: topic.into(),
                partition_data: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        };
        let encoded = encode_request(PRODUCE_VERSION, self.number, None, &request)?;
        self.stream.write_all(&encoded.bytes)?;
        Ok(())
    }

    /// Reads what is there. Whether the answer is whole.
    fn receive(&mut self) -> Result<bool, BoxError> {
        let mut some = [0; 512];
        let read = self.stream.read(&mut some)?;
        if read == 0 {
            return Err("the broker closed the connection".into());
        }
        self.answer.extend_from_slice(some.get(..read).unwrap_or_default());
        let Some((length, body)) = self.answer.split_first_chunk() else { return Ok(false) };
        if body.len() < usize::try_from(i32::from_be_bytes(*length))? {
            return Ok(false);
        }
        let mut reader = Reader::new(body);
        let number = decode_response_header(&mut reader, ApiKey::Produce, PRODUCE_VERSION)?;
        let response = ProduceResponse::decode(&mut reader, PRODUCE_VERSION)?;
        let answered = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        let errors: Vec<i16> = answered.map(|partition| partition.error_code).collect();
        if number != self.number || errors != [0] {
            return Err(
                format!("request {}: answer {number} with errors {errors:?}", self.number).into()
            );
        }
        self.answer.clear();
        Ok(true)
    }
}
