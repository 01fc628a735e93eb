//! `[P]` What a journal says: which rounds are there, and, folded over manifest and checkpoint, what each log must
//! be (J26, J28, J29). Nothing here reads or writes a disk.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as BTreeSlot;
use std::ops::Range;

use levada_record::{Offset, PartitionId, PartitionUid};
use smallvec::SmallVec;

use crate::checkpoint::LogCheckpoint;
use crate::digest::Digest;
use crate::journal::layout::{
    AppendEntry, Entry, Place, Round, RoundAt, decode_round, payload_is_whole,
};
use crate::manifest::{Manifest, SealedSegment};
use crate::planted::{PlantedBug, is_planted};
use crate::segment::layout::{SegmentName, align_down, align_up};

/// A round and where its first byte lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRound {
    /// Index of the journal file in the order given.
    pub file: usize,
    /// Byte in that file.
    pub at: usize,
    /// The round.
    pub round: Round,
}

/// The rounds of one journal that are still needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundRounds {
    /// Ascending, without those below the first needed one.
    pub rounds: Vec<FoundRound>,
    /// Runs of numbers that are missing although a later one is there: corruption. Runs, because without a checkpoint
    /// the first one counts from the shard's first round, and a shard does hundreds of millions a day.
    pub gaps: Vec<Range<u64>>,
}

/// Searches every block of the journal's files for rounds of `shard_uid` and `incarnation` from `first_needed` on.
pub fn find_rounds(
    files: &[&[u8]],
    block_bytes: usize,
    shard_uid: u64,
    incarnation: u64,
    first_needed: u64,
) -> FoundRounds {
    let mut by_number: BTreeMap<u64, FoundRound> = BTreeMap::new();
    for (file, bytes) in files.iter().enumerate() {
        for at in (0..bytes.len()).step_by(block_bytes) {
            let rest = bytes.get(at..).unwrap_or(&[]);
            if let RoundAt::Round(round) = decode_round(rest, shard_uid, incarnation)
                && round.identity.round >= first_needed
                && round.length_bytes <= rest.len()
            {
                let one = FoundRound { file, at, round };
                match by_number.entry(one.round.identity.round) {
                    BTreeSlot::Vacant(slot) => {
                        slot.insert(one);
                    }
                    // A block that also went astray: the round is where its payloads are.
                    BTreeSlot::Occupied(mut slot) => {
                        if !has_whole_payloads(files, slot.get()) {
                            slot.insert(one);
                        }
                    }
                }
            }
        }
    }
    let mut found = FoundRounds::default();
    let mut expected = first_needed;
    let mut previous: Option<u64> = None;
    for (number, one) in by_number {
        let is_linked = previous.is_none_or(|sum| sum == one.round.identity.previous);
        if number != expected || !is_linked {
            let missing = if number == expected { number - 1..number } else { expected..number };
            found.gaps.push(missing);
            if is_planted(PlantedBug::CutByPattern) {
                found.gaps.clear();
                return found;
            }
        }
        expected = number.saturating_add(1);
        previous = Some(one.round.checksum);
        found.rounds.push(one);
    }
    found
}

fn has_whole_payloads(files: &[&[u8]], one: &FoundRound) -> bool {
    let bytes = files.get(one.file).and_then(|file| file.get(one.at..)).unwrap_or(&[]);
    one.round.entries.iter().all(|(entry, at)| match entry {
        Entry::Append(append) => usize::try_from(append.payload_bytes())
            .ok()
            .and_then(|len| bytes.get(*at..at.checked_add(len)?))
            .is_some_and(|payload| payload_is_whole(append, payload)),
        _ => true,
    })
}

/// Where live bytes of a segment come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// They stand in the journal: index into [`FoundRounds::rounds`], and byte relative to the round's first.
    Journal {
        /// Which round.
        round_index: usize,
        /// Where in it.
        at: usize,
        /// Whether the payload's checksum was right.
        is_whole: bool,
    },
    /// They were written straight to the segment.
    Through {
        /// Which round.
        round_index: usize,
    },
}

