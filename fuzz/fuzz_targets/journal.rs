//! Journal files, damaged in any way, through the search for rounds and the fold over what it finds.
//!
//! The first byte says what the files hold: any bytes; any headers and tables behind sound checksums, because a checksum
//! keeps the fuzzer out of all that lies behind it; or a few chained rounds as the engine writes them, with blocks
//! flipped, cut, swapped, copied and lost. Of the last kind the target remembers what it wrote.
#![no_main]

use std::collections::BTreeMap;

use levada_engine::Digest;
use levada_engine::checkpoint::LogCheckpoint;
use levada_engine::journal::layout::{
    AppendEntry, Entry, Place, ROUND_HEADER_BYTES, ROUND_MAGIC, ROUND_VERSION, RoundIdentity,
    encode_round, payload_is_whole,
};
use levada_engine::journal::replay::{FoundRound, FoundRounds, Live, LogFold, Source, find_rounds};
use levada_engine::manifest::{Manifest, SealedSegment};
use levada_engine::segment::layout::SegmentName;
use levada_record::{Offset, PartitionId, PartitionIndex, PartitionUid, TopicId};
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const SHARD_UID: u64 = 7;
const INCARNATION: u64 = 3;
const FILES_MAX: usize = 3;
const ROUNDS_MAX: usize = 8;
const ENTRIES_MAX: u8 = 5;
const MUTATIONS_MAX: u8 = 6;
/// Segments in which appended bytes lie end before this.
const SEGMENT_BYTES: u64 = 512;
/// Journal files are about as long as this, in bytes.
const FILE_BYTES: usize = 16 << 10;
/// Smaller blocks than on a disk, so that a short input has many. The search takes any.
const BLOCK_BYTES: [usize; 4] = [64, 128, 512, 4096];

fuzz_target!(|data: &[u8]| {
    let mut input = Input { rest: data };
    let choice = input.byte();
    let block = BLOCK_BYTES[usize::from(choice / 4) % BLOCK_BYTES.len()];
    match choice % 4 {
        0 => any_bytes(&mut input, block),
        1 => any_tables(&mut input, block),
        _ => written_rounds(&mut input, block),
    }
});

/// The fuzzer's bytes, taken from the front; zeros when they are used up.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    /// A small number most of the time, any one else.
    fn any_number(&mut self) -> u64 {
        match self.byte() {
            255 => self.number(),
            254 => u64::MAX - u64::from(self.byte()),
            small => u64::from(small),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        let wide = u64::from(self.byte()) << 8 | u64::from(self.byte());
        wide % bound.max(1)
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (now, later) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = later;
        now
    }
}

fn any_bytes(input: &mut Input<'_>, block: usize) {
    let first_needed = input.any_number();
    let piece = usize::from(input.byte()) * 32 + 1;
    let files: Vec<&[u8]> =
        input.rest.chunks(piece.max(input.rest.len() / FILES_MAX + 1)).collect();
    let found = check_found(&files, block, first_needed);
    check_folds(&files, &found, block, u64::from(files.len() as u32));
}

/// Headers and tables of the fuzzer's making, sealed: what a bug in the writer, or a checksum that happens to fit,
/// would leave.
fn any_tables(input: &mut Input<'_>, block: usize) {
    let first_needed = input.any_number();
    let manifest_round = input.any_number();
    let mut file = Vec::new();
    let mut previous = 0;
    for _ in 0..ROUNDS_MAX {
        if input.rest.is_empty() {
            break;
        }
        let identity = [
            if input.byte() == 255 { input.number() } else { SHARD_UID },
            if input.byte() == 255 { input.number() } else { INCARNATION },
            input.any_number(),
        ];
        let table_bytes = usize::from(input.byte());
        let count = u32::from(input.byte());
        let payload_bytes = u32::try_from(input.any_number()).unwrap_or(u32::MAX);
        let lied_length = input.byte();
        let table = input.bytes(table_bytes);
        let used = ROUND_HEADER_BYTES + table.len() + usize::try_from(payload_bytes).unwrap_or(0);
        let length = match lied_length {
            255 => u32::MAX,
            short => (used as u32).saturating_sub(u32::from(short / 16)),
        };
        let at = file.len();
        file.extend_from_slice(&ROUND_MAGIC);
        file.extend_from_slice(&ROUND_VERSION.to_le_bytes());
        file.extend_from_slice(&[0; 2]);
        for field in identity {
            file.extend_from_slice(&field.to_le_bytes());
        }
        for field in [length, table.len() as u32, count, payload_bytes] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        file.extend_from_slice(&u64::to_le_bytes(previous));
        let mut hasher = Xxh3::new();
        hasher.update(&file[at..]);
        hasher.update(table);
        previous = hasher.digest();
        file.extend_from_slice(&previous.to_le_bytes());
        file.extend_from_slice(table);
        let payload = input.bytes(usize::try_from(payload_bytes.min(4096)).unwrap_or(0));
        file.extend_from_slice(payload);
        file.resize(file.len().next_multiple_of(block), 0);
    }
    let files = [&file[..]];
    let found = check_found(&files, block, first_needed);
    check_folds(&files, &found, block, manifest_round);
}

