//! The store on the simulated disk: what goes in comes out, before and after crashes.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use levada_record::{
    BatchBuilder, BatchHeader, BrokerId, Compression, LeaderEpoch, NewRecord, Offset, PartitionId,
    PartitionIndex, ProducerEpoch, ProducerId, ShardIndex, Timestamp, TopicId, VerifyLimits,
    next_batch,
};

use crate::disk::simulated::{Fate, SimDisk, View};
use crate::runtime::simulated::SimRuntime;
use crate::{
    AppendError, DirectoryOptions, Log, LogConfig, OpenedDirectory, Placement, SequenceVerdict,
    Store, StoreConfig, StoreListener, mark_clean, open_directory,
};

pub(crate) struct Quiet;

impl StoreListener for Quiet {
    fn advanced(&self, _: &Rc<Log>) {}
    fn failed(&self, _: &str) {}
}

pub(crate) fn partition(index: i32) -> PartitionId {
    PartitionId::new(TopicId([7; 16]), PartitionIndex(index))
}

fn small() -> StoreConfig {
    StoreConfig { journal_file_bytes: 1 << 20, journal_files_max: 4, cache_bytes: 1 << 20 }
}

/// One simulated machine: a disk that survives, processes that come and go.
pub(crate) struct Machine {
    pub(crate) runtime: SimRuntime,
    pub(crate) disk: SimDisk,
    pub(crate) shards: u16,
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        let runtime = SimRuntime::new(seed);
        let disk = SimDisk::new(&runtime, seed);
        Self { runtime, disk, shards: 1 }
    }

    pub(crate) async fn open(
        disk: SimDisk,
        runtime: SimRuntime,
        shards: u16,
    ) -> (OpenedDirectory, Vec<Store>) {
        let options = DirectoryOptions {
            root: PathBuf::from("/data"),
            cluster: [1; 16],
            broker: BrokerId(1),
            shards,
            random: [1, 2, 3, 4],
        };
        let place = |id: PartitionId| {
            Placement::Shard(ShardIndex(u16::try_from(id.index.0).unwrap() % shards))
        };
        let opened = open_directory(disk.shared(), runtime.shared(), options, &place)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        let mut stores = Vec::new();
        for seed in opened.seeds.clone() {
            let listener: Rc<dyn StoreListener> = Rc::new(Quiet);
            let store = Store::start(disk.shared(), runtime.shared(), small(), seed, listener);
            stores.push(store.await.unwrap_or_else(|error| panic!("{error:?}")));
        }
        (opened, stores)
    }

    /// Runs one life of the process: opens the directory, does `work`; then the process is killed, without any
    /// stop, unless `work` stopped it.
    pub(crate) fn live<T: 'static, F, W>(&self, work: W) -> T
    where
        F: Future<Output = T> + 'static,
        W: FnOnce(OpenedDirectory, Vec<Store>, SimDisk) -> F + 'static,
    {
        let (disk, runtime, shards) = (self.disk.clone(), self.runtime.clone(), self.shards);
        let result = self.runtime.block_on(async move {
            let (opened, stores) = Self::open(disk.clone(), runtime, shards).await;
            work(opened, stores, disk).await
        });
        self.runtime.kill_all();
        result
    }

    pub(crate) fn crash(&self, fate: Fate) {
        self.disk.crash_with(fate);
    }
}

pub(crate) fn batch(
    tag: u64,
    records: usize,
    value_bytes: usize,
    producer: Option<(i64, i32)>,
) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(0), sequence);
    }
    for index in 0..records {
        let mut value = format!("{tag}/{index}/").into_bytes();
        value.resize(value.len() + value_bytes, b'x');
        let timestamp = Timestamp(1_000 + i64::try_from(tag).unwrap());
        builder
            .push(&NewRecord { timestamp, value: Some(&value), ..NewRecord::default() })
            .unwrap();
    }
    builder.finish().unwrap()
}