/// Bytes `from..end` of a segment that must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// First byte.
    pub from: u64,
    /// Exclusive end.
    pub end: u64,
    /// Where they come from.
    pub source: Source,
}

/// A segment in a folded log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldedSegment {
    /// Which file.
    pub name: SegmentName,
    /// Length and digest at the end, once sealed; with what the manifest knew.
    pub sealed: Option<SealedSegment>,
}

/// A boundary that a round vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// Exclusive end of the offsets.
    pub end: Offset,
    /// The digest there.
    pub digest: Digest,
}

/// What one log must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFold {
    /// Which partition.
    pub partition: PartitionId,
    /// Its uid.
    pub uid: PartitionUid,
    /// First offset kept.
    pub log_start: Offset,
    /// Digest at the base of the oldest segment.
    pub base_digest: Digest,
    /// Generation for the next segment.
    pub next_generation: u32,
    /// In order; the last one is active.
    pub segments: Vec<FoldedSegment>,
    /// From here on the bytes are to be verified; `None` when the log has no segment.
    pub walk_from: Option<Place>,
    /// Offset and digest at `walk_from`.
    pub walk_start: Expectation,
    /// Exclusive end of the log, and the digest there.
    pub end: Expectation,
    /// Where that is.
    pub end_place: Option<Place>,
    /// Live ranges per segment, ascending and disjoint.
    pub ranges: BTreeMap<SegmentName, Vec<Live>>,
    /// Every boundary that a round vouches for and that no later round cut off, ascending.
    pub expectations: Vec<Expectation>,
    /// Whether rounds brought facts that the manifest lacks.
    pub has_new_facts: bool,
    /// Whether a truncation explains an end below what was durable.
    pub was_truncated: bool,
    /// The last round that spoke of the log: index into the rounds.
    pub last_round_index: Option<usize>,
    /// The last round that appended to the log: index into the rounds.
    pub last_append_index: Option<usize>,
    /// How many of the last expectations are that round's.
    pub last_append_count: usize,
    /// First offset that the last round of all appended here, when it did.
    manifest_round: u64,
}

impl LogFold {
    /// The state as of manifest and checkpoint. `manifest_round` is the last round of this incarnation that the
    /// manifest has folded in: 0 for a manifest of an earlier one, `u64::MAX` for one of a later one.
    pub fn new(checkpoint: &LogCheckpoint, manifest: &Manifest, manifest_round: u64) -> Self {
        let mut segments: Vec<FoldedSegment> = manifest
            .sealed
            .iter()
            .map(|sealed| FoldedSegment { name: sealed.name, sealed: Some(*sealed) })
            .collect();
        segments.extend(manifest.active.map(|name| FoldedSegment { name, sealed: None }));
        let start = Expectation { end: checkpoint.offset, digest: checkpoint.digest };
        Self {
            partition: checkpoint.partition,
            uid: checkpoint.uid,
            log_start: manifest.log_start,
            base_digest: manifest.base_digest,
            next_generation: manifest.next_generation,
            segments,
            walk_from: checkpoint.place,
            walk_start: start,
            end: start,
            end_place: checkpoint.place,
            ranges: BTreeMap::new(),
            expectations: Vec::new(),
            has_new_facts: false,
            was_truncated: false,
            last_round_index: None,
            last_append_index: None,
            last_append_count: 0,
            manifest_round,
        }
    }

    /// Folds one entry of round `number` in. `payload_at` is the byte of its payload in the round.
    pub fn apply(
        &mut self,
        number: u64,
        round_index: usize,
        entry: &Entry,
        payload_at: usize,
        is_whole: bool,
    ) {
        self.last_round_index = Some(round_index);
        let is_new = number > self.manifest_round;
        match *entry {
            Entry::Append(append) => {
                self.append(&append, is_new, round_index, payload_at, is_whole);
            }
            Entry::Truncate { end, place, digest, .. } => {
                self.was_truncated = true;
                self.truncate(Expectation { end, digest }, place, is_new);
            }
            Entry::LogStart { start, .. } => {
                if is_new {
                    self.has_new_facts = true;
                    self.advance_start(start);
                }
            }
            Entry::Roll { sealed, digest, next, .. } => {
                if is_new {
                    self.has_new_facts = true;
                    if let Some(active) = self.segments.last_mut()
                        && active.name == sealed.segment
                    {
                        active.sealed = Some(SealedSegment {
                            name: sealed.segment,
                            length_bytes: sealed.byte,
                            end: next.base,
                            digest,
                            max_timestamp: -1,
                        });
                    }
                    self.push_segment(next);
                }
                self.end_place = Some(Place { segment: next, byte: 0 });
            }
            Entry::Created { .. } | Entry::Removed { .. } => {}
        }
    }

