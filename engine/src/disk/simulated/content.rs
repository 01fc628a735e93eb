//! One simulated file: what a reader sees, what would survive a power cut, and the writes in between. \[P\]
//!
//! A block remembers the content that is surely durable and every version written since. A crash
//! picks one of them, or damages the block; a sync turns versions into durable content. Lengths and
//! allocations are remembered and picked the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use rand::Rng;
use rand_pcg::Pcg64;

use super::Fate;
use super::ranges::Ranges;

/// Unit of the simulated disk, in bytes.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Some devices tear at this unit, in bytes.
const SECTOR_BYTES: usize = 512;

/// Bytes of one block; `None` is zeros.
pub(super) type Content = Option<Rc<[u8]>>;

#[derive(Debug, Clone, Default)]
struct Block {
    /// What surely survives.
    durable: Content,
    /// What a read returns.
    visible: Content,
    /// Written since `durable`, oldest first.
    versions: Vec<Version>,
    /// Reads fail until the block is written again.
    broken: bool,
}

#[derive(Debug, Clone)]
struct Version {
    /// The write it belongs to.
    write: u64,
    content: Content,
    /// Moment of completion; none while in flight.
    completed: Option<u64>,
    /// A cut, not a write: happens or not, but never damages.
    is_cut: bool,
}

/// What a sync covers: all that had completed when it was called.
#[derive(Debug, Clone)]
pub(super) struct Covered {
    moment: u64,
    length: u64,
    allocated: Ranges,
}

/// A file's bytes, length and room. Positions in bytes unless named blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct FileContent {
    blocks: BTreeMap<u64, Block>,
    /// Blocks that have versions.
    dirty: BTreeSet<u64>,
    length: u64,
    durable_length: u64,
    /// Lengths it had since `durable_length`, each with the moment it got it.
    lengths: Vec<(u64, u64)>,
    allocated: Ranges,
    durable_allocated: Ranges,
    /// Moment covered by the newest sync that ended well.
    synced: u64,
}

impl FileContent {
    /// A durable file of these bytes.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        let mut file = Self::default();
        file.set_bytes(0, bytes);
        file
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn allocated_blocks(&self) -> u64 {
        self.allocated.len()
    }

    /// Blocks of `range` that have no room yet.
    pub(super) fn missing_blocks(&self, range: &Range<u64>) -> u64 {
        self.allocated.missing(range)
    }

    /// Gives the blocks `range` room; they read as zeros.
    pub(super) fn allocate_blocks(&mut self, range: Range<u64>) {
        self.allocated.insert(range);
    }

    /// Makes the file at least `end` long.
    pub(super) fn extend_to(&mut self, end: u64, moment: u64) {
        if end > self.length {
            self.length = end;
            self.lengths.push((moment, end));
        }
    }

    /// Puts a write in flight. From now on a crash may leave any of its blocks old, new or damaged.
    pub(super) fn start_write(&mut self, write: u64, first_block: u64, bytes: &[u8]) {
        for (block, chunk) in (first_block..).zip(bytes.chunks(BLOCK_BYTES)) {
            let content = (chunk.iter().any(|byte| *byte != 0)).then(|| Rc::from(chunk));
            let version = Version { write, content, completed: None, is_cut: false };
            self.blocks.entry(block).or_default().versions.push(version);
            self.dirty.insert(block);
        }
    }

    /// The blocks of `write` that `landed` accepts are now what readers see; the others never happened.
    pub(super) fn finish_write(
        &mut self,
        write: u64,
        blocks: Range<u64>,
        moment: u64,
        mut landed: impl FnMut() -> bool,
    ) {
        for number in blocks {
            let Some(block) = self.blocks.get_mut(&number) else { continue };
            if landed() {
                for version in block.versions.iter_mut().filter(|version| version.write == write) {
                    version.completed = Some(moment);
                    block.visible.clone_from(&version.content);
                    block.broken = false;
                }
            } else {
                block.versions.retain(|version| version.write != write);
                if block.versions.is_empty() {
                    self.dirty.remove(&number);
                }
            }
        }
    }

    /// Whether a write to one of `blocks` is in flight.
    pub(super) fn has_write_in_flight(&self, blocks: &Range<u64>) -> bool {
        self.dirty.range(blocks.clone()).any(|number| {
            let block = self.blocks.get(number);
            block.is_some_and(|block| block.versions.iter().any(|v| v.completed.is_none()))
        })
    }

    /// What a sync called now covers.
    pub(super) fn cover(&self, moment: u64) -> Covered {
        Covered { moment, length: self.length, allocated: self.allocated.clone() }
    }

