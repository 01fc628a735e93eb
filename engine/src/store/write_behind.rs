//! Write-behind, checkpoints and what they free (J11, J16, J17): one task per shard.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;
use futures_util::future::join_all;

use crate::checkpoint::Checkpoint;
use crate::disk::{File, FrozenBuffer};
use crate::journal::Journal;
use crate::log::{Boundary, Log};
use crate::manifest::{Manifest, write_manifest};
use crate::planted::{PlantedBug, is_planted};
use crate::round::all;
use crate::runtime::LocalFuture;
use crate::segment::layout::{SegmentName, align_down};
use crate::store::{Shared, partitions_directory};

/// A checkpoint is taken after this many bytes, so that a start never has to verify much more.
pub(super) const CHECKPOINT_EVERY_BYTES: u64 = 128 << 20;
/// Between checkpoints only pieces of at least this many bytes are written.
pub(super) const PIECE_MIN_BYTES: u64 = 64 << 10;
/// Operations of write-behind in flight.
const IN_FLIGHT_MAX: usize = 8;
/// Without load, what is owed is written after this time.
const IDLE_CHECKPOINT_AFTER: Duration = Duration::from_secs(30);

/// How far a pass goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Large pieces only, no sync.
    Pieces,
    /// Whole blocks of all logs, and the last blocks of those whose oldest bytes hold up the journal; then sync and
    /// checkpoint.
    Recycle,
    /// Everything.
    Everything,
}

/// Runs until the store stops or fails.
pub(crate) async fn run_write_behind(shared: Rc<Shared>) {
    loop {
        if shared.failure().is_some() {
            return;
        }
        let seen = shared.write_behind_wanted.count();
        if let Err(error) = bury(&shared).await {
            shared.fail(&format!("remove a log's directory: {error}"));
            return;
        }
        let is_last = shared.rounds_ended.count() > 0;
        let asked = shared.checkpoint_asked();
        let done = if is_last || asked.is_some() {
            checkpoint(&shared, Pass::Everything).await
        } else {
            work(&shared).await
        };
        match done {
            Ok(()) => asked.into_iter().for_each(|asked| shared.answer_checkpoint(asked)),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // The metadata reserve is used up by others; appends wait for room, nothing is lost.
                shared.note_disk_full();
                tracing::warn!(%error, "no room for a checkpoint");
                if is_last {
                    shared.fail("no room on the disk for the last checkpoint");
                    return;
                }
                shared.runtime.sleep(Duration::from_millis(200)).await;
            }
            Err(error) => {
                shared.fail(&format!("write behind the journal: {error}"));
                return;
            }
        }
        if is_last {
            shared.write_behind_ended.raise();
            return;
        }
        let idle = async {
            shared.runtime.sleep(IDLE_CHECKPOINT_AFTER).await;
            true
        };
        let woken = async {
            shared.write_behind_wanted.after(seen).await;
            false
        };
        if future::or(woken, idle).await && owes_anything(&shared) {
            shared.ask_checkpoint();
        }
    }
}

/// Deletes the directories of removed logs. Done here because no other task writes into them.
async fn bury(shared: &Rc<Shared>) -> io::Result<()> {
    let graves = std::mem::take(&mut *shared.graves.borrow_mut());
    if graves.is_empty() {
        return Ok(());
    }
    for log in &graves {
        log.close_files();
        shared.disk.remove_directory(&log.directory).await?;
    }
    shared.disk.sync_directory(&partitions_directory(&shared.root)).await?;
    shared.buried.raise();
    Ok(())
}

fn owes_anything(shared: &Shared) -> bool {
    shared.bytes_since_checkpoint.get() > 0
        && shared.logs.borrow().values().any(|log| {
            let state = log.state.borrow();
            !state.owed.is_empty() || state.unfolded_round.is_some()
        })
}

async fn work(shared: &Rc<Shared>) -> io::Result<()> {
    let survey = survey(shared);
    shared.owing_logs.set(survey.owing_logs);
    if shared.is_checkpoint_due() || survey.is_any_doomed {
        return checkpoint(shared, Pass::Recycle).await;
    }
    shared.journaled_since.set(0);
    for log in survey.with_pieces {
        flush(shared, &log, Pass::Pieces, 0).await.map_err(is_final)?;
    }
    trim_cache(shared);
    Ok(())
}

