//! The engine alone on the disk, no network: durable appends per second and their latency, beside a raw
//! write and fdatasync of the same bytes in the same run.
//!
//! ```text
//! cargo run --release -p levada-engine --example engine_load -- [DIRECTORY] [SECONDS] [CPU|any] [TURNS]
//! ```
//!
//! One partition and 1,000 are measured in turn, TURNS times; the ratio of the rates is the median over the turns.
//!
//! Every appender has one batch of one 1 KiB record in flight: it appends, waits until that is durable, appends to
//! the next partition. The raw line writes as many bytes as the median round had, and syncs, one at a time.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::{LocalExecutorBuilder, Placement as CpuPlacement};
use levada_engine::disk::{Buffer, Disk, OpenMode};
use levada_engine::{
    AppendError, DirectDisk, DirectoryOptions, GlommioRuntime, Log, LogConfig, Placement,
    RoundReport, Runtime, Store, StoreConfig, StoreListener, open_directory,
};
use levada_record::{
    BatchBuilder, BrokerId, Compression, LeaderEpoch, NewRecord, PartitionId, PartitionIndex,
    ShardIndex, Timestamp, TopicId,
};

const VALUE_BYTES: usize = 1024;
const WARM_UP_NS: u64 = 2_000_000_000;

type BoxError = Box<dyn std::error::Error>;

fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let parent = PathBuf::from(arguments.next().unwrap_or_else(|| ".".to_owned()));
    let seconds: u64 = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let placement = match arguments.next().as_deref() {
        None | Some("any") => CpuPlacement::Unbound,
        Some(cpu) => CpuPlacement::Fixed(cpu.parse()?),
    };
    let turns: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;
    println!(
        "appenders partitions  appends/s   p50 us   p99 us   max us  rounds/s  round KiB  round p50 us  raw p50 us  raw p99 us"
    );
    for appenders in [16, 64] {
        let mut ratios = Vec::with_capacity(turns);
        for _ in 0..turns {
            let mut rates = [0.0; 2];
            for (partitions, rate) in [1, 1000].into_iter().zip(&mut rates) {
                *rate = run_alone(&parent, &placement, appenders, partitions, seconds)?;
            }
            let [one, thousand] = rates;
            ratios.push(thousand / one);
        }
        ratios.sort_unstable_by(f64::total_cmp);
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        if let Some(median) = each.get(turns / 2) {
            let each = each.join(" ");
            println!("          1,000 partitions against 1: {median} of the rate (turns: {each})");
        }
    }
    Ok(())
}

/// One line of the table, on an executor and in a directory of its own; the rate.
fn run_alone(
    parent: &Path,
    placement: &CpuPlacement,
    appenders: usize,
    partitions: usize,
    seconds: u64,
) -> Result<f64, BoxError> {
    let directory = tempfile::tempdir_in(parent.canonicalize()?)?;
    let root = directory.path().to_owned();
    let executor = LocalExecutorBuilder::new(placement.clone())
        .io_memory(1 << 20)
        .preempt_timer(std::time::Duration::from_millis(100)) // as the broker's shards
        .spawn(move || async move { run(&root, appenders, partitions, seconds).await })?;
    executor.join()?.map_err(Into::into)
}

/// Collects what rounds were.
#[derive(Default)]
struct Rounds {
    bytes: RefCell<Vec<u64>>,
    durations_ns: RefCell<Vec<u64>>,
}

impl StoreListener for Rounds {
    fn advanced(&self, _: &Rc<Log>) {}
    fn failed(&self, reason: &str) {
        println!("failed: {reason}");
    }
    fn round_done(&self, report: &RoundReport) {
        self.bytes.borrow_mut().push(report.journal_bytes + report.through_bytes);
        self.durations_ns.borrow_mut().push(report.duration_ns);
    }
}

