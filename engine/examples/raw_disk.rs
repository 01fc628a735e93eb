//! What the disk can do, asked through the engine's own door: the yardstick for its benches.
//!
//! ```text
//! cargo run --release -p levada-engine --example raw_disk -- [DIRECTORY] [CPU]
//! ```
//!
//! One write and one fdatasync at a time, of each size, into a file whose blocks were written before and
//! into one that was only allocated (the file system then commits the change from unwritten to written on
//! top); then rounds of several files, all written at once and then all synced at once.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_lite::future::poll_once;
use glommio::{LocalExecutorBuilder, Placement};
use levada_engine::disk::direct::DirectDisk;
use levada_engine::disk::{Buffer, Disk, File, FrozenBuffer, IoFuture, OpenMode};
use levada_engine::runtime::Runtime;
use levada_engine::runtime::glommio::GlommioRuntime;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Sizes of the single writes, in bytes.
const SIZES: [usize; 6] = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB];

/// Most rounds measured per line of the table.
const ROUNDS_MAX: usize = 1000;

/// Most bytes written per line of the table.
const LINE_BYTES_MAX: usize = 512 * MIB;

/// Rounds before those that count.
const WARM_UP_ROUNDS: usize = 20;

type BoxError = Box<dyn std::error::Error>;

fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let parent = PathBuf::from(arguments.next().unwrap_or_else(|| ".".to_owned()));
    let placement = match arguments.next() {
        Some(cpu) => Placement::Fixed(cpu.parse()?),
        None => Placement::Unbound,
    };
    // Gone again at the end, with all that is in it.
    let directory = tempfile::tempdir_in(parent.canonicalize()?)?;
    let root = directory.path().to_owned();
    let executor = LocalExecutorBuilder::new(placement).io_memory(MIB).spawn(async move || {
        let disk = DirectDisk::open(&root).await?;
        let result = measure(&disk, &root).await;
        disk.settle().await;
        result
    })?;
    Ok(executor.join()??)
}

async fn measure(disk: &DirectDisk, root: &Path) -> std::io::Result<()> {
    let runtime = GlommioRuntime::default();
    println!("{}", root.display());
    println!("   bytes  files  file         rounds   p50 us   p99 us   max us     MB/s");
    for prewritten in [true, false] {
        for bytes in SIZES {
            line(disk, &runtime, root, bytes, 1, prewritten).await?;
        }
    }
    for bytes in [4 * KIB, 64 * KIB, 256 * KIB] {
        for files in [2, 4, 8, 16] {
            line(disk, &runtime, root, bytes, files, true).await?;
        }
    }
    Ok(())
}

/// Measures rounds of one write of `bytes` to each of `files` files, and prints a line of the table.
async fn line(
    disk: &DirectDisk,
    runtime: &GlommioRuntime,
    root: &Path,
    bytes: usize,
    files: usize,
    prewritten: bool,
) -> std::io::Result<()> {
    let rounds = (LINE_BYTES_MAX / (bytes * files)).min(ROUNDS_MAX);
    let file_bytes = (rounds + WARM_UP_ROUNDS) * bytes;
    let mut opened: Vec<Rc<dyn File>> = Vec::new();
    for number in 0..files {
        let file = disk.open(&root.join(format!("file-{number}")), OpenMode::CreateNew).await?;
        file.allocate(0, file_bytes as u64).await?;
        if prewritten {
            fill(&file, file_bytes).await?;
        }
        file.sync().await?;
        opened.push(file);
    }
    let buffer = buffer_of(0xa5, bytes);
    let mut took_ns = Vec::with_capacity(rounds);
    let mut start_ns = 0;
    for round in 0..rounds + WARM_UP_ROUNDS {
        let before_ns = runtime.now().monotonic_ns;
        if round == WARM_UP_ROUNDS {
            start_ns = before_ns;
        }
        let position = (round * bytes) as u64;
        together(opened.iter().map(|file| file.write_at(buffer.clone(), position))).await?;
        together(opened.iter().map(|file| file.sync())).await?;
        if round >= WARM_UP_ROUNDS {
            took_ns.push(runtime.now().monotonic_ns - before_ns);
        }
    }
    let elapsed_ns = runtime.now().monotonic_ns - start_ns;
    for (number, file) in opened.into_iter().enumerate() {
        file.close().await?;
        disk.remove(&root.join(format!("file-{number}"))).await?;
    }
    took_ns.sort_unstable();
    let percentile_us = |percent: usize| {
        let index = (took_ns.len() * percent / 100).min(took_ns.len().saturating_sub(1));
        took_ns.get(index).copied().unwrap_or(0) / 1000
    };
    let written_bytes = (rounds * bytes * files) as u64;
    let megabytes_per_second = written_bytes * 1000 / elapsed_ns.max(1);
    let kind = if prewritten { "prewritten" } else { "allocated" };
    println!(
        "{bytes:>8} {files:>6}  {kind:<11} {rounds:>7} {:>8} {:>8} {:>8} {megabytes_per_second:>8}",
        percentile_us(50),
        percentile_us(99),
        percentile_us(100),
    );
    Ok(())
}

fn buffer_of(byte: u8, bytes: usize) -> FrozenBuffer {
    let mut buffer = Buffer::with_capacity(bytes);
    buffer.push(&vec![byte; bytes]);
    buffer.freeze()
}

/// Writes the whole file once.
async fn fill(file: &Rc<dyn File>, file_bytes: usize) -> std::io::Result<()> {
    let chunk = buffer_of(0, MIB);
    for position in (0..file_bytes).step_by(MIB) {
        let rest = file_bytes - position;
        let buffer = if rest < MIB { buffer_of(0, rest) } else { chunk.clone() };
        file.write_at(buffer, position as u64).await?;
    }
    Ok(())
}

/// Starts all operations, then awaits each.
async fn together(operations: impl Iterator<Item = IoFuture<()>>) -> std::io::Result<()> {
    let mut pending = Vec::new();
    for mut operation in operations {
        match poll_once(&mut operation).await {
            Some(done) => done?,
            None => pending.push(operation),
        }
    }
    for operation in pending {
        operation.await?;
    }
    Ok(())
}
