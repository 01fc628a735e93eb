//! What the engine costs apart from the disk's own work: building a round, and opening a directory.
//!
//! Rounds are built on the simulated disk, because only the time until the finished buffer is handed over counts.
//! Directories are opened on the disk of the target directory, past the page cache, because reading and syncing is
//! what that consists of.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use glommio::LocalExecutorBuilder;
use levada_engine::disk::simulated::SimDisk;
use levada_engine::disk::{
    DirectoryEntry, Disk, File, FrozenBuffer, IoFuture, OpenMode, SharedDisk, Slice, Space,
};
use levada_engine::runtime::LocalFuture;
use levada_engine::runtime::simulated::SimRuntime;
use levada_engine::{
    AppendError, DirectDisk, DirectoryOptions, GlommioRuntime, Log, LogConfig, Now,
    OpenedDirectory, Placement, RoundReport, Runtime, SharedRuntime, Store, StoreConfig,
    StoreListener, mark_clean, open_directory,
};
use levada_record::{
    BatchBuilder, BrokerId, Compression, LeaderEpoch, NewRecord, PartitionId, PartitionIndex,
    ShardIndex, Timestamp, TopicId,
};

/// Logs in a round.
const ROUND_LOGS: i32 = 30;
/// Rounds of a new store that are not measured: its memory is touched for the first time in them.
const COLD_ROUNDS: u64 = 16;
/// Value of a batch of one record that is 1 KiB long in all.
const VALUE_BYTES: usize = 1024 - 61 - 10;
/// Logs made at a time.
const LOGS_AT_ONCE: usize = 32;

/// Whether this is `cargo bench`; `cargo test` only wants to see it run.
fn is_measured() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn clock() -> Instant {
    Instant::now()
}

fn partition(index: i32) -> PartitionId {
    PartitionId::new(TopicId([7; 16]), PartitionIndex(index))
}

fn batch(value_bytes: usize) -> Vec<u8> {
    let value = vec![b'x'; value_bytes];
    let record = NewRecord {
        timestamp: Timestamp(1_700_000_000_000),
        value: Some(&value),
        ..NewRecord::default()
    };
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&record).expect("one record fits");
    builder.finish().expect("there is a record")
}

/// Nothing is dropped by age: the records are old.
fn keep_all(segment_bytes: u64) -> LogConfig {
    LogConfig { segment_bytes, segment_ms: u64::MAX, retention_ms: None, ..LogConfig::default() }
}

