//! One partition over the production engine, on the simulated disk: order, acknowledgements, room.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use levada_engine::disk::simulated::{Fault, SimDisk};
use levada_engine::runtime::simulated::SimRuntime;
use levada_engine::{
    DirectoryOptions, LogConfig, Placement, Runtime as _, Store, StoreConfig, StoreListener,
    open_directory,
};
use levada_record::{
    BatchBuilder, BrokerId, Compression, Durability, NewRecord, PartitionIndex, ProducerEpoch,
    ProducerId, ShardIndex, TopicId,
};

use super::append_job::{AppendJob, AppendResult};
use super::*;

/// Tells the partition what the store tells.
#[derive(Default)]
struct Forward {
    partition: RefCell<Option<Rc<Partition>>>,
}

impl StoreListener for Forward {
    fn advanced(&self, _: &Rc<Log>) {
        if let Some(partition) = &*self.partition.borrow() {
            partition.on_log_advanced();
        }
    }

    fn failed(&self, reason: &str) {
        if let Some(partition) = &*self.partition.borrow() {
            partition.fail_everyone(&AppendFailure::Storage(reason.to_owned()));
        }
    }
}

/// A partition that leads itself, and the machine under it.
struct Machine {
    runtime: SimRuntime,
    disk: SimDisk,
    partition: Rc<Partition>,
    _store: Store,
}

const REIGN: Reign = Reign {
    epoch: LeaderEpoch(1),
    replicas: 1,
    in_sync: 1,
    min_in_sync: 1,
    durability: Durability::Fsync,
};

/// Does `work` with a fresh partition whose shard takes `limit_bytes` of appends at a time.
fn with_partition<T: 'static, F>(
    seed: u64,
    limit_bytes: u64,
    work: impl FnOnce(Machine) -> F + 'static,
) -> T
where
    F: Future<Output = T> + 'static,
{
    let runtime = SimRuntime::new(seed);
    let disk = SimDisk::new(&runtime, seed);
    let (process, tree) = (runtime.clone(), disk.clone());
    let result = runtime.block_on(async move {
        let options = DirectoryOptions {
            root: PathBuf::from("/data"),
            cluster: [1; 16],
            broker: BrokerId(1),
            shards: 1,
            random: [1, 2, 3, 4],
        };
        let place = |_| Placement::Shard(ShardIndex(0));
        let opened = open_directory(tree.shared(), process.shared(), options, &place).await;
        let seed = opened.unwrap().seeds.remove(0);
        let config =
            StoreConfig { journal_file_bytes: 1 << 20, journal_files_max: 4, cache_bytes: 1 << 20 };
        let forward = Rc::new(Forward::default());
        let listener: Rc<dyn StoreListener> = Rc::clone(&forward) as _;
        let store = Store::start(tree.shared(), process.shared(), config, seed, listener);
        let store = store.await.unwrap();
        let id = PartitionId::new(TopicId([7; 16]), PartitionIndex(0));
        let config = LogConfig { segment_bytes: 256 << 10, ..LogConfig::default() };
        let log = store.create_log(id, config).await.unwrap();
        let pressure = Rc::new(AppendPressure::new(limit_bytes));
        let partition = Partition::new(log, process.shared(), pressure);
        partition.lead(REIGN);
        *forward.partition.borrow_mut() = Some(Rc::clone(&partition));
        work(Machine { runtime: process, disk: tree, partition, _store: store }).await
    });
    runtime.kill_all();
    result
}

impl Machine {
    fn request(&self, batch: Vec<u8>, acks: Acks, timeout_ms: u64) -> AppendRequest {
        AppendRequest {
            header: BatchHeader::parse(&batch).unwrap(),
            batch: batch.into(),
            acks,
            deadline_ns: deadline_ns(self.runtime.now(), timeout_ms),
            log_append_time: None,
            held: None,
        }
    }

    /// Appends all of them at once, without waiting in between.
    fn append_all(&self, batches: Vec<Vec<u8>>, acks: Acks) -> Rc<AppendJob> {
        let job = AppendJob::new(batches.len());
        for (slot, batch) in batches.into_iter().enumerate() {
            self.partition.append(self.request(batch, acks, 60_000), job.ticket(slot));
        }
        job
    }
}

fn batch(value_bytes: usize, producer: Option<i32>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some(sequence) = producer {
        builder = builder.producer(ProducerId(5), ProducerEpoch(0), sequence);
    }
    let value = vec![b'x'; value_bytes];
    builder.push(&NewRecord { value: Some(&value), ..NewRecord::default() }).unwrap();
    builder.finish().unwrap()
}

fn bases(results: &[AppendResult]) -> Vec<i64> {
    results.iter().map(|result| result.as_ref().unwrap().base.0).collect()
}

#[test]
fn appends_that_wait_for_room_keep_their_order_and_are_acknowledged_once_they_are_stable() {
    for seed in 0..20 {
        with_partition(seed, 20_000, |machine| async move {
            let lengths = (0..200).map(|n| 100 + 37 * (n % 90));
            let batches = (0..).zip(lengths).map(|(n, bytes)| batch(bytes, Some(n))).collect();
            let acks = if machine.runtime.seed() % 2 == 0 { Acks::All } else { Acks::Leader };
            let job = machine.append_all(batches, acks);
            assert!(machine.partition.queued_appends() > 0, "nothing had to wait");
            let results = job.done().await;
            assert_eq!(bases(&results), (0..200).collect::<Vec<_>>());
            assert!(machine.partition.log().durable_end() >= Offset(200));
            assert_eq!(machine.partition.pressure.held_bytes(), 0);
        });
    }
}

