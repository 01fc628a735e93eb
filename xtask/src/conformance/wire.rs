//! The few Kafka requests that the suite itself sends: written by hand, so that the codec under test is no part of
//! its own judge. Old versions without tagged fields, which every broker serves.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

const LIMIT: Duration = Duration::from_secs(20);
/// No answer to these requests comes near to it.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// API key → lowest and highest version that the broker at `address` advertises.
///
/// # Errors
/// When the broker does not answer, or not as `ApiVersions` 0 demands.
pub(crate) fn api_versions(address: &str) -> anyhow::Result<BTreeMap<i16, (i16, i16)>> {
    const API_VERSIONS: i16 = 18;
    let answer = ask(address, API_VERSIONS, 0, &[])?;
    let mut answer = Answer(&answer);
    let code = answer.i16()?;
    ensure!(code == 0, "error {code}");
    let count = answer.i32()?;
    (0..count).map(|_| Ok((answer.i16()?, (answer.i16()?, answer.i16()?)))).collect()
}

/// Creates a topic, for clients that cannot.
///
/// # Errors
/// When the broker does not answer, or refuses.
pub(crate) fn create_topic(
    address: &str,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> anyhow::Result<()> {
    const CREATE_TOPICS: i16 = 19;
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
    body.extend(10_000_i32.to_be_bytes());
    body.push(0);
    let answer = ask(address, CREATE_TOPICS, 2, &body)?;
    let mut answer = Answer(&answer);
    answer.i32()?;
    ensure!(answer.i32()? == 1, "one topic was asked for");
    answer.string()?;
    let code = answer.i16()?;
    ensure!(code == 0, "create topic {topic}: error {code} {}", answer.string()?);
    wait_for_leaders(address, topic, partitions)
}

/// Metadata reaches a broker a moment after the controller's answer.
fn wait_for_leaders(address: &str, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let end = super::clock::now() + LIMIT;
    loop {
        let ready =
            (0..partitions).all(|partition| matches!(fetch(address, topic, partition), Ok((0, _))));
        if ready {
            return Ok(());
        }
        ensure!(super::clock::now() < end, "topic {topic} has no leaders after {LIMIT:?}");
        super::clock::pause();
    }
}

/// The codec numbers of the batches at the start of partition 0.
///
/// # Errors
/// When the broker does not answer, refuses, or has no batch.
pub(crate) fn stored_codecs(address: &str, topic: &str) -> anyhow::Result<BTreeSet<i16>> {
    const LENGTH: usize = 8;
    const LENGTH_END: usize = 12;
    const ATTRIBUTES: usize = 21;
    const CODEC_MASK: i16 = 7;
    let (code, records) = fetch(address, topic, 0)?;
    ensure!(code == 0, "fetch: error {code}");
    let mut codecs = BTreeSet::new();
    let mut rest = records.as_slice();
    while let Some(&[high, low]) = rest.get(ATTRIBUTES..ATTRIBUTES + 2) {
        codecs.insert(i16::from_be_bytes([high, low]) & CODEC_MASK);
        let length = i32::from_be_bytes(rest[LENGTH..LENGTH_END].try_into()?);
        let end = LENGTH_END + usize::try_from(length).context("a batch of negative length")?;
        rest = rest.get(end..).unwrap_or_default();
    }
    ensure!(!codecs.is_empty(), "no batch in {topic}");
    Ok(codecs)
}

/// Error code and bytes of `partition` from its start.
fn fetch(address: &str, topic: &str, partition: i32) -> anyhow::Result<(i16, Vec<u8>)> {
    const FETCH: i16 = 1;
    const BYTES_MAX: i32 = 1 << 20;
    let mut body = Vec::new();
    body.extend((-1_i32).to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(BYTES_MAX.to_be_bytes());
    body.push(0);
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(0_i64.to_be_bytes());
    body.extend(BYTES_MAX.to_be_bytes());
    let answer = ask(address, FETCH, 4, &body)?;
    let mut answer = Answer(&answer);
    answer.i32()?;
    ensure!(answer.i32()? == 1, "one topic was asked for");
    answer.string()?;
    ensure!(answer.i32()? == 1, "one partition was asked for");
    answer.i32()?;
    let code = answer.i16()?;
    answer.take(8 + 8)?;
    let aborted = usize::try_from(answer.i32()?).unwrap_or(0);
    answer.take(aborted.checked_mul(16).context("too many aborted transactions")?)?;
    let length = usize::try_from(answer.i32()?).unwrap_or(0);
    Ok((code, answer.take(length)?.to_vec()))
}

fn ask(address: &str, key: i16, version: i16, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    const CORRELATION: i32 = 7;
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(CORRELATION.to_be_bytes());
    string(&mut request, "levada-conformance");
    request.extend(body);

    let mut stream =
        TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&i32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("read the answer's length")?;
    let length = usize::try_from(i32::from_be_bytes(length)).context("a negative length")?;
    ensure!((4..ANSWER_BYTES_MAX).contains(&length), "an answer of {length} B");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).context("read the answer")?;
    let correlation = Answer(&answer).i32()?;
    ensure!(correlation == CORRELATION, "the answer to request {correlation}");
    answer.drain(..4);
    Ok(answer)
}

fn string(body: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).expect("our own texts are short");
    body.extend(length.to_be_bytes());
    body.extend(text.as_bytes());
}

/// The part of an answer that is not read yet.
struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    fn take(&mut self, count: usize) -> anyhow::Result<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            bail!("the answer ends {} B too early", count - self.0.len());
        };
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> anyhow::Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// A string that may be null (then empty).
    fn string(&mut self) -> anyhow::Result<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }
}