async fn append(runtime: &SharedRuntime, log: &Rc<Log>, bytes: &[u8]) {
    loop {
        match log.try_append(bytes, LeaderEpoch(0), runtime.now()) {
            Ok(_) => return,
            Err(AppendError::NeedsSpace { bytes }) => log.grow(bytes).await.expect("there is room"),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn open(disk: &SharedDisk, runtime: &SharedRuntime, root: &Path) -> OpenedDirectory {
    let options = DirectoryOptions {
        root: root.to_owned(),
        cluster: [1; 16],
        broker: BrokerId(1),
        shards: 1,
        random: [1, 2, 3, 4],
    };
    let place = |_| Placement::Shard(ShardIndex(0));
    open_directory(Rc::clone(disk), Rc::clone(runtime), options, &place)
        .await
        .expect("the directory is sound")
}

async fn start(
    disk: &SharedDisk,
    runtime: &SharedRuntime,
    root: &Path,
    meter: &Rc<Meter>,
) -> Store {
    let opened = open(disk, runtime, root).await;
    let seed = opened.seeds.into_iter().next().expect("one shard");
    let config = StoreConfig::default();
    let listener: Rc<dyn StoreListener> = Rc::<Meter>::clone(meter);
    Store::start(Rc::clone(disk), Rc::clone(runtime), config, seed, listener)
        .await
        .expect("the journal opens")
}

/// Times each round from the moment its task begins to work to the moment its buffer goes to the disk.
#[derive(Default)]
struct Meter {
    polled: Cell<Option<Instant>>,
    built: Cell<Duration>,
    entries: Cell<usize>,
}

impl StoreListener for Meter {
    fn advanced(&self, _: &Rc<Log>) {}
    fn failed(&self, reason: &str) {
        panic!("{reason}");
    }
    fn round_done(&self, report: &RoundReport) {
        // Closing rounds are nothing to measure.
        if report.entries > 0 {
            self.entries.set(report.entries);
        }
    }
}

/// The simulated runtime, with the clock started whenever the task of the rounds runs.
struct MeteredRuntime {
    inner: SharedRuntime,
    meter: Rc<Meter>,
}

struct Metered {
    task: LocalFuture<()>,
    meter: Rc<Meter>,
}

impl Future for Metered {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.meter.polled.set(Some(clock()));
        let polled = self.task.as_mut().poll(context);
        self.meter.polled.set(None);
        polled
    }
}

impl Runtime for MeteredRuntime {
    fn spawn(&self, name: &'static str, task: LocalFuture<()>) {
        if name == "rounds" {
            let meter = Rc::clone(&self.meter);
            self.inner.spawn(name, Box::pin(Metered { task, meter }));
        } else {
            self.inner.spawn(name, task);
        }
    }
    fn sleep(&self, duration: Duration) -> LocalFuture<()> {
        self.inner.sleep(duration)
    }
    fn yield_if_needed(&self) -> LocalFuture<()> {
        self.inner.yield_if_needed()
    }
    fn now(&self) -> Now {
        self.inner.now()
    }
}

/// The simulated disk, with the clock stopped when a round reaches the journal.
struct MeteredDisk {
    inner: SharedDisk,
    meter: Rc<Meter>,
}

impl Disk for MeteredDisk {
    fn block_bytes(&self) -> usize {
        self.inner.block_bytes()
    }
    fn open(&self, path: &Path, mode: OpenMode) -> IoFuture<Rc<dyn File>> {
        let opened = self.inner.open(path, mode);
        let is_journal = path.extension().is_some_and(|extension| extension == "ring");
        let meter = is_journal.then(|| Rc::clone(&self.meter));
        Box::pin(async move {
            let inner = opened.await?;
            Ok(match meter {
                Some(meter) => Rc::new(MeteredFile { inner, meter }) as Rc<dyn File>,
                None => inner,
            })
        })
    }
    fn create_directory(&self, path: &Path) -> IoFuture<()> {
        self.inner.create_directory(path)
    }
    fn list(&self, path: &Path) -> IoFuture<Vec<DirectoryEntry>> {
        self.inner.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> IoFuture<()> {
        self.inner.remove(path)
    }
    fn remove_directory(&self, path: &Path) -> IoFuture<()> {
        self.inner.remove_directory(path)
    }
    fn sync_directory(&self, path: &Path) -> IoFuture<()> {
        self.inner.sync_directory(path)
    }
    fn space(&self, path: &Path) -> IoFuture<Space> {
        self.inner.space(path)
    }
}

struct MeteredFile {
    inner: Rc<dyn File>,
    meter: Rc<Meter>,
}

impl File for MeteredFile {
    fn path(&self) -> PathBuf {
        self.inner.path()
    }
    fn write_at(&self, buffer: FrozenBuffer, position: u64) -> IoFuture<()> {
        if let Some(polled) = self.meter.polled.take() {
            self.meter.built.set(polled.elapsed());
        }
        self.inner.write_at(buffer, position)
    }
    fn read_at(&self, position: u64, len: usize) -> IoFuture<Slice> {
        self.inner.read_at(position, len)
    }
    fn sync(&self) -> IoFuture<()> {
        self.inner.sync()
    }
    fn allocate(&self, from: u64, end: u64) -> IoFuture<()> {
        self.inner.allocate(from, end)
    }
    fn truncate(&self, length_bytes: u64) -> IoFuture<()> {
        self.inner.truncate(length_bytes)
    }
    fn length(&self) -> IoFuture<u64> {
        self.inner.length()
    }
    fn try_lock(&self) -> io::Result<()> {
        self.inner.try_lock()
    }
    fn close(self: Rc<Self>) -> IoFuture<()> {
        Rc::clone(&self.inner).close()
    }
}

/// Builds `rounds` rounds of [`ROUND_LOGS`] batches; the sum of the times.
fn build_rounds(rounds: u64) -> Duration {
    let simulated = SimRuntime::new(1);
    let meter = Rc::new(Meter::default());
    let disk: SharedDisk = Rc::new(MeteredDisk {
        inner: SimDisk::new(&simulated, 1).shared(),
        meter: Rc::clone(&meter),
    });
    let runtime: SharedRuntime =
        Rc::new(MeteredRuntime { inner: simulated.shared(), meter: Rc::clone(&meter) });
    let total = simulated.block_on(async move {
        let store = start(&disk, &runtime, Path::new("/data"), &meter).await;
        let bytes = batch(VALUE_BYTES);
        let mut logs = Vec::new();
        for index in 0..ROUND_LOGS {
            let created = store.create_log(partition(index), keep_all(1 << 30)).await;
            logs.push(created.expect("it is new"));
        }
        let mut total = Duration::ZERO;
        let mut done = 0;
        while done < COLD_ROUNDS + rounds {
            for log in &logs {
                append(&runtime, log, &bytes).await;
            }
            for log in &logs {
                log.until_durable(log.log_end()).await.expect("the disk works");
            }
            // When a log had to grow, its batch came into a round of its own.
            if meter.entries.take() == logs.len() {
                if done >= COLD_ROUNDS {
                    total += meter.built.get();
                }
                done += 1;
            }
        }
        total
    });
    simulated.kill_all();
    total
}

fn rounds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round");
    let bytes = u64::try_from(batch(VALUE_BYTES).len()).expect("a KiB");
    group.throughput(Throughput::Bytes(bytes * u64::from(ROUND_LOGS.unsigned_abs())));
    // What is not measured takes many times as long.
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_millis(500));
    group.bench_function(BenchmarkId::new("build", ROUND_LOGS), |bencher| {
        bencher.iter_custom(build_rounds);
    });
    group.finish();
}

/// What a directory that is opened holds.
#[derive(Clone, Copy)]
struct Shape {
    logs: i32,
    segments: usize,
}

/// Runs `work` on an executor of its own with the disk of `root`.
fn on_disk<T: Send + 'static>(
    root: &Path,
    work: impl AsyncFnOnce(SharedDisk, SharedRuntime, PathBuf) -> T + Send + 'static,
) -> T {
    let root = root.to_owned();
    let executor = LocalExecutorBuilder::new(glommio::Placement::Unbound).io_memory(1 << 20).spawn(
        async move || {
            let disk = DirectDisk::open(&root).await.expect("a disk that takes O_DIRECT");
            let runtime = GlommioRuntime::default();
            let result = work(disk.shared(), runtime.shared(), root).await;
            runtime.stop().await;
            disk.settle().await;
            result
        },
    );
    executor.expect("an executor starts").join().expect("nothing panics")
}

