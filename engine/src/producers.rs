//! `[P]` What a log remembers of its idempotent producers: per producer the epoch and the last five batches, so
//! that a repeated batch is answered with its first offset and a gap is refused.
//! Source: KIP-98, and the checks that Kafka's brokers make.

use std::collections::BTreeMap;

use levada_record::{Offset, ProducerEpoch, ProducerId};

use crate::fields::{FieldError, FieldReader, FieldWriter};

/// Batches remembered per producer: what a client may have in flight.
pub const BATCHES_REMEMBERED: usize = 5;
/// Producers remembered per log; beyond it the one that was silent longest is forgotten.
pub const PRODUCERS_MAX: usize = 10_000;
/// A producer silent for this long is forgotten, in milliseconds: one day, as Kafka's
/// `producer.id.expiration.ms`.
pub const PRODUCER_EXPIRATION_MS: i64 = 86_400_000;

/// The producer's part of a batch header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducedBatch {
    /// Who; never the "none" of -1.
    pub producer: ProducerId,
    /// Which life of it.
    pub epoch: ProducerEpoch,
    /// Sequence of the first record.
    pub first_sequence: i32,
    /// Records.
    pub count: i32,
}

impl ProducedBatch {
    /// Sequence of the last record; wraps from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        wrapping_sequence(self.first_sequence, self.count - 1)
    }
}

fn wrapping_sequence(first: i32, add: i32) -> i32 {
    let sum = (i64::from(first) + i64::from(add)) & i64::from(i32::MAX);
    i32::try_from(sum).expect("31 bits")
}

/// Where a remembered batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base: Offset,
    /// Exclusive end of its offsets.
    pub end: Offset,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    /// Oldest first, at most [`BATCHES_REMEMBERED`].
    batches: Vec<Remembered>,
    last_seen_ms: i64,
}

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceVerdict {
    /// It is the next one.
    Append,
    /// It is in the log already, there.
    Duplicate(Remembered),
    /// It would leave a gap, or overlap.
    OutOfOrder {
        /// The sequence that must come next.
        expected: i32,
        /// What came.
        got: i32,
    },
    /// A newer life of this producer has written.
    StaleEpoch {
        /// The newest epoch seen.
        current: ProducerEpoch,
    },
}

/// The producers of one log, as of some end of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Producers {
    by_id: BTreeMap<i64, Producer>,
}

impl Producers {
    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Producers remembered.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Decides about a batch without changing anything. O(log producers).
    pub fn check(&self, batch: &ProducedBatch) -> SequenceVerdict {
        let Some(known) = self.by_id.get(&batch.producer.0) else {
            return SequenceVerdict::Append;
        };
        if batch.epoch < known.epoch {
            return SequenceVerdict::StaleEpoch { current: known.epoch };
        }
        if batch.epoch > known.epoch {
            return if batch.first_sequence == 0 {
                SequenceVerdict::Append
            } else {
                SequenceVerdict::OutOfOrder { expected: 0, got: batch.first_sequence }
            };
        }
        let last = batch.last_sequence();
        let repeated = known
            .batches
            .iter()
            .find(|b| b.first_sequence == batch.first_sequence && b.last_sequence == last);
        if let Some(remembered) = repeated {
            return SequenceVerdict::Duplicate(*remembered);
        }
        let expected = known.batches.last().map_or(0, |b| wrapping_sequence(b.last_sequence, 1));
        if batch.first_sequence == expected {
            SequenceVerdict::Append
        } else {
            SequenceVerdict::OutOfOrder { expected, got: batch.first_sequence }
        }
    }

    /// Notes a batch that stands at `base..end`.
    pub fn note(&mut self, batch: &ProducedBatch, base: Offset, end: Offset, now_ms: i64) {
        if !self.by_id.contains_key(&batch.producer.0) && self.by_id.len() >= PRODUCERS_MAX {
            let oldest = self.by_id.iter().min_by_key(|(_, p)| p.last_seen_ms).map(|(id, _)| *id);
            if let Some(id) = oldest {
                self.by_id.remove(&id);
            }
        }
        let entry = self.by_id.entry(batch.producer.0).or_insert_with(|| Producer {
            epoch: batch.epoch,
            batches: Vec::with_capacity(BATCHES_REMEMBERED),
            last_seen_ms: now_ms,
        });
        if entry.epoch != batch.epoch {
            entry.epoch = batch.epoch;
            entry.batches.clear();
        }
        if entry.batches.len() == BATCHES_REMEMBERED {
            entry.batches.remove(0);
        }
        entry.batches.push(Remembered {
            first_sequence: batch.first_sequence,
            last_sequence: batch.last_sequence(),
            base,
            end,
        });
        entry.last_seen_ms = entry.last_seen_ms.max(now_ms);
    }

    /// Forgets those that were silent for [`PRODUCER_EXPIRATION_MS`].
    pub fn expire(&mut self, now_ms: i64) {
        self.by_id.retain(|_, p| now_ms.saturating_sub(p.last_seen_ms) < PRODUCER_EXPIRATION_MS);
    }

