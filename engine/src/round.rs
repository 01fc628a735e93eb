//! Group commit: collects what waits on a shard, writes it, syncs it, moves the ends (J1 to J5).
//!
//! Produce path: from [`crate::log`]; to the disk; back through [`crate::store::StoreListener`].

pub(crate) mod path;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;

use crate::disk::{Buffer, File};
use crate::journal::layout::{
    ENTRY_BYTES_MAX, Entry, ROUND_HEADER_BYTES, RoundIdentity, encode_round,
};
use crate::log::{RoundBudget, RoundPart};
use crate::planted::{PlantedBug, is_planted};
use crate::round::path::THROUGH_FILES_MAX;
use crate::runtime::LocalFuture;
use crate::store::Shared;

/// A shard that stays idle for this long writes an empty closing round (J4).
const CLOSING_ROUND_AFTER: Duration = Duration::from_millis(5);

/// What one round was; for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundReport {
    /// From the first write to the last sync, in nanoseconds.
    pub duration_ns: u64,
    /// Entries in it.
    pub entries: usize,
    /// Bytes written to the journal, padding included.
    pub journal_bytes: u64,
    /// Bytes written straight to segments.
    pub through_bytes: u64,
    /// Files synced.
    pub files_synced: usize,
}

/// Facts of the shard itself that ride in a round: logs created and removed.
pub(crate) struct ShardFact {
    pub(crate) entry: Entry,
    pub(crate) done: Rc<std::cell::Cell<bool>>,
}

/// Runs rounds until the store stops or fails.
pub(crate) async fn run_rounds(shared: Rc<Shared>) {
    let mut chain = Chain { round: 0, checksum: 0, is_closed: true };
    loop {
        if shared.failure().is_some() {
            return;
        }
        let seen = shared.work.count();
        if shared.has_work() {
            if let Err(error) = run_round(&shared, &mut chain).await {
                shared.fail(&format!("commit a round: {error}"));
                return;
            }
            // Whom the round was for goes first: what they append next is in the next round, not the one after.
            future::yield_now().await;
            continue;
        }
        if shared.is_stopping.get() {
            break;
        }
        if chain.is_closed {
            shared.work.after(seen).await;
            continue;
        }
        let idle = async {
            shared.runtime.sleep(CLOSING_ROUND_AFTER).await;
            true
        };
        let woken = async {
            shared.work.after(seen).await;
            false
        };
        if future::or(woken, idle).await {
            if let Err(error) = run_round(&shared, &mut chain).await {
                shared.fail(&format!("close the journal: {error}"));
                return;
            }
            chain.is_closed = true;
        }
    }
    shared.rounds_ended.raise();
}

/// Where the chain of rounds stands.
struct Chain {
    round: u64,
    checksum: u64,
    /// Whether the last round was empty.
    is_closed: bool,
}

async fn run_round(shared: &Rc<Shared>, chain: &mut Chain) -> io::Result<()> {
    let round_max = shared.journal.borrow().round_bytes_max();
    wait_for_room(shared, round_max).await;
    if shared.failure().is_some() {
        return Ok(());
    }
    let round = chain.round + 1;
    let block = shared.disk.block_bytes();
    let mut budget = RoundBudget {
        journal_bytes: round_max - ROUND_HEADER_BYTES as u64 - block as u64,
        through_files: THROUGH_FILES_MAX,
    };
    let facts = shared.take_facts(&mut budget);
    let mut parts = Vec::with_capacity(shared.queued());
    collect(shared, &mut budget, round, &mut parts);

    let mut entries: Vec<Entry> = facts.iter().map(|fact| fact.entry).collect();
    entries.extend(parts.iter().map(|part| part.entry));
    let identity = RoundIdentity {
        shard_uid: shared.shard_uid,
        incarnation: shared.incarnation,
        round,
        previous: chain.checksum,
    };
    let head = encode_round(identity, &entries, block);
    let mut buffer = Buffer::with_capacity(head.length_bytes);
    buffer.push(&head.bytes);
    for part in &parts {
        let state = part.log.state.borrow();
        for (from, end) in part.payload {
            let whole = state.tail.visit(from, end, |piece| buffer.push(piece));
            assert!(whole, "pending bytes {from}..{end} are in memory");
        }
    }
    buffer.fill_with_zeros();
    let placed = shared.journal.borrow_mut().place(head.length_bytes as u64, round);
    let (journal, at) = placed.expect("room was waited for, and only rounds take it");

    let mut report = RoundReport {
        entries: entries.len(),
        journal_bytes: head.length_bytes as u64,
        ..RoundReport::default()
    };
    let started = shared.runtime.now().monotonic_ns;
    if is_alone(&parts) {
        // One operation instead of two: there is nothing to say between the write and its sync.
        journal.stable.write_at(buffer.freeze(), at).await?;
        report.files_synced = 1;
        if shared.failure().is_some() {
            return Ok(());
        }
        finish(shared, &parts, &facts, round);
    } else {
        let write = (journal.plain, buffer, at);
        if !write_then_sync(shared, write, &mut parts, &facts, (round, &mut report)).await? {
            return Ok(());
        }
    }
    report.duration_ns = shared.runtime.now().monotonic_ns.saturating_sub(started);
    chain.round = round;
    chain.checksum = head.checksum;
    chain.is_closed = entries.is_empty();
    shared.note_round(round, &report);
    Ok(())
}