/// Searches, and checks what holds of any answer.
fn check_found(files: &[&[u8]], block: usize, first_needed: u64) -> FoundRounds {
    let found = find_rounds(files, block, SHARD_UID, INCARNATION, first_needed);
    let bytes: usize = files.iter().map(|file| file.len()).sum();
    // Nothing grows with the numbers in the headers: each run of missing rounds has a round behind it.
    assert!(found.rounds.len() <= bytes.div_ceil(block).max(1) + files.len());
    assert!(found.gaps.len() <= found.rounds.len());
    let mut expected = first_needed;
    for one in &found.rounds {
        let identity = one.round.identity;
        assert_eq!((identity.shard_uid, identity.incarnation), (SHARD_UID, INCARNATION));
        assert!(identity.round >= expected, "ascending");
        let is_known_gap = |number: u64| found.gaps.iter().any(|gap| gap.contains(&number));
        if identity.round > expected {
            assert!(is_known_gap(expected), "round {expected} is missing and nobody says so");
            assert!(is_known_gap(identity.round - 1));
        }
        expected = identity.round.saturating_add(1);
        assert!(one.round.length_bytes <= files[one.file].len() - one.at, "it ends in its file");
        for (entry, at) in &one.round.entries {
            if let Entry::Append(append) = entry {
                let payload = payload(files, one, *at, append.payload_bytes());
                assert!(payload.is_some(), "a payload ends in its round");
            }
        }
    }
    found
}

fn payload<'a>(files: &[&'a [u8]], one: &FoundRound, at: usize, len: u64) -> Option<&'a [u8]> {
    let end = at.checked_add(usize::try_from(len).ok()?)?;
    files[one.file][one.at..].get(..one.round.length_bytes)?.get(at..end)
}

/// Folds every log that the rounds speak of, over a log that was never written and over one with a past.
fn check_folds(files: &[&[u8]], found: &FoundRounds, block: usize, manifest_round: u64) {
    let mut uids: Vec<PartitionUid> = Vec::new();
    for (entry, _) in found.rounds.iter().flat_map(|one| &one.round.entries) {
        if !uids.contains(&entry.uid()) {
            uids.push(entry.uid());
        }
    }
    for uid in uids {
        check_fold(files, found, &fold(files, found, uid, &never_written(uid), 0, block));
        let past = with_a_past(uid);
        check_fold(files, found, &fold(files, found, uid, &past, manifest_round, block));
    }
}

fn segment(index: u64) -> SegmentName {
    let generation = u32::try_from(index).unwrap_or(0);
    SegmentName { base: Offset(i64::from(generation) * 16), generation }
}

fn never_written(uid: PartitionUid) -> (LogCheckpoint, Manifest) {
    let partition = PartitionId::new(TopicId::ZERO, PartitionIndex(0));
    let checkpoint = LogCheckpoint::empty(partition, uid);
    (checkpoint, Manifest::empty(INCARNATION, 0))
}

fn with_a_past(uid: PartitionUid) -> (LogCheckpoint, Manifest) {
    let (checkpoint, manifest) = never_written(uid);
    let place = Some(Place { segment: segment(1), byte: 300 });
    let sealed = SealedSegment {
        name: segment(0),
        length_bytes: 700,
        end: segment(1).base,
        digest: Digest::from_raw(1),
        max_timestamp: -1,
    };
    let checkpoint = LogCheckpoint { place, offset: Offset(20), ..checkpoint };
    let active = Some(segment(1));
    let manifest = Manifest { sealed: vec![sealed], active, next_generation: 2, ..manifest };
    (checkpoint, manifest)
}

/// As the recovery folds.
fn fold(
    files: &[&[u8]],
    found: &FoundRounds,
    uid: PartitionUid,
    (checkpoint, manifest): &(LogCheckpoint, Manifest),
    manifest_round: u64,
    block: usize,
) -> LogFold {
    let mut fold = LogFold::new(checkpoint, manifest, manifest_round);
    for (index, one) in found.rounds.iter().enumerate() {
        for (entry, at) in one.round.entries.iter().filter(|(entry, _)| entry.uid() == uid) {
            let is_whole = is_whole(files, one, entry, *at);
            fold.apply(one.round.identity.round, index, entry, *at, is_whole);
        }
    }
    fold.finish(block as u64);
    fold
}

