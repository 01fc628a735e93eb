//! The suite that every [`Disk`](super::Disk) passes: what the engine relies on, asked of the real thing.
//!
//! Each check works in a fresh directory of its own and says in a [`Violation`] what did not hold.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::{poll_once, zip};

use super::{Buffer, File, FrozenBuffer, OpenMode, SharedDisk};
use crate::runtime::{LocalFuture, SharedRuntime};

/// What a check works with.
#[derive(Clone)]
pub struct Ground {
    /// The disk in question.
    pub disk: SharedDisk,
    /// An executor that runs it.
    pub runtime: SharedRuntime,
    /// A directory that exists and is empty.
    pub root: PathBuf,
}

/// How a disk failed a check.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// An operation that must succeed did not.
    #[error("unexpected error: {0}")]
    Io(#[from] io::Error),
    /// Something that must hold did not.
    #[error("does not hold: {0}")]
    Broken(&'static str),
}

/// The outcome of a check.
pub type Verdict = Result<(), Violation>;

/// One claim about disks.
pub struct Check {
    /// The claim; a valid file name.
    pub name: &'static str,
    check: fn(Ground) -> LocalFuture<Verdict>,
}

impl Check {
    /// Puts the claim to the test in a new directory below `ground.root`.
    ///
    /// # Errors
    /// [`Violation`] when the disk fails it.
    pub async fn run(&self, ground: &Ground) -> Verdict {
        let root = ground.root.join(self.name);
        ground.disk.create_directory(&root).await?;
        (self.check)(Ground { root, ..ground.clone() }).await
    }
}

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        vec![$(Check { name: stringify!($name), check: |ground| Box::pin($name(ground)) }),*]
    };
}

/// Every check.
pub fn checks() -> Vec<Check> {
    checks![
        a_new_file_is_empty_and_must_be_new,
        what_is_missing_is_not_found,
        bytes_are_read_where_they_were_written,
        a_read_ends_with_the_file,
        unaligned_access_is_refused,
        a_gap_reads_as_zeros,
        allocated_room_reads_as_zeros,
        allocation_keeps_what_is_there,
        an_impossible_allocation_reserves_nothing,
        truncation_cuts_and_growth_after_it_is_zeros,
        rename_replaces_and_keeps_open_files,
        a_removed_file_lives_on_in_its_descriptor,
        directories_are_listed_sorted_and_removed_whole,
        a_lock_excludes_every_other_descriptor,
        a_closed_file_refuses_everything,
        syncs_may_overlap,
        a_stable_descriptor_sees_and_shows_the_same_file,
        writes_to_different_blocks_do_not_mix,
        nothing_starts_before_its_first_poll,
        a_dropped_write_goes_on,
        space_is_told,
    ]
}

fn ensure(holds: bool, claim: &'static str) -> Verdict {
    if holds { Ok(()) } else { Err(Violation::Broken(claim)) }
}

fn ensure_kind<T>(result: io::Result<T>, kind: io::ErrorKind, claim: &'static str) -> Verdict {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Violation::Broken(claim)),
    }
}

impl Ground {
    fn block(&self) -> u64 {
        self.disk.block_bytes() as u64
    }