/// Whether the round is one write to the journal, and nobody wants to hear of it before it is stable.
fn is_alone(parts: &[RoundPart]) -> bool {
    let bugs = [PlantedBug::AckBeforeSync, PlantedBug::OverlapRounds, PlantedBug::RetrySync];
    !bugs.into_iter().any(is_planted)
        && parts.iter().all(|part| {
            part.through.is_none()
                && (part.written_end().is_none() || !part.log.state.borrow().config.tell_written)
        })
}

/// Writes the round and what goes straight to segments, then syncs all of it. False when the log directory has failed
/// meanwhile.
async fn write_then_sync(
    shared: &Rc<Shared>,
    (journal, buffer, at): (Rc<dyn File>, Buffer, u64),
    parts: &mut [RoundPart],
    facts: &[ShardFact],
    (round, report): (u64, &mut RoundReport),
) -> io::Result<bool> {
    let mut touched: BTreeMap<PathBuf, Rc<dyn File>> = BTreeMap::new();
    let mut writes: Vec<LocalFuture<io::Result<()>>> = vec![journal.write_at(buffer.freeze(), at)];
    touched.insert(journal.path(), journal);
    for part in parts.iter_mut() {
        if let Some(through) = part.through.take() {
            for (byte, blocks) in through.writes {
                report.through_bytes += blocks.len() as u64;
                writes.push(through.file.write_at(blocks, byte));
            }
            touched.entry(through.file.path()).or_insert(through.file);
        }
    }
    all(writes).await?;
    for part in parts.iter() {
        if let Some(end) = part.written_end() {
            part.log.on_written(end);
        }
    }
    if is_planted(PlantedBug::AckBeforeSync) {
        finish(shared, parts, facts, round);
        all(touched.values().map(|file| file.sync()).collect()).await?;
        return Ok(true);
    }
    tell_written(shared, parts);
    report.files_synced = touched.len();
    let synced = if is_planted(PlantedBug::OverlapRounds) {
        // The next round is built while these run; nobody waits.
        for file in touched.into_values() {
            let sync = file.sync();
            shared.runtime.spawn("sync", Box::pin(async move { drop(sync.await) }));
        }
        Ok(())
    } else {
        all(touched.values().map(|file| file.sync()).collect()).await
    };
    match synced {
        // The planted mistake: an error is asked again, and the second answer believed.
        Err(_) if is_planted(PlantedBug::RetrySync) => {}
        other => other?,
    }
    // Somebody else's sync of one of these files may have failed meanwhile; then ours proves nothing (J33).
    if shared.failure().is_some() {
        return Ok(false);
    }
    finish(shared, parts, facts, round);
    Ok(true)
}

/// Takes logs from the queue until it is empty or the round is full. A log with something left stays first.
fn collect(shared: &Rc<Shared>, budget: &mut RoundBudget, round: u64, parts: &mut Vec<RoundPart>) {
    let mut left = Vec::new();
    while budget.journal_bytes >= 2 * ENTRY_BYTES_MAX as u64 {
        let Some(log) = shared.next_queued() else { break };
        if log.take_for_round(budget, round, parts) {
            left.push(log);
        }
    }
    for log in left.into_iter().rev() {
        shared.queue_first(&log);
    }
}

fn tell_written(shared: &Rc<Shared>, parts: &[RoundPart]) {
    for part in parts {
        if part.written_end().is_some() && part.log.state.borrow().config.tell_written {
            shared.listener.advanced(&part.log);
        }
    }
}

/// The round is durable: moves the ends, then tells everybody once.
fn finish(shared: &Rc<Shared>, parts: &[RoundPart], facts: &[ShardFact], round: u64) {
    for part in parts {
        part.log.on_durable(part, round);
    }
    for fact in facts {
        fact.done.set(true);
    }
    let mut last: Option<&Rc<crate::log::Log>> = None;
    for part in parts {
        // Parts of one log stand together.
        if last.is_none_or(|last| !Rc::ptr_eq(last, &part.log)) {
            part.log.moved.raise();
            shared.listener.advanced(&part.log);
        }
        last = Some(&part.log);
    }
    shared.round_done.raise();
}

/// Waits until write-behind has freed room for a round of `bytes` (J18).
async fn wait_for_room(shared: &Rc<Shared>, bytes: u64) {
    loop {
        let seen = shared.room_made.count();
        if shared.journal.borrow().has_room(bytes) || shared.failure().is_some() {
            return;
        }
        shared.write_behind_wanted.raise();
        shared.note_waiting_for_room();
        shared.room_made.after(seen).await;
    }
}

/// Awaits all, also after an error: a submitted operation is never abandoned (J5).
pub(crate) async fn all(mut operations: Vec<LocalFuture<io::Result<()>>>) -> io::Result<()> {
    if operations.len() <= 1 {
        return match operations.pop() {
            Some(operation) => operation.await,
            None => Ok(()),
        };
    }
    let mut result = Ok(());
    for one in futures_util::future::join_all(operations).await {
        if result.is_ok() {
            result = one;
        }
    }
    result
}

#[cfg(test)]
mod tests;
