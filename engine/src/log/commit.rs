//! A log's side of a round: what it puts in, and what is true once the round is durable. Rules J6 to J12.

use std::rc::Rc;

use levada_record::Offset;
use xxhash_rust::xxh3::Xxh3;

use crate::digest::Digest;
use crate::disk::{File, FrozenBuffer};
use crate::journal::layout::{AppendEntry, ENTRY_BYTES_MAX, Entry};
use crate::log::{BatchMark, Boundary, DurableMark, Log, Pending, State};
use crate::planted::{PlantedBug, is_planted};
use crate::round::path::{Path, choose_path};
use crate::segment::layout::{align_down, align_up};

/// What a round still has room for.
#[derive(Debug)]
pub(crate) struct RoundBudget {
    /// Bytes of table and payloads.
    pub(crate) journal_bytes: u64,
    /// Files that may be written through.
    pub(crate) through_files: usize,
}

/// Blocks on their way straight to a segment.
pub(crate) struct Through {
    pub(crate) file: Rc<dyn File>,
    /// Byte in the file, and the blocks.
    pub(crate) writes: Vec<(u64, FrozenBuffer)>,
}

/// One entry of a round, and what it does once durable.
pub(crate) struct RoundPart {
    pub(crate) log: Rc<Log>,
    pub(crate) entry: Entry,
    /// Log positions of the payload: before and after the part written through.
    pub(crate) payload: [(u64, u64); 2],
    pub(crate) through: Option<Through>,
    effect: PartEffect,
}

enum PartEffect {
    Append { end: Boundary, marks: usize },
    Roll { next: Boundary },
    Truncate { end: Boundary },
    LogStart { start: Offset },
}

impl RoundPart {
    /// Exclusive end of the offsets that are on the disk once the part's writes are done.
    pub(crate) fn written_end(&self) -> Option<Offset> {
        match &self.effect {
            PartEffect::Append { end, .. } => Some(end.offset),
            _ => None,
        }
    }
}

impl Log {
    /// Moves what waits into the round, as far as the budget goes. Whether something is left for the next one.
    pub(crate) fn take_for_round(
        self: &Rc<Self>,
        budget: &mut RoundBudget,
        round: u64,
        parts: &mut Vec<RoundPart>,
    ) -> bool {
        let mut state = self.state.borrow_mut();
        let mut may_go_through = true;
        loop {
            // Batches stay in line until their round is durable; facts leave it when a round takes them.
            let first = state.in_round;
            let fact = match state.pending.get(first) {
                None => return false,
                Some(Pending::Batch(_)) => None,
                Some(fact) => Some(*fact),
            };
            if budget.journal_bytes < ENTRY_BYTES_MAX as u64 {
                return true;
            }
            if fact.is_some() {
                state.pending.remove(first);
            }
            let part = match fact {
                None | Some(Pending::Batch(_)) => {
                    match self.take_appends(&mut state, budget, round, may_go_through) {
                        Some(part) => part,
                        None => return true,
                    }
                }
                Some(Pending::Roll { sealed, digest, next, next_start }) => {
                    state.rounded.position = next_start;
                    state.rounded.max_timestamp = -1;
                    state.end_block_on_disk = false;
                    let entry = Entry::Roll { uid: self.uid, sealed, digest, next };
                    let next = state.rounded;
                    self.fact(entry, PartEffect::Roll { next })
                }
                Some(Pending::Truncate { end, place }) => {
                    state.rounded = end;
                    // Until this round is durable the old bytes must stay: what follows is journaled.
                    may_go_through = false;
                    let entry = Entry::Truncate {
                        uid: self.uid,
                        end: end.offset,
                        place,
                        digest: end.digest,
                    };
                    self.fact(entry, PartEffect::Truncate { end })
                }
                Some(Pending::LogStart { start }) => {
                    let entry = Entry::LogStart { uid: self.uid, start };
                    self.fact(entry, PartEffect::LogStart { start })
                }
            };
            budget.journal_bytes = budget.journal_bytes.saturating_sub(ENTRY_BYTES_MAX as u64);
            parts.push(part);
        }
    }

    fn fact(self: &Rc<Self>, entry: Entry, effect: PartEffect) -> RoundPart {
        RoundPart { log: Rc::clone(self), entry, payload: [(0, 0); 2], through: None, effect }
    }

