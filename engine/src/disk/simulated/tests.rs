//! What the simulated disk promises, and what it is allowed to do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::disk::Buffer;
use crate::runtime::Runtime;

const BLOCK: u64 = BLOCK_BYTES as u64;

fn block_of(byte: u8) -> super::super::FrozenBuffer {
    blocks_of(byte, 1)
}

fn blocks_of(byte: u8, blocks: usize) -> super::super::FrozenBuffer {
    Buffer::padded_copy(&vec![byte; blocks * BLOCK_BYTES], BLOCK_BYTES).freeze()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/data").join(name)
}

fn count(bytes: &[u8], wanted: u8) -> usize {
    bytes.iter().map(|byte| usize::from(*byte == wanted)).sum()
}

/// A runtime and a disk with a durable directory `/data`.
fn machine(seed: u64) -> (SimRuntime, SimDisk) {
    let runtime = SimRuntime::new(seed);
    let disk = SimDisk::new(&runtime, seed);
    let setup = disk.clone();
    runtime.block_on(async move {
        setup.create_directory(Path::new("/data")).await.unwrap();
        setup.sync_directory(Path::new("/")).await.unwrap();
    });
    (runtime, disk)
}

/// Creates a file whose name is durable.
async fn create(disk: &SimDisk, name: &str) -> Rc<dyn File> {
    let file = disk.open(&path(name), OpenMode::CreateNew).await.unwrap();
    disk.sync_directory(Path::new("/data")).await.unwrap();
    file
}

fn crash(runtime: &SimRuntime, disk: &SimDisk) {
    runtime.kill_all();
    disk.crash();
}

#[test]
fn a_synced_write_survives_every_crash() {
    for seed in 0..300 {
        let (runtime, disk) = machine(seed);
        let inner = disk.clone();
        runtime.block_on(async move {
            let file = create(&inner, "log").await;
            file.write_at(blocks_of(7, 3), 0).await.unwrap();
            file.sync().await.unwrap();
            // Not synced: may do what it likes, but not to the blocks before it.
            file.write_at(blocks_of(9, 2), 3 * BLOCK).await.unwrap();
        });
        crash(&runtime, &disk);
        let bytes = disk.file_bytes(&path("log"), View::Visible).unwrap();
        assert!(bytes[..3 * BLOCK_BYTES].iter().all(|byte| *byte == 7), "seed {seed}");
    }
}

#[test]
fn a_stable_write_survives_every_crash() {
    for seed in 0..100 {
        let (runtime, disk) = machine(seed);
        let inner = disk.clone();
        runtime.block_on(async move {
            create(&inner, "log").await;
            let file = inner.open(&path("log"), OpenMode::Stable).await.unwrap();
            file.write_at(blocks_of(7, 3), 0).await.unwrap();
        });
        crash(&runtime, &disk);
        let bytes = disk.file_bytes(&path("log"), View::Visible).unwrap();
        assert_eq!(count(&bytes, 7), 3 * BLOCK_BYTES, "seed {seed}");
    }
}

#[test]
fn an_unsynced_block_comes_back_old_new_and_damaged() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let (runtime, disk) = machine(seed);
        let inner = disk.clone();
        runtime.block_on(async move {
            let file = create(&inner, "log").await;
            file.write_at(blocks_of(1, 2), 0).await.unwrap();
            file.sync().await.unwrap();
            file.write_at(block_of(2), BLOCK).await.unwrap();
        });
        crash(&runtime, &disk);
        let bytes = disk.file_bytes(&path("log"), View::Visible).unwrap();
        assert!(bytes[..BLOCK_BYTES].iter().all(|byte| *byte == 1), "seed {seed}");
        let block = &bytes[BLOCK_BYTES..];
        let outcome = match block.iter().copied().collect::<BTreeSet<u8>>() {
            bytes if bytes == BTreeSet::from([1]) => "old",
            bytes if bytes == BTreeSet::from([2]) => "new",
            bytes if bytes == BTreeSet::from([1, 2]) => "torn",
            _ => "garbage",
        };
        seen.insert(outcome);
    }
    assert_eq!(seen, BTreeSet::from(["old", "new", "torn", "garbage"]));
}

