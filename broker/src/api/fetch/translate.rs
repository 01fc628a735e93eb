//! Columnar batches on their way to a reader that knows only Kafka's records: translated one by one,
//! here and nowhere else. Kafka's batches between them go out as they lie in the log.
//!
//! What a translation holds while it works is taken from a budget of the shard, and given back
//! before anything else is waited for. It yields to the shard's other tasks every few thousand
//! records; inflating one batch is a single step.

use levada_engine::Slice;
use levada_record::convert::Progress;
use levada_record::limits::{BATCH_BYTES_MAX_DEFAULT, INFLATED_BYTES_MAX_DEFAULT};
use levada_record::{
    BatchHeader, BatchView, Compression, Conversion, ConvertError, Encoding, HEADER_BYTES,
    VerifyLimits,
};

use crate::metrics::add;
use crate::partition::{FirstBatch, ReadFailure};
use crate::shard::Shard;

/// Records translated between two looks at what else the shard has to do.
const RECORDS_PER_STEP: u32 = 4096;
/// How many times its own bytes the translation of an uncompressed batch is taken to hold: itself,
/// and records that are mostly ends.
const BYTES_PER_BYTE: u64 = 4;

/// What the reader of a fetch can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Every encoding: it gets the log's own bytes.
    Everything,
    /// Kafka's records.
    KafkaRecords,
}

/// What is left of a read for such a reader.
pub(super) struct Translated {
    pub(super) slices: Vec<Slice>,
    pub(super) bytes: u64,
}

/// Puts Kafka's records in the place of columns. Gives at most `allowed_bytes`, or one batch whatever
/// its size if `first` says so; what does not fit comes with a later fetch.
pub(super) async fn for_kafka(
    shard: &Shard,
    stored: &[Slice],
    allowed_bytes: u64,
    first: FirstBatch,
) -> Result<Translated, ReadFailure> {
    let mut sent = Translated { slices: Vec::new(), bytes: 0 };
    // Kafka's batches that have been stepped over since the last translation.
    let mut run = Place::default();
    let mut run_bytes = 0;
    let mut ahead = Place::default();
    let mut grew = false;
    while let Some(header) = ahead.header(stored) {
        let batch_bytes = header.total_bytes();
        let taken = sent.bytes + run_bytes as u64;
        let must_fit = taken > 0 || first == FirstBatch::OnlyIfItFits;
        let fits = |bytes: usize| !must_fit || taken + bytes as u64 <= allowed_bytes;
        if header.encoding == Encoding::KafkaV2 {
            // Without translation they fit: the log was asked for no more.
            if grew && !fits(batch_bytes) {
                break;
            }
            run_bytes += batch_bytes;
            ahead = ahead.behind(stored, batch_bytes);
            continue;
        }
        run.cut(stored, run_bytes, &mut sent);
        run_bytes = 0;
        run = ahead;
        if !fits(batch_bytes) {
            break;
        }
        let mut batch = Translated { slices: Vec::new(), bytes: 0 };
        ahead = run.cut(stored, batch_bytes, &mut batch);
        let kafka = match translate(shard, &header, &batch.slices).await {
            Ok(kafka) => kafka,
            // What came before goes out; the reader will meet this one first.
            Err(_) if taken > 0 => break,
            Err(error) => return Err(ReadFailure::Untranslatable(error.to_string())),
        };
        if !fits(kafka.len()) {
            break;
        }
        add(&shard.metrics.translated_batches_total, 1);
        grew = true;
        sent.bytes += kafka.len() as u64;
        sent.slices.push(Slice::from(kafka));
        run = ahead;
    }
    run.cut(stored, run_bytes, &mut sent);
    Ok(sent)
}