    /// Takes batches of one segment; `None` when none fits into what is left of the round.
    fn take_appends(
        self: &Rc<Self>,
        state: &mut State,
        budget: &mut RoundBudget,
        round: u64,
        may_go_through: bool,
    ) -> Option<RoundPart> {
        let block = state.tail.block_bytes();
        let run_start = state.rounded;
        let rejournal = state.end_block_on_disk && !is_planted(PlantedBug::RewriteUnjournaled);
        let byte_start =
            if rejournal { align_down(run_start.position, block) } else { run_start.position };
        let index = state.segment_index_at(run_start.position)?;
        let segment = state.segments.get(index)?;
        let (name, segment_start) = (segment.name, segment.start);
        let file = segment.file.clone();
        let waiting = run_of_batches(state).map(|mark| mark.end.position).last()?;
        let may_go_through = may_go_through && file.is_some();
        let path = choose_path(
            waiting - run_start.position,
            if may_go_through { budget.through_files } else { 0 },
            budget.journal_bytes,
        );
        let limit = match path {
            Path::Through { max_bytes } => run_start.position + max_bytes,
            Path::Journal => {
                byte_start + budget.journal_bytes.saturating_sub(ENTRY_BYTES_MAX as u64)
            }
            Path::Wait => return None,
        };
        let mut count = 0;
        let mut end = None;
        for mark in run_of_batches(state) {
            // Through, one batch may be larger than the usual share of a round.
            let is_first_through = count == 0 && matches!(path, Path::Through { .. });
            if mark.end.position > limit && !is_first_through {
                break;
            }
            count += 1;
            end = Some(mark.end);
        }
        let end = end?;
        let (mut through_start, mut through_end) = match path {
            Path::Through { .. } => {
                (align_up(run_start.position, block), align_down(end.position, block))
            }
            _ => (end.position, end.position),
        };
        if through_start >= through_end {
            (through_start, through_end) = (end.position, end.position);
        }
        let payload = [(byte_start, through_start), (through_end, end.position)];
        let payload_bytes: u64 = payload.iter().map(|(from, to)| to - from).sum();
        if payload_bytes + ENTRY_BYTES_MAX as u64 > budget.journal_bytes {
            return None;
        }
        let through = if through_start < through_end {
            let blocks = state.tail.blocks(through_start, through_end)?;
            let writes = blocks.into_iter().map(|(at, b)| (at - segment_start, b)).collect();
            budget.through_files -= 1;
            Some(Through { file: file?, writes })
        } else {
            None
        };
        budget.journal_bytes -= payload_bytes;
        let mut hasher = Xxh3::new();
        for (from, to) in payload {
            let whole = state.tail.visit(from, to, |piece| hasher.update(piece));
            assert!(whole, "pending bytes {from}..{to} are in memory");
        }
        let entry = Entry::Append(AppendEntry {
            uid: self.uid,
            first: run_start.offset,
            end: end.offset,
            segment: name,
            byte_start: byte_start - segment_start,
            byte_end: end.position - segment_start,
            through_start: through_start - segment_start,
            through_end: through_end - segment_start,
            digest: end.digest,
            payload_checksum: hasher.digest(),
        });
        for pending in state.pending.iter_mut().skip(state.in_round).take(count) {
            if let Pending::Batch(mark) = pending {
                mark.round = round;
            }
        }
        state.in_round += count;
        state.rounded = end;
        // Whatever the path, the block of the end is now wholly in this round or a later one.
        state.end_block_on_disk = false;
        let effect = PartEffect::Append { end, marks: count };
        Some(RoundPart { log: Rc::clone(self), entry, payload, through, effect })
    }

    /// The round's writes are done, its syncs perhaps not.
    pub(crate) fn on_written(&self, end: Offset) {
        let mut state = self.state.borrow_mut();
        state.written_end = state.written_end.max(end);
    }

