//! The Kafka requests of the crash runs, written by hand in old versions without tagged fields.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::batch::Cursor;

/// How long an answer may take before the outcome counts as unknown.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 64 << 20;
const FETCH_BYTES_MAX: i32 = 8 << 20;
/// `acks=all`.
const ACKS_ALL: i16 = -1;
const PRODUCE_TIMEOUT_MS: i32 = 20_000;

/// Codes that a client tries again after.
pub(crate) const RETRIABLE: [i16; 12] = [2, 3, 5, 6, 7, 13, 14, 15, 16, 19, 20, STORAGE_ERROR];
/// `KAFKA_STORAGE_ERROR`
pub(crate) const STORAGE_ERROR: i16 = 56;
/// `OUT_OF_ORDER_SEQUENCE_NUMBER`
pub(crate) const OUT_OF_ORDER: i16 = 45;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

/// The answer to one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Produced {
    /// Kafka's number, 0 for none.
    pub(crate) error: i16,
    /// Of the first record.
    pub(crate) base_offset: i64,
}

/// One socket; answers come in the order of the requests.
pub(crate) struct Connection {
    stream: TcpStream,
    next: i32,
    oldest: i32,
}

impl Connection {
    /// # Errors
    /// When nobody answers there.
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { stream, next: 0, oldest: 0 })
    }

    fn send(&mut self, key: i16, version: i16, body: &[u8]) -> anyhow::Result<()> {
        let mut request = vec![0; 4];
        request.extend(key.to_be_bytes());
        request.extend(version.to_be_bytes());
        request.extend(self.next.to_be_bytes());
        string(&mut request, "levada-crash");
        request.extend(body);
        let length = i32::try_from(request.len() - 4)?;
        request[..4].copy_from_slice(&length.to_be_bytes());
        self.next += 1;
        Ok(self.stream.write_all(&request)?)
    }

    fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).context("negative length")?;
        ensure!((4..ANSWER_BYTES_MAX).contains(&length), "an answer of {length} B");
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        let correlation = Cursor(&answer).i32()?;
        ensure!(correlation == self.oldest, "answer {correlation}, not {}", self.oldest);
        self.oldest += 1;
        answer.drain(..4);
        Ok(answer)
    }

    fn ask(&mut self, key: i16, version: i16, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.send(key, version, body)?;
        self.receive()
    }

    /// Sends a batch; its answer comes by [`Self::receive_produced`].
    ///
    /// # Errors
    /// When the connection is gone: the batch's fate is unknown.
    pub(crate) fn send_produce(&mut self, target: &Target, batch: &[u8]) -> anyhow::Result<()> {
        let mut body = Vec::with_capacity(batch.len() + 64);
        body.extend((-1_i16).to_be_bytes());
        body.extend(ACKS_ALL.to_be_bytes());
        body.extend(PRODUCE_TIMEOUT_MS.to_be_bytes());
        one_partition(&mut body, target);
        body.extend(i32::try_from(batch.len())?.to_be_bytes());
        body.extend(batch);
        self.send(0, 3, &body)
    }

    /// The answer to the oldest batch without one.
    ///
    /// # Errors
    /// When the connection is gone, or the answer is none.
    pub(crate) fn receive_produced(&mut self, target: &Target) -> anyhow::Result<Produced> {
        let answer = self.receive()?;
        let mut answer = Cursor(&answer);
        same_partition(&mut answer, target)?;
        Ok(Produced { error: answer.i16()?, base_offset: answer.i64()? })
    }

    /// Producer id and epoch, or the error.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn init_producer_id(&mut self) -> anyhow::Result<Result<(i64, i16), i16>> {
        let mut body = Vec::new();
        body.extend((-1_i16).to_be_bytes());
        body.extend(60_000_i32.to_be_bytes());
        let answer = self.ask(22, 0, &body)?;
        let mut answer = Cursor(&answer);
        answer.i32()?;
        let error = answer.i16()?;
        Ok(if error == 0 { Ok((answer.i64()?, answer.i16()?)) } else { Err(error) })
    }

    /// Error and high watermark.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn latest_offset(&mut self, target: &Target) -> anyhow::Result<(i16, i64)> {
        let mut body = Vec::new();
        body.extend((-1_i32).to_be_bytes());
        one_partition(&mut body, target);
        body.extend((-1_i64).to_be_bytes());
        let answer = self.ask(2, 1, &body)?;
        let mut answer = Cursor(&answer);
        same_partition(&mut answer, target)?;
        let error = answer.i16()?;
        answer.i64()?;
        Ok((error, answer.i64()?))
    }

    /// Error and batches from `offset` on.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn fetch(&mut self, target: &Target, offset: i64) -> anyhow::Result<(i16, Vec<u8>)> {
        let mut body = Vec::new();
        body.extend((-1_i32).to_be_bytes());
        body.extend(1_000_i32.to_be_bytes());
        body.extend(1_i32.to_be_bytes());
        body.extend(FETCH_BYTES_MAX.to_be_bytes());
        body.push(0);
        one_partition(&mut body, target);
        body.extend(offset.to_be_bytes());
        body.extend(FETCH_BYTES_MAX.to_be_bytes());
        let answer = self.ask(1, 4, &body)?;
        let mut answer = Cursor(&answer);
        answer.i32()?;
        same_partition(&mut answer, target)?;
        let error = answer.i16()?;
        answer.take(8 + 8)?;
        let aborted = usize::try_from(answer.i32()?).unwrap_or(0);
        answer.take(aborted.checked_mul(16).context("too many aborted transactions")?)?;
        let length = usize::try_from(answer.i32()?).unwrap_or(0);
        Ok((error, answer.take(length)?.to_vec()))
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When it is refused or the connection is gone.
    pub(crate) fn create_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let mut body = Vec::new();
        body.extend(1_i32.to_be_bytes());
        string(&mut body, topic);
        body.extend(partitions.to_be_bytes());
        body.extend(1_i16.to_be_bytes());
        body.extend(0_i32.to_be_bytes());
        body.extend(i32::try_from(settings.len())?.to_be_bytes());
        for (name, value) in settings {
            string(&mut body, name);
            string(&mut body, value);
        }
        body.extend(30_000_i32.to_be_bytes());
        body.push(0);
        let answer = self.ask(19, 2, &body)?;
        let mut answer = Cursor(&answer);
        answer.i32()?;
        ensure!(answer.i32()? == 1, "one topic was asked for");
        answer.string()?;
        let code = answer.i16()?;
        ensure!(code == 0, "create topic {topic}: error {code} {}", answer.string()?);
        Ok(())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// When it is refused or the connection is gone.
    pub(crate) fn delete_topic(&mut self, topic: &str) -> anyhow::Result<()> {
        let mut body = Vec::new();
        body.extend(1_i32.to_be_bytes());
        string(&mut body, topic);
        body.extend(30_000_i32.to_be_bytes());
        let answer = self.ask(20, 1, &body)?;
        let mut answer = Cursor(&answer);
        answer.i32()?;
        ensure!(answer.i32()? == 1, "one topic was asked for");
        answer.string()?;
        let code = answer.i16()?;
        ensure!(code == 0, "delete topic {topic}: error {code}");
        Ok(())
    }

    /// Names of all topics.
    ///
    /// # Errors
    /// When the connection is gone, or a topic has an error.
    pub(crate) fn topics(&mut self) -> anyhow::Result<Vec<String>> {
        let answer = self.ask(3, 1, &(-1_i32).to_be_bytes())?;
        let mut answer = Cursor(&answer);
        for _ in 0..answer.i32()? {
            answer.i32()?;
            answer.string()?;
            answer.i32()?;
            answer.string()?;
        }
        answer.i32()?;
        let mut names = Vec::new();
        for _ in 0..answer.i32()? {
            let code = answer.i16()?;
            let name = answer.string()?;
            ensure!(code == 0, "metadata of {name}: error {code}");
            answer.take(1)?;
            for _ in 0..answer.i32()? {
                answer.take(2 + 4 + 4)?;
                for _ in 0..2 {
                    let replicas = usize::try_from(answer.i32()?).unwrap_or(0);
                    answer.take(replicas.checked_mul(4).context("too many replicas")?)?;
                }
            }
            names.push(name);
        }
        Ok(names)
    }
}

/// Arrays of one topic with one partition, up to the partition's number.
fn one_partition(body: &mut Vec<u8>, target: &Target) {
    body.extend(1_i32.to_be_bytes());
    string(body, &target.topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(target.partition.to_be_bytes());
}

fn same_partition(answer: &mut Cursor<'_>, target: &Target) -> anyhow::Result<()> {
    ensure!(answer.i32()? == 1, "one topic was asked for");
    let topic = answer.string()?;
    ensure!(answer.i32()? == 1, "one partition was asked for");
    let partition = answer.i32()?;
    if (topic.as_str(), partition) != (target.topic.as_str(), target.partition) {
        bail!("asked for {target:?}, answered for {topic} {partition}");
    }
    Ok(())
}

fn string(body: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).expect("our own texts are short");
    body.extend(length.to_be_bytes());
    body.extend(text.as_bytes());
}
