//! `[P]` Batches that tell which value they carry.

use std::rc::Rc;

use levada_record::{
    BatchBuilder, BatchHeader, Compression, NewRecord, ProducerEpoch, ProducerId, Timestamp,
    VerifyLimits, next_batch,
};
use rand::Rng;
use rand_pcg::Pcg64;

use super::options::Sizes;
use crate::history::Value;

/// A batch that a client sends: the same bytes at every attempt.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) value: Value,
    pub(super) header: BatchHeader,
    pub(super) bytes: Vec<u8>,
}

/// Which producer sends, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    pub(super) producer: i64,
    pub(super) epoch: i16,
    pub(super) sequence: i32,
}

/// Records and bytes of a new batch.
pub(super) fn draw_size(sizes: Sizes, rng: &mut Pcg64) -> (u32, usize) {
    match sizes {
        Sizes::Tiny => (rng.random_range(1..4), rng.random_range(1..100)),
        Sizes::Small => (rng.random_range(1..20), rng.random_range(1..10_000)),
        Sizes::Edge => (rng.random_range(1..6), rng.random_range(3_000..70_000)),
        Sizes::Mixed => match rng.random_range(0..20) {
            0..8 => draw_size(Sizes::Tiny, rng),
            8..14 => draw_size(Sizes::Small, rng),
            14..19 => draw_size(Sizes::Edge, rng),
            _ => (rng.random_range(1..30), rng.random_range(65_000..140_000)),
        },
    }
}

/// Builds a batch of `records` records with about `bytes` bytes together, the first at `timestamp`.
pub(super) fn build(
    value: Value,
    sender: Option<Sender>,
    timestamp: i64,
    records: u32,
    bytes: usize,
) -> Rc<Batch> {
    let mut builder = BatchBuilder::new(Compression::None).with_capacity(bytes + 200);
    if let Some(Sender { producer, epoch, sequence }) = sender {
        builder = builder.producer(ProducerId(producer), ProducerEpoch(epoch), sequence);
    }
    let share = bytes / records as usize;
    let mut text = Vec::with_capacity(share + 16);
    for index in 0..records {
        text.clear();
        text.extend_from_slice(&value.to_be_bytes());
        text.extend_from_slice(&index.to_be_bytes());
        // Filler that no other batch has, so that stale bytes of another one are seen.
        let mut word = value.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(index);
        while text.len() < share {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            text.extend_from_slice(&word.to_le_bytes());
        }
        let record = NewRecord {
            timestamp: Timestamp(timestamp + i64::from(index)),
            value: Some(&text),
            ..NewRecord::default()
        };
        builder.push(&record).expect("small records in order");
    }
    let bytes = builder.finish().expect("at least one record");
    let header = BatchHeader::parse(&bytes).expect("just built");
    Rc::new(Batch { value, header, bytes })
}

/// The value that the batch at the front of `bytes` carries.
pub(super) fn value_of(bytes: &[u8]) -> Option<Value> {
    let (view, _) = next_batch(bytes, &VerifyLimits::DEFAULT).ok()??;
    let record = view.plain_records()?.next()?.ok()?;
    let head: [u8; 8] = record.value?.get(..8)?.try_into().ok()?;
    Some(Value::from_be_bytes(head))
}