#[test]
fn a_write_in_flight_puts_its_block_in_danger_but_no_other() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let (runtime, disk) = machine(seed);
        let inner = disk.clone();
        runtime.block_on(async move {
            let file = create(&inner, "log").await;
            file.write_at(blocks_of(1, 3), 0).await.unwrap();
            file.sync().await.unwrap();
            let mut write = file.write_at(block_of(2), BLOCK);
            assert!(futures_lite::future::poll_once(&mut write).await.is_none());
        });
        crash(&runtime, &disk);
        let bytes = disk.file_bytes(&path("log"), View::Visible).unwrap();
        let blocks: Vec<&[u8]> = bytes.chunks(BLOCK_BYTES).collect();
        assert!(blocks[0].iter().chain(blocks[2]).all(|byte| *byte == 1), "seed {seed}");
        outcomes.insert(blocks[1].iter().all(|byte| *byte == 1));
    }
    assert_eq!(outcomes.len(), 2);
}

#[test]
fn a_sync_covers_only_what_had_completed_when_it_was_called() {
    let mut lost = 0;
    for seed in 0..100 {
        let (runtime, disk) = machine(seed);
        let inner = disk.clone();
        runtime.block_on(async move {
            let file = create(&inner, "log").await;
            file.allocate(0, 2 * BLOCK).await.unwrap();
            file.sync().await.unwrap();
            let sync = file.sync();
            file.write_at(block_of(5), 0).await.unwrap();
            sync.await.unwrap();
        });
        crash(&runtime, &disk);
        let bytes = disk.file_bytes(&path("log"), View::Visible).unwrap();
        assert_eq!(bytes.len(), 2 * BLOCK_BYTES, "the allocation was synced");
        lost += u32::from(bytes[0] == 0);
    }
    assert!(lost > 0, "a sync saved a write that completed after its call");
}

/// Some work of many kinds; returns the trace.
fn work(seed: u64) -> (u64, Vec<u8>) {
    let (runtime, disk) = machine(seed);
    disk.set_faults(Faults::none().with_chance(Fault::WriteError, 100_000));
    for number in 0..4u8 {
        let inner = disk.clone();
        let task = async move {
            let file = create(&inner, &format!("log-{number}")).await;
            for round in 0..5u64 {
                drop(file.write_at(block_of(number), round * BLOCK).await);
            }
            file.sync().await.unwrap();
            drop(file.write_at(blocks_of(number + 10, 4), 0).await);
            inner
                .rename(&path(&format!("log-{number}")), &path(&format!("old-{number}")))
                .await
                .unwrap();
        };
        runtime.spawn("worker", Box::pin(task));
    }
    runtime.run_until_idle().unwrap();
    crash(&runtime, &disk);
    let mut all = Vec::new();
    for file in disk.files(View::Visible) {
        all.extend(disk.file_bytes(&file, View::Visible).unwrap());
    }
    (runtime.trace_hash(), all)
}

#[test]
fn the_same_seed_gives_the_same_trace_and_the_same_disk() {
    for seed in 0..20 {
        assert_eq!(work(seed), work(seed), "seed {seed}");
    }
    assert_ne!(work(1).0, work(2).0);
}

#[test]
fn a_sync_that_failed_loses_the_data_though_the_next_one_succeeds() {
    let (runtime, disk) = machine(8);
    let inner = disk.clone();
    runtime.block_on(async move {
        let file = create(&inner, "log").await;
        file.allocate(0, BLOCK).await.unwrap();
        file.sync().await.unwrap();
        file.write_at(block_of(3), 0).await.unwrap();
        inner.fail_once(Fault::SyncError, "log", 0);
        assert_eq!(file.sync().await.unwrap_err().raw_os_error(), Some(EIO));
        file.sync().await.unwrap();
        let seen = file.read_at(0, BLOCK_BYTES).await.unwrap();
        assert_eq!(seen[0], 3, "until the crash nobody notices");
    });
    runtime.kill_all();
    disk.crash_with(Fate::Kept);
    assert_eq!(disk.file_bytes(&path("log"), View::Visible).unwrap()[0], 0);
}

