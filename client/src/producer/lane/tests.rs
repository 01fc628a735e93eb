//! A lane against a broker of a few lines that takes each sequence once and refuses gaps.

use levada_record::Compression;

use super::super::delivery::Delivery;
use super::*;

const TIMEOUT_MS: u64 = 1000;
const BACKOFF: Backoff = Backoff { first_ms: 10, max_ms: 10 };

fn identity(id: i64) -> Identity {
    Identity { id: ProducerId(id), epoch: ProducerEpoch(0) }
}

struct Fixture {
    lane: Lane,
    now_ms: u64,
    chance: Chance,
    deliveries: Vec<Delivery>,
    /// What the broker has: values of records, in order.
    log: Vec<String>,
    expected: Option<(i64, i32)>,
    /// Sequence and base of batches it has.
    taken: Vec<(i64, i32, i64)>,
    max_bytes: usize,
}

impl Fixture {
    /// A lane whose leader knows it, so that it sends several batches at once.
    fn new() -> Self {
        let mut fixture = Self::unknown();
        fixture.lane.is_known = true;
        fixture
    }

    fn unknown() -> Self {
        let mut lane = Lane::new(Arc::from("t"), 0, true, 5);
        assert!(lane.set_identity(identity(1)));
        let (log, taken, deliveries) = (Vec::new(), Vec::new(), Vec::new());
        let chance = Chance::new(5);
        Self { lane, now_ms: 0, chance, deliveries, log, expected: None, taken, max_bytes: 1 << 20 }
    }

    fn push(&mut self, values: &[&str]) {
        // Now one encoding, now the other.
        let even = self.deliveries.len().is_multiple_of(2);
        let encoding = if even { Encoding::KafkaV2 } else { Encoding::Columnar };
        let mut builder = BatchBuilder::encoded(encoding, Compression::Lz4);
        let ticket = Ticket::for_test();
        for (value, index) in values.iter().zip(0..) {
            let value = Some(value.as_bytes());
            let timestamp = Timestamp(5);
            builder.push(&NewRecord { value, timestamp, ..Default::default() }).unwrap();
            self.deliveries.push(Delivery::new(&ticket, 0, index));
        }
        self.lane.push(builder, ticket, self.now_ms);
    }

    fn send(&mut self) -> Vec<(u64, Bytes)> {
        let mut sent = Vec::new();
        while self.lane.sendable(self.now_ms) {
            sent.extend(self.lane.send_next(Encoding::Columnar));
        }
        sent
    }

    /// The broker's verdict.
    fn append(&mut self, bytes: &[u8]) -> Answer {
        let refused = |code: ErrorCode| Answer::Refused(code.into());
        if bytes.len() > self.max_bytes {
            return refused(ErrorCode::MessageTooLarge);
        }
        let (view, rest) = next_batch(bytes, &VerifyLimits::DEFAULT).unwrap().unwrap();
        assert!(rest.is_empty());
        let (id, sequence) = (view.header().producer_id.0, view.header().base_sequence);
        if let Some((_, _, base)) =
            self.taken.iter().find(|taken| (taken.0, taken.1) == (id, sequence))
        {
            return Answer::Appended { base: Some(Offset(*base)), append_time: None };
        }
        match self.expected {
            Some((known, expected)) if known == id && expected != sequence => {
                return refused(ErrorCode::OutOfOrderSequenceNumber);
            }
            _ => {}
        }
        let base = i64::try_from(self.log.len()).unwrap();
        for record in view.records(&mut Vec::new(), u32::MAX).unwrap() {
            let value = record.unwrap().value.unwrap().to_vec();
            self.log.push(String::from_utf8(value).unwrap());
        }
        self.taken.push((id, sequence, base));
        self.expected = Some((id, sequence_after(sequence, view.record_count())));
        Answer::Appended { base: Some(Offset(base)), append_time: None }
    }

    fn answer(&mut self, number: u64, answer: Answer) -> Consequence {
        self.lane.on_answer(number, answer, self.now_ms, BACKOFF, &mut self.chance)
    }

