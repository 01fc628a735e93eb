//! `[P]` What one partition's log must be: every byte that was appended, what of it was promised, and what a crash may
//! have left. It sees what went in and what comes out, and trusts nothing in between.

use std::collections::BTreeMap;

use levada_engine::{Digest, SequenceVerdict};
use levada_record::{BatchHeader, LeaderEpoch, Offset, PartitionUid, stamp};

use super::batch::Batch;
use crate::history::Value;

/// Batches that a producer may repeat.
const REMEMBERED: usize = 5;

/// One batch as it stands in the log.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) base: i64,
    pub(super) end: i64,
    pub(super) value: Value,
    pub(super) bytes: Vec<u8>,
    pub(super) header: BatchHeader,
    epoch: LeaderEpoch,
    /// The log's digest behind it.
    digest: Digest,
}

/// Whether the partition exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existence {
    /// Asked for; it may or may not be there.
    Creating,
    /// It is there.
    Live,
    /// Its removal was asked for; it may or may not be there.
    Removing,
    /// It is gone.
    Gone,
    /// Damage took it, and that was reported.
    Lost,
}

/// What a recovered log says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) log_start: i64,
    pub(super) log_end: i64,
    pub(super) digest: Digest,
    pub(super) last_epoch: Option<LeaderEpoch>,
}

/// The model of one partition.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) existence: Existence,
    uid: PartitionUid,
    /// The present branch, from offset 0 on, as far as it was appended.
    batches: Vec<Stored>,
    /// First offset kept, and how far somebody asked to move it.
    pub(super) log_start: i64,
    pub(super) log_start_asked: i64,
    /// Everything below was promised to survive a power cut.
    pub(super) durable: i64,
    /// Everything below survives the process.
    pub(super) written: i64,
    /// A truncation under way, and where it may end.
    pub(super) cutting: Option<i64>,
    /// Counts truncations, begun and ended.
    pub(super) branch: u64,
    /// Damage was reported from here on.
    pub(super) suspect_from: Option<i64>,
    /// The durable end before the shard's last round, when that round moved this log.
    pub(super) before_last_round: Option<i64>,
    producers: BTreeMap<i64, ProducerModel>,
}

#[derive(Debug, Clone)]
struct ProducerModel {
    epoch: i16,
    /// First and last sequence, base and end; oldest first.
    batches: Vec<(i32, i32, i64, i64)>,
}

impl Model {
    pub(super) fn new(uid: PartitionUid) -> Self {
        Self {
            existence: Existence::Creating,
            uid,
            batches: Vec::new(),
            log_start: 0,
            log_start_asked: 0,
            durable: 0,
            written: 0,
            cutting: None,
            branch: 0,
            suspect_from: None,
            before_last_round: None,
            producers: BTreeMap::new(),
        }
    }

