//! Fetch sessions (KIP-227): a consumer that reads many partitions sends only what changed, and is
//! told only what changed. `[P]`
//!
//! A session is known by its id, made of a counter and the shard's number; a client that comes back on
//! a connection to another shard is told that the session is unknown and starts over, which the
//! protocol provides for.

use std::collections::{BTreeMap, HashMap};

use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::fetch::FetchPartition;
use levada_record::TopicId;

/// A topic as the client names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// By name: up to version 12.
    Name(std::rc::Rc<str>),
    /// By id: from version 13 on.
    Id(TopicId),
}

/// A partition as the client names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartitionKey {
    /// Its topic.
    pub topic: TopicKey,
    /// Its number.
    pub index: i32,
}

/// A partition that is to be read, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Which.
    pub key: PartitionKey,
    /// From where, and how much.
    pub how: FetchPartition,
}

/// What the client was last told of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The high watermark.
    pub high_watermark: i64,
    /// The first offset kept.
    pub log_start: i64,
    /// The error.
    pub error_code: i16,
}

/// What the session says about one partition of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mention {
    /// It belongs into the answer.
    Yes,
    /// Nothing changed: it is left out.
    No,
}

#[derive(Debug)]
struct Cached {
    wanted: Wanted,
    told: Option<Told>,
}

#[derive(Debug)]
struct Session {
    next_epoch: i32,
    used_ns: u64,
    uses_ids: bool,
    /// In the order in which they are read; those that gave data go to the end.
    order: BTreeMap<u64, Cached>,
    places: HashMap<PartitionKey, u64>,
    next_place: u64,
}

impl Session {
    fn put(&mut self, wanted: Wanted) {
        if let Some(cached) =
            self.places.get(&wanted.key).and_then(|place| self.order.get_mut(place))
        {
            cached.wanted = wanted;
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.places.insert(wanted.key.clone(), place);
        self.order.insert(place, Cached { wanted, told: None });
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(place) = self.places.remove(key) {
            self.order.remove(&place);
        }
    }

    fn move_to_end(&mut self, key: &PartitionKey) {
        let Some(place) = self.places.get_mut(key) else { return };
        let Some(cached) = self.order.remove(place) else { return };
        *place = self.next_place;
        self.next_place += 1;
        self.order.insert(*place, cached);
    }
}

/// What a request says about sessions.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    /// Its session, 0 for none.
    pub id: i32,
    /// Its number in the session; 0 opens one, -1 is without.
    pub epoch: i32,
    /// Partitions named.
    pub wanted: Vec<Wanted>,
    /// Partitions to drop.
    pub forgotten: Vec<PartitionKey>,
    /// Whether topics are named by id.
    pub uses_ids: bool,
}

/// What is to be read for a request, and how it is to be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What to read, in order.
    pub wanted: Vec<Wanted>,
    /// How to answer.
    pub kind: Kind,
}

/// How a fetch is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With every partition, and no session.
    Sessionless,
    /// With every partition; a session is opened if there is room.
    Opening,
    /// With what changed in this session.
    Incremental {
        /// The session.
        id: i32,
    },
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct Sessions {
    open: HashMap<i32, Session>,
    open_max: u64,
    partitions_max: u64,
    idle_ns: u64,
    next_number: i32,
    partitions: u64,
}