/// Fills an empty directory and stops it cleanly.
async fn fill(disk: SharedDisk, runtime: SharedRuntime, root: PathBuf, shape: Shape) {
    const SEGMENT_BYTES: u64 = 64 << 10;
    let store = start(&disk, &runtime, &root, &Rc::new(Meter::default())).await;
    // Two do not fit into a segment.
    let bytes = batch(if shape.segments > 1 { 40 << 10 } else { VALUE_BYTES });
    let indices: Vec<i32> = (0..shape.logs).collect();
    for some in indices.chunks(LOGS_AT_ONCE) {
        let made = some.iter().map(async |index| {
            let log = store.create_log(partition(*index), keep_all(SEGMENT_BYTES)).await;
            let log = log.expect("it is new");
            for _ in 0..shape.segments {
                append(&runtime, &log, &bytes).await;
                log.until_durable(log.log_end()).await.expect("the disk works");
            }
            assert_eq!(log.segment_count(), shape.segments);
        });
        futures_util::future::join_all(made).await;
    }
    store.stop().await.expect("the disk works");
    mark_clean(disk.as_ref(), &root).await.expect("the disk works");
}

/// Opens the directory `times` times, each time after a clean stop; the sum of the times.
async fn open_again(
    disk: SharedDisk,
    runtime: SharedRuntime,
    root: PathBuf,
    (shape, times): (Shape, u64),
) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        let started = clock();
        let opened = open(&disk, &runtime, &root).await;
        total += started.elapsed();
        assert!(opened.report.was_clean);
        let logs: usize = opened.seeds.iter().map(|seed| seed.logs.len()).sum();
        assert_eq!(i32::try_from(logs), Ok(shape.logs));
        mark_clean(disk.as_ref(), &root).await.expect("the disk works");
    }
    total
}

fn directories(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    let (many_segments, many_logs) = if is_measured() { (100, 1000) } else { (5, 20) };
    let shapes = [
        ("segments_of_one_log", Shape { logs: 1, segments: many_segments }, many_segments),
        ("logs", Shape { logs: many_logs, segments: 1 }, many_logs.unsigned_abs() as usize),
    ];
    for (name, shape, count) in shapes {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("it exists");
        let root = directory.path();
        on_disk(root, async move |disk, runtime, root| fill(disk, runtime, root, shape).await);
        group.bench_function(BenchmarkId::new(name, count), |bencher| {
            bencher.iter_custom(|times| {
                on_disk(root, async move |disk, runtime, root| {
                    open_again(disk, runtime, root, (shape, times)).await
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, rounds, directories);
criterion_main!(benches);