    /// `blocks` blocks of `byte`.
    fn blocks(&self, byte: u8, blocks: usize) -> FrozenBuffer {
        let mut buffer = Buffer::with_capacity(blocks * self.disk.block_bytes());
        buffer.push(&vec![byte; buffer.capacity()]);
        buffer.freeze()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    async fn create(&self, name: &str) -> io::Result<Rc<dyn File>> {
        self.disk.open(&self.path(name), OpenMode::CreateNew).await
    }

    /// Whether the file holds `blocks` blocks of `byte` from block `first` on.
    async fn holds(
        &self,
        file: &Rc<dyn File>,
        first: u64,
        blocks: usize,
        byte: u8,
    ) -> io::Result<bool> {
        let len = blocks * self.disk.block_bytes();
        let bytes = file.read_at(first * self.block(), len).await?;
        Ok(bytes.len() == len && bytes.iter().all(|found| *found == byte))
    }
}

async fn a_new_file_is_empty_and_must_be_new(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    ensure(file.path() == ground.path("file"), "a file knows its path")?;
    ensure(file.length().await? == 0, "a new file is empty")?;
    ensure(file.read_at(0, 0).await?.is_empty(), "a read of nothing gives nothing")?;
    ensure(
        file.read_at(0, ground.disk.block_bytes()).await?.is_empty(),
        "an empty file reads empty",
    )?;
    ensure_kind(ground.create("file").await, io::ErrorKind::AlreadyExists, "a name is new once")?;
    file.close().await?;
    let again = ground.disk.open(&ground.path("file"), OpenMode::Existing).await?;
    Ok(again.close().await?)
}

async fn what_is_missing_is_not_found(ground: Ground) -> Verdict {
    let (disk, missing) = (&ground.disk, ground.path("missing"));
    let not_found = io::ErrorKind::NotFound;
    ensure_kind(disk.open(&missing, OpenMode::Existing).await, not_found, "open")?;
    ensure_kind(disk.open(&missing.join("x"), OpenMode::CreateNew).await, not_found, "create")?;
    ensure_kind(disk.list(&missing).await, not_found, "list")?;
    ensure_kind(disk.rename(&missing, &ground.path("to")).await, not_found, "rename")?;
    ensure_kind(disk.remove(&missing).await, not_found, "remove")?;
    ensure_kind(disk.remove_directory(&missing).await, not_found, "remove directory")?;
    ensure_kind(disk.sync_directory(&missing).await, not_found, "sync directory")
}

async fn bytes_are_read_where_they_were_written(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    for (block, byte) in [(2, 3), (0, 1), (1, 2)] {
        file.write_at(ground.blocks(byte, 1), block * ground.block()).await?;
    }
    ensure(file.length().await? == 3 * ground.block(), "writes extend the file")?;
    for (block, byte) in [(0, 1), (1, 2), (2, 3)] {
        ensure(ground.holds(&file, block, 1, byte).await?, "a block holds what was written there")?;
    }
    file.write_at(ground.blocks(9, 2), ground.block()).await?;
    ensure(ground.holds(&file, 0, 1, 1).await?, "a write leaves its neighbours alone")?;
    ensure(ground.holds(&file, 1, 2, 9).await?, "the last write counts")?;
    file.sync().await?;
    file.close().await?;
    let again = ground.disk.open(&ground.path("file"), OpenMode::Existing).await?;
    ensure(ground.holds(&again, 1, 2, 9).await?, "a reopened file holds it")?;
    Ok(again.close().await?)
}

async fn a_read_ends_with_the_file(ground: Ground) -> Verdict {
    let (file, block) = (ground.create("file").await?, ground.disk.block_bytes());
    file.write_at(ground.blocks(5, 2), 0).await?;
    ensure(file.read_at(0, 8 * block).await?.len() == 2 * block, "a long read is short")?;
    ensure(file.read_at(ground.block(), 8 * block).await?.len() == block, "a late read is short")?;
    ensure(file.read_at(2 * ground.block(), block).await?.is_empty(), "nothing at the end")?;
    ensure(file.read_at(64 * ground.block(), block).await?.is_empty(), "nothing behind it")?;
    file.truncate(ground.block() + 600).await?;
    let tail = file.read_at(ground.block(), block).await?;
    ensure(tail.len() == 600, "the end may lie inside a block")?;
    ensure(tail.iter().all(|byte| *byte == 5), "and the bytes before it are those written")?;
    Ok(file.close().await?)
}

async fn unaligned_access_is_refused(ground: Ground) -> Verdict {
    let (file, block) = (ground.create("file").await?, ground.disk.block_bytes());
    file.write_at(ground.blocks(1, 2), 0).await?;
    let invalid = io::ErrorKind::InvalidInput;
    let mut odd = Buffer::with_capacity(block / 8);
    odd.fill_with_zeros();
    ensure_kind(file.write_at(odd.freeze(), 0).await, invalid, "write of an odd length")?;
    let shifted = file.write_at(ground.blocks(2, 1), ground.block() / 8).await;
    ensure_kind(shifted, invalid, "write at an odd position")?;
    ensure_kind(file.read_at(0, block / 8).await, invalid, "read of an odd length")?;
    ensure_kind(file.read_at(ground.block() / 8, block).await, invalid, "read at an odd position")?;
    ensure(ground.holds(&file, 0, 2, 1).await?, "a refused write changes nothing")?;
    Ok(file.close().await?)
}

async fn a_gap_reads_as_zeros(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    file.write_at(ground.blocks(1, 1), 3 * ground.block()).await?;
    ensure(ground.holds(&file, 0, 3, 0).await?, "what was never written is zeros")?;
    Ok(file.close().await?)
}

async fn allocated_room_reads_as_zeros(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    file.allocate(0, 16 * ground.block()).await?;
    ensure(file.length().await? == 16 * ground.block(), "allocation sets the length")?;
    ensure(ground.holds(&file, 0, 16, 0).await?, "allocated room is zeros")?;
    file.write_at(ground.blocks(7, 1), 5 * ground.block()).await?;
    ensure(ground.holds(&file, 5, 1, 7).await?, "until it is written")?;
    ensure(ground.holds(&file, 6, 10, 0).await?, "and only there")?;
    ensure(file.length().await? == 16 * ground.block(), "a write inside keeps the length")?;
    Ok(file.close().await?)
}

async fn allocation_keeps_what_is_there(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    file.write_at(ground.blocks(3, 2), 0).await?;
    file.allocate(ground.block(), 4 * ground.block()).await?;
    ensure(ground.holds(&file, 0, 2, 3).await?, "allocating over data keeps it")?;
    file.allocate(0, ground.block()).await?;
    ensure(file.length().await? == 4 * ground.block(), "allocation never shortens")?;
    let empty = file.allocate(ground.block(), ground.block()).await;
    ensure_kind(empty, io::ErrorKind::InvalidInput, "an empty allocation is refused")?;
    Ok(file.close().await?)
}

async fn an_impossible_allocation_reserves_nothing(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    file.write_at(ground.blocks(3, 1), 0).await?;
    let before = ground.disk.space(&ground.root).await?;
    let end = before.total_bytes.next_multiple_of(ground.block()) + ground.block();
    let refused = file.allocate(ground.block(), end).await;
    ensure_kind(refused, io::ErrorKind::StorageFull, "more than the whole disk is refused")?;
    ensure(file.length().await? == ground.block(), "the length is as before")?;
    ensure(ground.holds(&file, 0, 1, 3).await?, "and so is the content")?;
    // Others may use the same file system, so this is no exact comparison.
    let after = ground.disk.space(&ground.root).await?;
    ensure(after.free_bytes > before.free_bytes / 2, "the room is free again")?;
    Ok(file.close().await?)
}

async fn truncation_cuts_and_growth_after_it_is_zeros(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    file.write_at(ground.blocks(4, 4), 0).await?;
    file.truncate(ground.block()).await?;
    ensure(file.length().await? == ground.block(), "the length is cut")?;
    file.allocate(ground.block(), 4 * ground.block()).await?;
    ensure(ground.holds(&file, 0, 1, 4).await?, "what was below the cut stays")?;
    ensure(ground.holds(&file, 1, 3, 0).await?, "what was above it does not come back")?;
    file.truncate(0).await?;
    ensure(file.length().await? == 0, "a file can be emptied")?;
    file.truncate(2 * ground.block()).await?;
    ensure(ground.holds(&file, 0, 2, 0).await?, "and lengthened, with zeros")?;
    Ok(file.close().await?)
}

async fn rename_replaces_and_keeps_open_files(ground: Ground) -> Verdict {
    let (old, new) = (ground.create("old").await?, ground.create("new").await?);
    old.write_at(ground.blocks(1, 1), 0).await?;
    new.write_at(ground.blocks(2, 1), 0).await?;
    ground.disk.rename(&ground.path("new"), &ground.path("old")).await?;
    ground.disk.sync_directory(&ground.root).await?;
    ensure(ground.disk.list(&ground.root).await?.len() == 1, "one name is left")?;
    ensure(ground.holds(&old, 0, 1, 1).await?, "the replaced file lives on in its descriptor")?;
    ensure(new.length().await? == ground.block(), "the renamed one knows its own length")?;
    let named = ground.disk.open(&ground.path("old"), OpenMode::Existing).await?;
    ensure(ground.holds(&named, 0, 1, 2).await?, "the name leads to the new content")?;
    ground.disk.create_directory(&ground.path("directory")).await?;
    ground.disk.rename(&ground.path("directory"), &ground.path("moved")).await?;
    ensure(ground.disk.list(&ground.path("moved")).await?.is_empty(), "directories move too")?;
    for file in [old, new, named] {
        file.close().await?;
    }
    Ok(())
}

async fn a_removed_file_lives_on_in_its_descriptor(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    file.write_at(ground.blocks(1, 1), 0).await?;
    ground.disk.remove(&ground.path("file")).await?;
    ensure(ground.disk.list(&ground.root).await?.is_empty(), "the name is gone")?;
    ensure(ground.holds(&file, 0, 1, 1).await?, "the bytes are not")?;
    ensure(file.length().await? == ground.block(), "nor is the length")?;
    let other = ground.create("file").await?;
    ensure(other.length().await? == 0, "the name is free for another file")?;
    ensure(file.length().await? == ground.block(), "which changes nothing for the first")?;
    file.close().await?;
    other.close().await?;
    ensure(ground.disk.remove(&ground.root).await.is_err(), "a directory is no file")
}

async fn directories_are_listed_sorted_and_removed_whole(ground: Ground) -> Verdict {
    let (disk, nested) = (&ground.disk, ground.path("b").join("c"));
    disk.create_directory(&nested).await?;
    disk.create_directory(&nested).await?;
    for name in ["z", "a", "m"] {
        let file = ground.create(name).await?;
        file.write_at(ground.blocks(1, 1), 0).await?;
        file.close().await?;
    }
    disk.open(&nested.join("deep"), OpenMode::CreateNew).await?.close().await?;
    for directory in [&nested, &ground.root] {
        disk.sync_directory(directory).await?;
    }
    let entries = disk.list(&ground.root).await?;
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    ensure(names == ["a", "b", "m", "z"], "names come sorted")?;
    for entry in &entries {
        let length = if entry.is_directory { 0 } else { ground.block() };
        ensure(entry.length_bytes == length, "with their lengths")?;
        ensure(entry.is_directory == (entry.name == "b"), "and their kind")?;
    }
    let file = ground.path("a");
    ensure(disk.list(&file).await.is_err(), "a file cannot be listed")?;
    ensure(disk.create_directory(&file).await.is_err(), "nor become a directory")?;
    disk.remove_directory(&ground.path("b")).await?;
    ensure(disk.list(&ground.root).await?.len() == 3, "a directory goes with all below it")
}

async fn a_lock_excludes_every_other_descriptor(ground: Ground) -> Verdict {
    let first = ground.create("file").await?;
    let second = ground.disk.open(&ground.path("file"), OpenMode::Existing).await?;
    first.try_lock()?;
    first.try_lock()?;
    ensure_kind(second.try_lock(), io::ErrorKind::WouldBlock, "one descriptor holds it")?;
    first.close().await?;
    second.try_lock()?;
    drop(second);
    // A dropped file closes by itself, at the executor's next turn or two.
    let third = ground.disk.open(&ground.path("file"), OpenMode::Existing).await?;
    for _ in 0..100 {
        if third.try_lock().is_ok() {
            return Ok(third.close().await?);
        }
        ground.runtime.sleep(Duration::from_millis(1)).await;
    }
    ensure(false, "a dropped file lets go of its lock")
}

async fn a_closed_file_refuses_everything(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    file.write_at(ground.blocks(1, 1), 0).await?;
    Rc::clone(&file).close().await?;
    Rc::clone(&file).close().await?;
    ensure(file.write_at(ground.blocks(2, 1), 0).await.is_err(), "write")?;
    ensure(file.read_at(0, ground.disk.block_bytes()).await.is_err(), "read")?;
    ensure(file.sync().await.is_err(), "sync")?;
    ensure(file.allocate(0, ground.block()).await.is_err(), "allocate")?;
    ensure(file.truncate(0).await.is_err(), "truncate")?;
    ensure(file.length().await.is_err(), "length")?;
    ensure(file.try_lock().is_err(), "lock")
}

async fn syncs_may_overlap(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    file.write_at(ground.blocks(1, 4), 0).await?;
    let (first, second) = zip(file.sync(), file.sync()).await;
    first.and(second)?;
    file.sync().await?;
    Ok(file.close().await?)
}

async fn a_stable_descriptor_sees_and_shows_the_same_file(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    file.try_lock()?;
    file.write_at(ground.blocks(1, 2), 0).await?;
    file.sync().await?;
    let stable = ground.disk.open(&ground.path("file"), OpenMode::Stable).await?;
    stable.write_at(ground.blocks(2, 1), ground.block()).await?;
    let size = usize::try_from(2 * ground.block()).unwrap_or(usize::MAX);
    let (ones, twos) = (ground.blocks(1, 1), ground.blocks(2, 1));
    let expected = [&ones[..], &twos[..]].concat();
    for descriptor in [&file, &stable] {
        ensure(
            descriptor.read_at(0, size).await?[..] == expected[..],
            "both descriptors show the same bytes",
        )?;
    }
    let missing = ground.disk.open(&ground.path("missing"), OpenMode::Stable).await;
    ensure_kind(missing, io::ErrorKind::NotFound, "a stable descriptor creates nothing")
}

async fn writes_to_different_blocks_do_not_mix(ground: Ground) -> Verdict {
    const WRITES: u8 = 64;
    let file = ground.create("file").await?;
    let left = Rc::new(std::cell::Cell::new(u32::from(WRITES)));
    let failed = Rc::new(std::cell::RefCell::new(None));
    for byte in 1..=WRITES {
        let write = file.write_at(ground.blocks(byte, 2), u64::from(byte - 1) * 2 * ground.block());
        let (left, failed) = (Rc::clone(&left), Rc::clone(&failed));
        let task = async move {
            if let Err(error) = write.await {
                *failed.borrow_mut() = Some(error);
            }
            left.set(left.get() - 1);
        };
        ground.runtime.spawn("conformance write", Box::pin(task));
    }
    while left.get() > 0 {
        ground.runtime.sleep(Duration::from_micros(100)).await;
    }
    if let Some(error) = failed.take() {
        return Err(error.into());
    }
    file.sync().await?;
    for byte in 1..=WRITES {
        let holds = ground.holds(&file, u64::from(byte - 1) * 2, 2, byte).await?;
        ensure(holds, "each write is where it belongs")?;
    }
    ensure(file.length().await? == u64::from(WRITES) * 2 * ground.block(), "none is missing")?;
    Ok(file.close().await?)
}

async fn nothing_starts_before_its_first_poll(ground: Ground) -> Verdict {
    let file = ground.create("file").await?;
    drop(file.write_at(ground.blocks(1, 1), 0));
    drop(file.truncate(5 * ground.block()));
    drop(ground.disk.open(&ground.path("other"), OpenMode::CreateNew));
    ground.runtime.sleep(Duration::from_millis(5)).await;
    ensure(file.length().await? == 0, "the file is untouched")?;
    ensure(ground.disk.list(&ground.root).await?.len() == 1, "and so is the directory")?;
    Ok(file.close().await?)
}

async fn a_dropped_write_goes_on(ground: Ground) -> Verdict {
    const WRITES: u64 = 32;
    let file = ground.create("file").await?;
    for block in 0..WRITES {
        let mut write = file.write_at(ground.blocks(6, 1), block * ground.block());
        if let Some(done) = poll_once(&mut write).await {
            done?;
        }
    }
    // The close waits for all that is under way.
    file.close().await?;
    let again = ground.disk.open(&ground.path("file"), OpenMode::Existing).await?;
    let blocks = usize::try_from(WRITES).map_err(io::Error::other)?;
    ensure(ground.holds(&again, 0, blocks, 6).await?, "every write has landed")?;
    Ok(again.close().await?)
}

async fn space_is_told(ground: Ground) -> Verdict {
    let space = ground.disk.space(&ground.root).await?;
    ensure(space.total_bytes > 0, "a disk has a size")?;
    ensure(space.free_bytes <= space.total_bytes, "not more is free than there is")?;
    ensure_kind(
        ground.disk.space(Path::new("/no/such/place")).await,
        io::ErrorKind::NotFound,
        "what is not there has no space",
    )
}