#[test]
fn a_full_disk_refuses_what_needs_room_and_nothing_else() {
    let (runtime, disk) = machine(9);
    disk.set_capacity_bytes(8 * BLOCK);
    let inner = disk.clone();
    runtime.block_on(async move {
        let full =
            |result: io::Result<()>| result.unwrap_err().kind() == io::ErrorKind::StorageFull;
        let file = create(&inner, "log").await;
        file.allocate(0, 6 * BLOCK).await.unwrap();
        assert!(full(file.allocate(6 * BLOCK, 9 * BLOCK).await));
        assert_eq!(inner.used_bytes(), 6 * BLOCK, "a refused allocation takes nothing");
        assert_eq!(file.length().await.unwrap(), 6 * BLOCK);
        let other = create(&inner, "other").await;
        other.write_at(blocks_of(1, 2), 0).await.unwrap();
        assert!(full(other.write_at(block_of(1), 2 * BLOCK).await));
        file.write_at(blocks_of(2, 6), 0).await.unwrap();
        assert_eq!(inner.space(Path::new("/data")).await.unwrap().free_bytes, 0);
        inner.remove(&path("other")).await.unwrap();
        assert_eq!(inner.space(Path::new("/data")).await.unwrap().free_bytes, 0, "still open");
        other.close().await.unwrap();
        assert_eq!(inner.space(Path::new("/data")).await.unwrap().free_bytes, 2 * BLOCK);
        file.truncate(BLOCK).await.unwrap();
        assert_eq!(inner.used_bytes(), BLOCK);
    });
}

#[test]
fn a_name_is_safe_only_when_its_directory_was_synced() {
    let (mut both, mut kept) = (0, 0);
    for seed in 0..100 {
        let (runtime, disk) = machine(seed);
        let inner = disk.clone();
        runtime.block_on(async move {
            create(&inner, "safe").await;
            inner.open(&path("new"), OpenMode::CreateNew).await.unwrap();
            inner.rename(&path("safe"), &path("renamed")).await.unwrap();
        });
        crash(&runtime, &disk);
        let names = disk.files(View::Visible);
        kept += u32::from(names.contains(&path("new")));
        both += u32::from(names.contains(&path("safe")));
        let one = usize::from(names.contains(&path("safe")))
            + usize::from(names.contains(&path("renamed")));
        assert_eq!(one, 1, "a rename happens or does not, seed {seed}: {names:?}");
    }
    assert!((1..100).contains(&both), "{both}");
    assert!((1..100).contains(&kept), "{kept}");
}

#[test]
fn a_truncation_is_safe_only_when_it_was_synced() {
    let mut lengths = BTreeSet::new();
    for seed in 0..50 {
        for synced in [false, true] {
            let (runtime, disk) = machine(seed);
            let inner = disk.clone();
            runtime.block_on(async move {
                let file = create(&inner, "log").await;
                file.write_at(blocks_of(1, 3), 0).await.unwrap();
                file.sync().await.unwrap();
                file.truncate(BLOCK).await.unwrap();
                if synced {
                    file.sync().await.unwrap();
                }
            });
            crash(&runtime, &disk);
            let bytes = disk.file_bytes(&path("log"), View::Visible).unwrap();
            assert!(bytes[..BLOCK_BYTES].iter().all(|byte| *byte == 1));
            lengths.insert((synced, bytes.len() / BLOCK_BYTES));
        }
    }
    assert_eq!(lengths, BTreeSet::from([(false, 1), (false, 3), (true, 1)]));
}

#[test]
fn a_lost_write_is_reported_done_and_never_seen() {
    let (runtime, disk) = machine(10);
    let inner = disk.clone();
    runtime.block_on(async move {
        let file = create(&inner, "log").await;
        file.write_at(block_of(1), 0).await.unwrap();
        inner.fail_once(Fault::LostWrite, "log", 0);
        file.write_at(block_of(2), 0).await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(file.read_at(0, BLOCK_BYTES).await.unwrap()[0], 1);
    });
}

#[test]
fn a_misdirected_write_lands_over_something_else() {
    let (runtime, disk) = machine(11);
    let inner = disk.clone();
    runtime.block_on(async move {
        let log = create(&inner, "log").await;
        log.write_at(block_of(1), 0).await.unwrap();
        let other = create(&inner, "other").await;
        other.write_at(blocks_of(2, 4), 0).await.unwrap();
        inner.fail_once(Fault::MisdirectedWrite, "log", 0);
        log.write_at(block_of(3), 0).await.unwrap();
        assert_eq!(log.read_at(0, BLOCK_BYTES).await.unwrap()[0], 1);
        let bytes = other.read_at(0, 4 * BLOCK_BYTES).await.unwrap();
        assert_eq!(count(&bytes, 3), BLOCK_BYTES);
    });
}

