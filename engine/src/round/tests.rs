//! Rounds on the real executor: who is in which.

use std::cell::Cell;
use std::rc::Rc;

use levada_record::{LeaderEpoch, ShardIndex};

use super::RoundReport;
use crate::disk::direct::tests::on_disk;
use crate::runtime::Runtime;
use crate::runtime::glommio::GlommioRuntime;
use crate::store::tests::{batch, partition};
use crate::{
    DirectoryOptions, Log, LogConfig, Placement, Store, StoreConfig, StoreListener, open_directory,
};

const APPENDERS: usize = 16;
const APPENDS: u64 = 100;

/// Counts the rounds that had something to say.
#[derive(Default)]
struct Rounds(Cell<u64>);

impl StoreListener for Rounds {
    fn advanced(&self, _: &Rc<Log>) {}
    fn failed(&self, reason: &str) {
        panic!("{reason}");
    }
    fn round_done(&self, report: &RoundReport) {
        self.0.set(self.0.get() + u64::from(report.entries > 0));
    }
}

/// Each appender has one batch in flight. They need as many rounds as each has batches when all of them are in every
/// round, and twice as many when those whom a round wakes find the next one already put together.
#[test]
fn whom_a_round_wakes_is_in_the_next_one() {
    on_disk(async |disk, root| {
        let runtime = GlommioRuntime::default();
        let options = DirectoryOptions {
            root,
            cluster: [1; 16],
            broker: levada_record::BrokerId(1),
            shards: 1,
            random: [1, 2, 3, 4],
        };
        let place = |_| Placement::Shard(ShardIndex(0));
        let opened =
            open_directory(disk.shared(), runtime.shared(), options, &place).await.unwrap();
        let seed = opened.seeds.into_iter().next().unwrap();
        let rounds = Rc::new(Rounds::default());
        let listener: Rc<dyn StoreListener> = Rc::clone(&rounds) as Rc<dyn StoreListener>;
        let config =
            StoreConfig { journal_file_bytes: 8 << 20, journal_files_max: 4, cache_bytes: 1 << 20 };
        let store =
            Store::start(disk.shared(), runtime.shared(), config, seed, listener).await.unwrap();
        let mut logs = Vec::new();
        for index in 0..APPENDERS {
            let id = partition(i32::try_from(index).unwrap());
            let log = store.create_log(id, LogConfig::default()).await.unwrap();
            log.grow(1 << 20).await.unwrap();
            logs.push(log);
        }
        rounds.0.set(0);
        let runtime = Rc::new(runtime);
        let mut appenders = Vec::new();
        for (index, log) in logs.iter().enumerate() {
            let (log, runtime) = (Rc::clone(log), Rc::clone(&runtime));
            appenders.push(glommio::spawn_local(async move {
                // The second half comes when the round of the first half is under way.
                for _ in 0..index / (APPENDERS / 2) * 20 {
                    futures_lite::future::yield_now().await;
                }
                for nth in 0..APPENDS {
                    let bytes = batch(nth, 1, 700, None);
                    let appended = log.try_append(&bytes, LeaderEpoch(0), runtime.now()).unwrap();
                    log.until_durable(appended.end).await.unwrap();
                }
            }));
        }
        for appender in appenders {
            appender.await;
        }
        let took = rounds.0.get();
        assert!(took < APPENDS * 3 / 2, "{took} rounds for {APPENDS} batches of each appender");
        store.stop().await.unwrap();
        runtime.stop().await;
    });
}
