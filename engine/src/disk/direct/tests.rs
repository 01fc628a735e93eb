//! The suite of every disk on a real one, and what only the real one has.

use std::cell::Cell;

use futures_lite::future::poll_once;
use glommio::{LocalExecutorBuilder, Placement};

use super::file::write_whole;
use super::*;
use crate::disk::Buffer;
use crate::disk::conformance::{Ground, checks};
use crate::runtime::Runtime;
use crate::runtime::glommio::GlommioRuntime;

const BLOCK: usize = 4096;

/// A directory on the disk that the build is on; `/tmp` may be memory.
fn directory() -> tempfile::TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/disk-tests");
    std::fs::create_dir_all(&target).unwrap();
    tempfile::tempdir_in(target.canonicalize().unwrap()).unwrap()
}

/// Runs `test` on an executor of its own, with a fresh disk.
pub(crate) fn on_disk<F: Future<Output = ()> + 'static>(
    test: impl FnOnce(DirectDisk, PathBuf) -> F + Send + 'static,
) {
    let directory = directory();
    let root = directory.path().to_owned();
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10);
    let executor = builder.spawn(async move || {
        let disk = DirectDisk::open(&root).await.unwrap();
        test(disk.clone(), root).await;
        disk.settle().await;
    });
    executor.unwrap().join().unwrap();
}

fn block_of(byte: u8) -> crate::disk::FrozenBuffer {
    Buffer::padded_copy(&[byte; BLOCK], BLOCK).freeze()
}

#[test]
fn the_direct_disk_passes_the_conformance_suite() {
    on_disk(async |disk, root| {
        let runtime = GlommioRuntime::default();
        let ground = Ground { disk: disk.shared(), runtime: runtime.shared(), root };
        for check in checks() {
            if let Err(violation) = check.run(&ground).await {
                panic!("{}: {violation}", check.name);
            }
        }
        runtime.stop().await;
    });
}

/// Before the sentinel, the first new file of a shard sent all its I/O to the ring that is polled: a
/// core at 100 % and writes of 4 ms instead of 0.14.
#[test]
fn no_write_ever_takes_the_polled_ring() {
    on_disk(async |disk, root| {
        let file = disk.open(&root.join("new"), OpenMode::CreateNew).await.unwrap();
        file.write_at(block_of(1), 0).await.unwrap();
        file.sync().await.unwrap();
        file.read_at(0, BLOCK).await.unwrap();
        let stats = glommio::executor().io_stats();
        assert_eq!(stats.poll_ring.file_writes(), (0, 0));
        assert_eq!(stats.poll_ring.file_reads(), (0, 0));
        assert!(stats.all_rings().file_writes().0 >= 1);
        file.close().await.unwrap();
    });
}

#[test]
fn the_sentinel_is_written_once_and_not_listed() {
    on_disk(async |disk, root| {
        let probe = root.join(PROBE_FILE_NAME);
        let before = std::fs::metadata(&probe).unwrap();
        assert_eq!(before.len(), PROBE_BYTES as u64);
        assert!(before.blocks() * 512 >= PROBE_BYTES as u64, "the block is really there");
        DirectDisk::open(&root).await.unwrap();
        assert_eq!(std::fs::metadata(&probe).unwrap().ino(), before.ino());
        assert_eq!(disk.list(&root).await.unwrap(), vec![]);
    });
}

#[test]
fn several_shards_open_one_directory_at_once() {
    let directory = directory();
    let shards: Vec<_> = (0..4)
        .map(|shard| {
            let root = directory.path().to_owned();
            let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10);
            builder
                .spawn(async move || {
                    let disk = DirectDisk::open(&root).await.unwrap();
                    let path = root.join(shard.to_string());
                    let file = disk.open(&path, OpenMode::CreateNew).await.unwrap();
                    file.write_at(block_of(1), 0).await.unwrap();
                    file.close().await.unwrap();
                    assert_eq!(glommio::executor().io_stats().poll_ring.file_writes(), (0, 0));
                })
                .unwrap()
        })
        .collect();
    for shard in shards {
        shard.join().unwrap();
    }
}