#[test]
fn a_repeated_batch_is_answered_with_its_original_and_not_before_it() {
    for seed in 0..20 {
        with_partition(seed, 1 << 20, |machine| async move {
            let job = machine.append_all(vec![batch(10, Some(0)), batch(10, Some(0))], Acks::All);
            let results = job.done().await;
            assert_eq!(bases(&results), [0, 0]);
            assert_eq!(machine.partition.log().log_end(), Offset(1));
            assert_eq!(machine.partition.log().durable_end(), Offset(1));
            let gap = machine.append_all(vec![batch(10, Some(5))], Acks::All).done().await;
            let expected = AppendFailure::OutOfOrderSequence { expected: 1, got: 5 };
            assert_eq!(gap, [Err(expected)]);
        });
    }
}

#[test]
fn too_few_replicas_in_sync_refuse_acks_all_before_the_append() {
    with_partition(1, 1 << 20, |machine| async move {
        let epoch = LeaderEpoch(2);
        machine.partition.lead(Reign { min_in_sync: 2, epoch, ..REIGN });
        let results = machine.append_all(vec![batch(10, None)], Acks::All).done().await;
        assert!(matches!(results[0], Err(AppendFailure::NotEnoughReplicas(_))), "{results:?}");
        assert_eq!(machine.partition.log().log_end(), Offset(0));
        let results = machine.append_all(vec![batch(10, None)], Acks::Leader).done().await;
        assert_eq!(bases(&results), [0]);
    });
}

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
    with_partition(1, 1 << 20, |machine| async move {
        let used = machine.disk.used_bytes();
        machine.disk.set_capacity_bytes(used);
        let batches = (0..3).map(|_| batch(100_000, None)).collect();
        let results = machine.append_all(batches, Acks::All).done().await;
        let is_full = |result: &AppendResult| matches!(result, Err(AppendFailure::DiskFull { .. }));
        assert!(results.iter().all(is_full), "{results:?}");
        machine.disk.set_capacity_bytes(used + (64 << 20));
        let results = machine.append_all(vec![batch(100_000, None)], Acks::All).done().await;
        assert_eq!(bases(&results), [0]);
    });
}

#[test]
fn whoever_waits_is_told_when_the_log_directory_fails() {
    with_partition(1, 1 << 20, |machine| async move {
        machine.append_all(vec![batch(10, None)], Acks::All).done().await;
        machine.disk.fail_once(Fault::SyncError, "journal", 0);
        let results = machine.append_all(vec![batch(10, None)], Acks::All).done().await;
        assert!(matches!(results[0], Err(AppendFailure::Storage(_))), "{results:?}");
        let results = machine.append_all(vec![batch(10, None)], Acks::All).done().await;
        assert!(matches!(results[0], Err(AppendFailure::Storage(_))), "{results:?}");
    });
}

#[test]
fn an_acknowledgement_that_takes_too_long_is_given_up() {
    with_partition(1, 1 << 20, |machine| async move {
        let job = AppendJob::new(1);
        let request = machine.request(batch(10, None), Acks::All, 50);
        machine.disk.fail_once(Fault::SyncHang, "journal", 0);
        machine.partition.append(request, job.ticket(0));
        machine.runtime.sleep(Duration::from_millis(60)).await;
        machine.partition.on_tick(machine.runtime.now().monotonic_ns);
        assert_eq!(job.done().await, [Err(AppendFailure::TimedOut)]);
        machine.disk.release_hung();
    });
}

#[test]
fn a_watch_is_woken_by_what_is_committed_not_by_what_is_appended() {
    with_partition(1, 1 << 20, |machine| async move {
        let watch = Watch::new(1);
        machine.partition.watch(&watch);
        let job = machine.append_all(vec![batch(10, None)], Acks::All);
        assert_eq!(machine.partition.standing(None).unwrap().high_watermark, Offset(0));
        watch.enough().await;
        assert_eq!(machine.partition.standing(None).unwrap().high_watermark, Offset(1));
        job.done().await;
    });
}

#[test]
fn a_partition_that_resigns_tells_everyone_who_waits() {
    with_partition(1, 1 << 20, |machine| async move {
        // The first makes room for those that follow.
        machine.append_all(vec![batch(10, None)], Acks::All).done().await;
        let job = machine.append_all(vec![batch(10, None), batch(10, None)], Acks::All);
        machine.partition.resign(LeaderHint { leader: None, epoch: LeaderEpoch(2) });
        assert_eq!(
            job.done().await,
            [Err(AppendFailure::NotLeader), Err(AppendFailure::NotLeader)]
        );
        let late = machine.append_all(vec![batch(10, None)], Acks::None).done().await;
        assert_eq!(late, [Err(AppendFailure::NotLeader)]);
        assert_eq!(machine.partition.standing(None), Err(ReadFailure::NotLeader));
        machine.partition.log().until_durable(Offset(3)).await.unwrap();
        assert_eq!(machine.partition.pressure.held_bytes(), 0);
    });
}