fn is_whole(files: &[&[u8]], one: &FoundRound, entry: &Entry, at: usize) -> bool {
    match entry {
        Entry::Append(append) => payload(files, one, at, append.payload_bytes())
            .is_some_and(|payload| payload_is_whole(append, payload)),
        _ => true,
    }
}

/// What the recovery relies on: live ranges are ascending and disjoint, in segments of the log, and what is said to stand
/// in the journal does.
fn check_fold(files: &[&[u8]], found: &FoundRounds, fold: &LogFold) {
    let has = |name: SegmentName| fold.segments.iter().any(|segment| segment.name == name);
    assert_eq!(fold.walk_from.is_some(), !fold.segments.is_empty());
    for place in [fold.walk_from, fold.end_place].into_iter().flatten() {
        assert!(has(place.segment));
    }
    for (name, ranges) in &fold.ranges {
        assert!(has(*name));
        let mut end = 0;
        for live in ranges {
            assert!(end <= live.from);
            assert!(live.from < live.end);
            end = live.end;
            match live.source {
                Source::Journal { .. } => {
                    assert!(journaled(files, found, live).is_some(), "{live:?}");
                }
                Source::Through { round_index } => assert!(round_index < found.rounds.len()),
            }
        }
    }
}

fn journaled<'a>(files: &[&'a [u8]], found: &FoundRounds, live: &Live) -> Option<&'a [u8]> {
    let Source::Journal { round_index, at, .. } = live.source else { return None };
    payload(files, found.rounds.get(round_index)?, at, live.end - live.from)
}

/// A round that was written: where, and what.
struct Written {
    file: usize,
    at: usize,
    identity: RoundIdentity,
    entries: Vec<Entry>,
    /// Header and table, then payloads.
    bytes: Vec<u8>,
    head_bytes: usize,
    length_bytes: usize,
    checksum: u64,
}

/// The ring while it is filled: every file of the same length, entered one after the other.
struct Ring {
    files: Vec<Vec<u8>>,
    file: usize,
    at: usize,
}

impl Ring {
    fn write(&mut self, written: &mut Written) -> bool {
        while self.files.get(self.file).is_some_and(|f| self.at + written.length_bytes > f.len()) {
            self.file += 1;
            self.at = 0;
        }
        let Some(file) = self.files.get_mut(self.file) else { return false };
        let place = &mut file[self.at..self.at + written.length_bytes];
        place.fill(0);
        place[..written.bytes.len()].copy_from_slice(&written.bytes);
        (written.file, written.at) = (self.file, self.at);
        self.at += written.length_bytes;
        true
    }
}

fn written_rounds(input: &mut Input<'_>, block: usize) {
    let file_blocks = 2 + usize::from(input.byte()) % (FILE_BYTES / block).min(30);
    let files = 1 + usize::from(input.byte()) % FILES_MAX;
    let first_needed = 1 + u64::from(input.byte() % 4);
    let empty = vec![vec![0; file_blocks * block]; files];
    let mut ring = Ring { files: empty, file: 0, at: 0 };
    // What an earlier start left in the files that are used again now.
    for round in 1..=u64::from(input.byte() % 4) {
        let identity = RoundIdentity {
            shard_uid: SHARD_UID,
            incarnation: INCARNATION - 1,
            round,
            previous: 0,
        };
        if !ring.write(&mut new_round(input, identity, block)) {
            break;
        }
    }
    let before = ring.files.clone();
    (ring.file, ring.at) = (0, 0);
    let mut written: Vec<Written> = Vec::new();
    for round in 1..=u64::from(input.byte()) % ROUNDS_MAX as u64 {
        let previous = written.last().map_or(0, |last| last.checksum);
        let identity =
            RoundIdentity { shard_uid: SHARD_UID, incarnation: INCARNATION, round, previous };
        let mut one = new_round(input, identity, block);
        if !ring.write(&mut one) {
            break;
        }
        written.push(one);
    }
    let mut files = ring.files;
    for _ in 0..input.byte() % (MUTATIONS_MAX + 1) {
        mutate(input, &mut files, &before, block);
    }
    let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let found = check_found(&files, block, first_needed);
    check_against_written(&files, &found, &written, first_needed);
    check_folds(&files, &found, block, first_needed);
    for uid in [PartitionUid(1), PartitionUid(2)] {
        check_live_bytes(&files, &found, &written, uid, block);
    }
}

