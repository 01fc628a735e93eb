//! Produce path 6/9: what the leader of one partition decides; from `shard/router.rs`; to
//! `engine/log.rs`. `[P]`
//! Source: Kafka's leader, RELIABILITY of this project: durable before counted, min.insync.replicas
//! checked before the append, leader epochs checked on every read.

use levada_record::{BrokerId, Durability, LeaderEpoch, Offset};

/// How safe a producer wants its batch before it hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// It does not want to hear of it.
    None,
    /// Safe in the leader's log.
    Leader,
    /// Committed: safe on every replica in sync.
    All,
}

impl Acks {
    /// From the number on the wire.
    pub fn from_wire(acks: i16) -> Option<Self> {
        match acks {
            0 => Some(Self::None),
            1 => Some(Self::Leader),
            -1 => Some(Self::All),
            _ => None,
        }
    }
}

/// What the leader is told by the cluster image and the topic's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// Its number.
    pub epoch: LeaderEpoch,
    /// Replicas of the partition.
    pub replicas: u32,
    /// Replicas in sync, the leader included.
    pub in_sync: u32,
    /// `min.insync.replicas`, or the majority of the replicas.
    pub min_in_sync: u32,
    /// What counts as safe.
    pub durability: Durability,
}

/// Ends of the leader's own log, as its engine tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnds {
    /// Exclusive end of what was written.
    pub written: Offset,
    /// Exclusive end of what is on stable storage.
    pub durable: Offset,
}

/// Watermarks that moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// Everything below is safe in the leader's log: acks=1.
    pub safe_here: Offset,
    /// Everything below is committed: acks=all, and what consumers see.
    pub high_watermark: Offset,
}

/// The batch is refused before anything of it is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{in_sync} replicas are in sync, min.insync.replicas is {min_in_sync}")]
pub struct NotEnoughReplicas {
    /// How many are in sync.
    pub in_sync: u32,
    /// How many must be.
    pub min_in_sync: u32,
}

/// The asker believes in another reign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochMismatch {
    /// It is behind.
    #[error("leader epoch {asked} is over, it is {current} now")]
    Fenced {
        /// What it believes in.
        asked: LeaderEpoch,
        /// Ours.
        current: LeaderEpoch,
    },
    /// It is ahead: our image is behind.
    #[error("leader epoch {asked} is unknown here, which knows of {current}")]
    Unknown {
        /// What it believes in.
        asked: LeaderEpoch,
        /// Ours.
        current: LeaderEpoch,
    },
}

/// The leader of one partition.
#[derive(Debug)]
pub struct Leader {
    reign: Reign,
    safe_here: Offset,
    high_watermark: Offset,
}

impl Leader {
    /// Begins a reign on a log with these ends. `known_high_watermark` is a lower bound from before.
    pub fn begin(reign: Reign, ends: LogEnds, known_high_watermark: Offset) -> Self {
        let mut leader = Self {
            reign,
            safe_here: Offset::ZERO,
            high_watermark: known_high_watermark.min(ends.durable),
        };
        leader.advance(ends);
        leader
    }

    /// The reign.
    pub fn reign(&self) -> &Reign {
        &self.reign
    }

    /// First offset that is not committed.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Everything below is safe in this log.
    pub fn safe_here(&self) -> Offset {
        self.safe_here
    }

    /// The image or the settings changed.
    pub fn on_reign(&mut self, reign: Reign, ends: LogEnds) -> Option<Advance> {
        assert!(reign.epoch >= self.reign.epoch, "{:?} after {:?}", reign.epoch, self.reign.epoch);
        self.reign = reign;
        self.advance(ends)
    }

    /// A producer wants to append.
    ///
    /// # Errors
    /// [`NotEnoughReplicas`] for acks=all when fewer replicas are in sync than must be.
    pub fn on_produce(&self, acks: Acks) -> Result<(), NotEnoughReplicas> {
        let Reign { in_sync, min_in_sync, .. } = self.reign;
        if acks == Acks::All && in_sync < min_in_sync {
            return Err(NotEnoughReplicas { in_sync, min_in_sync });
        }
        Ok(())
    }

    /// The engine moved the ends of the log.
    pub fn on_log_advanced(&mut self, ends: LogEnds) -> Option<Advance> {
        self.advance(ends)
    }