/// What a look at all logs found.
#[derive(Default)]
struct Survey {
    /// Logs that owe at least a piece.
    with_pieces: Vec<Rc<Log>>,
    /// Logs that owe anything.
    owing_logs: u64,
    /// Whether a log has segments to delete.
    is_any_doomed: bool,
}

fn survey(shared: &Shared) -> Survey {
    let mut survey = Survey::default();
    for log in shared.logs.borrow().values() {
        let state = log.state.borrow();
        let owed_bytes = state.owed.bytes();
        survey.owing_logs += u64::from(owed_bytes > 0);
        survey.is_any_doomed |= !state.doomed.is_empty();
        if owed_bytes >= PIECE_MIN_BYTES {
            survey.with_pieces.push(Rc::clone(log));
        }
    }
    survey
}

/// Makes journal files one ahead of need, up to the limit (J15). A task of its own: a checkpoint may take long.
pub(crate) async fn run_ring(shared: Rc<Shared>) {
    loop {
        let seen = shared.ring_wanted.count();
        let wants = {
            let journal = shared.journal.borrow();
            journal.free_count() == 0 && journal.file_count() < shared.config.journal_files_max
        };
        if shared.failure().is_some() || shared.is_stopping.get() {
            return;
        }
        if wants && let Err(error) = add_journal_file(&shared).await {
            shared.fail(&format!("make a journal file: {error}"));
            return;
        }
        shared.ring_wanted.after(seen).await;
    }
}