/// One batch, which may lie in several pieces.
async fn translate(
    shard: &Shard,
    header: &BatchHeader,
    pieces: &[Slice],
) -> Result<Vec<u8>, ConvertError> {
    let held_bytes = match header.attributes.codec() {
        Some(Compression::None) => (header.total_bytes() as u64).saturating_mul(BYTES_PER_BYTE),
        // Nobody knows before: such a one has the budget for itself.
        _ => shard.translations.limit_bytes(),
    };
    let held = shard.translations.acquire(held_bytes).await;
    let limits = VerifyLimits {
        max_batch_bytes: BATCH_BYTES_MAX_DEFAULT,
        max_inflated_bytes: INFLATED_BYTES_MAX_DEFAULT,
    };
    let joined;
    let bytes: &[u8] = if let [piece] = pieces {
        piece
    } else {
        joined = pieces.iter().map(|piece| &**piece).collect::<Vec<_>>().concat();
        &joined
    };
    let batch = BatchView::verify(bytes, &limits)?;
    let mut scratch = Vec::new();
    let conversion = Conversion::begin(&batch, &mut scratch, limits)?;
    let mut conversion = conversion.expect("its header says that it is columnar");
    while conversion.advance(RECORDS_PER_STEP)? == Progress::Working {
        shard.runtime.yield_if_needed().await;
    }
    let kafka = conversion.finish().expect("it is done, and within the limit of a batch");
    drop(held);
    Ok(kafka)
}

/// A byte in a row of slices.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    slice: usize,
    at: usize,
}

impl Place {
    /// The header of the batch that begins here; `None` at the end.
    fn header(self, slices: &[Slice]) -> Option<BatchHeader> {
        let mut head = [0; HEADER_BYTES];
        let mut filled = 0;
        let mut at = self.at;
        for slice in slices.get(self.slice..)? {
            let from = slice.get(at..)?;
            for (place, byte) in head.iter_mut().skip(filled).zip(from) {
                *place = *byte;
                filled += 1;
            }
            at = 0;
            if filled == HEADER_BYTES {
                return BatchHeader::parse(&head).ok();
            }
        }
        None
    }

    /// So many bytes further.
    fn behind(self, slices: &[Slice], bytes: usize) -> Self {
        let mut place = Self { at: self.at + bytes, ..self };
        while let Some(slice) = slices.get(place.slice)
            && slice.len() <= place.at
        {
            place = Self { slice: place.slice + 1, at: place.at - slice.len() };
        }
        place
    }

    /// Adds the next `bytes` to `into` and gives the place behind them.
    fn cut(self, slices: &[Slice], bytes: usize, into: &mut Translated) -> Self {
        let end = self.behind(slices, bytes);
        for index in self.slice..=end.slice {
            let Some(slice) = slices.get(index) else { break };
            let from = if index == self.slice { self.at } else { 0 };
            let to = if index == end.slice { end.at } else { slice.len() };
            if from < to {
                into.bytes += (to - from) as u64;
                into.slices.push(slice.slice(from, to));
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use levada_record::{BatchBuilder, LeaderEpoch, NewRecord, Offset, Timestamp};

    use super::*;

    fn batch(encoding: Encoding, base: i64) -> Vec<u8> {
        let mut builder =
            BatchBuilder::encoded(encoding, Compression::None).at(Offset(base), LeaderEpoch(0));
        let record = NewRecord { timestamp: Timestamp(1), ..NewRecord::default() };
        builder.push(&record).unwrap();
        builder.finish().unwrap()
    }

    /// However the log's memory is cut, batches are found and come out as they were.
    #[test]
    fn batches_are_found_across_any_cut() {
        let (one, two) = (batch(Encoding::KafkaV2, 0), batch(Encoding::Columnar, 1));
        let both = [one.clone(), two.clone()].concat();
        for first in 0..=both.len() {
            for second in first..=both.len() {
                let parts = [&both[..first], &both[first..second], &both[second..]];
                let slices = parts.map(|part| Slice::from(part.to_vec()));
                let mut place = Place::default();
                for expected in [&one, &two] {
                    let header = place.header(&slices).unwrap();
                    assert_eq!(header.total_bytes(), expected.len());
                    let mut cut = Translated { slices: Vec::new(), bytes: 0 };
                    place = place.cut(&slices, expected.len(), &mut cut);
                    assert_eq!(
                        &cut.slices.iter().flat_map(|s| s.to_vec()).collect::<Vec<_>>(),
                        expected
                    );
                    assert_eq!(cut.bytes, expected.len() as u64);
                }
                assert!(place.header(&slices).is_none());
            }
        }
    }
}