    /// Checks the reign that a reader believes in; `None` checks nothing.
    ///
    /// # Errors
    /// [`EpochMismatch`] when it is another.
    pub fn check_epoch(&self, asked: Option<LeaderEpoch>) -> Result<(), EpochMismatch> {
        let current = self.reign.epoch;
        match asked {
            Some(asked) if asked < current => Err(EpochMismatch::Fenced { asked, current }),
            Some(asked) if current < asked => Err(EpochMismatch::Unknown { asked, current }),
            _ => Ok(()),
        }
    }

    /// Ends of a log that was truncated are smaller; watermarks never move back for that, and no
    /// clean truncation goes below them.
    fn advance(&mut self, ends: LogEnds) -> Option<Advance> {
        assert!(
            ends.durable <= ends.written,
            "durable {} > written {}",
            ends.durable,
            ends.written
        );
        let safe_here = match self.reign.durability {
            Durability::Fsync => ends.durable,
            Durability::Replicated => ends.written,
        };
        // With other replicas this is the minimum over the ISR, and moves only while enough are in
        // sync; alone, what is safe here is all there is.
        let before = (self.safe_here, self.high_watermark);
        self.safe_here = self.safe_here.max(safe_here);
        self.high_watermark = self.high_watermark.max(safe_here);
        self.check_invariants();
        (before != (self.safe_here, self.high_watermark))
            .then_some(Advance { safe_here: self.safe_here, high_watermark: self.high_watermark })
    }

    fn check_invariants(&self) {
        assert!(
            self.high_watermark <= self.safe_here,
            "high watermark {} > safe {}",
            self.high_watermark,
            self.safe_here
        );
    }
}

/// Who leads a partition, for those who ask the wrong broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader, when there is one.
    pub leader: Option<BrokerId>,
    /// Its reign.
    pub epoch: LeaderEpoch,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reign(durability: Durability) -> Reign {
        Reign { epoch: LeaderEpoch(3), replicas: 1, in_sync: 1, min_in_sync: 1, durability }
    }

    fn ends(written: i64, durable: i64) -> LogEnds {
        LogEnds { written: Offset(written), durable: Offset(durable) }
    }

    #[track_caller]
    fn check(durability: Durability, steps: &[(LogEnds, Option<i64>)]) {
        let mut leader = Leader::begin(reign(durability), ends(0, 0), Offset::ZERO);
        for (ends, expected) in steps {
            let advance = leader.on_log_advanced(*ends).map(|advance| advance.high_watermark.0);
            assert_eq!(advance, *expected, "{ends:?}");
        }
    }

    #[test]
    fn nothing_is_committed_before_it_is_synced() {
        check(Durability::Fsync, &[(ends(10, 0), None), (ends(20, 10), Some(10))]);
    }

    #[test]
    fn written_counts_where_the_topic_says_so() {
        check(Durability::Replicated, &[(ends(10, 0), Some(10)), (ends(10, 10), None)]);
    }

    #[test]
    fn the_high_watermark_never_moves_back() {
        check(Durability::Fsync, &[(ends(10, 10), Some(10)), (ends(8, 8), None)]);
    }

    #[test]
    fn a_reign_begins_with_what_is_durable() {
        let leader = Leader::begin(reign(Durability::Fsync), ends(9, 7), Offset(100));
        assert_eq!(leader.high_watermark(), Offset(7));
    }

    #[test]
    fn all_is_refused_before_the_append_when_too_few_are_in_sync() {
        let reign = Reign { min_in_sync: 2, ..reign(Durability::Fsync) };
        let leader = Leader::begin(reign, ends(0, 0), Offset::ZERO);
        let refusal = NotEnoughReplicas { in_sync: 1, min_in_sync: 2 };
        assert_eq!(leader.on_produce(Acks::All), Err(refusal));
        assert_eq!(leader.on_produce(Acks::Leader), Ok(()));
        assert_eq!(leader.on_produce(Acks::None), Ok(()));
    }

    #[test]
    fn another_reign_is_refused_in_either_direction() {
        let leader = Leader::begin(reign(Durability::Fsync), ends(0, 0), Offset::ZERO);
        let current = LeaderEpoch(3);
        assert_eq!(leader.check_epoch(None), Ok(()));
        assert_eq!(leader.check_epoch(Some(current)), Ok(()));
        let asked = LeaderEpoch(2);
        assert_eq!(leader.check_epoch(Some(asked)), Err(EpochMismatch::Fenced { asked, current }));
        let asked = LeaderEpoch(4);
        assert_eq!(leader.check_epoch(Some(asked)), Err(EpochMismatch::Unknown { asked, current }));
    }
}
