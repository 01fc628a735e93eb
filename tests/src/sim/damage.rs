//! What rots while the disk is at rest. One thing at a time: two damages may hide each other.

use std::path::PathBuf;
use std::rc::Rc;

use levada_engine::OpenError;
use levada_engine::disk::simulated::View;
use levada_engine::journal::replay::find_rounds;
use rand::Rng;

use super::lives::{Incarnation, ROOT};
use super::world::World;

/// Turns bits in one place of the disk.
pub(super) fn rot(world: &Rc<World>, incarnation: &Incarnation) {
    world.is_damaged.set(true);
    let what = world.life_range(0..10);
    let rotten = match what {
        0..3 => world.disk.rot_random(".log"),
        3..6 => rot_round(world, incarnation),
        6 => world.disk.rot_random(".index"),
        7 => world.disk.rot_random("manifest."),
        8 => world.disk.rot_random("checkpoint-"),
        _ => world.disk.rot_random("start."),
    };
    world.event(|| format!("rot: {rotten:?}"));
}

/// Turns a bit in a round of the journal: its header, its table or a payload.
fn rot_round(world: &Rc<World>, incarnation: &Incarnation) -> Option<(PathBuf, u64)> {
    let mut rng = world.life_rng.borrow_mut();
    let shard = rng.random_range(0..incarnation.shard_uids.len().max(1));
    let uid = *incarnation.shard_uids.get(shard)?;
    let directory = format!("{ROOT}/shards/{shard}/journal-");
    let paths: Vec<PathBuf> = world
        .disk
        .files(View::Visible)
        .into_iter()
        .filter(|path| path.to_string_lossy().starts_with(&directory))
        .collect();
    let files: Vec<Vec<u8>> =
        paths.iter().filter_map(|path| world.disk.file_bytes(path, View::Visible).ok()).collect();
    let slices: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let found = find_rounds(&slices, 4096, uid, incarnation.number, 1).rounds;
    if found.is_empty() {
        return None;
    }
    // Mostly near the end, where rounds are still needed.
    let depth = if rng.random_bool(0.7) { 20 } else { found.len() };
    let back = rng.random_range(0..depth);
    let one = found.get(found.len().checked_sub(1 + back.min(found.len() - 1))?)?;
    let within = if rng.random_bool(0.5) { 200 } else { one.round.length_bytes };
    let at = one.at + rng.random_range(0..within.min(one.round.length_bytes));
    let path = paths.get(one.file)?;
    let bit = rng.random_range(0..8);
    world.disk.flip_bit(path, at as u64, bit).ok()?;
    Some((path.clone(), one.round.identity.round))
}

/// The start record is gone, and the directory said so: the operator brings a copy back. Whether that was it.
pub(super) fn repair_start_record(_: &World, error: &OpenError) -> bool {
    matches!(error, OpenError::NoStartRecord { .. })
}