async fn run(
    root: &Path,
    appenders: usize,
    partitions: usize,
    seconds: u64,
) -> Result<f64, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let disk = DirectDisk::open(root).await.map_err(|e| text(&e))?;
    let runtime = GlommioRuntime::default();
    let options = DirectoryOptions {
        root: root.to_owned(),
        cluster: [1; 16],
        broker: BrokerId(1),
        shards: 1,
        random: [1, 2, 3, 4],
    };
    let place = |_: PartitionId| Placement::Shard(ShardIndex(0));
    let opened = open_directory(disk.shared(), runtime.shared(), options, &place)
        .await
        .map_err(|e| text(&e))?;
    let seed = opened.seeds.into_iter().next().ok_or("no shard")?;
    let rounds = Rc::new(Rounds::default());
    let listener: Rc<dyn StoreListener> = Rc::clone(&rounds) as Rc<dyn StoreListener>;
    let config = StoreConfig::default();
    let store = Store::start(disk.shared(), runtime.shared(), config, seed, listener)
        .await
        .map_err(|e| text(&e))?;
    let mut logs = Vec::new();
    for index in 0..partitions {
        let index = i32::try_from(index).map_err(|e| text(&e))?;
        let id = PartitionId::new(TopicId([9; 16]), PartitionIndex(index));
        logs.push(store.create_log(id, LogConfig::default()).await.map_err(|e| text(&e))?);
    }
    let logs = Rc::new(logs);
    let runtime = Rc::new(runtime);
    let latencies: Rc<RefCell<Vec<u64>>> = Rc::default();
    let is_over = Rc::new(Cell::new(false));
    let batch: Rc<Vec<u8>> = Rc::new(batch()?);
    // Every log gets its first segment before the clock starts: what is measured is the steady state.
    for log in logs.iter() {
        append(log, &batch, runtime.as_ref()).await?;
    }
    let mut tasks = Vec::new();
    for appender in 0..appenders {
        let (logs, runtime, latencies) =
            (Rc::clone(&logs), Rc::clone(&runtime), Rc::clone(&latencies));
        let (is_over, batch) = (Rc::clone(&is_over), Rc::clone(&batch));
        tasks.push(glommio::spawn_local(async move {
            let mut turn = appender * 7919;
            while !is_over.get() {
                let Some(log) = logs.get(turn % logs.len()) else { return Ok(()) };
                turn += appenders + 1;
                let started = runtime.now().monotonic_ns;
                let end = append(log, &batch, runtime.as_ref()).await?;
                log.until_durable(end).await?;
                latencies.borrow_mut().push(runtime.now().monotonic_ns - started);
            }
            Ok::<(), String>(())
        }));
    }
    glommio::timer::sleep(std::time::Duration::from_nanos(WARM_UP_NS)).await;
    latencies.borrow_mut().clear();
    rounds.bytes.borrow_mut().clear();
    rounds.durations_ns.borrow_mut().clear();
    let started = runtime.now().monotonic_ns;
    glommio::timer::sleep(std::time::Duration::from_secs(seconds)).await;
    let took_ns = runtime.now().monotonic_ns - started;
    let mut latencies = std::mem::take(&mut *latencies.borrow_mut());
    let mut round_bytes = std::mem::take(&mut *rounds.bytes.borrow_mut());
    let mut durations_ns = std::mem::take(&mut *rounds.durations_ns.borrow_mut());
    is_over.set(true);
    for task in tasks {
        task.await?;
    }
    latencies.sort_unstable();
    round_bytes.sort_unstable();
    durations_ns.sort_unstable();
    let median_round = percentile(&round_bytes, 50);
    store.stop().await.map_err(|e| text(&e))?;
    let mut raw = raw_latencies(&disk, root, median_round, &runtime).await.map_err(|e| text(&e))?;
    raw.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "figures for a table")]
    let per_second = |count: usize| count as f64 * 1e9 / took_ns as f64;
    let rate = per_second(latencies.len());
    println!(
        "{appenders:>9} {partitions:>10} {rate:>10.0} {:>8} {:>8} {:>8} {:>9.0} {:>10} {:>13} {:>11} {:>11}",
        percentile(&latencies, 50) / 1000,
        percentile(&latencies, 99) / 1000,
        percentile(&latencies, 100) / 1000,
        per_second(round_bytes.len()),
        median_round / 1024,
        percentile(&durations_ns, 50) / 1000,
        percentile(&raw, 50) / 1000,
        percentile(&raw, 99) / 1000,
    );
    runtime.stop().await;
    disk.settle().await;
    Ok(rate)
}

fn batch() -> Result<Vec<u8>, String> {
    let mut builder = BatchBuilder::new(Compression::None);
    let value = vec![b'v'; VALUE_BYTES];
    let record = NewRecord { timestamp: Timestamp(1), value: Some(&value), ..NewRecord::default() };
    builder.push(&record).map_err(|error| error.to_string())?;
    builder.finish().map_err(|error| error.to_string())
}

async fn append(
    log: &Rc<Log>,
    batch: &[u8],
    runtime: &GlommioRuntime,
) -> Result<levada_record::Offset, String> {
    loop {
        match log.try_append(batch, LeaderEpoch(0), runtime.now()) {
            Ok(appended) => return Ok(appended.end),
            Err(AppendError::NeedsSpace { bytes }) => {
                log.grow(bytes).await.map_err(|error| error.to_string())?;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// One write and one fdatasync of `bytes` at a time, into a file written before.
async fn raw_latencies(
    disk: &DirectDisk,
    root: &Path,
    bytes: u64,
    runtime: &GlommioRuntime,
) -> std::io::Result<Vec<u64>> {
    let file = disk.open(&root.join("raw"), OpenMode::CreateNew).await?;
    let file_bytes = 16u64 << 20;
    file.allocate(0, file_bytes).await?;
    let mut zeros = Buffer::with_capacity(1 << 20);
    zeros.fill_with_zeros();
    for at in (0..file_bytes).step_by(1 << 20) {
        file.write_at(zeros.freeze(), at).await?;
    }
    file.sync().await?;
    let len = usize::try_from(bytes.clamp(4096, 4 << 20)).unwrap_or(4096).next_multiple_of(4096);
    let mut buffer = Buffer::with_capacity(len);
    buffer.fill_with_zeros();
    let mut took = Vec::new();
    let mut at = 0;
    for _ in 0..2000 {
        if at + len as u64 > file_bytes {
            at = 0;
        }
        let started = runtime.now().monotonic_ns;
        file.write_at(buffer.freeze(), at).await?;
        file.sync().await?;
        took.push(runtime.now().monotonic_ns - started);
        at += len as u64;
    }
    file.close().await?;
    Ok(took)
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(0)
}