async fn add_journal_file(shared: &Rc<Shared>) -> io::Result<()> {
    let (path, bytes) = shared.journal.borrow_mut().next_file();
    match Journal::make_file(shared.disk.as_ref(), &path, bytes).await {
        Ok(file) => {
            shared.journal.borrow_mut().adopt(path, file);
            shared.is_ring_stuck.set(false);
            shared.room_made.raise();
            Ok(())
        }
        // A smaller ring does as well; its files come back by recycling.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            shared.is_ring_stuck.set(true);
            shared.write_behind_wanted.raise();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn logs(shared: &Shared) -> Vec<Rc<Log>> {
    shared.logs.borrow().values().cloned().collect()
}

/// Writes what is owed, syncs it, folds facts into manifests, writes both checkpoint copies, and only then gives
/// back journal files and deletes dead segments.
async fn checkpoint(shared: &Rc<Shared>, pass: Pass) -> io::Result<()> {
    shared.bytes_since_checkpoint.set(0);
    shared.journaled_since.set(0);
    let hold_up = shared.journal.borrow().half_round();
    let logs = logs(shared);
    let mut synced: Vec<(Rc<Log>, Boundary)> = Vec::with_capacity(logs.len());
    if is_planted(PlantedBug::RecycleBeforeSync) {
        shared.journal.borrow_mut().release(u64::MAX);
        shared.room_made.raise();
    }
    for log in &logs {
        let written_to = flush(shared, log, pass, hold_up).await.map_err(is_final)?;
        synced.push((Rc::clone(log), written_to));
    }
    sync_segments(shared, &logs).await.map_err(is_final)?;
    let mut doomed: Vec<(Rc<Log>, Vec<SegmentName>)> = Vec::new();
    let written = fold_and_write(shared, &logs, &synced, &mut doomed).await;
    let (first_needed_round, positions) = match written {
        Ok(written) => written,
        Err(error) => {
            // They go when a later checkpoint stands.
            for (log, names) in doomed {
                log.state.borrow_mut().doomed.extend(names);
            }
            return Err(error);
        }
    };
    for (log, boundary) in positions {
        let mut state = log.state.borrow_mut();
        if boundary.position >= state.checkpointed.position
            && boundary.position <= state.durable.position
        {
            state.checkpointed = boundary;
            while state.history.front().is_some_and(|m| m.end.position <= boundary.position) {
                state.history.pop_front();
            }
        }
    }
    if shared.journal.borrow_mut().release(first_needed_round) {
        shared.room_made.raise();
    }
    let mut stats = shared.stats.get();
    stats.checkpoints += 1;
    shared.stats.set(stats);
    for (log, names) in doomed {
        delete_segments(shared, &log, &names).await?;
    }
    trim_cache(shared);
    shared.checkpointed.raise();
    Ok(())
}

/// Where each log stands in a checkpoint.
type Positions = Vec<(Rc<Log>, Boundary)>;

/// Manifests, then both copies of the checkpoint. Gives the first round still needed, and where each log stands.
async fn fold_and_write(
    shared: &Rc<Shared>,
    logs: &[Rc<Log>],
    synced: &[(Rc<Log>, Boundary)],
    doomed: &mut Vec<(Rc<Log>, Vec<SegmentName>)>,
) -> io::Result<(u64, Positions)> {
    for some in logs.chunks(IN_FLIGHT_MAX) {
        let folded = join_all(some.iter().map(|log| fold(shared, log))).await;
        let mut result = Ok(());
        for (log, folded) in some.iter().zip(folded) {
            match folded {
                Ok(names) => doomed.extend(names.map(|names| (Rc::clone(log), names))),
                // A full disk is no end; whatever else went wrong with one of them is.
                Err(error) if error.kind() != io::ErrorKind::StorageFull => return Err(error),
                Err(error) => result = Err(error),
            }
        }
        result?;
    }
    let sequence = shared.checkpoint_sequence.get() + 1;
    shared.checkpoint_sequence.set(sequence);
    let (content, positions) = take_checkpoint(shared, synced);
    content.write(shared.disk.as_ref(), &shared.shard_directory, sequence).await?;
    Ok((content.first_needed_round, positions))
}

/// Space of segments was reserved long before they are written: there a full disk is an error like any other (J33).
fn is_final(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::StorageFull { io::Error::other(error) } else { error }
}

/// The checkpoint as of this moment; nothing is awaited, so no round ends while it is taken (J21).
fn take_checkpoint(shared: &Rc<Shared>, synced: &[(Rc<Log>, Boundary)]) -> (Checkpoint, Positions) {
    let mut first_needed = shared.last_round.get() + 1;
    let mut entries = Vec::new();
    let mut positions = Vec::new();
    for log in shared.logs.borrow().values() {
        let state = log.state.borrow();
        let boundary = synced
            .binary_search_by_key(&log.partition, |(other, _)| other.partition)
            .ok()
            .and_then(|index| synced.get(index))
            .filter(|(other, _)| Rc::ptr_eq(other, log))
            .map(|(_, boundary)| *boundary)
            // Cut or dropped meanwhile: what was checkpointed before is still true, or was moved along.
            .filter(|b| {
                b.position >= state.checkpointed.position && b.position <= state.durable.position
            })
            .unwrap_or(state.checkpointed);
        if let Some(needed) = state.first_needed_round(boundary) {
            first_needed = first_needed.min(needed);
        }
        entries.push(state.checkpoint(log.partition, log.uid, boundary));
        positions.push((Rc::clone(log), boundary));
    }
    let checkpoint = Checkpoint {
        shard_uid: shared.shard_uid,
        incarnation: shared.incarnation,
        first_needed_round: first_needed,
        logs: entries,
    };
    (checkpoint, positions)
}

/// Writes what one log owes, as far as the pass goes. The boundary up to which everything is in the segments then,
/// once they are synced.
async fn flush(
    shared: &Rc<Shared>,
    log: &Rc<Log>,
    pass: Pass,
    hold_up: u64,
) -> io::Result<Boundary> {
    let (writes, settled) = {
        let mut state = log.state.borrow_mut();
        if state.is_removed || state.is_busy_cutting {
            return Ok(state.checkpointed);
        }
        plan(&mut state, pass, hold_up)
    };
    if !writes.is_empty() {
        log.state.borrow_mut().is_writing = true;
        let result = write_all(shared, log, writes).await;
        log.state.borrow_mut().is_writing = false;
        log.moved.raise();
        result?;
    }
    let state = log.state.borrow();
    Ok(state.boundary_at_or_below(settled.min(state.durable.position)))
}

/// A write to a segment: which, where, what.
type Write = (SegmentName, u64, FrozenBuffer);

/// Decides what to write and takes it off what is owed. Gives the position below which nothing is owed then.
fn plan(state: &mut crate::log::State, pass: Pass, hold_up: u64) -> (Vec<Write>, u64) {
    let block = state.tail.block_bytes();
    let mut writes = Vec::new();
    let runs: Vec<(u64, u64)> = state.owed.runs().collect();
    for (from, end) in runs {
        let full = align_down(end, block);
        if pass == Pass::Pieces && full.saturating_sub(from) < PIECE_MIN_BYTES {
            continue;
        }
        let Some(segment) =
            state.segment_index_at(from).and_then(|index| state.segments.get(index))
        else {
            continue;
        };
        let (name, start) = (segment.name, segment.start);
        let is_sealed = segment.position_end() == end
            && state.segments.last().is_some_and(|active| active.name != name);
        // The last block of a log that is still written to may leave the journal only while no round holds more
        // of it: what follows is then journaled from the block's first byte on (J11).
        let is_settled = state.rounded.position == state.durable.position;
        let holds_up = match pass {
            Pass::Everything => true,
            Pass::Recycle => state.history.front().is_some_and(|mark| mark.round <= hold_up),
            Pass::Pieces => false,
        };
        let pad = full < end && (is_sealed || (holds_up && is_settled));
        if from < full {
            let Some(blocks) = state.tail.blocks(from, full) else { continue };
            writes.extend(blocks.into_iter().map(|(at, blocks)| (name, at - start, blocks)));
            state.owed.settle(from, full);
        }
        if pad && let Some(padded) = state.tail.padded_block(full.max(from), end) {
            writes.push((name, full.max(from) - start, padded));
            state.owed.settle(full.max(from), end);
            if !is_sealed {
                state.end_block_on_disk = true;
            }
        }
    }
    for (name, _, _) in &writes {
        if let Some(segment) = state.segments.iter_mut().rev().find(|s| s.name == *name) {
            segment.needs_sync = true;
        }
    }
    (writes, state.owed.first().unwrap_or(state.durable.position))
}

async fn write_all(shared: &Rc<Shared>, log: &Rc<Log>, writes: Vec<Write>) -> io::Result<()> {
    let mut bytes = 0;
    let mut batch: Vec<LocalFuture<io::Result<()>>> = Vec::new();
    for (name, at, blocks) in writes {
        let Some(file) = log.file_of(name).await? else { continue };
        bytes += blocks.len() as u64;
        batch.push(file.write_at(blocks, at));
        if batch.len() == IN_FLIGHT_MAX {
            all(std::mem::take(&mut batch)).await?;
        }
    }
    all(batch).await?;
    let mut stats = shared.stats.get();
    stats.write_behind_bytes += bytes;
    shared.stats.set(stats);
    Ok(())
}

/// Syncs every segment written since its last sync, a few at a time.
async fn sync_segments(shared: &Rc<Shared>, logs: &[Rc<Log>]) -> io::Result<()> {
    let mut batch: Vec<LocalFuture<io::Result<()>>> = Vec::new();
    for log in logs {
        let files: Vec<Rc<dyn File>> = {
            let mut state = log.state.borrow_mut();
            let mut files = Vec::new();
            for segment in state.segments.iter_mut().filter(|segment| segment.needs_sync) {
                segment.needs_sync = false;
                files.extend(segment.file.clone());
            }
            files
        };
        for file in files {
            batch.push(file.sync());
            if batch.len() == IN_FLIGHT_MAX {
                all(std::mem::take(&mut batch)).await?;
                shared.runtime.yield_if_needed().await;
            }
        }
    }
    all(batch).await
}

/// Writes the manifest of a log that has facts the manifest lacks. The segments that may be deleted once the
/// checkpoint stands too.
async fn fold(shared: &Rc<Shared>, log: &Rc<Log>) -> io::Result<Option<Vec<SegmentName>>> {
    let Some(folded) = take_manifest(shared, log) else { return Ok(None) };
    let Folded { manifest, sequence, first_round, doomed } = folded;
    let written = write_manifest(shared.disk.as_ref(), &log.directory, sequence, &manifest).await;
    if let Err(error) = written {
        // A full disk is no end: the facts stay in the journal until a manifest has them.
        let mut state = log.state.borrow_mut();
        state.note_unfolded(first_round);
        state.doomed.extend(doomed);
        return Err(error);
    }
    match log.write_indexes().await {
        // An index is a hint; without its file the segment is walked once.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
        other => other?,
    }
    Ok(Some(doomed))
}

/// What one manifest takes out of a log's state.
struct Folded {
    manifest: Manifest,
    sequence: u64,
    /// The lowest round with a fact that is in this manifest and was in none before.
    first_round: u64,
    /// Segments that may be deleted once the checkpoint stands too.
    doomed: Vec<SegmentName>,
}

fn take_manifest(shared: &Shared, log: &Log) -> Option<Folded> {
    let mut state = log.state.borrow_mut();
    if state.is_removed || state.is_busy_cutting {
        return None;
    }
    let first_round = state.unfolded_round.take()?;
    state.manifest_sequence += 1;
    let base = log.base_digest.get();
    let manifest = state.manifest(shared.incarnation, shared.last_round.get(), base);
    let doomed = std::mem::take(&mut state.doomed);
    Some(Folded { manifest, sequence: state.manifest_sequence, first_round, doomed })
}

async fn delete_segments(
    shared: &Rc<Shared>,
    log: &Rc<Log>,
    names: &[SegmentName],
) -> io::Result<()> {
    for name in names {
        for path in [log.segment_path(*name), log.index_path(*name)] {
            match shared.disk.remove(&path).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    if names.is_empty() { Ok(()) } else { shared.disk.sync_directory(&log.directory).await }
}

/// Gives back memory of batches that are in their segments, largest tails first, until the cache fits its budget.
fn trim_cache(shared: &Shared) {
    let logs = shared.logs.borrow();
    let mut cached: Vec<usize> =
        logs.values().map(|log| log.state.borrow().cached_bytes()).collect();
    let mut total: usize = cached.iter().sum();
    let mut read_ahead = shared.read_ahead.borrow_mut();
    read_ahead.expire(shared.runtime.now().monotonic_ns);
    let budget = shared.config.cache_bytes.saturating_sub(read_ahead.bytes());
    drop(read_ahead);
    let fair = budget / logs.len().max(1);
    let mut share = if total > budget { share_of(&mut cached, budget) } else { return };
    // Memory goes in whole chunks, so that one pass may leave too much.
    while total > budget && share > 4096 {
        for log in logs.values() {
            let mut state = log.state.borrow_mut();
            state.tail.set_share(fair);
            if state.is_writing || state.cached_bytes() <= share {
                continue;
            }
            let keep_from = state.tail.end().saturating_sub(share as u64);
            let safe = state.owed.first().unwrap_or(state.durable.position);
            let safe = safe.min(state.durable.position);
            total -= state.tail.drop_before(keep_from.min(safe)).min(total);
            if share <= fair {
                total -= state.tail.shrink_last(safe).min(total);
            }
        }
        share /= 2;
    }
}

/// The largest share of which all have at most `budget` together, when none has more than its `wishes`.
fn share_of(wishes: &mut [usize], budget: usize) -> usize {
    wishes.sort_unstable();
    let mut left = budget;
    for (index, wish) in wishes.iter().enumerate() {
        let share = left / (wishes.len() - index);
        if *wish > share {
            return share;
        }
        left -= wish;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::share_of;

    #[test]
    fn a_share_is_what_small_wishes_leave() {
        assert_eq!(share_of(&mut [10, 1000, 20, 1000], 430), 200);
        assert_eq!(share_of(&mut [500; 4], 400), 100);
        assert_eq!(share_of(&mut [1, 2], 10), 7);
        assert_eq!(share_of(&mut [], 10), 10);
    }
}
