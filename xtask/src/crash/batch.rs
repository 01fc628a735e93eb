//! `[P]` Kafka's record batch, written and read by hand: the codec under test is no part of its own judge.
//!
//! Every record's value begins with who sent it and which of that sender's records for the partition it is, so no
//! two values are the same.

use anyhow::{Context, ensure};

/// Bytes in front of the records.
const HEADER_BYTES: usize = 61;
/// Bytes that the length field does not count: base offset and the field itself.
const UNCOUNTED_BYTES: usize = 12;
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
/// Client and sequence.
const VALUE_BYTES_MIN: usize = 12;

/// Which producer, with which numbers of its own.
#[derive(Clone, Copy)]
pub(crate) struct ProducerIdentity {
    /// Number of the client in this run.
    pub(crate) client: u32,
    /// What the broker gave it.
    pub(crate) producer_id: i64,
    /// What the broker gave it.
    pub(crate) producer_epoch: i16,
}

/// A batch of records, each with a value of `value_bytes` (12 at least).
pub(crate) fn build(
    producer: ProducerIdentity,
    base_sequence: i32,
    records: u32,
    value_bytes: usize,
    timestamp: i64,
) -> Vec<u8> {
    let value_bytes = value_bytes.max(VALUE_BYTES_MIN);
    let count = i32::try_from(records).expect("small batches");
    let mut batch = vec![0; HEADER_BYTES];
    let mut record = Vec::new();
    for delta in 0..count {
        let sequence = i64::from(base_sequence) + i64::from(delta);
        record.clear();
        record.push(0);
        varint(&mut record, 0);
        varint(&mut record, i64::from(delta));
        varint(&mut record, -1);
        varint(&mut record, i64::try_from(value_bytes).expect("small values"));
        let end = record.len() + value_bytes;
        record.extend(producer.client.to_be_bytes());
        record.extend(sequence.to_be_bytes());
        record.resize(end, sequence.to_be_bytes()[7]);
        varint(&mut record, 0);
        varint(&mut batch, i64::try_from(record.len()).expect("small records"));
        batch.extend(&record);
    }
    let length = i32::try_from(batch.len() - UNCOUNTED_BYTES).expect("small batches");
    let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
    put(8, &length.to_be_bytes());
    put(12, &(-1_i32).to_be_bytes());
    put(16, &[2]);
    put(23, &(count - 1).to_be_bytes());
    put(27, &timestamp.to_be_bytes());
    put(35, &timestamp.to_be_bytes());
    put(43, &producer.producer_id.to_be_bytes());
    put(51, &producer.producer_epoch.to_be_bytes());
    put(53, &base_sequence.to_be_bytes());
    put(57, &count.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// What a reader finds in one batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReadBatch {
    /// Offset of the first record.
    pub(crate) base_offset: i64,
    /// Sequence of the first record.
    pub(crate) base_sequence: i32,
    /// Client and sequence in the value of each record.
    pub(crate) values: Vec<(u32, i64)>,
}

/// The first batch of `bytes` and what follows it; none when it is cut off there.
///
/// # Errors
/// When it is no batch that [`build`] makes.
pub(crate) fn read(bytes: &[u8]) -> anyhow::Result<Option<(ReadBatch, &[u8])>> {
    let mut head = Cursor(bytes);
    let (Ok(base_offset), Ok(length)) = (head.i64(), head.i32()) else {
        return Ok(None);
    };
    let end = usize::try_from(length).context("negative length")? + UNCOUNTED_BYTES;
    ensure!(end >= HEADER_BYTES, "a batch of {end} B at {base_offset}");
    let Some((batch, rest)) = bytes.split_at_checked(end) else { return Ok(None) };
    ensure!(batch[16] == 2, "magic {} at {base_offset}", batch[16]);
    let crc = Cursor(&batch[CRC_AT..]).i32()?.cast_unsigned();
    ensure!(crc == crc32c::crc32c(&batch[CRC_FROM..]), "bad CRC at {base_offset}");
    let base_sequence = Cursor(&batch[53..]).i32()?;
    let count = Cursor(&batch[57..]).i32()?;
    let mut records = Cursor(&batch[HEADER_BYTES..]);
    let mut values = Vec::new();
    for delta in 0..count {
        let length = usize::try_from(records.varint()?).context("a negative record")?;
        let mut record = Cursor(records.take(length)?);
        record.take(1)?;
        record.varint()?;
        ensure!(record.varint()? == i64::from(delta), "offset delta at {base_offset}");
        ensure!(record.varint()? == -1, "a key at {base_offset}");
        let length = usize::try_from(record.varint()?).context("a null value")?;
        let mut value = Cursor(record.take(length)?);
        values.push((value.i32()?.cast_unsigned(), value.i64()?));
    }
    ensure!(records.0.is_empty(), "bytes behind the records at {base_offset}");
    Ok(Some((ReadBatch { base_offset, base_sequence, values }, rest)))
}

fn varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        bytes.push((rest & 0x7F) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push((rest & 0x7F) as u8);
}

/// Bytes that are not read yet.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next `count` bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub(crate) fn take(&mut self, count: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn i16(&mut self) -> anyhow::Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    pub(crate) fn i32(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    pub(crate) fn i64(&mut self) -> anyhow::Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    /// A string that may be null (then empty).
    pub(crate) fn string(&mut self) -> anyhow::Result<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn varint(&mut self) -> anyhow::Result<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        anyhow::bail!("a varint without end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_again_and_a_cut_batch_is_none() {
        let producer = ProducerIdentity { client: 7, producer_id: 1000, producer_epoch: 0 };
        let bytes = build(producer, 40, 3, 100, 1);
        let (batch, rest) = read(&bytes).unwrap().unwrap();
        assert!(rest.is_empty());
        let values = vec![(7, 40), (7, 41), (7, 42)];
        assert_eq!(batch, ReadBatch { base_offset: 0, base_sequence: 40, values });
        assert_eq!(read(&bytes[..bytes.len() - 1]).unwrap(), None);
    }

    #[test]
    fn a_flipped_bit_is_refused() {
        let producer = ProducerIdentity { client: 0, producer_id: 0, producer_epoch: 0 };
        let mut bytes = build(producer, 0, 1, 20, 1);
        *bytes.last_mut().unwrap() ^= 1;
        assert!(read(&bytes).is_err());
    }
}
