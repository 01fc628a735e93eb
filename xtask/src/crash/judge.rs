//! The end of a run: reads everything back and compares it with what the producers sent and were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use anyhow::{Context, ensure};

use super::batch::{self, ReadBatch};
use super::producer::{Ledger, Load, Sent};
use super::wire::{Connection, Target};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Records that were acknowledged.
    pub(crate) acked: u64,
    /// Records that were read.
    pub(crate) read: u64,
    /// Acknowledged and not there, or there with another offset.
    pub(crate) lost: u64,
    /// There more than once.
    pub(crate) duplicates: u64,
    /// Behind a later one of the same producer, or behind a gap.
    pub(crate) disordered: u64,
    /// Never sent.
    pub(crate) foreign: u64,
    /// Each in words; not more than [`FINDINGS_MAX`].
    pub(crate) findings: Vec<String>,
}

/// Further ones are only counted.
const FINDINGS_MAX: usize = 40;

impl Verdict {
    /// Whether every promise was kept.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.duplicates + self.disordered + self.foreign == 0
            && self.findings.is_empty()
    }

    fn note(&mut self, finding: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding());
        }
    }
}

/// Whether every partition ends where, or behind where, producers were told that it does.
///
/// # Errors
/// When the broker does not answer, or a partition is shorter.
pub(crate) fn ends_are_kept(load: &Load) -> anyhow::Result<Vec<String>> {
    let mut connection = Connection::open(load.address)?;
    let mut findings = Vec::new();
    for (target, acked_end) in load.targets.iter().zip(&load.acked_ends) {
        let acked_end = acked_end.load(Ordering::Relaxed);
        let (error, latest) = connection.latest_offset(target)?;
        ensure!(error == 0, "ListOffsets of {target:?}: error {error}");
        if latest < acked_end {
            findings.push(format!(
                "{} {}: ends at {latest}, though records below {acked_end} were acknowledged",
                target.topic, target.partition
            ));
        }
    }
    Ok(findings)
}

/// Reads all partitions.
///
/// # Errors
/// When they cannot be read to their end.
pub(crate) fn judge(
    address: SocketAddr,
    targets: &[Target],
    ledgers: &[Ledger],
) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    for ledger in ledgers {
        verdict.findings.extend(ledger.findings.iter().cloned());
    }
    for (index, target) in targets.iter().enumerate() {
        let batches = read_all(address, target).with_context(|| format!("read {target:?}"))?;
        let sent: BTreeMap<u32, &[Sent]> =
            ledgers.iter().map(|ledger| (ledger.client, ledger.sent[index].as_slice())).collect();
        compare(target, &batches, &sent, &mut verdict);
    }
    Ok(verdict)
}

fn read_all(address: SocketAddr, target: &Target) -> anyhow::Result<Vec<ReadBatch>> {
    let mut connection = Connection::open(address)?;
    let (error, end) = connection.latest_offset(target)?;
    ensure!(error == 0, "ListOffsets: error {error}");
    let mut batches = Vec::new();
    let mut next = 0;
    while next < end {
        let (error, bytes) = connection.fetch(target, next)?;
        ensure!(error == 0, "Fetch at {next}: error {error}");
        let mut rest = bytes.as_slice();
        let before = next;
        while let Some((batch, behind)) = batch::read(rest)? {
            ensure!(
                batch.base_offset == next,
                "asked for {next}, the next batch is at {}",
                batch.base_offset
            );
            next += i64::try_from(batch.values.len())?;
            batches.push(batch);
            rest = behind;
        }
        ensure!(next > before, "Fetch at {before} returns nothing, though the end is {end}");
    }
    Ok(batches)
}

