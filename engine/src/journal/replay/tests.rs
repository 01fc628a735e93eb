use super::*;
use crate::fields::{FieldError, checksum};
use crate::journal::layout::{RoundIdentity, encode_round, payload_is_whole};
use crate::producers::Producers;
use levada_record::{PartitionIndex, TopicId};

const SEGMENT: SegmentName = SegmentName { base: Offset(0), generation: 0 };

fn checkpoint(byte: u64, offset: i64) -> LogCheckpoint {
    LogCheckpoint {
        partition: PartitionId::new(TopicId::ZERO, PartitionIndex(0)),
        uid: PartitionUid(1),
        place: Some(Place { segment: SEGMENT, byte }),
        offset: Offset(offset),
        digest: Digest::from_raw(offset.cast_unsigned()),
        durable_end: Offset(offset),
        high_watermark: Offset(0),
        max_timestamp: -1,
        producers: Producers::default(),
    }
}

fn fold_at(byte: u64, offset: i64) -> LogFold {
    let manifest = Manifest { active: Some(SEGMENT), next_generation: 1, ..Manifest::empty(1, 0) };
    LogFold::new(&checkpoint(byte, offset), &manifest, 0)
}

fn append(bytes: (u64, u64), through: Option<(u64, u64)>, offsets: (i64, i64)) -> Entry {
    let (through_start, through_end) = through.unwrap_or((bytes.1, bytes.1));
    Entry::Append(AppendEntry {
        uid: PartitionUid(1),
        first: Offset(offsets.0),
        end: Offset(offsets.1),
        segment: SEGMENT,
        byte_start: bytes.0,
        byte_end: bytes.1,
        through_start,
        through_end,
        digest: Digest::from_raw(offsets.1.cast_unsigned()),
        payload_checksum: 0,
    })
}

fn truncate(byte: u64, end: i64) -> Entry {
    Entry::Truncate {
        uid: PartitionUid(1),
        end: Offset(end),
        place: Place { segment: SEGMENT, byte },
        digest: Digest::from_raw(end.cast_unsigned()),
    }
}

fn ranges(entries: &[Entry]) -> Vec<(u64, u64, Option<usize>)> {
    let mut fold = fold_at(0, 0);
    for (index, entry) in entries.iter().enumerate() {
        fold.apply(101 + index as u64, index, entry, 0, true);
    }
    fold.finish(4096);
    fold.ranges
        .get(&SEGMENT)
        .into_iter()
        .flatten()
        .map(|live| match live.source {
            Source::Journal { round_index, .. } => (live.from, live.end, Some(round_index)),
            Source::Through { .. } => (live.from, live.end, None),
        })
        .collect()
}

#[test]
fn a_later_write_through_hides_the_journaled_bytes_below_it() {
    // Schedule 2: replaying the first round must not wipe what the second put through.
    let seen = ranges(&[
        append((0, 100), None, (0, 1)),
        append((0, 131_072), Some((4096, 131_072)), (1, 9)),
    ]);
    assert_eq!(seen, [(0, 4096, Some(1)), (4096, 131_072, None)]);
}

#[test]
fn what_a_truncation_cut_off_is_neither_written_nor_asked_for() {
    // Schedules 3 and 4.
    let seen = ranges(&[
        append((4096, 8192), None, (10, 20)),
        truncate(4096, 10),
        append((4096, 69_632), Some((4096, 69_632)), (10, 90)),
    ]);
    assert_eq!(seen, [(4096, 69_632, None)]);
    let seen = ranges(&[
        append((4096, 69_632), Some((4096, 69_632)), (10, 90)),
        truncate(4096, 10),
        append((4096, 5000), None, (10, 12)),
    ]);
    assert_eq!(seen, [(4096, 5000, Some(2))]);
}