    /// Makes `covered` durable; versions completed later, or still in flight, stay in danger.
    pub(super) fn make_durable(&mut self, covered: Covered) {
        let Covered { moment, length, allocated } = covered;
        let is_covered = |version: &Version| version.completed.is_some_and(|at| at <= moment);
        self.dirty.retain(|number| {
            let Some(block) = self.blocks.get_mut(number) else { return false };
            let newest = block
                .versions
                .iter()
                .filter(|version| is_covered(version))
                .max_by_key(|version| version.completed);
            if let Some(newest) = newest {
                block.durable.clone_from(&newest.content);
            }
            block.versions.retain(|version| !is_covered(version));
            !block.versions.is_empty()
        });
        // Of two syncs under way the older may end last; it must not take back what the newer saved.
        if moment >= self.synced {
            self.synced = moment;
            self.durable_length = length;
            self.lengths.retain(|(at, _)| *at > moment);
            self.durable_allocated = allocated;
        }
    }

    /// The device lost what it had not written: readers still see it, nothing will ever save it.
    pub(super) fn doom(&mut self, covered: &Covered) {
        let is_covered =
            |version: &Version| version.completed.is_some_and(|at| at <= covered.moment);
        self.dirty.retain(|number| {
            let Some(block) = self.blocks.get_mut(number) else { return false };
            block.versions.retain(|version| !is_covered(version));
            !block.versions.is_empty()
        });
    }

    /// Cuts the file to `length` (or lengthens it without room), visibly; durable only when synced.
    pub(super) fn cut(&mut self, length: u64, moment: u64, cut: u64) {
        if length < self.length {
            let first = length / BLOCK_BYTES as u64;
            let kept = usize::try_from(length % BLOCK_BYTES as u64).unwrap_or(0);
            for (number, block) in self.blocks.range_mut(first..) {
                if block.visible.is_none() && block.versions.is_empty() {
                    continue;
                }
                let kept = if *number == first { kept } else { 0 };
                let content = cut_block(&block.visible, kept);
                block.visible.clone_from(&content);
                block.versions.push(Version {
                    write: cut,
                    content,
                    completed: Some(moment),
                    is_cut: true,
                });
                self.dirty.insert(*number);
            }
            self.allocated.cut(length.div_ceil(BLOCK_BYTES as u64));
        }
        if length != self.length {
            self.length = length;
            self.lengths.push((moment, length));
        }
    }

    /// What a reader gets of `position..position + len`: less at the end of the file, `None` where a
    /// block cannot be read. Blocks with a write in flight come back torn as `rng` likes.
    pub(super) fn read(&self, position: u64, len: usize, rng: &mut Pcg64) -> Option<Vec<u8>> {
        let end = self.length.min(position.saturating_add(len as u64)).max(position);
        let mut bytes = vec![0; usize::try_from(end - position).unwrap_or(0)];
        let first = position / BLOCK_BYTES as u64;
        for (number, target) in (first..).zip(bytes.chunks_mut(BLOCK_BYTES)) {
            let Some(block) = self.blocks.get(&number) else { continue };
            if block.broken {
                return None;
            }
            copy_block(&block.visible, target);
            for version in block.versions.iter().filter(|version| version.completed.is_none()) {
                tear_into(&version.content, target, rng);
            }
        }
        Some(bytes)
    }

    /// All bytes: as readers see them, or as they surely survive.
    pub(super) fn bytes(&self, view: super::View) -> Vec<u8> {
        let length = match view {
            super::View::Visible => self.length,
            super::View::Durable => self.durable_length,
        };
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        for (number, block) in &self.blocks {
            let content = match view {
                super::View::Visible => &block.visible,
                super::View::Durable => &block.durable,
            };
            let start = usize::try_from(*number).unwrap_or(usize::MAX).saturating_mul(BLOCK_BYTES);
            if let Some(target) = bytes.get_mut(start..) {
                copy_block(content, target);
            }
        }
        bytes
    }

