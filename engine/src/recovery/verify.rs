//! One log in recovery: verifies what its fold describes, then writes what only the journal has.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use levada_record::checksum::batch_checksum;
use levada_record::{BatchHeader, HEADER_BYTES, Offset};

use crate::disk::{Buffer, File, OpenMode, SharedDisk};
use crate::epochs::EpochStarts;
use crate::error::OpenError;
use crate::journal::replay::{Expectation, Live, LogFold, Source};
use crate::log::{Suspicion, produced_batch};
use crate::manifest::Manifest;
use crate::planted::{PlantedBug, is_planted};
use crate::producers::Producers;
use crate::recovery::journals::OldShard;
use crate::recovery::logs::Candidate;
use crate::recovery::{ActiveSeed, LogSeed, hold, io_error};
use crate::runtime::SharedRuntime;
use crate::segment::index::{Index, IndexEntry};
use crate::segment::layout::{SegmentName, align_down, align_up};
use crate::start_record::StartRecord;

/// Bytes of a segment looked at in one step.
const WINDOW_BYTES: u64 = 1 << 20;

/// A log after pass 1.
pub(crate) struct Recovered {
    pub(crate) seed: LogSeed,
    pub(crate) directory: PathBuf,
    pub(crate) shard: usize,
    /// Set when blocks of the shard's last round are not in the segment: that round is torn.
    pub(crate) torn_shard: Option<usize>,
    /// The directory is gone although a checkpoint knows the log.
    pub(crate) is_missing: bool,
    pub(crate) verified_bytes: u64,
    /// Names of segment and index files that neither manifest nor journal speaks of.
    pub(crate) leftovers: Vec<String>,
    /// The last whole round of its shard.
    last_round: u64,
    fold: Option<LogFold>,
    manifest: Option<Manifest>,
}

impl Recovered {
    /// The manifest to write, when rounds brought facts that the old one lacks. It speaks of the rounds of the
    /// incarnation that is being recovered: should this recovery not come to its commit, the next one finds the
    /// same rounds again and must know which of them are folded in.
    pub(crate) fn new_manifest(&self, recovered_incarnation: u64) -> Option<Manifest> {
        let fold = self.fold.as_ref()?;
        let old = self.manifest.as_ref()?;
        let known_round =
            if old.incarnation == recovered_incarnation { old.through_round } else { 0 };
        let manifest = Manifest {
            incarnation: recovered_incarnation,
            through_round: self.last_round.max(known_round),
            log_start: self.seed.log_start,
            base_digest: self.seed.base_digest,
            next_generation: self.seed.next_generation,
            sealed: self.seed.sealed.clone(),
            active: self.seed.active.as_ref().map(|active| active.name),
            active_since_ms: self.seed.active.as_ref().map_or(0, |active| active.since_ms),
            epochs: self.seed.epochs.clone(),
        };
        let is_same = Manifest {
            incarnation: old.incarnation,
            through_round: old.through_round,
            ..manifest.clone()
        } == *old;
        (fold.has_new_facts || !is_same).then_some(manifest)
    }
}