#[test]
fn a_failed_write_may_have_landed_in_part() {
    let mut landed = BTreeSet::new();
    for seed in 0..50 {
        let (runtime, disk) = machine(seed);
        let inner = disk.clone();
        let bytes = runtime.block_on(async move {
            let file = create(&inner, "log").await;
            file.allocate(0, 4 * BLOCK).await.unwrap();
            inner.fail_once(Fault::WriteError, "log", 0);
            let error = file.write_at(blocks_of(1, 4), 0).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(EIO));
            file.read_at(0, 4 * BLOCK_BYTES).await.unwrap()
        });
        landed.insert(count(&bytes, 1) / BLOCK_BYTES);
    }
    assert!(landed.contains(&0) && landed.contains(&4) && landed.len() > 2, "{landed:?}");
}

#[test]
fn a_dead_process_lands_its_write_later_and_keeps_the_lock_until_then() {
    let (runtime, disk) = machine(12);
    let process = runtime.process();
    let inner = disk.clone();
    process.spawn(
        "predecessor",
        Box::pin(async move {
            let file = create(&inner, "journal").await;
            file.try_lock().unwrap();
            file.write_at(block_of(1), 0).await.unwrap();
            file.sync().await.unwrap();
            inner.fail_once(Fault::WriteHang, "journal", 0);
            file.write_at(block_of(2), 0).await.unwrap();
        }),
    );
    runtime.run_until_idle().unwrap();
    process.kill();
    disk.crash_with_late_writes(Duration::from_secs(1));

    let (inner, clock) = (disk.clone(), runtime.clone());
    runtime.block_on(async move {
        let file = inner.open(&path("journal"), OpenMode::Existing).await.unwrap();
        for _ in 0..5 {
            assert_eq!(file.try_lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            clock.sleep(Duration::from_secs(10)).await;
        }
        // A read meanwhile may see the block torn, as it does on a real disk.
        inner.release_hung();
        clock.sleep(Duration::from_millis(1)).await;
        file.try_lock().unwrap();
        assert_eq!(file.read_at(0, BLOCK_BYTES).await.unwrap()[0], 2, "it landed late");
    });
}

#[test]
fn late_writes_land_after_the_restart_and_before_the_limit() {
    let mut landed_late = 0;
    for seed in 0..50 {
        let (runtime, disk) = machine(seed);
        let inner = disk.clone();
        runtime.block_on(async move {
            let file = create(&inner, "log").await;
            file.allocate(0, BLOCK).await.unwrap();
            let mut write = file.write_at(block_of(2), 0);
            assert!(futures_lite::future::poll_once(&mut write).await.is_none());
        });
        runtime.kill_all();
        disk.crash_with_late_writes(Duration::from_secs(1));
        runtime.run_for(Duration::from_millis(100)).unwrap();
        landed_late += u32::from(disk.in_flight() > 0);
        runtime.run_for(Duration::from_millis(901)).unwrap();
        assert_eq!(disk.file_bytes(&path("log"), View::Visible).unwrap()[0], 2);
    }
    assert!(landed_late > 25);
}

#[test]
fn a_dropped_future_does_not_stop_its_write() {
    let (runtime, disk) = machine(13);
    let inner = disk.clone();
    runtime.block_on(async move {
        let file = create(&inner, "log").await;
        let mut write = file.write_at(block_of(4), 0);
        assert!(futures_lite::future::poll_once(&mut write).await.is_none());
        drop(write);
        file.close().await.unwrap();
        assert_eq!(inner.in_flight(), 0, "close waited for it");
    });
    assert_eq!(disk.file_bytes(&path("log"), View::Visible).unwrap()[0], 4);
}

#[test]
fn the_power_can_be_cut_at_every_operation() {
    let mut cut = 0;
    for operation in 1.. {
        let (runtime, disk) = machine(14);
        disk.cut_power_at_operation(disk.counts().operations + operation);
        let inner = disk.clone();
        let done = runtime.run(async move {
            let file = create(&inner, "log").await;
            for number in 0..5 {
                file.write_at(block_of(1), number * BLOCK).await.unwrap();
                file.sync().await.unwrap();
            }
        });
        if done.is_ok() {
            break;
        }
        cut += 1;
        crash(&runtime, &disk);
        // Operation 1 creates, 2 syncs the name, then writes and syncs alternate.
        let synced = usize::try_from(operation).unwrap().saturating_sub(3) / 2;
        if synced > 0 {
            let bytes = disk.file_bytes(&path("log"), View::Visible).unwrap();
            assert!(bytes[..synced * BLOCK_BYTES].iter().all(|byte| *byte == 1), "{operation}");
        }
    }
    assert_eq!(cut, 12);
}

#[test]
fn rot_is_durable_and_a_broken_block_heals_when_written() {
    let (runtime, disk) = machine(15);
    let inner = disk.clone();
    runtime.block_on(async move {
        let file = create(&inner, "log").await;
        file.write_at(blocks_of(0x10, 2), 0).await.unwrap();
        file.sync().await.unwrap();
        inner.flip_bit(&path("log"), 5000, 0).unwrap();
        assert_eq!(file.read_at(0, 2 * BLOCK_BYTES).await.unwrap()[5000], 0x11);
        inner.break_block(&path("log"), 0).unwrap();
        assert_eq!(file.read_at(0, BLOCK_BYTES).await.unwrap_err().raw_os_error(), Some(EIO));
        file.write_at(block_of(1), 0).await.unwrap();
        file.read_at(0, BLOCK_BYTES).await.unwrap();
    });
    let (rotten, position) = disk.rot_random("log").unwrap();
    crash(&runtime, &disk);
    assert_eq!(rotten, path("log"));
    let bytes = disk.file_bytes(&rotten, View::Durable).unwrap();
    assert!(position < bytes.len() as u64);
}

#[test]
fn an_image_brings_the_disk_back() {
    let (runtime, disk) = machine(16);
    let inner = disk.clone();
    let image = runtime.block_on(async move {
        let file = create(&inner, "log").await;
        file.write_at(block_of(1), 0).await.unwrap();
        file.sync().await.unwrap();
        file.write_at(block_of(2), 0).await.unwrap();
        let image = inner.snapshot(View::Durable);
        file.write_at(block_of(3), 0).await.unwrap();
        inner.remove(&path("log")).await.unwrap();
        image
    });
    runtime.kill_all();
    disk.restore(&image);
    assert_eq!(disk.file_bytes(&path("log"), View::Visible).unwrap(), vec![1; BLOCK_BYTES]);
    assert_eq!(disk.used_bytes(), BLOCK);
}

#[test]
fn overlapping_writes_are_counted() {
    let (runtime, disk) = machine(17);
    let inner = disk.clone();
    runtime.block_on(async move {
        let file = create(&inner, "log").await;
        let apart = (file.write_at(block_of(1), 0), file.write_at(block_of(1), BLOCK));
        let (first, second) = futures_lite::future::zip(apart.0, apart.1).await;
        first.and(second).unwrap();
        assert_eq!(inner.counts().overlapping_writes, 0);
        let over = (file.write_at(blocks_of(1, 2), 0), file.write_at(block_of(1), BLOCK));
        let (first, second) = futures_lite::future::zip(over.0, over.1).await;
        first.and(second).unwrap();
        assert_eq!(inner.counts().overlapping_writes, 1);
    });
}

#[test]
fn the_simulated_disk_passes_the_conformance_suite() {
    for seed in 0..20 {
        for check in crate::disk::conformance::checks() {
            let (runtime, disk) = machine(seed);
            let root = PathBuf::from("/data");
            let ground = crate::disk::conformance::Ground {
                disk: disk.shared(),
                runtime: runtime.shared(),
                root,
            };
            let name = check.name;
            let verdict = runtime.block_on(async move { check.run(&ground).await });
            assert!(verdict.is_ok(), "{name}, seed {seed}: {verdict:?}");
        }
    }
}

#[test]
fn a_read_only_disk_refuses_changes_and_serves_reads() {
    let (runtime, disk) = machine(18);
    let inner = disk.clone();
    runtime.block_on(async move {
        let file = create(&inner, "log").await;
        file.write_at(block_of(1), 0).await.unwrap();
        inner.set_read_only(true);
        let read_only = |result: io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        };
        read_only(file.write_at(block_of(2), 0).await);
        read_only(file.allocate(0, BLOCK).await);
        read_only(file.truncate(0).await);
        read_only(inner.remove(&path("log")).await);
        read_only(inner.open(&path("new"), OpenMode::CreateNew).await.map(|_| ()));
        inner.open(&path("log"), OpenMode::Existing).await.unwrap();
        assert_eq!(file.read_at(0, BLOCK_BYTES).await.unwrap()[0], 1);
        assert_eq!(inner.list(Path::new("/data")).await.unwrap().len(), 1);
    });
}