impl Sessions {
    /// No sessions yet; at most so many, holding at most so many partitions together. One that was
    /// not used for `idle_ms` gives way to a new one.
    pub fn new(sessions_max: u64, partitions_max: u64, idle_ms: u64) -> Self {
        Self {
            open: HashMap::new(),
            open_max: sessions_max,
            partitions_max,
            idle_ns: idle_ms.saturating_mul(1_000_000),
            next_number: 1,
            partitions: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes a request into its session and says what is to be read.
    ///
    /// # Errors
    /// The code for the whole answer, when the session is unknown or the request not its next one.
    pub fn on_request(&mut self, request: SessionRequest, now_ns: u64) -> Result<Plan, ErrorCode> {
        let SessionRequest { id, epoch, wanted, forgotten, uses_ids } = request;
        if epoch <= 0 {
            self.remove(id);
            let kind = if epoch == 0 { Kind::Opening } else { Kind::Sessionless };
            return Ok(Plan { wanted, kind });
        }
        let session = self.open.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.next_epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_ids != uses_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.next_epoch = next_epoch(epoch);
        session.used_ns = now_ns;
        let before = session.order.len() as u64;
        for key in &forgotten {
            session.forget(key);
        }
        for wanted in wanted {
            session.put(wanted);
        }
        let after = session.order.len() as u64;
        self.partitions = self.partitions - before + after;
        let wanted = session.order.values().map(|cached| cached.wanted.clone()).collect();
        if after == 0 || self.partitions > self.partitions_max {
            // Too much to remember: the client is served once more and starts over.
            self.remove(id);
            return Ok(Plan { wanted, kind: Kind::Sessionless });
        }
        Ok(Plan { wanted, kind: Kind::Incremental { id } })
    }

    /// Opens a session for a full fetch that was answered with `told`; 0 when there is no room.
    pub fn open(
        &mut self,
        wanted: Vec<(Wanted, Told)>,
        uses_ids: bool,
        shard: (u16, u16),
        now_ns: u64,
    ) -> i32 {
        let partitions = wanted.len() as u64;
        if wanted.is_empty() || !self.make_room(partitions, now_ns) {
            return 0;
        }
        let Some(id) = self.new_id(shard) else { return 0 };
        let mut session = Session {
            next_epoch: 1,
            used_ns: now_ns,
            uses_ids,
            order: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        };
        for (wanted, told) in wanted {
            let key = wanted.key.clone();
            session.put(wanted);
            let place = session.places.get(&key).copied();
            if let Some(cached) = place.and_then(|place| session.order.get_mut(&place)) {
                cached.told = Some(told);
            }
        }
        self.partitions += session.order.len() as u64;
        self.open.insert(id, session);
        id
    }

    /// Notes what a client is about to be told of a partition and says whether it needs to be. A
    /// partition that gives data goes to the end of the session, so that others get their turn.
    pub fn on_answer(
        &mut self,
        id: i32,
        key: &PartitionKey,
        told: Told,
        has_data: bool,
    ) -> Mention {
        let Some(session) = self.open.get_mut(&id) else { return Mention::Yes };
        let place = session.places.get(key).copied();
        let Some(cached) = place.and_then(|place| session.order.get_mut(&place)) else {
            return Mention::Yes;
        };
        let changed = cached.told != Some(told) || told.error_code != 0;
        // An error is told again until it is gone, and its end is news.
        cached.told = (told.error_code == 0).then_some(told);
        if has_data {
            session.move_to_end(key);
        }
        if changed || has_data { Mention::Yes } else { Mention::No }
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.open.remove(&id) {
            self.partitions -= session.order.len() as u64;
        }
    }

    /// Makes room for one more session, by removing the one that was idle longest if it was idle for
    /// long enough.
    fn make_room(&mut self, partitions: u64, now_ns: u64) -> bool {
        let fits = |this: &Self| {
            (this.open.len() as u64) < this.open_max
                && this.partitions + partitions <= this.partitions_max
        };
        while !fits(self) {
            let oldest = self.open.iter().min_by_key(|(_, session)| session.used_ns);
            let idle = oldest
                .filter(|(_, session)| now_ns.saturating_sub(session.used_ns) >= self.idle_ns)
                .map(|(id, _)| *id);
            match idle {
                Some(id) => self.remove(id),
                None => return false,
            }
        }
        true
    }

    /// Ids of different shards never meet: the number modulo the shards tells the shard.
    fn new_id(&mut self, (shard, shards): (u16, u16)) -> Option<i32> {
        // One attempt may go to the wrap.
        for _ in 0..self.open.len() + 2 {
            let number = self.next_number;
            let id = number
                .checked_mul(i32::from(shards.max(1)))
                .and_then(|id| id.checked_add(i32::from(shard)));
            self.next_number = if id.is_some() { number + 1 } else { 1 };
            if let Some(id) = id
                && !self.open.contains_key(&id)
            {
                return Some(id);
            }
        }
        None
    }
}

/// Numbers of requests run from 1 to the highest and begin again at 1.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: (u16, u16) = (1, 2);

    fn wanted(index: i32, offset: i64) -> Wanted {
        let how = FetchPartition { partition: index, fetch_offset: offset, ..Default::default() };
        Wanted { key: key(index), how }
    }

    fn key(index: i32) -> PartitionKey {
        PartitionKey { topic: TopicKey::Id(TopicId([1; 16])), index }
    }

    fn told(high_watermark: i64) -> Told {
        Told { high_watermark, log_start: 0, error_code: 0 }
    }

    fn request(id: i32, epoch: i32, wanted: Vec<Wanted>) -> SessionRequest {
        SessionRequest { id, epoch, wanted, forgotten: Vec::new(), uses_ids: true }
    }

    fn open(sessions: &mut Sessions, indexes: &[i32]) -> i32 {
        let all = indexes.iter().map(|index| (wanted(*index, 0), told(0))).collect();
        sessions.open(all, true, SHARD, 0)
    }

    fn indexes(plan: &Plan) -> Vec<i32> {
        plan.wanted.iter().map(|wanted| wanted.key.index).collect()
    }

    #[test]
    fn a_session_remembers_what_is_not_said_again() {
        let mut sessions = Sessions::new(10, 100, 0);
        let id = open(&mut sessions, &[0, 1]);
        assert_ne!(id, 0);
        let plan = sessions.on_request(request(id, 1, vec![wanted(1, 7)]), 0).unwrap();
        assert_eq!(plan.kind, Kind::Incremental { id });
        assert_eq!(plan.wanted, [wanted(0, 0), wanted(1, 7)]);
        let forget = SessionRequest { forgotten: vec![key(0)], ..request(id, 2, Vec::new()) };
        assert_eq!(indexes(&sessions.on_request(forget, 0).unwrap()), [1]);
    }

    #[test]
    fn only_changes_and_data_are_mentioned() {
        let mut sessions = Sessions::new(10, 100, 0);
        let id = open(&mut sessions, &[0]);
        assert_eq!(sessions.on_answer(id, &key(0), told(0), false), Mention::No);
        assert_eq!(sessions.on_answer(id, &key(0), told(5), false), Mention::Yes);
        assert_eq!(sessions.on_answer(id, &key(0), told(5), false), Mention::No);
        assert_eq!(sessions.on_answer(id, &key(0), told(5), true), Mention::Yes);
        let failed = Told { error_code: 3, ..told(5) };
        assert_eq!(sessions.on_answer(id, &key(0), failed, false), Mention::Yes);
        assert_eq!(sessions.on_answer(id, &key(0), failed, false), Mention::Yes);
        assert_eq!(sessions.on_answer(id, &key(0), told(5), false), Mention::Yes);
    }

    #[test]
    fn partitions_that_gave_data_are_read_last_the_next_time() {
        let mut sessions = Sessions::new(10, 100, 0);
        let id = open(&mut sessions, &[0, 1, 2]);
        sessions.on_answer(id, &key(0), told(5), true);
        let plan = sessions.on_request(request(id, 1, Vec::new()), 0).unwrap();
        assert_eq!(indexes(&plan), [1, 2, 0]);
    }

    #[test]
    fn a_wrong_number_an_unknown_session_and_mixed_names_are_told_apart() {
        let mut sessions = Sessions::new(10, 100, 0);
        let id = open(&mut sessions, &[0]);
        let code = |sessions: &mut Sessions, request| sessions.on_request(request, 0).unwrap_err();
        assert_eq!(
            code(&mut sessions, request(id, 2, Vec::new())),
            ErrorCode::InvalidFetchSessionEpoch
        );
        assert_eq!(
            code(&mut sessions, request(id + 2, 1, Vec::new())),
            ErrorCode::FetchSessionIdNotFound
        );
        let by_name = SessionRequest { uses_ids: false, ..request(id, 1, Vec::new()) };
        assert_eq!(code(&mut sessions, by_name), ErrorCode::FetchSessionTopicIdError);
    }

    #[test]
    fn a_full_fetch_ends_the_session_it_names() {
        let mut sessions = Sessions::new(10, 100, 0);
        let id = open(&mut sessions, &[0]);
        let plan = sessions.on_request(request(id, 0, vec![wanted(3, 0)]), 0).unwrap();
        assert_eq!(plan.kind, Kind::Opening);
        assert!(sessions.is_empty());
        let id = open(&mut sessions, &[0]);
        let plan = sessions.on_request(request(id, -1, vec![wanted(3, 0)]), 0).unwrap();
        assert_eq!(plan.kind, Kind::Sessionless);
        assert!(sessions.is_empty());
    }

    #[test]
    fn sessions_and_their_partitions_are_bounded_and_idle_ones_give_way() {
        let mut sessions = Sessions::new(2, 3, 1);
        assert_eq!(open(&mut sessions, &[0, 1, 2, 3]), 0);
        let first = open(&mut sessions, &[0, 1]);
        assert_ne!(first, 0);
        assert_eq!(open(&mut sessions, &[0, 1]), 0);
        let late = vec![(wanted(0, 0), told(0)), (wanted(1, 0), told(0))];
        let second = sessions.open(late, true, SHARD, 1_000_000);
        assert!(second != 0 && second != first);
        assert_eq!(sessions.len(), 1);
        // A session that grows beyond the bound is served once more and forgotten.
        let more = vec![wanted(2, 0), wanted(3, 0)];
        let plan = sessions.on_request(request(second, 1, more), 0).unwrap();
        assert_eq!((plan.kind, plan.wanted.len()), (Kind::Sessionless, 4));
        assert!(sessions.is_empty());
    }

    #[test]
    fn ids_of_two_shards_never_meet_and_numbers_wrap() {
        let mut sessions = Sessions::new(10, 100, 0);
        let ids: Vec<_> = (0..3).map(|_| open(&mut sessions, &[0])).collect();
        assert!(ids.iter().all(|id| id % 2 == 1), "{ids:?}");
        sessions.next_number = i32::MAX;
        assert!(open(&mut sessions, &[0]) > 0);
        assert_eq!(next_epoch(i32::MAX), 1);
    }
}