    pub(crate) fn put(&self, out: &mut FieldWriter) {
        out.put_u32(u32::try_from(self.by_id.len()).expect("at most PRODUCERS_MAX"));
        for (id, producer) in &self.by_id {
            out.put_i64(*id);
            out.put_i32(i32::from(producer.epoch.get()));
            out.put_i64(producer.last_seen_ms);
            out.put_u8(u8::try_from(producer.batches.len()).expect("at most five"));
            for batch in &producer.batches {
                out.put_i32(batch.first_sequence);
                out.put_i32(batch.last_sequence);
                out.put_offset(batch.base);
                out.put_offset(batch.end);
            }
        }
    }

    pub(crate) fn take(input: &mut FieldReader<'_>) -> Result<Self, FieldError> {
        let count = input.count(21, "producer count")?;
        let mut by_id = BTreeMap::new();
        for _ in 0..count {
            let id = input.i64("producer id")?;
            let epoch = input.i32("producer epoch")?;
            let epoch = i16::try_from(epoch).map_err(|_| FieldError::Value {
                field: "producer epoch",
                got: u64::from(epoch.cast_unsigned()),
            })?;
            let last_seen_ms = input.i64("last seen")?;
            let batches = usize::from(input.u8("batch count")?);
            if batches > BATCHES_REMEMBERED {
                return Err(FieldError::Value { field: "batch count", got: batches as u64 });
            }
            let mut remembered = Vec::with_capacity(BATCHES_REMEMBERED);
            for _ in 0..batches {
                remembered.push(Remembered {
                    first_sequence: input.i32("first sequence")?,
                    last_sequence: input.i32("last sequence")?,
                    base: input.offset("base offset")?,
                    end: input.offset("end offset")?,
                });
            }
            let epoch = ProducerEpoch(epoch);
            by_id.insert(id, Producer { epoch, batches: remembered, last_seen_ms });
        }
        Ok(Self { by_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, first_sequence: i32, count: i32) -> ProducedBatch {
        ProducedBatch {
            producer: ProducerId(7),
            epoch: ProducerEpoch(epoch),
            first_sequence,
            count,
        }
    }

    fn with(batches: &[ProducedBatch]) -> Producers {
        let mut producers = Producers::default();
        let mut base = 0;
        for b in batches {
            let end = base + i64::from(b.count);
            producers.note(b, Offset(base), Offset(end), base);
            base = end;
        }
        producers
    }

    #[test]
    fn the_next_sequence_is_appended_and_a_repeat_is_answered_with_its_first_offset() {
        let producers = with(&[batch(0, 0, 10), batch(0, 10, 5)]);
        assert_eq!(producers.check(&batch(0, 15, 1)), SequenceVerdict::Append);
        let SequenceVerdict::Duplicate(found) = producers.check(&batch(0, 0, 10)) else {
            panic!("not seen as a duplicate")
        };
        assert_eq!((found.base, found.end), (Offset(0), Offset(10)));
    }

    #[test]
    fn gaps_overlaps_and_the_sixth_last_batch_are_out_of_order() {
        let mut sent = Vec::new();
        for i in 0..6 {
            sent.push(batch(0, i * 10, 10));
        }
        let producers = with(&sent);
        for wrong in [batch(0, 61, 1), batch(0, 55, 10), batch(0, 0, 10)] {
            let verdict = producers.check(&wrong);
            assert!(
                matches!(verdict, SequenceVerdict::OutOfOrder { expected: 60, .. }),
                "{verdict:?}"
            );
        }
        assert!(matches!(producers.check(&batch(0, 10, 10)), SequenceVerdict::Duplicate(_)));
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_fences_the_old_one() {
        let producers = with(&[batch(1, 0, 3)]);
        assert_eq!(producers.check(&batch(2, 0, 1)), SequenceVerdict::Append);
        assert!(matches!(producers.check(&batch(2, 3, 1)), SequenceVerdict::OutOfOrder { .. }));
        assert!(matches!(producers.check(&batch(0, 3, 1)), SequenceVerdict::StaleEpoch { .. }));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let producers = with(&[batch(0, i32::MAX - 1, 2)]);
        assert_eq!(producers.check(&batch(0, 0, 1)), SequenceVerdict::Append);
        assert_eq!(batch(0, i32::MAX, 2).last_sequence(), 0);
    }

    #[test]
    fn a_snapshot_comes_back_and_its_cuts_are_refused() {
        let producers = with(&[batch(0, 0, 10), batch(0, 10, 5)]);
        let mut out = FieldWriter::new();
        producers.put(&mut out);
        let bytes = out.into_bytes();
        assert_eq!(Producers::take(&mut FieldReader::new(&bytes)), Ok(producers));
        for end in 0..bytes.len() {
            assert!(Producers::take(&mut FieldReader::new(&bytes[..end])).is_err());
        }
    }

    #[test]
    fn the_limit_forgets_the_longest_silent_producer() {
        let mut producers = Producers::default();
        for id in 0..=i64::try_from(PRODUCERS_MAX).unwrap() {
            let b = ProducedBatch { producer: ProducerId(id), ..batch(0, 0, 1) };
            producers.note(&b, Offset(id), Offset(id + 1), id);
        }
        assert_eq!(producers.len(), PRODUCERS_MAX);
        // Producer 0 is gone: its old sequence is new again.
        let b = ProducedBatch { producer: ProducerId(0), ..batch(0, 40, 1) };
        assert_eq!(producers.check(&b), SequenceVerdict::Append);
    }
}