    fn push_segment(&mut self, name: SegmentName) {
        if !self.segments.iter().any(|segment| segment.name == name) {
            self.segments.push(FoldedSegment { name, sealed: None });
        }
        self.next_generation = self.next_generation.max(name.generation + 1);
    }

    fn append(
        &mut self,
        append: &AppendEntry,
        is_new: bool,
        round_index: usize,
        payload_at: usize,
        is_whole: bool,
    ) {
        if self.segments.is_empty() && is_new {
            // The log's very first segment is born by being written.
            self.has_new_facts = true;
            self.push_segment(append.segment);
            self.walk_from.get_or_insert(Place { segment: append.segment, byte: 0 });
        }
        if self.walk_from.is_none() {
            self.walk_from = Some(Place { segment: append.segment, byte: 0 });
        }
        let head = append.through_start - append.byte_start;
        let second_at = payload_at + usize::try_from(head).unwrap_or(0);
        let ranges = self.ranges.entry(append.segment).or_default();
        let pieces = [
            (append.byte_start, append.through_start, Some(payload_at)),
            (append.through_start, append.through_end, None),
            (append.through_end, append.byte_end, Some(second_at)),
        ];
        for (from, end, journaled) in pieces {
            let source = match journaled {
                Some(at) => Source::Journal { round_index, at, is_whole },
                None => Source::Through { round_index },
            };
            overlay(ranges, Live { from, end, source });
        }
        let is_same_round = self.last_append_index.replace(round_index) == Some(round_index);
        self.last_append_count = if is_same_round { self.last_append_count + 1 } else { 1 };
        self.end = Expectation { end: append.end, digest: append.digest };
        self.end_place = Some(Place { segment: append.segment, byte: append.byte_end });
        self.expectations.push(self.end);
    }

    fn truncate(&mut self, to: Expectation, place: Place, is_new: bool) {
        for (name, ranges) in &mut self.ranges {
            if *name == place.segment {
                cut(ranges, place.byte);
            } else if name.base >= place.segment.base && *name > place.segment {
                ranges.clear();
            }
        }
        self.expectations.retain(|expectation| expectation.end <= to.end);
        self.last_append_count = 0;
        if is_new {
            self.has_new_facts = true;
            if let Some(index) = self.segments.iter().position(|s| s.name == place.segment) {
                self.segments.truncate(index + 1);
                if let Some(active) = self.segments.last_mut() {
                    active.sealed = None;
                }
            }
        }
        self.end = to;
        self.end_place = Some(place);
        if to.end < self.walk_start.end {
            self.walk_start = to;
            self.walk_from = Some(place);
        }
    }

    fn advance_start(&mut self, start: Offset) {
        self.log_start = self.log_start.max(start);
        let last = self.segments.len().saturating_sub(1);
        let log_start = self.log_start;
        let dead = self
            .segments
            .iter()
            .take(last)
            .take_while(|segment| segment.sealed.is_some_and(|sealed| sealed.end <= log_start))
            .count();
        for segment in self.segments.drain(..dead) {
            if let Some(sealed) = segment.sealed {
                self.base_digest = sealed.digest;
            }
        }
    }

    /// The log's digest where `segment` begins.
    pub fn digest_at_base(&self, segment: SegmentName) -> Digest {
        let before = self.segments.iter().take_while(|other| other.name != segment);
        before.filter_map(|other| other.sealed).last().map_or(self.base_digest, |s| s.digest)
    }

