//! A producer that has one batch in flight: for runs that look at single answers.

use std::net::SocketAddr;

use anyhow::{Context, ensure};

use super::batch::{self, ProducerIdentity};
use super::clock;
use super::producer::{Ledger, Sent};
use super::wire::{Connection, RETRIABLE, Target};

/// One batch at a time, per partition the same one again until it is acknowledged.
pub(crate) struct SequentialProducer {
    address: SocketAddr,
    connection: Connection,
    identity: ProducerIdentity,
    targets: Vec<Target>,
    /// What was sent and acknowledged.
    pub(crate) ledger: Ledger,
}

impl SequentialProducer {
    /// # Errors
    /// When the broker gives no producer id.
    pub(crate) fn new(
        address: SocketAddr,
        client: u32,
        targets: &[Target],
    ) -> anyhow::Result<Self> {
        let mut connection = Connection::open(address)?;
        let (producer_id, producer_epoch) = connection
            .init_producer_id()?
            .map_err(|code| anyhow::anyhow!("InitProducerId: error {code}"))?;
        Ok(Self {
            address,
            connection,
            identity: ProducerIdentity { client, producer_id, producer_epoch },
            targets: targets.to_vec(),
            ledger: Ledger { client, sent: vec![Vec::new(); targets.len()], ..Ledger::default() },
        })
    }

    /// Connects anew, after a restart of the broker.
    ///
    /// # Errors
    /// When nobody answers.
    pub(crate) fn reconnect(&mut self) -> anyhow::Result<()> {
        self.connection = Connection::open(self.address).context("connect again")?;
        Ok(())
    }

    /// Sends the next batch, or the last one again when it is not acknowledged yet; 0 or the retriable error.
    ///
    /// # Errors
    /// When the connection breaks or the error is none to try again after.
    pub(crate) fn produce(
        &mut self,
        target: usize,
        records: u32,
        value_bytes: usize,
    ) -> anyhow::Result<i16> {
        let sent = &mut self.ledger.sent[target];
        if sent.last().is_none_or(|last| last.acked.is_some()) {
            let base_sequence = sent.last().map_or(0, |last| {
                last.base_sequence + i32::try_from(last.records).expect("small batches")
            });
            sent.push(Sent { base_sequence, records, acked: None });
        }
        let last = sent.last_mut().expect("just pushed");
        let bytes = batch::build(
            self.identity,
            last.base_sequence,
            last.records,
            value_bytes,
            clock::unix_ms(),
        );
        let name = &self.targets[target];
        self.connection.send_produce(name, &bytes)?;
        let answer = self.connection.receive_produced(name)?;
        if answer.error == 0 {
            last.acked = Some(answer.base_offset);
        } else {
            let code = answer.error;
            ensure!(RETRIABLE.contains(&code), "produce to {name:?}: error {code}");
        }
        Ok(answer.error)
    }
}