/// Verifies one log against its fold. Reads only.
pub(crate) async fn recover_log(
    disk: &SharedDisk,
    runtime: &SharedRuntime,
    shards: &[OldShard],
    record: &StartRecord,
    candidate: Candidate,
    directory: PathBuf,
    folded: Result<(u64, LogFold, Manifest), String>,
) -> Result<Recovered, OpenError> {
    let checkpoint = &candidate.checkpoint;
    let mut seed = LogSeed::empty(checkpoint.partition, checkpoint.uid);
    seed.high_watermark = checkpoint.high_watermark;
    let mut recovered = Recovered {
        seed,
        directory,
        shard: candidate.shard,
        torn_shard: None,
        is_missing: false,
        verified_bytes: 0,
        leftovers: Vec::new(),
        last_round: shards
            .get(candidate.shard)
            .and_then(|shard| shard.found.rounds.last())
            .map_or(0, |last| last.round.identity.round),
        fold: None,
        manifest: None,
    };
    let names: Vec<String> = match disk.list(&recovered.directory).await {
        Ok(entries) => entries.into_iter().map(|entry| entry.name).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            recovered.is_missing = true;
            return Ok(recovered);
        }
        Err(error) => return Err(io_error("list", &recovered.directory)(error)),
    };
    let (sequence, mut fold, manifest) = match folded {
        Ok(folded) => folded,
        Err(reason) => {
            recovered.seed.suspicion = Some(Suspicion {
                from: Offset::ZERO,
                expected_end: checkpoint.durable_end,
                reason,
            });
            return Ok(recovered);
        }
    };
    recovered.seed.manifest_sequence = sequence;
    if fold.was_truncated {
        // The checkpoint's producers may have batches that were cut off; what was before them only the log says.
        fold.walk_whole();
    }
    let mut walk = WalkState {
        at: fold.walk_start,
        epochs: EpochStarts::from_pairs(&manifest.epochs),
        producers: checkpoint.producers.clone(),
        producers_from: checkpoint.durable_end,
        segments: Vec::new(),
        verified_bytes: 0,
    };
    // What a truncation cut off is forgotten before the walk adds what came after it.
    walk.epochs.truncate(fold.walk_start.end.max(fold.log_start));
    if fold.was_truncated {
        walk.producers = Producers::default();
        walk.producers_from = Offset::ZERO;
    }
    let failure = if record.clean {
        walk.trust(&fold, &manifest, checkpoint.max_timestamp);
        None
    } else {
        verify(disk, runtime, shards, &candidate, &recovered.directory, &fold, &mut walk).await?
    };
    recovered.verified_bytes = walk.verified_bytes;
    // Only what the shard's last round wrote through can be torn; every round before it is known to be durable.
    let is_of_last_round = |index: usize| {
        shards
            .get(candidate.shard)
            .is_some_and(|shard| !shard.has_dropped_last && index + 1 == shard.found.rounds.len())
    };
    if failure.as_ref().is_some_and(|failure| failure.is_in_last_append)
        && fold.last_append_index.is_some_and(is_of_last_round)
    {
        recovered.torn_shard = Some(candidate.shard);
    }
    // A segment's name is stable before anything speaks of it.
    let gone = fold.segments.iter().find(|s| !names.contains(&s.name.file_name()));
    let failure = match (failure, gone) {
        (Some(failure), Some(gone)) if failure.confirmed.end <= gone.name.base => Some(failure),
        (_, Some(gone)) => Some(Failure {
            confirmed: Expectation { end: gone.name.base, digest: fold.digest_at_base(gone.name) },
            reason: format!("{} is gone", gone.name.file_name()),
            is_in_last_append: false,
        }),
        (failure, None) => failure,
    };
    finish_seed(&mut recovered, &candidate, shards, &fold, &manifest, walk, failure);
    if recovered.seed.suspicion.is_none() {
        recovered.leftovers = names.into_iter().filter(|name| is_leftover(name, &fold)).collect();
    }
    recovered.fold = Some(fold);
    recovered.manifest = Some(manifest);
    Ok(recovered)
}

/// Whether a file of a log's directory belongs to a segment that is none of the log's: one that was made ready and
/// never begun, or that was cut off or dropped and not deleted yet.
fn is_leftover(file_name: &str, fold: &LogFold) -> bool {
    let segment = file_name.strip_suffix(".index").map(|stem| format!("{stem}.log"));
    SegmentName::parse(segment.as_deref().unwrap_or(file_name))
        .is_some_and(|name| !fold.segments.iter().any(|segment| segment.name == name))
}

/// Where the walk stands, and what it learned.
struct WalkState {
    at: Expectation,
    epochs: EpochStarts,
    producers: Producers,
    /// Batches below this are in `producers` already.
    producers_from: Offset,
    segments: Vec<WalkedSegment>,
    verified_bytes: u64,
}

struct WalkedSegment {
    name: SegmentName,
    length: u64,
    max_timestamp: i64,
    index: Index,
}

/// Why a walk ended early, and the last boundary that is confirmed.
struct Failure {
    confirmed: Expectation,
    reason: String,
    /// Whether all that is not confirmed was appended by the last round that appended to the log.
    is_in_last_append: bool,
}