#[test]
fn a_missing_root_is_refused() {
    on_disk(async |_, root| {
        let error = DirectDisk::open(&root.join("missing")).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn files_are_direct_and_closed_on_exec() {
    on_disk(async |disk, root| {
        let path = root.join("file");
        let file = disk.open(&path, OpenMode::CreateNew).await.unwrap();
        let mut flags = None;
        for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
            if std::fs::read_link(entry.path()).is_ok_and(|target| target == path) {
                let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
                let text = std::fs::read_to_string(info).unwrap();
                let line = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
                flags = Some(i32::from_str_radix(line.trim(), 8).unwrap());
            }
        }
        let flags = flags.expect("the descriptor is ours");
        assert_ne!(flags & libc::O_DIRECT, 0);
        assert_ne!(flags & libc::O_CLOEXEC, 0);
        file.close().await.unwrap();
    });
}

#[test]
fn a_dropped_operation_is_counted_until_it_ends() {
    on_disk(async |disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::CreateNew).await.unwrap();
        for block in 0..16 {
            let mut write = file.write_at(block_of(7), block * BLOCK as u64);
            assert!(poll_once(&mut write).await.is_none());
        }
        assert_eq!(disk.in_flight(), 16);
        disk.settle().await;
        assert_eq!(disk.in_flight(), 0);
        assert_eq!(file.length().await.unwrap(), 16 * BLOCK as u64);
        assert!(file.read_at(0, 16 * BLOCK).await.unwrap().iter().all(|byte| *byte == 7));
        file.close().await.unwrap();
    });
}

#[test]
fn a_cancelled_task_leaves_its_write_to_the_disk() {
    on_disk(async |disk, root| {
        let runtime = GlommioRuntime::default();
        let file = disk.open(&root.join("file"), OpenMode::CreateNew).await.unwrap();
        let inner = Rc::clone(&file);
        let task = async move { inner.write_at(block_of(8), 0).await.unwrap() };
        runtime.spawn("writer", Box::pin(task));
        // One turn, so that the write has begun; then the task goes.
        futures_lite::future::yield_now().await;
        runtime.stop().await;
        disk.settle().await;
        let length = file.length().await.unwrap();
        assert!(length == 0 || file.read_at(0, BLOCK).await.unwrap()[0] == 8);
        file.close().await.unwrap();
    });
}

#[test]
fn a_panic_on_the_blocking_thread_is_an_error_and_the_thread_goes_on() {
    on_disk(async |disk, root| {
        let error = disk.call(|| -> io::Result<()> { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Other);
        assert_eq!(disk.list(&root).await.unwrap(), vec![]);
    });
}

#[test]
fn errors_keep_the_number_the_kernel_gave() {
    on_disk(async |disk, root| {
        let missing = disk.open(&root.join("missing"), OpenMode::Existing).await;
        assert_eq!(missing.map(|_| ()).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    });
}

/// Writes `len` bytes through a kernel that takes at most `most` at a time; returns where each call began.
fn write_in_parts(len: usize, most: usize) -> io::Result<Vec<usize>> {
    let mut calls = Vec::new();
    futures_lite::future::block_on(write_whole(len, BLOCK, async |done: usize| {
        calls.push(done);
        Ok(most.min(len - done))
    }))?;
    Ok(calls)
}

#[test]
fn short_writes_are_gone_on_with_from_the_last_whole_block() {
    assert_eq!(write_in_parts(3 * BLOCK, 3 * BLOCK).unwrap(), [0]);
    assert_eq!(write_in_parts(3 * BLOCK, BLOCK).unwrap(), [0, BLOCK, 2 * BLOCK]);
    assert_eq!(write_in_parts(3 * BLOCK, BLOCK + 512).unwrap(), [0, BLOCK, 2 * BLOCK]);
    assert_eq!(write_in_parts(BLOCK, 512).unwrap_err().kind(), io::ErrorKind::WriteZero);
    assert_eq!(write_in_parts(BLOCK, 0).unwrap_err().kind(), io::ErrorKind::WriteZero);
}

#[test]
fn an_error_in_the_middle_of_a_write_is_the_writes_error() {
    let turn = Cell::new(0);
    let result = futures_lite::future::block_on(write_whole(2 * BLOCK, BLOCK, async |_| {
        turn.set(turn.get() + 1);
        if turn.get() == 1 { Ok(BLOCK) } else { Err(io::ErrorKind::StorageFull.into()) }
    }));
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
}