fn compare(
    target: &Target,
    batches: &[ReadBatch],
    sent: &BTreeMap<u32, &[Sent]>,
    verdict: &mut Verdict,
) {
    let place = format!("{} {}", target.topic, target.partition);
    // Per client: offset of every sequence.
    let mut read: BTreeMap<u32, BTreeMap<i64, i64>> = BTreeMap::new();
    let mut last: BTreeMap<u32, i64> = BTreeMap::new();
    for batch in batches {
        for ((client, sequence), offset) in batch.values.iter().zip(batch.base_offset..) {
            verdict.read += 1;
            let known = sent.get(client).and_then(|sent| sent.last()).is_some_and(|last_sent| {
                (0..i64::from(last_sent.base_sequence) + i64::from(last_sent.records))
                    .contains(sequence)
            });
            if !known {
                verdict.foreign += 1;
                verdict.note(|| {
                    format!("{place}: offset {offset}: {client}/{sequence} was never sent")
                });
                continue;
            }
            if let Some(first) = read.entry(*client).or_default().insert(*sequence, offset) {
                verdict.duplicates += 1;
                verdict.note(|| format!("{place}: {client}/{sequence} at {first} and at {offset}"));
                continue;
            }
            let expected = last.get(client).map_or(0, |last| last + 1);
            if *sequence != expected {
                verdict.disordered += 1;
                verdict.note(|| {
                    format!("{place}: offset {offset}: {client}/{sequence}, expected {expected}")
                });
            }
            last.insert(*client, *sequence);
        }
    }
    for (client, sent) in sent {
        let none = BTreeMap::new();
        let read = read.get(client).unwrap_or(&none);
        for (batch, base_offset) in
            sent.iter().filter_map(|batch| batch.acked.map(|offset| (batch, offset)))
        {
            for delta in 0..i64::from(batch.records) {
                verdict.acked += 1;
                let sequence = i64::from(batch.base_sequence) + delta;
                let offset = base_offset + delta;
                match read.get(&sequence) {
                    Some(found) if *found == offset => {}
                    Some(found) => {
                        verdict.lost += 1;
                        verdict.note(|| {
                            format!("{place}: {client}/{sequence} was acknowledged at {offset}, is at {found}")
                        });
                    }
                    None => {
                        verdict.lost += 1;
                        verdict.note(|| {
                            format!(
                                "{place}: {client}/{sequence} was acknowledged at {offset}, is lost"
                            )
                        });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target { topic: "t".to_owned(), partition: 0 }
    }

    fn verdict(batches: &[(i64, &[(u32, i64)])], sent: &[Sent]) -> Verdict {
        let batches: Vec<_> = batches
            .iter()
            .map(|(base_offset, values)| ReadBatch {
                base_offset: *base_offset,
                base_sequence: 0,
                values: values.to_vec(),
            })
            .collect();
        let mut verdict = Verdict::default();
        compare(&target(), &batches, &BTreeMap::from([(1, sent)]), &mut verdict);
        verdict
    }

    const SENT: [Sent; 2] = [
        Sent { base_sequence: 0, records: 2, acked: Some(0) },
        Sent { base_sequence: 2, records: 1, acked: None },
    ];

    #[test]
    fn what_was_acknowledged_and_what_is_unknown_may_both_be_there() {
        assert!(verdict(&[(0, &[(1, 0), (1, 1)])], &SENT).is_clean());
        assert!(verdict(&[(0, &[(1, 0), (1, 1)]), (2, &[(1, 2)])], &SENT).is_clean());
    }

    #[test]
    fn every_broken_promise_is_found() {
        assert_eq!(verdict(&[(0, &[(1, 0)])], &SENT).lost, 1);
        assert_eq!(verdict(&[(0, &[(1, 0), (1, 1), (1, 1)])], &SENT).duplicates, 1);
        assert_eq!(verdict(&[(0, &[(1, 1), (1, 0)])], &SENT).disordered, 2);
        assert_eq!(verdict(&[(0, &[(1, 0), (1, 1), (1, 3)])], &SENT).foreign, 1);
        assert_eq!(verdict(&[(0, &[(1, 0), (1, 1), (2, 0)])], &SENT).foreign, 1);
    }

    #[test]
    fn an_acknowledged_record_at_another_offset_counts_as_lost() {
        let sent = [Sent { base_sequence: 0, records: 1, acked: Some(5) }];
        assert_eq!(verdict(&[(0, &[(1, 0)])], &sent).lost, 1);
    }
}
