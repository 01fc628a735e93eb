//! The well-behaved client: one record of 1 KiB with `acks=all`, then a fetch of it, one request in flight.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::crash::batch::{self, ProducerIdentity};
use crate::crash::wire::{Connection, Target};
use crate::crash::{self, clock, stop};

const VALUE_BYTES: usize = 1 << 10;
const TOPIC: &str = "well-behaved";

/// See the top of this file.
pub(super) struct Client {
    connection: Connection,
    target: Target,
    identity: ProducerIdentity,
    next_sequence: i32,
}

impl Client {
    /// Connects, and creates the topic.
    ///
    /// # Errors
    /// When the broker does not answer as it should.
    pub(super) fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let mut connection = Connection::open(address)?;
        connection.create_topic(TOPIC, 1, &[])?;
        let target = Target { topic: TOPIC.to_owned(), partition: 0 };
        crash::wait_for_leaders(address, std::slice::from_ref(&target))?;
        let (producer_id, producer_epoch) = connection
            .init_producer_id()?
            .map_err(|code| anyhow::anyhow!("InitProducerId: error {code}"))?;
        let identity = ProducerIdentity { client: 0, producer_id, producer_epoch };
        Ok(Self { connection, target, identity, next_sequence: 0 })
    }

    /// Produces and fetches in turn for `time`.
    ///
    /// # Errors
    /// When a request is refused, or the record that is fetched is not the one that was produced.
    pub(super) fn run(&mut self, time: Duration) -> anyhow::Result<Latencies> {
        let end = clock::now() + time;
        let (mut produce, mut fetch) = (Vec::new(), Vec::new());
        while clock::now() < end {
            stop::check()?;
            let sequence = self.next_sequence;
            let bytes = batch::build(self.identity, sequence, 1, VALUE_BYTES, clock::unix_ms());
            let begin = clock::now();
            self.connection.send_produce(&self.target, &bytes).context("produce")?;
            let answer = self.connection.receive_produced(&self.target).context("produce")?;
            let produced = clock::now();
            ensure!(answer.error == 0, "produce: error {}", answer.error);
            let (error, bytes) =
                self.connection.fetch(&self.target, answer.base_offset).context("fetch")?;
            let fetched = clock::now();
            ensure!(error == 0, "fetch: error {error}");
            let (read, _) = batch::read(&bytes)?.context("fetch gave less than a batch")?;
            ensure!(read.base_sequence == sequence, "fetched {read:?}, not {sequence}");
            self.next_sequence += 1;
            produce.push(produced - begin);
            fetch.push(fetched - produced);
        }
        ensure!(!produce.is_empty(), "not one request was answered in {time:?}");
        produce.sort_unstable();
        fetch.sort_unstable();
        Ok(Latencies { produce, fetch })
    }
}

/// How long requests took, in order.
pub(super) struct Latencies {
    produce: Vec<Duration>,
    fetch: Vec<Duration>,
}

impl Latencies {
    pub(super) fn produce_p50(&self) -> Duration {
        per_cent(&self.produce, 50)
    }

    pub(super) fn produce_p99(&self) -> Duration {
        per_cent(&self.produce, 99)
    }

    pub(super) fn fetch_p50(&self) -> Duration {
        per_cent(&self.fetch, 50)
    }

    pub(super) fn fetch_p99(&self) -> Duration {
        per_cent(&self.fetch, 99)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, all) in [("produce", &self.produce), ("fetch", &self.fetch)] {
            write!(
                formatter,
                "{name} p50 {:.2?} p99 {:.2?} max {:.2?}, ",
                per_cent(all, 50),
                per_cent(all, 99),
                per_cent(all, 100)
            )?;
        }
        write!(formatter, "{} of each", self.produce.len())
    }
}

/// The smallest of `sorted`, which is not empty, that so many per cent do not exceed.
fn per_cent(sorted: &[Duration], per_cent: usize) -> Duration {
    sorted[(sorted.len() * per_cent).div_ceil(100).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_among_the_measured() {
        let hundred: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(per_cent(&hundred, 50), Duration::from_millis(50));
        assert_eq!(per_cent(&hundred, 99), Duration::from_millis(99));
        assert_eq!(per_cent(&hundred, 100), Duration::from_millis(100));
        assert_eq!(per_cent(&hundred[..1], 99), Duration::from_millis(1));
    }
}