impl WalkState {
    /// After a clean stop nothing is read: checkpoint and manifest are the truth.
    fn trust(&mut self, fold: &LogFold, manifest: &Manifest, max_timestamp: i64) {
        self.epochs = EpochStarts::from_pairs(&manifest.epochs);
        if let Some(place) = fold.end_place {
            self.segments.push(WalkedSegment {
                name: place.segment,
                length: place.byte,
                max_timestamp,
                index: Index::default(),
            });
        }
    }
}

async fn verify(
    disk: &SharedDisk,
    runtime: &SharedRuntime,
    shards: &[OldShard],
    candidate: &Candidate,
    directory: &Path,
    fold: &LogFold,
    walk: &mut WalkState,
) -> Result<Option<Failure>, OpenError> {
    let Some(start) = fold.walk_from else { return Ok(None) };
    let shard = shards.get(candidate.shard);
    let mut confirmed = fold.walk_start;
    let failed = |confirmed: Expectation, reason: String| Failure {
        confirmed,
        reason,
        is_in_last_append: (1..=fold.last_append_count)
            .contains(&fold.expectations.iter().filter(|e| e.end > confirmed.end).count()),
    };
    let first = fold.segments.iter().position(|segment| segment.name == start.segment);
    let Some(first) = first else {
        let reason = format!("segment {} is in no manifest", start.segment.file_name());
        return Ok(Some(failed(confirmed, reason)));
    };
    let mut expectations = fold.expectations.iter().filter(|e| e.end > fold.walk_start.end);
    let mut next_expected = expectations.next();
    for (index, segment) in fold.segments.iter().enumerate().skip(first) {
        let is_first = index == first;
        let is_checkpointed = is_first && candidate.checkpoint.place == Some(start);
        let known = if is_checkpointed { candidate.checkpoint.max_timestamp } else { -1 };
        let byte_start = if is_first { start.byte } else { 0 };
        let described = match (segment.sealed, fold.end_place) {
            (Some(sealed), _) => sealed.length_bytes,
            (None, Some(place)) if place.segment == segment.name => place.byte,
            _ => 0,
        };
        walk.segments.push(WalkedSegment {
            name: segment.name,
            length: byte_start,
            max_timestamp: known,
            index: Index::default(),
        });
        let path = directory.join(segment.name.file_name());
        if described <= byte_start
            && segment.sealed.is_some()
            && !is_planted(PlantedBug::BelieveBehindEnd)
        {
            continue;
        }
        let file = match disk.open(&path, OpenMode::Existing).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let reason = format!("{} is gone", path.display());
                return Ok(Some(failed(confirmed, reason)));
            }
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        // The active one also when nothing in it is to be verified: a dying process may still write to it (J24).
        hold(runtime, &path, || file.try_lock()).await?;
        if described <= byte_start && !is_planted(PlantedBug::BelieveBehindEnd) {
            continue;
        }
        file.sync().await.map_err(io_error("sync", &path))?;
        let ranges = fold.ranges.get(&segment.name).map_or(&[][..], Vec::as_slice);
        let length = file.length().await.map_err(io_error("stat", &path))?;
        let limit = if is_planted(PlantedBug::BelieveBehindEnd) && segment.sealed.is_none() {
            length
        } else {
            described
        };
        let region = Region { file: &file, shard, ranges, limit, block: disk.block_bytes() as u64 };
        let mut at = byte_start;
        let mut window: Vec<u8> = Vec::new();
        let mut window_at = at;
        while at < limit {
            let have = usize::try_from(at - window_at).unwrap_or(0);
            let rest = window.get(have..).unwrap_or(&[]);
            let total = match BatchHeader::parse(rest) {
                Ok(header) => header.total_bytes(),
                Err(_) if rest.len() < HEADER_BYTES => HEADER_BYTES,
                Err(error) => {
                    let reason = format!("{} byte {at}: {error}", path.display());
                    return Ok(Some(failed(confirmed, reason)));
                }
            };
            if rest.len() < total {
                if at + total as u64 > limit {
                    let reason = format!("{} byte {at}: a batch is cut off", path.display());
                    return Ok(Some(failed(confirmed, reason)));
                }
                let end = limit.min(at + WINDOW_BYTES.max(total as u64));
                window = region.read(at, end).await.map_err(io_error("read", &path))?;
                window_at = at;
                runtime.yield_if_needed().await;
                // Less than asked for is fine as long as the next batch is whole: what comes before the end of the
                // file counts.
                if window.len() < total {
                    let reason = format!("{} ends before byte {end}", path.display());
                    return Ok(Some(failed(confirmed, reason)));
                }
                continue;
            }
            let batch = rest.get(..total).unwrap_or(rest);
            let header = BatchHeader::parse(batch).expect("parsed above");
            let got = batch_checksum(batch);
            if header.base_offset != walk.at.end || got != header.checksum {
                let reason = format!(
                    "{} byte {at}: batch {} with checksum {got:#010x} where {} belongs",
                    path.display(),
                    header.base_offset,
                    walk.at.end
                );
                return Ok(Some(failed(confirmed, reason)));
            }
            walk.meet(fold, &header, batch);
            at += total as u64;
            walk.verified_bytes += total as u64;
            if let Some(expected) = next_expected
                && expected.end <= walk.at.end
            {
                if *expected != walk.at {
                    let reason = format!(
                        "{} byte {at}: the digest differs at {}",
                        path.display(),
                        expected.end
                    );
                    return Ok(Some(failed(confirmed, reason)));
                }
                confirmed = walk.at;
                next_expected = expectations.next();
            }
        }
    }
    if walk.at != fold.end && !is_planted(PlantedBug::BelieveBehindEnd) {
        let reason = format!("the log ends at {}, not at {}", walk.at.end, fold.end.end);
        return Ok(Some(failed(confirmed, reason)));
    }
    Ok(None)
}