/// One step on one file of up to eight blocks.
#[derive(Debug, Clone)]
enum Step {
    Write { block: u64, blocks: usize },
    Sync,
    Truncate { blocks: u64 },
    Allocate { blocks: u64 },
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    use proptest::prelude::*;
    prop_oneof![
        4 => (0u64..6, 1usize..3).prop_map(|(block, blocks)| Step::Write { block, blocks }),
        2 => Just(Step::Sync),
        1 => (0u64..8).prop_map(|blocks| Step::Truncate { blocks }),
        1 => (1u64..8).prop_map(|blocks| Step::Allocate { blocks }),
    ]
}

/// What each block may hold after a crash: its synced byte and every byte since; damaged only if some
/// of these was a write.
#[derive(Default, Clone)]
struct Allowed {
    bytes: Vec<BTreeSet<u8>>,
    written: Vec<bool>,
    lengths: BTreeSet<u64>,
    now: Vec<u8>,
    length: u64,
}

impl Allowed {
    fn apply(&mut self, step: &Step, byte: u8) {
        let mut set = |block: usize, byte: u8, is_write: bool| {
            self.now[block] = byte;
            self.bytes[block].insert(byte);
            self.written[block] |= is_write;
        };
        match step {
            Step::Write { block, blocks } => {
                let first = usize::try_from(*block).unwrap();
                (first..first + blocks).for_each(|block| set(block, byte, true));
                self.length = self.length.max(block + *blocks as u64);
            }
            Step::Truncate { blocks } => {
                let first = usize::try_from(*blocks).unwrap();
                (first..8).for_each(|block| set(block, 0, false));
                self.length = *blocks;
            }
            Step::Allocate { blocks } => self.length = self.length.max(*blocks),
            Step::Sync => {
                self.bytes = self.now.iter().map(|byte| BTreeSet::from([*byte])).collect();
                self.written = vec![false; 8];
                self.lengths.clear();
            }
        }
        self.lengths.insert(self.length);
    }
}

