use super::*;
use crate::fields::checksum;
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
        let payload = vec![u8::try_from(*round).unwrap(); 5000];
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
    for (which, gaps) in [(1usize, vec![6u64]), (2, vec![])] {
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