    /// Sends and answers truthfully until nothing is left.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.now_ms += 20;
            if self.lane.needs_identity() {
                assert!(!self.lane.set_identity(identity(1)), "that one is spent");
                assert!(self.lane.set_identity(identity(2)));
            }
            for (number, bytes) in self.send() {
                let answer = self.append(&bytes);
                self.answer(number, answer);
            }
            if self.lane.is_empty() {
                return;
            }
        }
        panic!("does not settle: {:?}", self.lane);
    }

    /// Offsets of all deliveries, -1 for failed ones.
    fn offsets(&self) -> Vec<i64> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let wait = |delivery: &Delivery| runtime.block_on(delivery.wait());
        let acks = self.deliveries.iter().map(wait);
        acks.map(|ack| ack.ok().and_then(|ack| ack.offset).map_or(-1, |offset| offset.0)).collect()
    }
}

#[test]
fn five_are_in_flight_and_no_more() {
    let mut fixture = Fixture::new();
    for _ in 0..7 {
        fixture.push(&["x"]);
    }
    let sent = fixture.send();
    assert_eq!(sent.len(), 5);
    let answer = fixture.append(&sent[0].1);
    fixture.answer(sent[0].0, answer);
    assert_eq!(fixture.send().len(), 1);
}

#[test]
fn a_moved_leader_costs_nothing_and_keeps_the_order() {
    let mut fixture = Fixture::new();
    for value in ["a", "b", "c"] {
        fixture.push(&[value]);
    }
    let sent = fixture.send();
    let consequence =
        fixture.answer(sent[0].0, Answer::Refused(ErrorCode::NotLeaderOrFollower.into()));
    assert!(consequence.refresh);
    fixture.push(&["d"]);
    assert!(fixture.send().is_empty(), "waits for those in flight");
    for (number, _) in &sent[1..] {
        fixture.answer(*number, Answer::Refused(ErrorCode::OutOfOrderSequenceNumber.into()));
    }
    assert!(fixture.send().is_empty(), "pauses");
    fixture.settle();
    assert_eq!(fixture.log, ["a", "b", "c", "d"]);
    assert_eq!(fixture.offsets(), [0, 1, 2, 3]);
}

#[test]
fn lost_answers_do_not_double_records() {
    let mut fixture = Fixture::new();
    for value in ["a", "b", "c"] {
        fixture.push(&[value]);
    }
    let sent = fixture.send();
    for (number, bytes) in &sent {
        fixture.append(bytes);
        fixture.answer(*number, Answer::Lost(Arc::from("broken")));
    }
    fixture.settle();
    assert_eq!(fixture.log, ["a", "b", "c"]);
    assert_eq!(fixture.offsets(), [0, 1, 2]);
}

#[test]
fn a_refused_batch_leaves_no_gap_behind() {
    let mut fixture = Fixture::new();
    for value in ["a", "b", "c", "d"] {
        fixture.push(&[value]);
    }
    let sent = fixture.send();
    let answer = fixture.append(&sent[0].1);
    fixture.answer(sent[0].0, answer);
    fixture.answer(sent[1].0, Answer::Refused(ErrorCode::InvalidRecord.into()));
    for (number, bytes) in &sent[2..] {
        let answer = fixture.append(bytes);
        assert!(matches!(answer, Answer::Refused(_)));
        fixture.answer(*number, answer);
    }
    fixture.settle();
    assert_eq!(fixture.log, ["a", "c", "d"]);
    assert_eq!(fixture.offsets(), [0, -1, 1, 2]);
    assert_eq!(fixture.taken.last().map(|taken| taken.0), Some(1), "no new identity was needed");
}

/// A broker takes any sequence of a producer that it does not know: were the second batch on its way
/// when the first is refused, it would come to stand before it.
#[test]
fn one_batch_goes_ahead_until_the_leader_knows_the_producer() {
    let mut fixture = Fixture::unknown();
    for values in [["a", "b"], ["c", "d"], ["e", "f"]] {
        fixture.push(&values);
    }
    let first = fixture.send();
    assert_eq!(first.len(), 1);
    fixture.answer(first[0].0, Answer::Refused(ErrorCode::NotLeaderOrFollower.into()));
    assert!(fixture.lane.is_held_up());
    fixture.settle();
    assert_eq!(fixture.log, ["a", "b", "c", "d", "e", "f"]);
    for values in ["g", "h", "i", "j", "k", "l", "m"] {
        fixture.push(&[values]);
    }
    assert_eq!(fixture.send().len(), 5, "now it is known");
}