pub(crate) async fn append(store: &Store, log: &Rc<Log>, bytes: &[u8]) -> Offset {
    loop {
        let now = store.shared.runtime.now();
        match log.try_append(bytes, LeaderEpoch(0), now) {
            Ok(appended) => return appended.base,
            Err(AppendError::NeedsSpace { bytes }) => log.grow(bytes).await.unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads the whole log; gives the tag of every batch with its base offset.
pub(crate) async fn read_all(log: &Rc<Log>) -> Vec<(Offset, String)> {
    read_from(log, log.log_start()).await
}

async fn read_from(log: &Rc<Log>, from: Offset) -> Vec<(Offset, String)> {
    let mut seen = Vec::new();
    let mut at = from;
    while at < log.log_end() {
        let outcome = log.read(at, log.log_end(), 64 << 10, true).await.unwrap();
        let bytes: Vec<u8> = outcome.slices.iter().flat_map(|slice| slice.to_vec()).collect();
        assert!(outcome.next > at, "no progress at {at}");
        let mut rest = &bytes[..];
        while let Some((view, after)) = next_batch(rest, &VerifyLimits::DEFAULT).unwrap() {
            let record = view.plain_records().unwrap().next().unwrap().unwrap();
            let text = String::from_utf8_lossy(record.value.unwrap()).into_owned();
            let tag = text.split('/').next().unwrap().to_owned();
            seen.push((view.base_offset(), tag));
            rest = after;
        }
        at = outcome.next;
    }
    seen
}

fn tags(seen: &[(Offset, String)]) -> Vec<&str> {
    seen.iter().map(|(_, tag)| tag.as_str()).collect()
}

#[test]
fn what_is_durable_survives_a_crash_and_a_clean_stop() {
    for seed in 0..20 {
        let machine = Machine::new(seed);
        machine.live(|_, stores, _| async move {
            let store = &stores[0];
            let log = store.create_log(partition(0), LogConfig::default()).await.unwrap();
            for tag in 0..30 {
                append(store, &log, &batch(tag, 3, 500, None)).await;
            }
            log.until_durable(log.log_end()).await.unwrap();
            assert_eq!(read_all(&log).await.len(), 30);
        });
        machine.crash(Fate::Any);
        machine.live(move |opened, stores, disk| async move {
            assert!(!opened.report.was_clean);
            assert!(opened.report.suspects.is_empty(), "seed {seed}: {:?}", opened.report);
            let log = stores[0].log(partition(0));
            let log = log.unwrap_or_else(|| panic!("seed {seed}: {:?}", opened.report));
            assert_eq!(log.log_end(), Offset(90));
            let seen = read_all(&log).await;
            assert_eq!(tags(&seen), (0..30).map(|i| i.to_string()).collect::<Vec<_>>());
            append(&stores[0], &log, &batch(30, 3, 500, None)).await;
            stores[0].stop().await.unwrap();
            mark_clean(&*disk.shared(), std::path::Path::new("/data")).await.unwrap();
        });
        machine.crash(Fate::Any);
        machine.live(|opened, stores, _| async move {
            assert!(opened.report.was_clean);
            let log = stores[0].log(partition(0)).unwrap();
            assert_eq!(log.log_end(), Offset(93));
            assert_eq!(read_all(&log).await.len(), 31);
            append(&stores[0], &log, &batch(31, 1, 10, None)).await;
            log.until_durable(log.log_end()).await.unwrap();
        });
    }
}

#[test]
fn small_and_large_appends_to_many_logs_come_back_after_crashes_anywhere() {
    for seed in 0..40 {
        let machine = Machine::new(seed);
        let acked: Rc<RefCell<Vec<Vec<u64>>>> = Rc::new(RefCell::new(vec![Vec::new(); 5]));
        machine.live(|_, stores, _| async move {
            for index in 0..5 {
                let config = LogConfig { segment_bytes: 300 << 10, ..LogConfig::default() };
                stores[0].create_log(partition(index), config).await.unwrap();
            }
        });
        for life in 0..4u64 {
            machine.crash(Fate::Any);
            let acked = Rc::clone(&acked);
            machine.live(move |opened, stores, _| async move {
                assert_eq!(opened.report.suspects, vec![], "seed {seed} life {life}");
                let store = &stores[0];
                let known = acked.borrow().clone();
                for (index, expected) in known.iter().enumerate() {
                    let log = store.log(partition(i32::try_from(index).unwrap())).unwrap();
                    log.set_config(LogConfig { segment_bytes: 300 << 10, ..LogConfig::default() });
                    let seen = read_all(&log).await;
                    let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
                    // Everything acknowledged, in order; what was on its way may be there too.
                    let seen = tags(&seen);
                    assert_eq!(seen[..expected.len()], expected[..], "seed {seed} life {life}");
                }
                let mut next = acked.borrow().clone();
                for step in 0..40u64 {
                    let index = usize::try_from((seed + step * 7) % 5).unwrap();
                    let log = store.log(partition(i32::try_from(index).unwrap())).unwrap();
                    let bytes = if (seed + step).is_multiple_of(6) { 90_000 } else { 700 };
                    let tag = life * 1000 + step;
                    // Forget what an earlier life left unacknowledged.
                    if step < 5 {
                        let seen = read_all(&log).await;
                        next[index] = tags(&seen).iter().map(|tag| tag.parse().unwrap()).collect();
                    }
                    append(store, &log, &batch(tag, 1, bytes, None)).await;
                    next[index].push(tag);
                    if step % 3 == 0 {
                        log.until_durable(log.log_end()).await.unwrap();
                        acked.borrow_mut()[index].clone_from(&next[index]);
                    }
                    if step == 20 && life == 2 {
                        store.checkpoint().await.unwrap();
                    }
                }
            });
        }
    }
}

#[test]
fn producers_are_known_again_after_a_crash() {
    let machine = Machine::new(3);
    machine.live(|_, stores, _| async move {
        let log = stores[0].create_log(partition(0), LogConfig::default()).await.unwrap();
        for sequence in 0..12 {
            append(&stores[0], &log, &batch(0, 1, 10, Some((5, sequence)))).await;
            if sequence == 6 {
                stores[0].checkpoint().await.unwrap();
            }
        }
        log.until_durable(Offset(12)).await.unwrap();
    });
    machine.crash(Fate::Any);
    machine.live(|_, stores, _| async move {
        let log = stores[0].log(partition(0)).unwrap();
        let check = |sequence| {
            let header = BatchHeader::parse(&batch(0, 1, 10, Some((5, sequence)))).unwrap();
            log.check_sequence(&header).unwrap()
        };
        assert_eq!(check(12), SequenceVerdict::Append);
        assert!(matches!(check(11), SequenceVerdict::Duplicate(found) if found.base == Offset(11)));
        assert!(matches!(check(13), SequenceVerdict::OutOfOrder { expected: 12, .. }));
    });
    drop(machine.disk.snapshot(View::Durable));
}

/// Appends `kib` KiB to each of the logs, in turn, 4 KiB at a time, and waits until all of it is durable.
async fn fill(store: &Store, logs: &[Rc<Log>], kib: usize) {
    for tag in 0..kib / 4 {
        for log in logs {
            append(store, log, &batch(tag as u64, 1, 4 << 10, None)).await;
        }
        for log in logs {
            log.until_durable(log.log_end()).await.unwrap();
        }
    }
}

async fn create_logs(store: &Store, count: i32) -> Vec<Rc<Log>> {
    let mut logs = Vec::new();
    for index in 0..count {
        logs.push(store.create_log(partition(index), LogConfig::default()).await.unwrap());
    }
    logs
}

/// Every log that owes bytes costs a checkpoint a write: it waits until each owes enough, as far as the ring may grow.
#[test]
fn the_ring_grows_for_many_logs_and_not_for_one() {
    let stats = [(1, 6000), (60, 100)].map(|(count, kib)| {
        Machine::new(1).live(move |_, stores, _| async move {
            let logs = create_logs(&stores[0], count).await;
            fill(&stores[0], &logs, kib).await;
            stores[0].stats()
        })
    });
    let max_bytes = small().journal_file_bytes * small().journal_files_max as u64;
    let [one, many] = stats.map(|stats| stats.journal_size_bytes);
    assert!(one < many, "{one} {many}");
    assert_eq!(many, max_bytes);
    assert!(stats[1].checkpoints < stats[0].checkpoints, "{stats:?}");
}

#[test]
fn a_ring_that_finds_no_room_to_grow_is_used_again() {
    let stats = Machine::new(2).live(|_, stores, disk| async move {
        let logs = create_logs(&stores[0], 60).await;
        for log in &logs {
            log.grow(160 << 10).await.unwrap();
        }
        let left_bytes = small().journal_file_bytes - (64 << 10);
        disk.set_capacity_bytes(disk.used_bytes() + left_bytes);
        fill(&stores[0], &logs, 100).await;
        let stats = stores[0].stats();
        stores[0].stop().await.unwrap();
        stats
    });
    assert!(stats.journal_size_bytes < small().journal_file_bytes * 4, "{stats:?}");
    assert!(stats.journal_bytes > 2 * stats.journal_size_bytes, "{stats:?}");
}

/// Reads a log on the disk, in batches of 16 KiB, in order from its start. Where it stops, more is on its way.
async fn reading_cold(store: &Store, log: &Rc<Log>) -> Offset {
    let mut at = Offset(0);
    while at < Offset(64) {
        at = log.read(at, log.log_end(), 64 << 10, true).await.unwrap().next;
        let stats = store.stats();
        assert!(stats.read_ahead_bytes <= small().cache_bytes as u64 / 2, "{stats:?}");
    }
    at
}

#[test]
fn a_log_that_is_read_in_order_is_read_ahead() {
    let machine = Machine::new(4);
    machine.live(|_, stores, _| async move {
        let log = stores[0].create_log(partition(0), LogConfig::default()).await.unwrap();
        for tag in 0..256 {
            append(&stores[0], &log, &batch(tag, 1, 16 << 10, None)).await;
        }
        log.until_durable(log.log_end()).await.unwrap();
        stores[0].stop().await.unwrap();
    });
    machine.live(|_, stores, _| async move {
        let (store, log) = (&stores[0], stores[0].log(partition(0)).unwrap());
        for from in [200, 100, 150] {
            log.read(Offset(from), log.log_end(), 64 << 10, true).await.unwrap();
        }
        assert_eq!(store.stats().read_ahead_bytes, 0, "nobody reads in order");
        let seen = read_all(&log).await;
        assert_eq!(tags(&seen), (0..256).map(|tag| tag.to_string()).collect::<Vec<_>>());
        let stats = store.stats();
        assert!(stats.read_ahead_used_bytes > 3 << 20, "{stats:?}");
        // Cut where bytes behind are on their way; others take their place, on the disk too.
        let end = reading_cold(store, &log).await;
        assert!(store.stats().read_ahead_bytes > 0);
        log.truncate(end).await.unwrap();
        assert_eq!(store.stats().read_ahead_bytes, 0);
        for tag in 1000..1256 {
            append(store, &log, &batch(tag, 1, 16 << 10, None)).await;
        }
        log.until_durable(log.log_end()).await.unwrap();
        store.checkpoint().await.unwrap();
        let seen = read_from(&log, end).await;
        assert_eq!(tags(&seen), (1000..1256).map(|tag| tag.to_string()).collect::<Vec<_>>());
        reading_cold(store, &log).await;
        store.remove_log(partition(0)).await.unwrap();
        assert_eq!(store.stats().read_ahead_bytes, 0);
    });
}

#[test]
fn a_checkpoint_has_all_that_was_durable_when_it_was_asked_for() {
    for seed in 0..20 {
        Machine::new(seed).live(move |_, stores, _| async move {
            let store = &stores[0];
            let log = store.create_log(partition(0), LogConfig::default()).await.unwrap();
            append(store, &log, &batch(0, 1, 700, None)).await;
            log.until_durable(log.log_end()).await.unwrap();
            let first = async { store.checkpoint().await.unwrap() };
            let second = async {
                append(store, &log, &batch(1, 1, 700, None)).await;
                log.until_durable(log.log_end()).await.unwrap();
                store.checkpoint().await.unwrap();
                let state = log.state.borrow();
                assert_eq!(state.checkpointed.offset, Offset(2), "seed {seed}");
            };
            futures_lite::future::zip(first, second).await;
        });
    }
}