    /// The round is durable.
    pub(crate) fn on_durable(&self, part: &RoundPart, round: u64) {
        let mut state = self.state.borrow_mut();
        match part.effect {
            PartEffect::Append { end, marks } => {
                for (from, to) in part.payload {
                    state.owed.add(from, to);
                }
                assert!(marks <= state.in_round);
                state.in_round -= marks;
                let mut starts_epoch = false;
                for _ in 0..marks {
                    let Some(Pending::Batch(mark)) = state.pending.pop_front() else {
                        unreachable!("the batches of a round stand in front")
                    };
                    if let Some(batch) = &mark.produced {
                        let at = mark.appended_ms;
                        state.durable_producers.note(batch, mark.base, mark.end.offset, at);
                    }
                    starts_epoch |= mark.starts_epoch;
                    state.history.push_back(DurableMark { end: mark.end, round: mark.round });
                }
                state.durable = end;
                state.written_end = state.written_end.max(end.offset);
                if state.manifest_lacks_active() || starts_epoch {
                    state.note_unfolded(round);
                }
            }
            PartEffect::Roll { next } => {
                state.durable = next;
                let born = state.segment_index_at(next.position);
                if let Some(segment) = born.and_then(|index| state.segments.get_mut(index)) {
                    segment.is_born = true;
                }
                state.facts_in_flight -= 1;
                state.note_unfolded(round);
            }
            PartEffect::Truncate { end } => {
                state.durable = end;
                state.written_end = end.offset;
                state.facts_in_flight -= 1;
                state.note_unfolded(round);
            }
            PartEffect::LogStart { start } => {
                state.facts_in_flight -= 1;
                state.note_unfolded(round);
                if let Some(digest) = state.drop_below(start) {
                    self.base_digest.set(digest);
                }
            }
        }
        state.check_invariants();
    }
}

/// The batches at the front of what waits, up to the first fact.
fn run_of_batches(state: &State) -> impl Iterator<Item = BatchMark> + '_ {
    state.pending.iter().skip(state.in_round).map_while(|pending| match pending {
        Pending::Batch(mark) => Some(*mark),
        _ => None,
    })
}

impl State {
    pub(crate) fn note_unfolded(&mut self, round: u64) {
        self.unfolded_round = Some(self.unfolded_round.map_or(round, |lowest| lowest.min(round)));
    }

    /// Whether the first segment of the log was born after the last manifest.
    fn manifest_lacks_active(&mut self) -> bool {
        std::mem::take(&mut self.is_first_segment_new)
    }

    /// Everything below `start` is gone: moves the log start, gives up whole segments. The digest at the base of the
    /// oldest segment left, when segments went.
    pub(crate) fn drop_below(&mut self, start: Offset) -> Option<Digest> {
        self.log_start = self.log_start.max(start);
        let log_start = self.log_start;
        self.epochs.advance_start(log_start);
        let last = self.segments.len().saturating_sub(1);
        let dead = self.segments.iter().take(last).take_while(|s| s.end <= log_start).count();
        let mut behind = None;
        for segment in self.segments.drain(..dead) {
            behind = Some((segment.end, segment.digest));
            self.doomed.push(segment.name);
        }
        if let Some((offset, digest)) = behind {
            let position = self.segments.first().map_or(0, |segment| segment.start);
            self.owed.settle(0, position);
            self.tail.drop_before(position);
            if self.checkpointed.position < position {
                self.checkpointed = Boundary { position, offset, digest, max_timestamp: -1 };
            }
            while self.history.front().is_some_and(|mark| mark.end.position <= position) {
                self.history.pop_front();
            }
            if self.durable.position < position {
                self.durable.position = position;
                self.durable.max_timestamp = -1;
            }
        }
        behind.map(|(_, digest)| digest)
    }

    /// Asserted after every round, in release builds too.
    pub(crate) fn check_invariants(&self) {
        assert!(self.log_start <= self.log_end, "{} {}", self.log_start, self.log_end);
        assert!(self.durable.offset <= self.written_end, "{:?} {}", self.durable, self.written_end);
        assert!(self.written_end <= self.log_end, "{} {}", self.written_end, self.log_end);
        assert!(self.durable.position <= self.rounded.position);
        assert!(self.rounded.position <= self.tail.end());
        if let Some(owed) = self.owed.first() {
            // What is owed must still be in memory.
            assert!(self.tail.start() <= owed, "owed {owed}, memory from {}", self.tail.start());
        }
    }
}