#[test]
fn a_batch_that_is_too_large_is_cut_until_it_fits() {
    let mut fixture = Fixture::new();
    let values: Vec<String> =
        (0..40u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    fixture.push(&["first"]);
    fixture.push(&values);
    fixture.push(&["last"]);
    fixture.max_bytes = 250;
    let sent = fixture.send();
    for (number, bytes) in &sent {
        let answer = fixture.append(bytes);
        let consequence = fixture.answer(*number, answer);
        assert_eq!(consequence.too_large_bytes.is_some(), *number == sent[1].0);
    }
    fixture.settle();
    assert_eq!(fixture.log.len(), 42);
    assert_eq!(fixture.log[1..41], values);
    assert_eq!(fixture.offsets(), (0..42).collect::<Vec<_>>());
}

#[test]
fn a_single_record_that_is_too_large_fails_alone() {
    let mut fixture = Fixture::new();
    let parts = (0..80u32).map(|n| n.wrapping_mul(2_654_435_761).to_string());
    let long = parts.collect::<Vec<_>>().concat();
    fixture.push(&[&long]);
    fixture.push(&["b"]);
    fixture.max_bytes = 250;
    fixture.settle();
    assert_eq!(fixture.log, ["b"]);
    assert_eq!(fixture.offsets(), [-1, 0]);
}

#[test]
fn a_broker_that_forgot_us_gets_everything_under_a_new_identity() {
    let mut fixture = Fixture::new();
    fixture.expected = Some((1, 77));
    for value in ["a", "b"] {
        fixture.push(&[value]);
    }
    fixture.settle();
    assert_eq!(fixture.log, ["a", "b"]);
    assert_eq!(
        fixture.taken.iter().map(|taken| (taken.0, taken.1)).collect::<Vec<_>>(),
        [(2, 0), (2, 1)]
    );
}

#[test]
fn what_is_too_old_expires_and_takes_along_what_may_be_there() {
    let mut fixture = Fixture::new();
    fixture.push(&["a"]);
    fixture.now_ms = 500;
    fixture.push(&["b"]);
    let sent = fixture.send();
    fixture.lane.expire(5000, TIMEOUT_MS);
    assert_eq!(fixture.lane.queue.len(), 2, "those in flight have a deadline of their own");
    for (number, bytes) in &sent {
        fixture.append(bytes);
        fixture.answer(*number, Answer::Lost(Arc::from("broken")));
    }
    fixture.push(&["c"]);
    fixture.now_ms = 1000;
    fixture.lane.expire(999, TIMEOUT_MS);
    assert_eq!(fixture.lane.queue.len(), 3);
    fixture.lane.expire(1000, TIMEOUT_MS);
    assert!(fixture.lane.needs_identity());
    fixture.settle();
    assert_eq!(fixture.log, ["a", "b", "c"], "b was not sent a second time under a new identity");
    assert_eq!(fixture.offsets(), [-1, -1, 2]);
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(sequence_after(i32::MAX, 1), 0);
    assert_eq!(sequence_after(i32::MAX - 1, 1), i32::MAX);
    assert_eq!(sequence_after(5, 3), 8);
}

/// The broker that was asked takes columns, the leader of this partition does not.
#[test]
fn a_leader_without_columns_gets_the_same_records_as_kafka_has_them() {
    let mut lane = Lane::new(Arc::from("t"), 0, true, 5);
    assert!(lane.set_identity(identity(1)));
    let mut builder = BatchBuilder::encoded(Encoding::Columnar, Compression::Lz4);
    for value in ["one", "two"] {
        let value = Some(value.as_bytes());
        builder.push(&NewRecord { value, timestamp: Timestamp(5), ..Default::default() }).unwrap();
    }
    lane.push(builder, Ticket::for_test(), 0);
    let (_, bytes) = lane.send_next(Encoding::KafkaV2).unwrap();
    let (view, _) = next_batch(&bytes, &VerifyLimits::DEFAULT).unwrap().unwrap();
    assert_eq!((view.encoding(), view.codec()), (Encoding::KafkaV2, Compression::Lz4));
    assert_eq!((view.header().producer_id, view.header().base_sequence), (identity(1).id, 0));
    let mut scratch = Vec::new();
    let records = view.records(&mut scratch, 1 << 20).unwrap();
    let values: Vec<_> = records.map(|record| record.unwrap().value.unwrap().to_vec()).collect();
    assert_eq!(values, [b"one", b"two"]);
}
