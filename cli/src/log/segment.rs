//! One segment file, read batch by batch; memory does not grow with the file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context as _;
use levada_engine::segment::layout::SegmentName;
use levada_record::{
    BatchHeader, BatchView, HEADER_BYTES, LeaderEpoch, Offset, VerifyLimits, peek_header,
};
use serde_json::{Value, json};

/// A batch of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// First byte in the file.
    position: u64,
    header: BatchHeader,
}

impl Found {
    /// First byte behind it.
    pub(super) fn end_position(&self) -> u64 {
        self.position + self.header.total_bytes() as u64
    }

    /// A line on it.
    pub(super) fn line(&self) -> String {
        let Self { position, header } = self;
        let codec = header.attributes.codec().map_or("unknown", |codec| codec.name());
        let producer = if header.producer_id.is_some() {
            let (id, epoch) = (header.producer_id.0, header.producer_epoch.0);
            format!(" producer {id}/{epoch} sequence {}", header.base_sequence)
        } else {
            String::new()
        };
        let flags = [
            (header.attributes.is_transactional(), " transactional"),
            (header.attributes.is_control(), " control"),
        ];
        let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        format!(
            "  byte {position}: offsets {}..{} records {} bytes {} epoch {} {} {codec} time {}..{} crc {:08x}{producer}{flags}",
            header.base_offset,
            header.end_offset(),
            header.record_count,
            header.total_bytes(),
            header.leader_epoch.0,
            header.encoding,
            header.base_timestamp,
            header.max_timestamp,
            header.checksum,
        )
    }

    /// The same for programs.
    pub(super) fn json(&self, file: &Path) -> Value {
        let Self { position, header } = self;
        json!({
            "segment": file.display().to_string(),
            "position": position,
            "base_offset": header.base_offset.get(),
            "end_offset": header.end_offset().get(),
            "records": header.record_count,
            "bytes": header.total_bytes(),
            "leader_epoch": header.leader_epoch.0,
            "encoding": header.encoding.name(),
            "codec": header.attributes.codec().map(levada_record::Compression::name),
            "base_timestamp": header.base_timestamp.as_ms(),
            "max_timestamp": header.max_timestamp.as_ms(),
            "crc": header.checksum,
            "producer_id": header.producer_id.0,
            "producer_epoch": header.producer_epoch.0,
            "base_sequence": header.base_sequence,
            "transactional": header.attributes.is_transactional(),
            "control": header.attributes.is_control(),
        })
    }
}

/// Where a segment stops being one, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    /// Byte in the file.
    pub(super) position: u64,
    /// What is wrong there.
    pub(super) reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged at byte {}: {}", self.position, self.reason)
    }
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) file_bytes: u64,
    /// Bytes of whole batches; behind them is room.
    pub(super) batch_bytes: u64,
    pub(super) batches: u64,
    pub(super) records: u64,
    /// First offset, and first behind.
    pub(super) offsets: Option<(Offset, Offset)>,
    pub(super) damage: Option<Damage>,
}

impl Report {
    /// A line on it.
    pub(super) fn sentence(&self) -> String {
        let room = self.file_bytes - self.batch_bytes;
        let ending = match &self.damage {
            None => format!("{room} bytes of room"),
            Some(damage) => damage.to_string(),
        };
        format!(
            "  {} batches, {} records, {} bytes; {ending}",
            self.batches, self.records, self.batch_bytes
        )
    }
}

/// Reads the file and shows every good batch, up to its end or its first damage.
pub(super) fn read_segment(
    path: &Path,
    show: &mut dyn FnMut(&Found) -> io::Result<()>,
) -> anyhow::Result<Report> {
    let context = || format!("read {}", path.display());
    let file = File::open(path).with_context(context)?;
    let file_bytes = file.metadata().with_context(context)?.len();
    let name = path.file_name().and_then(|name| name.to_str()).and_then(SegmentName::parse);
    let base = name.map(|name| name.base);
    let mut reader = io::BufReader::with_capacity(1 << 20, file);
    let mut report = Report { file_bytes, ..Report::default() };
    let mut epoch = LeaderEpoch(-1);
    let mut batch = Vec::new();
    loop {
        match next(&mut reader, &mut batch, &report, base, epoch).with_context(context)? {
            Next::End => return Ok(report),
            Next::Damage(reason) => {
                report.damage = Some(Damage { position: report.batch_bytes, reason });
                return Ok(report);
            }
            Next::Batch(header) => {
                let found = Found { position: report.batch_bytes, header };
                show(&found)?;
                report.batch_bytes = found.end_position();
                report.batches += 1;
                report.records += u64::from(header.record_count.unsigned_abs());
                let start = report.offsets.map_or(header.base_offset, |(start, _)| start);
                report.offsets = Some((start, header.end_offset()));
                epoch = header.leader_epoch;
            }
        }
    }
}