impl WalkState {
    fn meet(&mut self, fold: &LogFold, header: &BatchHeader, batch: &[u8]) {
        let end = header.end_offset();
        if let Some(segment) = self.segments.last_mut() {
            segment.index.note(IndexEntry {
                offset: header.base_offset,
                byte: segment.length,
                digest: self.at.digest,
                max_timestamp_before: segment.max_timestamp,
            });
            segment.length += batch.len() as u64;
            segment.max_timestamp = segment.max_timestamp.max(header.max_timestamp.as_ms());
        }
        self.epochs.note(header.leader_epoch, header.base_offset);
        if end > self.producers_from
            && let Some(produced) = produced_batch(header)
        {
            let at = header.max_timestamp.as_ms();
            self.producers.note(&produced, header.base_offset, end, at);
        }
        self.at = Expectation { end, digest: self.at.digest.after(fold.uid, batch) };
    }
}

/// Bytes of a segment as they will be after pass 2: the file with the journal's live bytes over it.
struct Region<'a> {
    file: &'a Rc<dyn File>,
    shard: Option<&'a OldShard>,
    ranges: &'a [Live],
    limit: u64,
    block: u64,
}

impl Region<'_> {
    /// The bytes `from..end`; fewer when the file ends before and the journal has none.
    async fn read(&self, from: u64, end: u64) -> io::Result<Vec<u8>> {
        let end = end.min(self.limit);
        let first = self.ranges.partition_point(|live| live.end <= from);
        let journaled: Vec<(Range<u64>, &[u8])> = self
            .ranges
            .iter()
            .skip(first)
            .take_while(|live| live.from < end)
            .filter_map(|live| {
                let piece = live.from.max(from)..live.end.min(end);
                let payload = payload_of(self.shard, live, piece.start, piece.end)?;
                Some((piece, payload))
            })
            .collect();
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(from)).unwrap_or(0)];
        let mut put = |piece: &Range<u64>, payload: &[u8]| {
            let at = usize::try_from(piece.start - from).unwrap_or(usize::MAX);
            if let Some(to) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..payload.len())) {
                to.copy_from_slice(payload);
            }
        };
        // With a journal full of small appends it has nearly all; only what it lacks costs a read of the disk.
        let lacking = lacking_span(from..end, journaled.iter().map(|(piece, _)| piece));
        let mut in_file = lacking.start..lacking.start;
        if !lacking.is_empty() {
            let low = align_down(lacking.start, self.block);
            let aligned = align_up(lacking.end, self.block) - low;
            let read = self.file.read_at(low, usize::try_from(aligned).unwrap_or(0)).await?;
            let skip = usize::try_from(lacking.start - low).unwrap_or(0);
            let want = usize::try_from(lacking.end - lacking.start).unwrap_or(0);
            let have = read.get(skip..).unwrap_or(&[]);
            let have = have.get(..want).unwrap_or(have);
            in_file.end += have.len() as u64;
            put(&in_file, have);
        }
        let mut reached = from;
        let mut reach = |piece: &Range<u64>| {
            if piece.start <= reached {
                reached = reached.max(piece.end);
            }
        };
        for (piece, payload) in &journaled {
            put(piece, payload);
            reach(&in_file);
            reach(piece);
        }
        reach(&in_file);
        bytes.truncate(usize::try_from(reached - from).unwrap_or(0));
        Ok(bytes)
    }
}