/// A round as [`encode_round`] makes it, with entries that are ordered but otherwise the fuzzer's.
fn new_round(input: &mut Input<'_>, identity: RoundIdentity, block: usize) -> Written {
    let mut entries = Vec::new();
    let mut payloads = Vec::new();
    for _ in 0..input.byte() % (ENTRIES_MAX + 1) {
        let entry = new_entry(input, &mut payloads);
        entries.push(entry);
    }
    let head = encode_round(identity, &entries, block);
    let head_bytes = head.bytes.len();
    let mut bytes = head.bytes;
    bytes.extend_from_slice(&payloads);
    assert!(bytes.len() <= head.length_bytes);
    Written {
        file: 0,
        at: 0,
        identity,
        entries,
        bytes,
        head_bytes,
        length_bytes: head.length_bytes,
        checksum: head.checksum,
    }
}

fn new_entry(input: &mut Input<'_>, payloads: &mut Vec<u8>) -> Entry {
    let kind = input.byte();
    let uid = PartitionUid(1 + u64::from(kind / 16 % 2));
    let name = segment(u64::from(kind / 32 % 4));
    let offset = Offset(i64::from(input.byte()));
    let digest = Digest::from_raw(u64::from(kind));
    match kind % 16 {
        0 => Entry::Truncate {
            uid,
            end: offset,
            place: Place { segment: name, byte: input.below(SEGMENT_BYTES) },
            digest,
        },
        1 => Entry::LogStart { uid, start: offset },
        2 => Entry::Roll {
            uid,
            sealed: Place { segment: name, byte: input.below(SEGMENT_BYTES) },
            digest,
            next: segment(u64::from(kind / 32 % 4 + 1)),
        },
        3 => Entry::Created {
            uid,
            partition: PartitionId::new(TopicId::ZERO, PartitionIndex(i32::from(kind))),
        },
        4 => Entry::Removed { uid },
        _ => {
            let mut bytes = [(); 4].map(|()| input.below(SEGMENT_BYTES));
            bytes.sort_unstable();
            let [byte_start, through_start, mut through_end, mut byte_end] = bytes;
            if kind % 2 == 0 {
                // Journaled, and short: nothing goes through.
                byte_end = byte_start + (byte_end - byte_start) / 8;
                through_end = byte_end;
            }
            let through_start = through_start.min(byte_end);
            let through_start = if kind % 2 == 0 { byte_end } else { through_start };
            let mut entry = AppendEntry {
                uid,
                first: Offset(0),
                end: offset,
                segment: name,
                byte_start,
                byte_end,
                through_start,
                through_end,
                digest,
                payload_checksum: 0,
            };
            let len = usize::try_from(entry.payload_bytes()).unwrap_or(0);
            let seed = input.byte();
            let payload: Vec<u8> = (0..len).map(|i| seed.wrapping_add(i as u8)).collect();
            entry.payload_checksum = xxh3_64(&payload);
            payloads.extend_from_slice(&payload);
            Entry::Append(entry)
        }
    }
}

/// What happens to files: rot, torn and lost and misdirected writes, files cut short.
fn mutate(input: &mut Input<'_>, files: &mut [Vec<u8>], before: &[Vec<u8>], block: usize) {
    let kind = input.byte();
    let file = usize::from(input.byte()) % files.len();
    let other = usize::from(input.byte()) % files.len();
    let position = input.below(files[file].len() as u64) as usize;
    let start = position - position % block;
    let end = (start + block).min(files[file].len());
    let other_start = input.below(files[other].len() as u64) as usize / block * block;
    let other_end = (other_start + block).min(files[other].len());
    match kind % 7 {
        0 => {
            let bit = 1 << (kind / 32);
            if let Some(byte) = files[file].get_mut(position) {
                *byte ^= bit;
            }
        }
        1 => files[file].truncate(position),
        2 => files[file][position..].fill(kind),
        3 => files[file][start..end].fill(0),
        // The block never reached the disk.
        4 => {
            let old = before[file].get(start..end).unwrap_or(&[]).to_vec();
            files[file][start..start + old.len()].copy_from_slice(&old);
        }
        // The block went to another place as well, or instead of what was there.
        5 => {
            let copy = files[file][start..end].to_vec();
            let len = copy.len().min(other_end - other_start);
            files[other][other_start..other_start + len].copy_from_slice(&copy[..len]);
        }
        _ => {
            let one = files[file][start..end].to_vec();
            let two = files[other][other_start..other_end].to_vec();
            let len = one.len().min(two.len());
            files[other][other_start..other_start + len].copy_from_slice(&one[..len]);
            files[file][start..start + len].copy_from_slice(&two[..len]);
        }
    }
}