#[test]
fn a_truncation_below_the_checkpoint_moves_the_walk_back() {
    let mut fold = fold_at(50_000, 500);
    fold.apply(101, 0, &truncate(4096, 40), 0, true);
    fold.apply(102, 1, &append((4096, 6000), None, (40, 60)), 0, true);
    fold.finish(4096);
    assert_eq!(fold.walk_from, Some(Place { segment: SEGMENT, byte: 4096 }));
    assert_eq!((fold.walk_start.end, fold.end.end), (Offset(40), Offset(60)));
    assert!(fold.was_truncated);
}

#[test]
fn facts_that_the_manifest_has_are_not_applied_twice() {
    // The manifest already knows the successor born by round 103; the truncation of round 102 must not drop it.
    let successor = SegmentName { base: Offset(40), generation: 1 };
    let sealed = SealedSegment {
        name: SEGMENT,
        length_bytes: 4096,
        end: Offset(40),
        digest: Digest::from_raw(40),
        max_timestamp: -1,
    };
    let manifest = Manifest {
        sealed: vec![sealed],
        active: Some(successor),
        next_generation: 2,
        ..Manifest::empty(1, 103)
    };
    let mut fold = LogFold::new(&checkpoint(4096, 40), &manifest, 103);
    fold.apply(101, 0, &append((4096, 8192), None, (40, 50)), 0, true);
    fold.apply(102, 1, &truncate(4096, 40), 0, true);
    let roll = Entry::Roll {
        uid: PartitionUid(1),
        sealed: Place { segment: SEGMENT, byte: 4096 },
        digest: Digest::from_raw(40),
        next: successor,
    };
    fold.apply(103, 2, &roll, 0, true);
    fold.finish(4096);
    let names: Vec<_> = fold.segments.iter().map(|segment| segment.name).collect();
    assert_eq!(names, [SEGMENT, successor]);
    assert!(fold.ranges.is_empty());
    assert!(!fold.has_new_facts);
}

fn journal_of(rounds: &[u64]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut starts = Vec::new();
    let mut previous = 0;
    for round in rounds {
        let payload = vec![u8::try_from(*round % 251).unwrap(); 5000];
        let Entry::Append(entry) = append((0, 5000), None, (0, 1)) else { unreachable!() };
        let entry = AppendEntry { payload_checksum: checksum(&payload), ..entry };
        let identity = RoundIdentity { shard_uid: 7, incarnation: 3, round: *round, previous };
        let head = encode_round(identity, &[Entry::Append(entry)], 4096);
        previous = head.checksum;
        starts.push(bytes.len());
        let end = bytes.len() + head.length_bytes;
        bytes.extend_from_slice(&head.bytes);
        bytes.extend_from_slice(&payload);
        bytes.resize(end, 0);
    }
    (bytes, starts)
}

fn numbers(found: &FoundRounds) -> Vec<u64> {
    found.rounds.iter().map(|one| one.round.identity.round).collect()
}

fn one_gap(gap: Range<u64>) -> Vec<Range<u64>> {
    vec![gap]
}

#[test]
fn rounds_are_found_in_order_and_old_ones_are_left_out() {
    let (bytes, _) = journal_of(&[5, 6, 7]);
    let found = find_rounds(&[&bytes], 4096, 7, 3, 6);
    assert_eq!((numbers(&found), found.gaps), (vec![6, 7], vec![]));
    assert_eq!(find_rounds(&[&bytes], 4096, 8, 3, 0).rounds, []);
    assert_eq!(find_rounds(&[&bytes], 4096, 7, 2, 0).rounds, []);
}

#[test]
fn every_flipped_bit_of_a_round_is_seen_and_told_from_a_torn_end() {
    let (bytes, starts) = journal_of(&[5, 6, 7]);
    let whole = find_rounds(&[&bytes], 4096, 7, 3, 5);
    // Padding is not covered by a checksum and carries nothing.
    let used = 64 + whole.rounds[1].round.entries[0].1 - 64 + 5000;
    for (which, gaps) in [(1usize, one_gap(6..7)), (2, vec![])] {
        for bit in 0..used * 8 {
            let mut bytes = bytes.clone();
            bytes[starts[which] + bit / 8] ^= 1 << (bit % 8);
            let found = find_rounds(&[&bytes], 4096, 7, 3, 5);
            let one = found.rounds.iter().find(|one| one.at == starts[which]);
            match one {
                None => assert_eq!(found.gaps, gaps, "bit {bit} of round {which}"),
                Some(one) => {
                    let (Entry::Append(entry), at) = one.round.entries[0] else { panic!() };
                    let at = starts[which] + at;
                    assert!(!payload_is_whole(&entry, &bytes[at..at + 5000]), "bit {bit}");
                }
            }
        }
    }
}