/// From the first to the last byte of `whole` that no piece has; pieces are ascending and disjoint.
fn lacking_span<'a>(whole: Range<u64>, pieces: impl Iterator<Item = &'a Range<u64>>) -> Range<u64> {
    let mut lacking: Option<Range<u64>> = None;
    let mut at = whole.start;
    for piece in pieces {
        if piece.start > at {
            lacking.get_or_insert(at..at).end = piece.start;
        }
        at = piece.end;
    }
    if at < whole.end {
        lacking.get_or_insert(at..at).end = whole.end;
    }
    lacking.unwrap_or(whole.start..whole.start)
}

/// The journal's bytes `from..end` of a live range; `None` when it was written through or its payload is not whole.
fn payload_of<'a>(
    shard: Option<&'a OldShard>,
    live: &Live,
    from: u64,
    end: u64,
) -> Option<&'a [u8]> {
    let Source::Journal { round_index, at, is_whole } = live.source else { return None };
    if !is_whole {
        return None;
    }
    let shard = shard?;
    let one = shard.found.rounds.get(round_index)?;
    let skip = usize::try_from(from - live.from).ok()?;
    shard.payload(one.file, one.at + at + skip, end - from)
}

/// Turns what was learned into the seed; damage makes it suspect from the last confirmed boundary on.
fn finish_seed(
    recovered: &mut Recovered,
    candidate: &Candidate,
    shards: &[OldShard],
    fold: &LogFold,
    manifest: &Manifest,
    walk: WalkState,
    failure: Option<Failure>,
) {
    let checkpoint = &candidate.checkpoint;
    let seed = &mut recovered.seed;
    seed.log_start = fold.log_start;
    seed.base_digest = fold.base_digest;
    seed.next_generation = fold.next_generation;
    seed.end = walk.at.end.max(fold.walk_start.end);
    seed.digest = walk.at.digest;
    seed.epochs = walk.epochs.below(Offset::MAX);
    seed.producers = walk.producers;
    for segment in &fold.segments {
        let walked = walk.segments.iter().find(|walked| walked.name == segment.name);
        let walked_max = walked.map_or(-1, |walked| walked.max_timestamp);
        match segment.sealed {
            Some(mut sealed) => {
                sealed.max_timestamp = sealed.max_timestamp.max(walked_max);
                seed.sealed.push(sealed);
            }
            None => {
                let is_same = manifest.active == Some(segment.name);
                seed.active = Some(ActiveSeed {
                    name: segment.name,
                    length_bytes: walked.map_or(0, |walked| walked.length),
                    max_timestamp: walked_max,
                    since_ms: if is_same { manifest.active_since_ms } else { 0 },
                });
                seed.active_index = walked.map(|walked| walked.index.clone()).unwrap_or_default();
            }
        }
    }
    let lost_end = checkpoint.durable_end > seed.end && !fold.was_truncated;
    let gap = gap_leaves_doubt(shards.get(candidate.shard), fold);
    let reason = match (failure, lost_end, gap) {
        (Some(failure), _, _) => {
            seed.end = failure.confirmed.end;
            Some((failure.confirmed.end, failure.reason))
        }
        (None, true, _) => Some((
            seed.end,
            format!("the log ends at {}, {} was durable", seed.end, checkpoint.durable_end),
        )),
        (None, false, true) => Some((
            seed.end,
            "a round of the journal is missing and none after it confirms this log".to_owned(),
        )),
        _ => None,
    };
    if let Some((from, reason)) = reason {
        // More than is there, if only by the one record that is not known of: so the next start finds it damaged too.
        let expected_end = fold.end.end.max(checkpoint.durable_end);
        let expected_end = expected_end.max(Offset(seed.end.0.saturating_add(1)));
        seed.suspicion = Some(Suspicion { from, expected_end, reason });
    }
    // Earlier damage stays known until somebody repairs it.
    seed.high_watermark = checkpoint.high_watermark.min(seed.end);
}