/// Nothing is found that was not written, nothing that is still there is missed, and no payload is believed that differs.
fn check_against_written(
    files: &[&[u8]],
    found: &FoundRounds,
    written: &[Written],
    first_needed: u64,
) {
    for one in &found.rounds {
        let identity = one.round.identity;
        let original = written.iter().find(|w| w.identity.round == identity.round);
        let original = original.expect("a round that nobody wrote");
        assert_eq!(identity, original.identity);
        let mut end = original.head_bytes;
        assert_eq!(
            (one.round.length_bytes, one.round.checksum),
            (original.length_bytes, original.checksum)
        );
        assert_eq!(one.round.entries.len(), original.entries.len());
        for ((entry, at), expected) in one.round.entries.iter().zip(&original.entries) {
            assert_eq!(entry, expected);
            let Entry::Append(append) = entry else { continue };
            assert_eq!(*at, end);
            end += usize::try_from(append.payload_bytes()).unwrap_or(usize::MAX);
            let seen = payload(files, one, *at, append.payload_bytes()).unwrap_or(&[]);
            let is_same = seen == &original.bytes[*at..end];
            assert_eq!(payload_is_whole(append, seen), is_same);
        }
    }
    for original in written.iter().filter(|w| w.identity.round >= first_needed) {
        let number = original.identity.round;
        let one = found.rounds.iter().find(|one| one.round.identity.round == number);
        let place = files[original.file].get(original.at..original.at + original.length_bytes);
        let is_there = |len: usize| place.is_some_and(|p| p[..len] == original.bytes[..len]);
        if is_there(original.head_bytes) {
            let one = one.unwrap_or_else(|| panic!("round {number} is there and was not found"));
            if is_there(original.bytes.len()) {
                for (entry, at) in &one.round.entries {
                    assert!(is_whole(files, one, entry, *at), "a worse copy of round {number} won");
                }
            }
        }
    }
}

/// The fold against a plain replay, byte by byte: every byte that is to be written into a segment is the one that was
/// appended last and not cut off since.
fn check_live_bytes(
    files: &[&[u8]],
    found: &FoundRounds,
    written: &[Written],
    uid: PartitionUid,
    block: usize,
) {
    let mut plain: BTreeMap<SegmentName, BTreeMap<u64, Option<u8>>> = BTreeMap::new();
    for one in &found.rounds {
        let number = one.round.identity.round;
        let Some(original) = written.iter().find(|w| w.identity.round == number) else { continue };
        for (entry, at) in one.round.entries.iter().filter(|(entry, _)| entry.uid() == uid) {
            match entry {
                Entry::Append(append) => {
                    let bytes = plain.entry(append.segment).or_default();
                    let mut payload = original.bytes[*at..].iter().copied();
                    for byte in append.byte_start..append.byte_end {
                        let is_through = (append.through_start..append.through_end).contains(&byte);
                        bytes.insert(byte, if is_through { None } else { payload.next() });
                    }
                }
                Entry::Truncate { place, .. } => {
                    plain.retain(|name, _| *name <= place.segment);
                    if let Some(bytes) = plain.get_mut(&place.segment) {
                        bytes.retain(|byte, _| *byte < place.byte);
                    }
                }
                _ => {}
            }
        }
    }
    let fold = fold(files, found, uid, &never_written(uid), 0, block);
    let walk_from = fold.walk_from.map(|place| place.segment);
    for name in fold.segments.iter().map(|segment| segment.name) {
        let mut seen: BTreeMap<u64, Option<u8>> = BTreeMap::new();
        for live in fold.ranges.get(&name).into_iter().flatten() {
            let bytes = journaled(files, found, live);
            let is_damaged = matches!(live.source, Source::Journal { is_whole: false, .. });
            for (index, byte) in (live.from..live.end).enumerate() {
                let expected = plain.get(&name).and_then(|bytes| bytes.get(&byte)).copied();
                let expected = expected.expect("a byte that nobody appended");
                match bytes {
                    Some(bytes) if !is_damaged => assert_eq!(Some(bytes[index]), expected),
                    Some(_) => assert!(expected.is_some()),
                    None => assert_eq!(expected, None),
                }
                seen.insert(byte, expected);
            }
        }
        // What lies below the walk is in the segments already.
        if walk_from.is_some_and(|first| name >= first)
            && fold.walk_from.is_some_and(|p| p.byte == 0)
        {
            let all = plain.remove(&name).unwrap_or_default();
            assert_eq!(seen, all, "live bytes of {name:?}");
        }
    }
}