    /// Begins the walk at the log's very first byte.
    pub fn walk_whole(&mut self) {
        if let Some(first) = self.segments.first() {
            self.walk_from = Some(Place { segment: first.name, byte: 0 });
            self.walk_start = Expectation { end: first.name.base, digest: self.base_digest };
        }
    }

    /// Drops what belongs to segments that are gone, and begins the walk where the log begins now.
    pub fn finish(&mut self, block_bytes: u64) {
        let segments = &self.segments;
        self.ranges.retain(|name, ranges| {
            !ranges.is_empty() && segments.iter().any(|segment| segment.name == *name)
        });
        let Some(first) = segments.first().map(|segment| segment.name) else {
            self.walk_from = None;
            self.end_place = None;
            return;
        };
        let is_gone = |place: &Place| !segments.iter().any(|s| s.name == place.segment);
        if self.walk_from.as_ref().is_none_or(is_gone) {
            self.walk_from = Some(Place { segment: first, byte: 0 });
            self.walk_start = Expectation { end: first.base, digest: self.base_digest };
        }
        if self.end.end < first.base {
            self.end = Expectation { end: first.base, digest: self.base_digest };
        }
        if self.end_place.as_ref().is_none_or(is_gone) {
            self.end_place = Some(Place { segment: first, byte: 0 });
        }
        self.forget_synced(block_bytes);
    }

    /// What lies below the checkpoint is in the segments. It must not be written again: the journal may have let go of
    /// the other bytes of its first block already, and a crash while that block is written would take them (J11).
    fn forget_synced(&mut self, block_bytes: u64) {
        let Some(place) = self.walk_from else { return };
        for (name, ranges) in &mut self.ranges {
            if *name == place.segment {
                let first = align_down(place.byte, block_bytes);
                let from = if is_journaled(ranges, first, place.byte) {
                    first
                } else {
                    align_up(place.byte, block_bytes)
                };
                cut_front(ranges, from);
            } else if *name < place.segment {
                ranges.clear();
            }
        }
    }
}

/// Puts `live` over what was there: later rounds win.
fn overlay(ranges: &mut Vec<Live>, live: Live) {
    if live.from == live.end {
        return;
    }
    // Nearly always behind all others: found without looking at them.
    let first = ranges.partition_point(|old| old.end <= live.from);
    let touched = ranges.get(first..).unwrap_or(&[]);
    let touched = touched.get(..touched.partition_point(|old| old.from < live.end)).unwrap_or(&[]);
    let before = touched.first().filter(|old| old.from < live.from);
    let after = touched.last().filter(|old| old.end > live.end);
    let pieces: SmallVec<[Live; 3]> = [
        before.map(|old| Live { end: live.from, ..*old }),
        Some(live),
        after.map(|old| Live {
            from: live.end,
            source: moved(old.source, live.end - old.from),
            ..*old
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    let replaced = first..first + touched.len();
    ranges.splice(replaced, pieces);
}

fn cut(ranges: &mut Vec<Live>, byte: u64) {
    ranges.retain(|live| live.from < byte);
    for live in ranges {
        live.end = live.end.min(byte);
    }
}

fn cut_front(ranges: &mut Vec<Live>, byte: u64) {
    ranges.retain(|live| live.end > byte);
    for live in ranges {
        if live.from < byte {
            live.source = moved(live.source, byte - live.from);
            live.from = byte;
        }
    }
}

/// Whether the journal has all of `from..end`.
fn is_journaled(ranges: &[Live], from: u64, end: u64) -> bool {
    let mut at = from;
    for live in ranges.iter().filter(|live| live.end > from && live.from < end) {
        let is_whole = matches!(live.source, Source::Journal { is_whole: true, .. });
        if live.from > at || !is_whole {
            break;
        }
        at = live.end;
    }
    at >= end
}

fn moved(source: Source, by: u64) -> Source {
    match source {
        Source::Journal { round_index, at, is_whole } => {
            let at = at + usize::try_from(by).unwrap_or(0);
            Source::Journal { round_index, at, is_whole }
        }
        through @ Source::Through { .. } => through,
    }
}

#[cfg(test)]
mod tests;