#[test]
fn a_journal_cut_at_any_byte_keeps_every_whole_round() {
    let (bytes, starts) = journal_of(&[5, 6, 7]);
    for cut in 0..bytes.len() {
        let mut torn = bytes.clone();
        torn[cut..].fill(0xA5);
        let found = find_rounds(&[&torn], 4096, 7, 3, 5);
        assert!(found.gaps.is_empty(), "cut at {cut}");
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(bytes.len());
            if end <= cut {
                assert!(numbers(&found).contains(&(5 + index as u64)), "cut at {cut}");
            }
            if cut <= *start {
                assert!(!numbers(&found).contains(&(5 + index as u64)), "cut at {cut}");
            }
        }
    }
}

/// Three rounds, the one in the middle with an entry of every kind and a payload on both sides of what went through.
fn journal_of_every_kind() -> (Vec<u8>, Vec<usize>) {
    let uid = PartitionUid(1);
    let next = SegmentName { base: Offset(9), generation: 1 };
    let place = Place { segment: SEGMENT, byte: 700 };
    let digest = Digest::from_raw(9);
    let Entry::Append(entry) = append((100, 900), Some((150, 860)), (3, 9)) else { unreachable!() };
    let payload: Vec<u8> = (0..90).collect();
    let entry = AppendEntry { payload_checksum: checksum(&payload), ..entry };
    let partition = PartitionId::new(TopicId([5; 16]), PartitionIndex(2));
    let facts = [
        Entry::Created { uid, partition },
        Entry::Append(entry),
        Entry::Truncate { uid, end: Offset(7), place, digest },
        Entry::LogStart { uid, start: Offset(4) },
        Entry::Roll { uid, sealed: place, digest, next },
        Entry::Removed { uid },
    ];
    let mut bytes = Vec::new();
    let mut starts = Vec::new();
    let mut previous = 0;
    for (round, entries) in [(5, &facts[..1]), (6, &facts[..]), (7, &[][..])] {
        let identity = RoundIdentity { shard_uid: 7, incarnation: 3, round, previous };
        let head = encode_round(identity, entries, 512);
        previous = head.checksum;
        starts.push(bytes.len());
        let end = bytes.len() + head.length_bytes;
        bytes.extend_from_slice(&head.bytes);
        if round == 6 {
            bytes.extend_from_slice(&payload);
        }
        bytes.resize(end, 0);
    }
    (bytes, starts)
}

#[test]
fn every_flipped_bit_of_every_kind_of_entry_is_seen() {
    let (bytes, starts) = journal_of_every_kind();
    let whole = find_rounds(&[&bytes], 512, 7, 3, 5);
    assert_eq!((numbers(&whole), &whole.gaps), (vec![5, 6, 7], &vec![]));
    assert_eq!(whole.rounds[1].round.entries.len(), 6);
    let (Entry::Append(append), at) = whole.rounds[1].round.entries[1] else { panic!() };
    let payload = starts[1] + at..starts[1] + at + 90;
    for bit in starts[1] * 8..payload.end * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = find_rounds(&[&bytes], 512, 7, 3, 5);
        if payload.contains(&(bit / 8)) {
            assert_eq!(found, whole);
            assert!(!payload_is_whole(&append, &bytes[payload.clone()]), "bit {bit}");
        } else {
            assert_eq!((numbers(&found), found.gaps), (vec![5, 7], one_gap(6..7)), "bit {bit}");
        }
    }
}