    /// Puts `bytes` at `position`, visible and durable at once, past every cache.
    pub(super) fn set_bytes(&mut self, position: u64, bytes: &[u8]) {
        let mut position = position;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = usize::try_from(position % BLOCK_BYTES as u64).unwrap_or(0);
            let (chunk, behind) = rest.split_at(rest.len().min(BLOCK_BYTES - within));
            let number = position / BLOCK_BYTES as u64;
            let block = self.blocks.entry(number).or_default();
            for content in [&mut block.durable, &mut block.visible] {
                let mut changed = [0; BLOCK_BYTES];
                copy_block(content, &mut changed);
                if let Some(target) = changed.get_mut(within..within + chunk.len()) {
                    target.copy_from_slice(chunk);
                }
                *content = Some(Rc::from(changed.as_slice()));
            }
            self.allocated.insert(number..number + 1);
            self.durable_allocated.insert(number..number + 1);
            position += chunk.len() as u64;
            rest = behind;
        }
        self.length = self.length.max(position);
        self.durable_length = self.durable_length.max(position);
    }

    /// Makes reads of the block at `position` fail until it is written again.
    pub(super) fn break_block(&mut self, position: u64) {
        self.blocks.entry(position / BLOCK_BYTES as u64).or_default().broken = true;
    }

    /// A block that holds something, picked by `rng`.
    pub(super) fn random_block(&self, rng: &mut Pcg64) -> Option<u64> {
        let written: Vec<u64> = self
            .blocks
            .iter()
            .filter(|(_, block)| block.visible.is_some())
            .map(|(number, _)| *number)
            .collect();
        written.get(rng.random_range(0..written.len().max(1))).copied()
    }

    /// The file as it surely survives, with nothing pending.
    pub(super) fn durable(&self) -> Self {
        let mut file = self.clone();
        file.settle(self.durable_length, self.durable_allocated.clone(), |block| {
            block.durable.clone()
        });
        file
    }

    /// Power cut: every block with versions comes back old, new or damaged, as `fate` and `rng` say.
    pub(super) fn crash(&mut self, fate: Fate, rng: &mut Pcg64) {
        let mut lengths = vec![self.durable_length];
        lengths.extend(self.lengths.iter().map(|(_, length)| *length));
        let is_in_flight = |number: &&u64| {
            let block = self.blocks.get(number);
            block.is_some_and(|block| block.versions.iter().any(|v| v.completed.is_none()))
        };
        if let Some(last) = self.dirty.iter().rev().find(is_in_flight) {
            lengths.push(self.length.max((last + 1) * BLOCK_BYTES as u64));
        }
        let length = match fate {
            Fate::Lost => self.durable_length,
            Fate::Kept => self.length,
            Fate::Any | Fate::Damaged => *pick(&lengths, rng),
        };
        let allocated = match fate {
            Fate::Lost => self.durable_allocated.clone(),
            Fate::Any if rng.random_bool(0.5) => self.durable_allocated.clone(),
            Fate::Kept | Fate::Any | Fate::Damaged => self.allocated.clone(),
        };
        self.settle(length, allocated, |block| block.after_crash(fate, rng));
    }

    /// Ends with nothing pending: each block holds what `content` says of it.
    fn settle(
        &mut self,
        length: u64,
        mut allocated: Ranges,
        mut content: impl FnMut(&Block) -> Content,
    ) {
        let blocks_end = length.div_ceil(BLOCK_BYTES as u64);
        drop(self.blocks.split_off(&blocks_end));
        for (number, block) in &mut self.blocks {
            let mut settled = content(block);
            let kept = length - number * BLOCK_BYTES as u64;
            if let Ok(kept) = usize::try_from(kept)
                && kept < BLOCK_BYTES
            {
                settled = cut_block(&settled, kept);
            }
            block.versions.clear();
            block.durable.clone_from(&settled);
            block.visible = settled;
            if block.visible.is_some() {
                allocated.insert(*number..number + 1);
            }
        }
        self.blocks.retain(|_, block| block.visible.is_some() || block.broken);
        allocated.cut(blocks_end);
        self.dirty.clear();
        self.lengths.clear();
        self.length = length;
        self.durable_length = length;
        self.durable_allocated = allocated.clone();
        self.allocated = allocated;
    }
}

impl Block {
    fn after_crash(&self, fate: Fate, rng: &mut Pcg64) -> Content {
        if self.versions.is_empty() {
            return self.durable.clone();
        }
        let new = pick(&self.versions, rng);
        let can_be_damaged = self.versions.iter().any(|version| !version.is_cut);
        let outcome = match fate {
            Fate::Lost => 0,
            Fate::Kept => return self.visible.clone(),
            Fate::Damaged => 2,
            Fate::Any => rng.random_range(0..3),
        };
        match outcome {
            0 => self.durable.clone(),
            2 if can_be_damaged => {
                let mut bytes = [0; BLOCK_BYTES];
                if rng.random_bool(0.5) {
                    rng.fill(&mut bytes[..]);
                } else {
                    copy_block(&self.durable, &mut bytes);
                    tear_into(&new.content, &mut bytes, rng);
                }
                Some(Rc::from(bytes.as_slice()))
            }
            _ => new.content.clone(),
        }
    }
}

fn pick<'a, T>(from: &'a [T], rng: &mut Pcg64) -> &'a T {
    from.get(rng.random_range(0..from.len())).expect("the index was drawn below the length")
}

/// Copies as much of `content` as `target` has room for.
fn copy_block(content: &Content, target: &mut [u8]) {
    let len = target.len().min(BLOCK_BYTES);
    let Some(target) = target.get_mut(..len) else { return };
    match content.as_ref().and_then(|bytes| bytes.get(..len)) {
        Some(bytes) => target.copy_from_slice(bytes),
        None => target.fill(0),
    }
}

/// Replaces sectors of `target` by those of `content`, each or not as `rng` likes.
fn tear_into(content: &Content, target: &mut [u8], rng: &mut Pcg64) {
    let mut new = [0; BLOCK_BYTES];
    copy_block(content, &mut new);
    for (sector, new) in target.chunks_mut(SECTOR_BYTES).zip(new.chunks(SECTOR_BYTES)) {
        if rng.random_bool(0.5)
            && let Some(new) = new.get(..sector.len())
        {
            sector.copy_from_slice(new);
        }
    }
}

/// The first `kept` bytes of a block, zeros behind them.
fn cut_block(content: &Content, kept: usize) -> Content {
    if kept == 0 {
        return None;
    }
    let mut bytes = [0; BLOCK_BYTES];
    copy_block(content, bytes.get_mut(..kept)?);
    Some(Rc::from(bytes.as_slice()))
}
