//! Batches that came in an answer: verified once, then read in place. `[P]`

use std::sync::Arc;

use bytes::Bytes;
use levada_record::{BatchError, BatchView, Offset, Record, VerifyLimits, next_batch};

use super::DamageError;

/// Records of one partition, as they came in one answer; whole batches that were verified.
#[derive(Debug, Clone)]
pub struct PartitionRecords {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset that was asked for: records before it are not given.
    pub from: Offset,
    /// First offset behind these records; where reading goes on.
    pub end: Offset,
    /// First offset that could not yet be read then.
    pub high_watermark: Offset,
    pub(super) bytes: Bytes,
    pub(super) limits: VerifyLimits,
}

/// A walk over records ended early.
#[derive(Debug, thiserror::Error)]
pub enum VisitError<E> {
    /// Compressed records were not what their batch promised.
    #[error(transparent)]
    Batch(BatchError),
    /// The visitor had enough.
    #[error("{0}")]
    Visitor(E),
}

impl PartitionRecords {
    /// Bytes of the batches, as they came.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Shows every record to `visit`, in order, borrowed from the received bytes or, when they are
    /// compressed, from `scratch`.
    ///
    /// # Errors
    /// [`VisitError`]: the visitor's own, or damage inside of a compressed batch.
    pub fn visit<E>(
        &self,
        scratch: &mut Vec<u8>,
        mut visit: impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), VisitError<E>> {
        self.visit_batches(|batch| {
            let records = batch.records(scratch, self.limits.max_inflated_bytes);
            for record in records.map_err(VisitError::Batch)? {
                let record = record.map_err(VisitError::Batch)?;
                if self.from <= record.offset {
                    visit(&record).map_err(VisitError::Visitor)?;
                }
            }
            Ok(())
        })
    }

    /// Shows every batch of users' records to `visit`, in order, for those who read columns as such:
    /// [`BatchView::columns`]. The first may hold records from before [`PartitionRecords::from`].
    ///
    /// # Errors
    /// What `visit` says.
    pub fn visit_batches<E>(
        &self,
        mut visit: impl FnMut(&BatchView<'_>) -> Result<(), VisitError<E>>,
    ) -> Result<(), VisitError<E>> {
        let mut rest: &[u8] = &self.bytes;
        while let Some((batch, behind)) =
            next_whole(rest, self.limits).map_err(VisitError::Batch)?
        {
            rest = behind;
            if batch.header().attributes.is_control() || batch.end_offset() <= self.from {
                continue;
            }
            visit(&batch)?;
        }
        Ok(())
    }
}

/// The next batch; a tail that was cut off at the limit of an answer is none.
fn next_whole(
    bytes: &[u8],
    limits: VerifyLimits,
) -> Result<Option<(BatchView<'_>, &[u8])>, BatchError> {
    match next_batch(bytes, &limits) {
        Err(error) if error.is_cut_off() => Ok(None),
        next => next,
    }
}

/// Verifies all whole batches of `bytes`, which begin at or before `from`, and tells where they end.
pub(super) fn verified_end(
    bytes: &[u8],
    from: Offset,
    limits: VerifyLimits,
) -> Result<Offset, DamageError> {
    let mut rest = bytes;
    let mut end = None;
    while let Some((batch, behind)) = next_whole(rest, limits)? {
        rest = behind;
        let (base, last) = (batch.base_offset(), batch.last_offset());
        if end.is_some_and(|end| base < end) {
            return Err(DamageError::Order { base, last });
        }
        end = Some(batch.end_offset());
    }
    end.filter(|end| from < *end).ok_or(DamageError::NoBatch { bytes: bytes.len() })
}

#[cfg(test)]
mod tests {
    use levada_record::{BatchBuilder, Compression, Encoding, LeaderEpoch, NewRecord, Timestamp};

    use super::*;

    fn batch(base: i64, values: &[&str], codec: Compression) -> Vec<u8> {
        encoded(Encoding::KafkaV2, base, values, codec)
    }

    fn encoded(encoding: Encoding, base: i64, values: &[&str], codec: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::encoded(encoding, codec).at(Offset(base), LeaderEpoch(0));
        for value in values {
            let value = Some(value.as_bytes());
            builder
                .push(&NewRecord { value, timestamp: Timestamp(1), ..Default::default() })
                .unwrap();
        }
        builder.finish().unwrap()
    }

    fn values(bytes: &[u8], from: i64) -> Result<Vec<(i64, String)>, String> {
        let limits = VerifyLimits { max_batch_bytes: 1 << 20, max_inflated_bytes: 1 << 20 };
        let from = Offset(from);
        let end = verified_end(bytes, from, limits).map_err(|error| error.to_string())?;
        let records = PartitionRecords {
            topic: Arc::from("t"),
            partition: 0,
            from,
            end,
            high_watermark: end,
            bytes: Bytes::copy_from_slice(bytes),
            limits,
        };
        let mut seen = Vec::new();
        let visited = records.visit(&mut Vec::new(), |record| {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            seen.push((record.offset.0, value));
            Ok::<(), ()>(())
        });
        visited.map_err(|error| format!("{error:?}")).map(|()| seen)
    }

    #[test]
    fn records_before_the_position_are_left_out_and_a_cut_tail_is_no_damage() {
        for codec in Compression::ALL {
            let mut bytes = batch(4, &["a", "b", "c"], codec);
            bytes.extend(encoded(Encoding::Columnar, 9, &["d"], codec));
            let whole = bytes.len();
            bytes.extend(batch(10, &["e"], codec));
            bytes.truncate(whole + 20);
            let expected: Vec<_> =
                [(5, "b"), (6, "c"), (9, "d")].map(|(o, v)| (o, v.to_owned())).into();
            assert_eq!(values(&bytes, 5), Ok(expected), "{codec:?}");
        }
    }

    #[test]
    fn every_flipped_bit_is_damage_or_lies_in_what_the_broker_stamps() {
        for encoding in [Encoding::KafkaV2, Encoding::Columnar] {
            let good = encoded(encoding, 0, &["one", "two"], Compression::Lz4);
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                // Base offset and leader epoch are not under the checksum; Kafka's format has it so.
                let stamped = matches!(bit / 8, 0..8 | 12..16);
                assert!(values(&bytes, 0).is_err() || stamped, "{encoding}, bit {bit}");
            }
        }
    }

    #[test]
    fn batches_that_go_back_or_nowhere_are_damage() {
        let mut bytes = batch(5, &["a", "b"], Compression::None);
        bytes.extend(batch(6, &["c"], Compression::None));
        assert!(values(&bytes, 5).is_err_and(|error| error.contains("does not follow")));
        assert!(values(&batch(0, &["a"], Compression::None), 7).is_err());
        assert!(values(&[0; 30], 0).is_err());
    }
}