    /// Exclusive end of what was appended.
    pub(super) fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.end)
    }

    /// Whether it can be served and promised for.
    pub(super) fn is_healthy(&self) -> bool {
        self.existence == Existence::Live && self.suspect_from.is_none()
    }

    fn digest_at(&self, end: i64) -> Option<Digest> {
        if end == 0 {
            return Some(Digest::EMPTY);
        }
        let index = self.batches.binary_search_by_key(&end, |batch| batch.end).ok()?;
        self.batches.get(index).map(|batch| batch.digest)
    }

    /// The batch that holds `offset`.
    pub(super) fn batch_at(&self, offset: i64) -> Option<(usize, &Stored)> {
        let index = self.batches.partition_point(|batch| batch.end <= offset);
        self.batches.get(index).filter(|batch| batch.base <= offset).map(|batch| (index, batch))
    }

    pub(super) fn batches(&self) -> &[Stored] {
        &self.batches
    }

    /// The end of the last batch that ends at or below `offset`.
    pub(super) fn boundary_below(&self, offset: i64) -> i64 {
        let index = self.batches.partition_point(|batch| batch.end <= offset);
        index.checked_sub(1).and_then(|index| self.batches.get(index)).map_or(0, |batch| batch.end)
    }

    /// A batch was put behind the end.
    pub(super) fn append(
        &mut self,
        batch: &Batch,
        epoch: LeaderEpoch,
        base: i64,
        end: i64,
    ) -> Result<(), String> {
        if base != self.end() {
            return Err(format!(
                "batch {} appended at {base}, the log ended at {}",
                batch.value,
                self.end()
            ));
        }
        if end - base != i64::from(batch.header.last_offset_delta) + 1 {
            return Err(format!("batch {} appended at {base}..{end}", batch.value));
        }
        let mut bytes = batch.bytes.clone();
        stamp(&mut bytes, Offset(base), epoch);
        let before = self.batches.last().map_or(Digest::EMPTY, |batch| batch.digest);
        let digest = before.after(self.uid, &bytes);
        let header = BatchHeader { base_offset: Offset(base), leader_epoch: epoch, ..batch.header };
        self.note_producer(&header);
        self.batches.push(Stored { base, end, value: batch.value, bytes, header, epoch, digest });
        Ok(())
    }

    fn note_producer(&mut self, header: &BatchHeader) {
        if !header.producer_id.is_some() {
            return;
        }
        let epoch = header.producer_epoch.get();
        let producer = self
            .producers
            .entry(header.producer_id.0)
            .or_insert_with(|| ProducerModel { epoch, batches: Vec::new() });
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED {
            producer.batches.remove(0);
        }
        let (base, end) = (header.base_offset.get(), header.end_offset().get());
        producer.batches.push((
            header.base_sequence,
            header.base_sequence + header.last_offset_delta,
            base,
            end,
        ));
    }

    /// The log was cut at `end`.
    pub(super) fn cut(&mut self, end: i64) {
        self.batches.retain(|batch| batch.end <= end);
        self.durable = self.durable.min(end);
        self.written = self.written.min(end);
        self.before_last_round = self.before_last_round.map(|before| before.min(end));
        self.producers.clear();
        let headers: Vec<BatchHeader> = self.batches.iter().map(|batch| batch.header).collect();
        for header in &headers {
            self.note_producer(header);
        }
    }

    /// Ends as the running log says; they only grow, and never pass what was appended.
    pub(super) fn observe(
        &mut self,
        start: i64,
        durable: i64,
        written: i64,
        end: i64,
    ) -> Result<(), String> {
        let said = format!("log start {start}, durable {durable}, written {written}, end {end}");
        if start > durable || durable > written || written > end {
            return Err(format!("ends are out of order: {said}"));
        }
        if self.cutting.is_some() {
            // Until the cut itself they grow as ever.
            self.durable = self.durable.max(durable);
            self.written = self.written.max(written);
            self.log_start = self.log_start.max(start.min(self.log_start_asked));
            return Ok(());
        }
        if end != self.end() {
            return Err(format!("{} was appended: {said}", self.end()));
        }
        if durable < self.durable || written < self.written {
            return Err(format!(
                "went back from durable {} written {}: {said}",
                self.durable, self.written
            ));
        }
        if self.suspect_from.is_none() && self.digest_at(durable).is_none() {
            return Err(format!("durable end is no batch boundary: {said}"));
        }
        if start < self.log_start || start > self.log_start_asked {
            return Err(format!(
                "log start {} to {} was asked for: {said}",
                self.log_start, self.log_start_asked
            ));
        }
        (self.durable, self.written, self.log_start) = (durable, written, start);
        Ok(())
    }

    /// The log came back after a crash: checks that it is what a crash may leave, and goes on from there. `floor` is
    /// what had to survive.
    pub(super) fn recovered(&mut self, standing: &Standing, floor: i64) -> Result<(), String> {
        let Standing { log_start, log_end, digest, last_epoch } = *standing;
        let said =
            format!("log {log_start}..{log_end}, {} was appended, {floor} promised", self.end());
        let cut_to = self.cutting.map(|to| self.boundary_below(to));
        if log_end > self.end() {
            return Err(format!("more came back than was there: {said}"));
        }
        if log_end < floor && cut_to != Some(log_end) {
            return Err(format!("promised records are gone: {said}"));
        }
        let Some(expected) = self.digest_at(log_end) else {
            return Err(format!("ends inside a batch: {said}"));
        };
        if digest != expected {
            return Err(format!(
                "digest {:#x}, expected {:#x}: {said}",
                digest.raw(),
                expected.raw()
            ));
        }
        self.cut(log_end);
        self.start_recovered(log_start)?;
        let newest = self.batches.last().map(|batch| batch.epoch);
        if log_end > log_start && last_epoch != newest {
            return Err(format!("last epoch {last_epoch:?}, expected {newest:?}: {said}"));
        }
        (self.durable, self.written, self.cutting) = (log_end, log_end, None);
        self.before_last_round = None;
        Ok(())
    }

    fn start_recovered(&mut self, log_start: i64) -> Result<(), String> {
        if log_start < self.log_start || log_start > self.log_start_asked {
            let (low, high) = (self.log_start, self.log_start_asked);
            return Err(format!(
                "log start {log_start} came back, between {low} and {high} it must be"
            ));
        }
        (self.log_start, self.log_start_asked) = (log_start, log_start);
        Ok(())
    }

    /// Damage was reported: below `from` everything is as it was, what is behind is nobody's any more.
    pub(super) fn damaged(&mut self, from: i64) {
        self.suspect_from = Some(self.suspect_from.map_or(from, |old| old.min(from)));
        self.cutting = None;
        self.branch += 1;
    }

    /// Compares the engine's verdict about a producer's batch with what the batches in the log say.
    pub(super) fn check_verdict(
        &self,
        header: &BatchHeader,
        verdict: Option<SequenceVerdict>,
    ) -> Result<(), String> {
        if !header.producer_id.is_some() {
            return if verdict.is_none() {
                Ok(())
            } else {
                Err("verdict about no producer".to_owned())
            };
        }
        let Some(known) = self.producers.get(&header.producer_id.0) else {
            return match verdict {
                Some(SequenceVerdict::Append) => Ok(()),
                other => Err(format!("{other:?} for a producer that never wrote here")),
            };
        };
        // Batches below the log start may be forgotten by a rebuild, and a producer with them.
        let is_forgotten = |end: i64| end <= self.log_start;
        if known.batches.iter().all(|b| is_forgotten(b.3))
            && verdict == Some(SequenceVerdict::Append)
        {
            return Ok(());
        }
        let (first, last) = (header.base_sequence, header.base_sequence + header.last_offset_delta);
        let expected_next = known.batches.last().map_or(0, |b| b.1 + 1);
        let epoch = header.producer_epoch.get();
        let repeated = known.batches.iter().find(|b| (b.0, b.1) == (first, last));
        let said = || {
            format!(
                "{verdict:?} for producer {} epoch {epoch} sequence {first}..={last}; known {known:?}",
                header.producer_id.0
            )
        };
        let is_right = match verdict {
            None => false,
            Some(SequenceVerdict::StaleEpoch { current }) => {
                epoch < known.epoch && current.get() == known.epoch
            }
            Some(SequenceVerdict::Append) => {
                (epoch > known.epoch && first == 0)
                    || (epoch == known.epoch && repeated.is_none() && first == expected_next)
            }
            Some(SequenceVerdict::Duplicate(found)) => {
                epoch == known.epoch
                    && repeated.is_some_and(|b| (b.2, b.3) == (found.base.get(), found.end.get()))
            }
            Some(SequenceVerdict::OutOfOrder { expected, .. }) => {
                if epoch > known.epoch {
                    first != 0 && expected == 0
                } else {
                    epoch == known.epoch
                        && expected == expected_next
                        && repeated.is_none_or(|b| is_forgotten(b.3))
                        && first != expected_next
                }
            }
        };
        if is_right { Ok(()) } else { Err(said()) }
    }

    /// One header per producer that would be a repetition of its newest batch, for probing.
    pub(super) fn probes(&self) -> Vec<BatchHeader> {
        let mut probes = Vec::new();
        for (id, producer) in &self.producers {
            for (first, _, base, _) in producer.batches.iter().rev().take(2) {
                let found = self.batch_at(*base).map(|(_, batch)| batch.header);
                probes
                    .extend(found.filter(|h| h.producer_id.0 == *id && h.base_sequence == *first));
            }
        }
        probes
    }

    /// The first record at or after `at` of what is kept below `end`: timestamp and offset. Batches below the log
    /// start that share a batch with kept records count by their kept records only.
    pub(super) fn find_time(&self, at: i64, end: i64) -> Option<(i64, i64)> {
        let skipped = self.batches.partition_point(|batch| batch.end <= self.log_start);
        for batch in self.batches.iter().skip(skipped) {
            if batch.base >= end {
                return None;
            }
            let first = batch.header.base_timestamp.as_ms();
            let count = batch.end - batch.base;
            for index in 0..count {
                let (time, offset) = (first + index, batch.base + index);
                if time >= at && offset >= self.log_start && offset < end {
                    return Some((time, offset));
                }
            }
        }
        None
    }
}