proptest::proptest! {
    #[test]
    fn a_crash_leaves_each_block_as_synced_or_as_something_written_since(
        seed in proptest::prelude::any::<u64>(),
        steps in proptest::collection::vec(step(), 1..30),
    ) {
        let (runtime, disk) = machine(seed);
        let mut allowed = Allowed {
            bytes: vec![BTreeSet::from([0]); 8],
            written: vec![false; 8],
            lengths: BTreeSet::from([0]),
            now: vec![0; 8],
            length: 0,
        };
        for (step, byte) in steps.iter().zip(1u8..) {
            allowed.apply(step, byte);
        }
        let inner = disk.clone();
        let expected = allowed.clone();
        runtime.block_on(async move {
            let file = create(&inner, "log").await;
            for (step, byte) in steps.iter().zip(1u8..) {
                match step {
                    Step::Write { block, blocks } => {
                        file.write_at(blocks_of(byte, *blocks), block * BLOCK).await.unwrap();
                    }
                    Step::Sync => file.sync().await.unwrap(),
                    Step::Truncate { blocks } => file.truncate(blocks * BLOCK).await.unwrap(),
                    Step::Allocate { blocks } => file.allocate(0, blocks * BLOCK).await.unwrap(),
                }
            }
            let seen = file.read_at(0, 8 * BLOCK_BYTES).await.unwrap();
            assert_eq!(seen.len() as u64, expected.length * BLOCK);
            for (block, byte) in seen.chunks(BLOCK_BYTES).zip(&expected.now) {
                assert!(block.iter().all(|seen| seen == byte), "a reader sees the last write");
            }
        });
        crash(&runtime, &disk);
        let bytes = disk.file_bytes(&path("log"), View::Visible).unwrap();
        assert!(allowed.lengths.contains(&(bytes.len() as u64 / BLOCK)), "{}", bytes.len());
        for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let found: BTreeSet<u8> = block.iter().copied().collect();
            let whole = found.len() == 1 && found.is_subset(&allowed.bytes[number]);
            assert!(whole || allowed.written[number], "block {number}: {found:?}");
        }
    }
}