/// Whether a missing round may have spoken of this log, with no later one to confirm it.
fn gap_leaves_doubt(shard: Option<&OldShard>, fold: &LogFold) -> bool {
    let Some(shard) = shard else { return false };
    let Some(last_gap) = shard.found.gaps.last() else { return false };
    let last_seen = fold
        .last_round_index
        .and_then(|index| shard.found.rounds.get(index))
        .map_or(0, |one| one.round.identity.round);
    last_seen < last_gap.end - 1
}

/// Pass 2: puts the journal's live bytes of one log into its segments and syncs them. Bytes written.
pub(crate) async fn replay(
    disk: &SharedDisk,
    shards: &[OldShard],
    recovered: &mut Recovered,
) -> Result<u64, OpenError> {
    let Some(fold) = &recovered.fold else { return Ok(0) };
    let shard = shards.get(recovered.shard);
    let block = disk.block_bytes() as u64;
    let mut written = 0;
    for (name, ranges) in &fold.ranges {
        let journaled: Vec<&Live> = ranges
            .iter()
            .filter(|live| payload_of(shard, live, live.from, live.end).is_some())
            .collect();
        let Some(last) = journaled.last() else { continue };
        let path = recovered.directory.join(name.file_name());
        let failed = |source| OpenError::Io { doing: "write", path: path.clone(), source };
        let file = match disk.open(&path, OpenMode::Existing).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let limit = last.end.max(ranges.last().map_or(0, |live| live.end));
        let region = Region { file: &file, shard, ranges, limit: align_up(limit, block), block };
        for run in block_runs(&journaled, block) {
            let mut at = run.start;
            while at < run.end {
                let step = run.end.min(at + WINDOW_BYTES);
                let mut bytes = region.read(at, step).await.map_err(failed)?;
                bytes.resize(usize::try_from(step - at).unwrap_or(0), 0);
                if step >= limit {
                    // Behind the described end there is nothing (J28).
                    let keep = usize::try_from(limit.saturating_sub(at)).unwrap_or(0);
                    bytes.truncate(keep);
                }
                let buffer = Buffer::padded_copy(&bytes, disk.block_bytes());
                written += buffer.len() as u64;
                file.write_at(buffer.freeze(), at).await.map_err(failed)?;
                at = step;
            }
        }
        file.sync().await.map_err(failed)?;
        file.close().await.map_err(failed)?;
    }
    Ok(written)
}

/// The blocks that live ranges touch, as few runs as possible: one write of a run costs what one of each append does.
fn block_runs(ranges: &[&Live], block: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for live in ranges {
        let blocks = align_down(live.from, block)..align_up(live.end, block);
        match runs.last_mut() {
            Some(last) if blocks.start <= last.end => last.end = last.end.max(blocks.end),
            _ => runs.push(blocks),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::replay::Source;

    fn live(from: u64, end: u64) -> Live {
        Live { from, end, source: Source::Through { round_index: 0 } }
    }

    #[test]
    fn runs_join_ranges_whose_blocks_touch_and_no_others() {
        let ranges = [live(100, 600), live(600, 1024), live(1024, 1025), live(2100, 2200)];
        let ranges: Vec<&Live> = ranges.iter().collect();
        assert_eq!(block_runs(&ranges, 512), vec![0..1536, 2048..2560]);
        assert_eq!(block_runs(&[], 512), vec![]);
    }

    #[test]
    fn only_what_the_journal_lacks_is_asked_of_the_file() {
        let span = |pieces: &[Range<u64>]| lacking_span(10..100, pieces.iter());
        assert_eq!(span(&[]), 10..100);
        assert!(span(&[10..50, 50..100]).is_empty());
        assert_eq!(span(&[20..80, 80..100]), 10..20);
        assert_eq!(span(&[10..80, 80..90]), 90..100);
        assert_eq!(span(&[15..40, 60..100]), 10..60);
    }
}