enum Next {
    Batch(BatchHeader),
    End,
    Damage(String),
}

/// Reads the batch behind what `report` has seen.
fn next(
    reader: &mut impl Read,
    batch: &mut Vec<u8>,
    report: &Report,
    base: Option<Offset>,
    epoch: LeaderEpoch,
) -> io::Result<Next> {
    let limits = VerifyLimits::DEFAULT;
    batch.clear();
    reader.by_ref().take(HEADER_BYTES as u64).read_to_end(batch)?;
    if batch.iter().all(|byte| *byte == 0) {
        return room(reader, batch);
    }
    let header = match peek_header(batch) {
        Ok(header) => header,
        Err(error) => return Ok(Next::Damage(error.to_string())),
    };
    // Before memory is made for it.
    let left = report.file_bytes - report.batch_bytes;
    let total_bytes = header.total_bytes() as u64;
    if left < total_bytes {
        return Ok(Next::Damage(format!("a batch of {total_bytes} B, but only {left} B are left")));
    }
    reader.by_ref().take(total_bytes - HEADER_BYTES as u64).read_to_end(batch)?;
    if let Err(error) = BatchView::verify(batch, &limits) {
        return Ok(Next::Damage(error.to_string()));
    }
    let expected = report.offsets.map(|(_, end)| end).or(base);
    Ok(match expected {
        Some(expected) if header.base_offset < expected => Next::Damage(format!(
            "a batch from offset {} on, expected {expected}",
            header.base_offset
        )),
        _ if header.leader_epoch < epoch => Next::Damage(format!(
            "a batch of epoch {} after one of {}",
            header.leader_epoch.0, epoch.0
        )),
        _ => Next::Batch(header),
    })
}

/// Room that was reserved is zero to the end.
fn room(reader: &mut impl Read, block: &mut Vec<u8>) -> io::Result<Next> {
    loop {
        block.clear();
        if reader.by_ref().take(1 << 16).read_to_end(block)? == 0 {
            return Ok(Next::End);
        }
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Next::Damage("zeros, and then bytes again".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use levada_record::{BatchBuilder, Compression, Encoding, NewRecord, Timestamp};

    use super::*;

    fn batch(base: i64, epoch: i32, records: usize) -> Vec<u8> {
        // Segments hold both, in any order.
        let encoding = if records == 1 { Encoding::Columnar } else { Encoding::KafkaV2 };
        let mut builder =
            BatchBuilder::encoded(encoding, Compression::None).at(Offset(base), LeaderEpoch(epoch));
        for _ in 0..records {
            let value = Some(&b"value"[..]);
            builder
                .push(&NewRecord { value, timestamp: Timestamp(7), ..Default::default() })
                .unwrap();
        }
        builder.finish().unwrap()
    }

    fn report(name: &str, bytes: &[u8]) -> Report {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read_segment(&path, &mut |_| Ok(())).unwrap()
    }

    const NAME: &str = "00000000000000000010-000000.log";

    fn good() -> Vec<u8> {
        let mut bytes = batch(10, 1, 3);
        bytes.extend(batch(13, 2, 1));
        bytes
    }

    #[test]
    fn a_good_segment_is_counted_and_its_room_is_no_damage() {
        let mut bytes = good();
        let batch_bytes = bytes.len() as u64;
        bytes.resize(bytes.len().next_multiple_of(4096) + 200_000, 0);
        let report = report(NAME, &bytes);
        assert_eq!(report.damage, None);
        assert_eq!((report.batches, report.records, report.batch_bytes), (2, 4, batch_bytes));
        assert_eq!(report.offsets, Some((Offset(10), Offset(14))));
        assert_eq!(
            super::read_segment(Path::new("/dev/null"), &mut |_| Ok(())).unwrap().batches,
            0
        );
    }

    #[test]
    fn every_damage_is_told_with_its_position() {
        let first = batch(10, 1, 3).len();
        let good = good();
        let mut rotten = good.clone();
        rotten[first + 70] ^= 1;
        let mut again = good.clone();
        again.extend(batch(13, 2, 1));
        let mut older = good.clone();
        older.extend(batch(14, 1, 1));
        let mut late = good.clone();
        late.resize(late.len() + 100_000, 0);
        late.push(1);
        let cut = &good[..good.len() - 1];
        for (bytes, position, says) in [
            (&rotten[..], first, "checksum"),
            (&again, good.len(), "expected 14"),
            (&older, good.len(), "epoch 1 after one of 2"),
            (&late, good.len(), "zeros"),
            (cut, first, "are left"),
        ] {
            let damage = report(NAME, bytes).damage.unwrap();
            assert_eq!(damage.position, position as u64, "{damage}");
            assert!(damage.reason.contains(says), "{damage}");
        }
        let elsewhere = report("00000000000000000011-000000.log", &good).damage.unwrap();
        assert_eq!(elsewhere.position, 0);
    }
}