#[test]
fn a_journal_file_that_ends_at_any_byte_gives_the_rounds_that_end_in_it() {
    let (bytes, starts) = journal_of_every_kind();
    let whole = find_rounds(&[&bytes], 512, 7, 3, 5);
    for length in 0..=bytes.len() {
        let found = find_rounds(&[&bytes[..length]], 512, 7, 3, 5);
        let ends = starts[1..].iter().copied().chain([bytes.len()]);
        let kept = ends.filter(|end| *end <= length).count();
        assert_eq!(found.rounds, whole.rounds[..kept], "{length} B");
        assert!(found.gaps.is_empty(), "{length} B");
    }
}

/// A shard does hundreds of millions of rounds a day. When both copies of its checkpoint were lost, every number since
/// the first was listed one by one, ten gigabytes of them, and the start ended there.
#[test]
fn a_gap_costs_the_same_however_long_it_is() {
    let (bytes, _) = journal_of(&[500_000_000_000, 500_000_000_001]);
    let found = find_rounds(&[&bytes], 4096, 7, 3, 1);
    assert_eq!(found.gaps, one_gap(1..500_000_000_000));
    let (bytes, _) = journal_of(&[u64::MAX - 1, u64::MAX]);
    let found = find_rounds(&[&bytes], 4096, 7, 3, u64::MAX);
    assert_eq!((numbers(&found), found.gaps), (vec![u64::MAX], vec![]));
}

/// A block of a round that also went to another place made that place win, and the round's payloads, whole where they
/// belong, were lost to whatever stands behind the copy.
#[test]
fn of_two_copies_of_a_round_the_whole_one_is_taken() {
    let (bytes, starts) = journal_of(&[5, 6, 7]);
    let whole = find_rounds(&[&bytes], 4096, 7, 3, 5);
    let head = &bytes[starts[1]..starts[1] + 4096];
    let stray = [head, &[0; 8192]].concat();
    for files in [[&bytes[..], &stray[..]], [&stray[..], &bytes[..]]] {
        let found = find_rounds(&files, 4096, 7, 3, 5);
        let rounds: Vec<_> = found.rounds.iter().map(|one| &one.round).collect();
        assert_eq!(rounds, whole.rounds.iter().map(|one| &one.round).collect::<Vec<_>>());
        assert_eq!(files[found.rounds[1].file].len(), bytes.len());
    }
}

/// A client that fills its batches with headers of rounds cannot make a start read the journal once per block: it does
/// not know the shard's uid, and a round of another one is not looked at further.
#[test]
fn a_forged_round_is_told_by_its_header_alone() {
    let (mut bytes, _) = journal_of(&[5]);
    bytes[36..40].copy_from_slice(&8000u32.to_le_bytes());
    assert_eq!(decode_round(&bytes, 8, 3), RoundAt::Foreign);
    assert_eq!(decode_round(&bytes, 7, 4), RoundAt::Foreign);
    assert!(matches!(decode_round(&bytes, 7, 3), RoundAt::Broken(_)));
}

#[test]
fn places_and_generations_that_no_segment_can_have_are_refused() {
    let far = Place { segment: SEGMENT, byte: u64::MAX };
    let last = SegmentName { base: Offset(0), generation: u32::MAX };
    let uid = PartitionUid(1);
    let digest = Digest::EMPTY;
    let refused = [
        Entry::Truncate { uid, end: Offset(0), place: far, digest },
        Entry::Roll { uid, sealed: far, digest, next: SEGMENT },
        Entry::Roll { uid, sealed: Place { byte: 0, ..far }, digest, next: last },
        append((0, u64::MAX), Some((0, u64::MAX)), (0, 1)),
    ];
    for entry in refused {
        let identity = RoundIdentity { shard_uid: 7, incarnation: 3, round: 1, previous: 0 };
        let head = encode_round(identity, &[entry], 4096);
        let found = decode_round(&head.bytes, 7, 3);
        assert!(matches!(found, RoundAt::Broken(FieldError::Value { .. })), "{entry:?}: {found:?}");
    }
}
