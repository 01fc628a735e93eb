//! The schedules that a wrong implementation loses, one test each, on the simulated disk.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use levada_record::{BatchHeader, Offset};

use super::tests::{Machine, append, batch, partition, read_all};
use crate::disk::simulated::{Fate, SimDisk, View};
use crate::{
    AppendError, Log, LogConfig, OpenedDirectory, RecoveryReport, SequenceVerdict, Store,
    mark_clean,
};

/// Above this, an append goes straight to its segment.
const LARGE_BYTES: usize = 100 << 10;

/// Tags of batches that were acknowledged, in order.
type Acked = Rc<RefCell<Vec<String>>>;

impl Machine {
    /// One life that the power cut ends at the `operation`th disk operation from its first, if it comes so far.
    fn live_until_cut<F, W>(&self, operation: u64, fate: Fate, work: W)
    where
        F: Future<Output = ()> + 'static,
        W: FnOnce(OpenedDirectory, Vec<Store>, SimDisk) -> F + 'static,
    {
        let (disk, runtime, shards) = (self.disk.clone(), self.runtime.clone(), self.shards);
        self.disk.cut_power_at_operation(self.disk.counts().operations + operation);
        let ended = self.runtime.run(async move {
            let (opened, stores) = Self::open(disk.clone(), runtime, shards).await;
            work(opened, stores, disk).await;
        });
        // Cut, or through before the cut: both are fine.
        drop(ended);
        self.runtime.kill_all();
        self.crash(fate);
    }

    /// Opens and wants exactly these batches, nothing damaged, and that the log takes one more.
    #[track_caller]
    fn expect(&self, tags: &[&str]) -> RecoveryReport {
        let (found, report) = self.found(0);
        assert_eq!(found, tags);
        assert_eq!((&report.suspects[..], &report.missing[..]), (&[][..], &[][..]));
        report
    }

    /// The batches of a log after a start, and what the start saw; then one more is appended and cut off again.
    fn found(&self, index: i32) -> (Vec<String>, RecoveryReport) {
        self.live(move |opened, stores, _| async move {
            let Some(log) = stores.iter().find_map(|store| store.log(partition(index))) else {
                return (Vec::new(), opened.report);
            };
            let suspect = log.suspicion();
            let end = suspect.as_ref().map_or(log.log_end(), |suspicion| suspicion.from);
            let mut found = Vec::new();
            let mut at = log.log_start();
            while at < end {
                let outcome = log.read(at, end, 1 << 20, true).await.unwrap();
                at = outcome.next;
                let bytes: Vec<u8> =
                    outcome.slices.iter().flat_map(|slice| slice.to_vec()).collect();
                found.extend(tags_of(&bytes));
            }
            if suspect.is_none() {
                let before = log.log_end();
                let store = stores.iter().find(|s| s.log(partition(index)).is_some()).unwrap();
                append(store, &log, &batch(9999, 1, 10, None)).await;
                log.until_durable(log.log_end()).await.unwrap();
                assert_eq!(log.truncate(before).await.unwrap(), before);
            }
            (found, opened.report)
        })
    }

    fn files_named(&self, part: &str) -> Vec<PathBuf> {
        let files = self.disk.files(View::Visible).into_iter();
        files.filter(|path| path.to_string_lossy().contains(part)).collect()
    }
}

fn tags_of(mut bytes: &[u8]) -> Vec<String> {
    let mut tags = Vec::new();
    while let Ok(Some((view, rest))) =
        levada_record::next_batch(bytes, &levada_record::VerifyLimits::DEFAULT)
    {
        let record = view.plain_records().unwrap().next().unwrap().unwrap();
        let text = String::from_utf8_lossy(record.value.unwrap()).into_owned();
        tags.push(text.split('/').next().unwrap().to_owned());
        bytes = rest;
    }
    tags
}

/// Appends a batch of one record and waits until it is durable.
async fn put(store: &Store, log: &Rc<Log>, tag: u64, value_bytes: usize) {
    append(store, log, &batch(tag, 1, value_bytes, None)).await;
    log.until_durable(log.log_end()).await.unwrap();
}

async fn one_log(store: &Store) -> Rc<Log> {
    store.create_log(partition(0), LogConfig::default()).await.unwrap()
}

async fn stop_cleanly(stores: &[Store], disk: &SimDisk) {
    for store in stores {
        store.stop().await.unwrap();
    }
    mark_clean(&*disk.shared(), Path::new("/data")).await.unwrap();
}

#[test]
fn schedule_1_a_padded_block_is_rewritten_by_a_large_append_and_the_cut_damages_it() {
    for operation in 1..60 {
        let machine = Machine::new(operation);
        machine.live(|_, stores, disk| async move {
            let log = one_log(&stores[0]).await;
            put(&stores[0], &log, 0, 100).await;
            stop_cleanly(&stores, &disk).await;
        });
        let acked: Acked = Rc::new(RefCell::new(vec!["0".to_owned()]));
        let told = Rc::clone(&acked);
        machine.live_until_cut(operation, Fate::Damaged, |_, stores, _| async move {
            let log = stores[0].log(partition(0)).unwrap();
            put(&stores[0], &log, 1, LARGE_BYTES).await;
            told.borrow_mut().push("1".to_owned());
        });
        let (found, report) = machine.found(0);
        assert!(found.starts_with(&acked.borrow()), "cut at {operation}: {found:?}");
        assert_eq!(report.suspects, vec![], "cut at {operation}");
    }
}

#[test]
fn schedule_2_a_journaled_block_does_not_wipe_what_was_written_through_over_it() {
    let machine = Machine::new(2);
    machine.live(|_, stores, _| async move {
        let log = one_log(&stores[0]).await;
        put(&stores[0], &log, 0, 30).await;
        put(&stores[0], &log, 1, LARGE_BYTES).await;
    });
    machine.crash(Fate::Any);
    machine.expect(&["0", "1"]);
}

#[test]
fn schedule_3_journaled_bytes_that_a_truncation_cut_off_do_not_destroy_what_came_there() {
    let machine = Machine::new(3);
    machine.live(|_, stores, _| async move {
        let log = one_log(&stores[0]).await;
        put(&stores[0], &log, 0, 4000).await;
        put(&stores[0], &log, 1, 4000).await;
        log.truncate(Offset(1)).await.unwrap();
        put(&stores[0], &log, 2, LARGE_BYTES).await;
    });
    machine.crash(Fate::Any);
    machine.expect(&["0", "2"]);
}

#[test]
fn schedule_4_what_was_overwritten_after_a_truncation_is_not_asked_for() {
    let machine = Machine::new(4);
    machine.live(|_, stores, _| async move {
        let log = one_log(&stores[0]).await;
        put(&stores[0], &log, 0, 100).await;
        put(&stores[0], &log, 1, LARGE_BYTES).await;
        log.truncate(Offset(1)).await.unwrap();
        put(&stores[0], &log, 2, LARGE_BYTES + 5000).await;
    });
    machine.crash(Fate::Any);
    machine.expect(&["0", "2"]);
}

#[test]
fn schedule_5_a_kill_after_a_clean_start_is_not_taken_for_clean() {
    let machine = Machine::new(5);
    machine.live(|_, stores, disk| async move {
        let log = one_log(&stores[0]).await;
        put(&stores[0], &log, 0, 100).await;
        stop_cleanly(&stores, &disk).await;
    });
    machine.crash(Fate::Any);
    machine.live(|opened, stores, _| async move {
        assert!(opened.report.was_clean);
        let log = stores[0].log(partition(0)).unwrap();
        put(&stores[0], &log, 1, 100).await;
    });
    machine.crash(Fate::Any);
    assert!(!machine.expect(&["0", "1"]).was_clean);
}

#[test]
fn schedule_6_fewer_shards_after_a_crash_and_a_crash_in_that_recovery() {
    let mut machine = Machine::new(6);
    machine.shards = 4;
    machine.live(|_, stores, _| async move {
        for index in 0..8 {
            let store = &stores[usize::try_from(index % 4).unwrap()];
            let log = store.create_log(partition(index), LogConfig::default()).await.unwrap();
            put(store, &log, 0, 3000).await;
            put(store, &log, 1, LARGE_BYTES).await;
        }
    });
    machine.crash(Fate::Any);
    machine.shards = 2;
    let before = machine.disk.snapshot(View::Durable);
    for operation in (1..400).step_by(9) {
        machine.disk.restore(&before);
        machine.live_until_cut(operation, Fate::Any, |_, _, _| async {});
        for index in 0..8 {
            let (found, report) = machine.found(index);
            assert_eq!(found, ["0", "1"], "cut at {operation}, log {index}");
            assert_eq!(report.suspects, vec![], "cut at {operation}");
            machine.crash(Fate::Any);
        }
    }
}

/// Many small batches, so that the ring goes round, and segments that roll.
fn fill(machine: &Machine) -> Vec<String> {
    machine.live(|_, stores, _| async move {
        let config = LogConfig { segment_bytes: 400 << 10, ..LogConfig::default() };
        let log = stores[0].create_log(partition(0), config).await.unwrap();
        for tag in 0..120 {
            put(&stores[0], &log, tag, 30_000).await;
        }
        stores[0].checkpoint().await.unwrap();
        put(&stores[0], &log, 120, 100).await;
    });
    (0..=120).map(|tag: u32| tag.to_string()).collect()
}

#[test]
fn schedule_7_one_rotten_copy_of_checkpoint_or_manifest_costs_nothing_and_two_cut_nothing() {
    for name in ["checkpoint-1.0", "checkpoint-1.1", "manifest.0", "manifest.1"] {
        let machine = Machine::new(7);
        let all = fill(&machine);
        machine.crash(Fate::Kept);
        for path in machine.files_named(name) {
            machine.disk.flip_bit(&path, 40, 3).unwrap();
        }
        let (found, report) = machine.found(0);
        assert_eq!((found, report.suspects), (all, vec![]), "{name}");
    }
    for name in ["checkpoint-1.", "manifest."] {
        let machine = Machine::new(7);
        let all = fill(&machine);
        machine.crash(Fate::Kept);
        for path in machine.files_named(name) {
            machine.disk.flip_bit(&path, 40, 3).unwrap();
        }
        let segments = machine.files_named(".log");
        let (found, report) = machine.found(0);
        // Whatever is still served is right; what is not is said to be damaged, and its files stay.
        assert!(all.starts_with(&found), "{name}: {found:?}");
        assert!(found == all || !report.suspects.is_empty(), "{name}: {report:?}");
        for path in segments {
            assert!(machine.disk.files(View::Visible).contains(&path), "{name}: {path:?} is gone");
        }
    }
}

#[test]
fn schedule_8_a_damaged_last_round_is_torn_and_one_in_the_middle_is_corruption() {
    let machine = || {
        let machine = Machine::new(8);
        machine.live(|_, stores, _| async move {
            let logs = [
                one_log(&stores[0]).await,
                stores[0].create_log(partition(1), LogConfig::default()).await.unwrap(),
            ];
            for tag in 0..10 {
                let log = &logs[usize::try_from(tag % 2).unwrap()];
                put(&stores[0], log, tag, 500).await;
            }
        });
        machine.crash(Fate::Kept);
        machine
    };
    let place_of = |machine: &Machine, text: &[u8]| {
        let found = machine.files_named(".ring").into_iter().find_map(|path| {
            let bytes = machine.disk.file_bytes(&path, View::Visible).unwrap();
            let at = bytes.windows(text.len()).position(|window| window == text)?;
            Some((path, at as u64))
        });
        found.expect("the batch stands in the journal")
    };
    // The last round with a batch, as a cut would leave it: dropped, the others stand.
    let torn = machine();
    let (path, at) = place_of(&torn, b"9/0/");
    let block = at / 4096 * 4096;
    // An empty closing round may stand behind it: then this is no torn end any more.
    let bytes = torn.disk.file_bytes(&path, View::Visible).unwrap();
    torn.disk
        .overwrite(&path, block, &vec![0x5A; bytes.len() - usize::try_from(block).unwrap()])
        .unwrap();
    assert_eq!(torn.found(0).0, ["0", "2", "4", "6", "8"]);
    assert_eq!(torn.found(1).0, ["1", "3", "5", "7"]);

    let payload = machine();
    let (path, at) = place_of(&payload, b"4/0/");
    payload.disk.flip_bit(&path, at, 1).unwrap();
    let (found, report) = payload.found(0);
    assert_eq!(found, ["0", "2"], "only what is confirmed is served");
    let suspects: Vec<_> =
        report.suspects.iter().map(|(id, what)| (id.index.0, what.from)).collect();
    assert_eq!(suspects, [(0, Offset(2))]);
    assert_eq!(payload.found(1).0, ["1", "3", "5", "7", "9"]);

    let table = machine();
    let (path, at) = place_of(&table, b"4/0/");
    // The header of the round lies at the block before its payload.
    table.disk.flip_bit(&path, at / 4096 * 4096 + 20, 1).unwrap();
    let (found, report) = table.found(0);
    assert!(
        ["0", "2", "4", "6", "8"]
            .starts_with(&found.iter().map(String::as_str).collect::<Vec<_>>()[..])
    );
    assert!(!report.gaps.is_empty() && !report.suspects.is_empty(), "{report:?}");
}

#[test]
fn schedule_9_a_full_disk_loses_nothing_and_ends_by_itself() {
    for spare in [300 << 10, 700 << 10, 1500 << 10, 3 << 20] {
        let machine = Machine::new(9);
        let acked: Acked = Rc::default();
        let told = Rc::clone(&acked);
        machine.live(move |_, stores, disk| async move {
            let config = LogConfig { segment_bytes: 500 << 10, ..LogConfig::default() };
            let log = stores[0].create_log(partition(0), config).await.unwrap();
            put(&stores[0], &log, 0, 100).await;
            told.borrow_mut().push("0".to_owned());
            disk.set_capacity_bytes(disk.used_bytes() + spare);
            let mut is_refused = false;
            for tag in 1..2000 {
                let bytes = batch(tag, 1, 9000, None);
                let appended = loop {
                    match log.try_append(
                        &bytes,
                        levada_record::LeaderEpoch(0),
                        stores[0].shared.runtime.now(),
                    ) {
                        Ok(appended) => break Some(appended),
                        Err(AppendError::NeedsSpace { bytes }) => match log.grow(bytes).await {
                            Ok(()) => {}
                            Err(AppendError::DiskFull { .. }) => break None,
                            Err(error) => panic!("{error}"),
                        },
                        Err(error) => panic!("{error}"),
                    }
                };
                let Some(appended) = appended else {
                    is_refused = true;
                    break;
                };
                log.until_durable(appended.end).await.unwrap();
                told.borrow_mut().push(tag.to_string());
            }
            assert!(is_refused, "the disk gets full");
            assert_eq!(read_all(&log).await.len(), told.borrow().len(), "reads go on");
        });
        machine.crash(Fate::Any);
        // Restart while full: everything is there, and still readable.
        let expected = acked.borrow().clone();
        machine.live(move |opened, stores, disk| async move {
            assert_eq!(opened.report.suspects, vec![], "spare {spare}");
            let log = stores[0].log(partition(0)).unwrap();
            let seen: Vec<_> = read_all(&log).await.into_iter().map(|(_, tag)| tag).collect();
            assert_eq!(seen, expected, "spare {spare}");
            disk.set_capacity_bytes(1 << 40);
            put(&stores[0], &log, 7, 9000).await;
        });
    }
}

#[test]
fn schedule_10_more_partitions_than_the_ring_holds() {
    const LOGS: i32 = 700;
    let machine = Machine::new(10);
    machine.live(|_, stores, _| async move {
        let mut logs = Vec::new();
        for index in 0..LOGS {
            logs.push(stores[0].create_log(partition(index), LogConfig::default()).await.unwrap());
        }
        // 700 tails of one batch each, over and over: far more than the four journal files hold, and no tail ever
        // fills a block.
        for tag in 0..12 {
            for log in &logs {
                append(&stores[0], log, &batch(tag, 1, 700, None)).await;
            }
            for log in &logs {
                log.until_durable(log.log_end()).await.unwrap();
            }
        }
    });
    machine.crash(Fate::Any);
    machine.live(|opened, stores, _| async move {
        assert_eq!(opened.report.suspects, vec![]);
        for index in (0..LOGS).step_by(23) {
            let log = stores[0].log(partition(index)).unwrap();
            assert_eq!(read_all(&log).await.len(), 12);
        }
    });
}

#[test]
fn schedule_11_a_log_that_was_not_yet_created_is_unknown_and_one_whose_directory_is_gone_is_missing()
 {
    for operation in 1..40 {
        let machine = Machine::new(operation);
        machine.live(|_, _, _| async {});
        let confirmed = Rc::new(RefCell::new(false));
        let told = Rc::clone(&confirmed);
        machine.live_until_cut(operation, Fate::Any, |_, stores, _| async move {
            one_log(&stores[0]).await;
            *told.borrow_mut() = true;
        });
        let is_confirmed = *confirmed.borrow();
        machine.live(move |opened, stores, _| async move {
            assert_eq!((opened.report.suspects, opened.report.missing), (vec![], vec![]));
            match stores[0].log(partition(0)) {
                Some(log) => put(&stores[0], &log, 0, 10).await,
                None => {
                    assert!(!is_confirmed, "cut at {operation}");
                    let log = one_log(&stores[0]).await;
                    put(&stores[0], &log, 0, 10).await;
                }
            }
        });
    }
    let machine = Machine::new(11);
    machine.live(|_, stores, _| async move {
        let log = one_log(&stores[0]).await;
        put(&stores[0], &log, 0, 10).await;
    });
    let disk = machine.disk.clone();
    machine.runtime.block_on(async move {
        let partitions = Path::new("/data/partitions");
        for entry in disk.shared().list(partitions).await.unwrap() {
            disk.shared().remove_directory(&partitions.join(entry.name)).await.unwrap();
        }
        disk.shared().sync_directory(partitions).await.unwrap();
    });
    machine.live(|opened, stores, _| async move {
        assert_eq!(opened.report.missing, [partition(0)], "missing, never empty");
        assert!(stores[0].log(partition(0)).is_none());
    });
}

#[test]
fn schedule_12_producers_of_a_branch_that_was_cut_off_do_not_come_back() {
    let machine = Machine::new(12);
    machine.live(|_, stores, _| async move {
        let log = one_log(&stores[0]).await;
        for sequence in 0..6 {
            append(&stores[0], &log, &batch(1, 1, 10, Some((5, sequence)))).await;
        }
        log.until_durable(Offset(6)).await.unwrap();
        stores[0].checkpoint().await.unwrap();
        log.truncate(Offset(2)).await.unwrap();
        for sequence in 0..10 {
            append(&stores[0], &log, &batch(2, 1, 10, Some((6, sequence)))).await;
        }
        log.until_durable(Offset(12)).await.unwrap();
    });
    machine.crash(Fate::Any);
    machine.live(|_, stores, _| async move {
        let log = stores[0].log(partition(0)).unwrap();
        let check = |producer, sequence| {
            let header = BatchHeader::parse(&batch(1, 1, 10, Some((producer, sequence)))).unwrap();
            log.check_sequence(&header).unwrap()
        };
        assert_eq!(check(5, 2), SequenceVerdict::Append);
        assert!(matches!(check(5, 6), SequenceVerdict::OutOfOrder { expected: 2, .. }));
        assert_eq!(check(6, 10), SequenceVerdict::Append);
    });
}

#[test]
fn schedule_13_writes_of_a_killed_process_land_after_the_next_one_has_started() {
    for seed in 0..30 {
        let machine = Machine::new(seed);
        let acked: Acked = Rc::default();
        let told = Rc::clone(&acked);
        let (disk, runtime) = (machine.disk.clone(), machine.runtime.clone());
        machine.disk.cut_power_at_operation(60 + 7 * seed);
        let ended = machine.runtime.run(async move {
            let (_, stores) = Machine::open(disk, runtime, 1).await;
            let log = one_log(&stores[0]).await;
            for tag in 0..200 {
                let bytes = if tag % 5 == 0 { LARGE_BYTES } else { 700 };
                put(&stores[0], &log, tag, bytes).await;
                told.borrow_mut().push(tag.to_string());
            }
        });
        drop(ended);
        machine.runtime.kill_all();
        // Killed, not cut: what was in flight lands within 50 ms, while the next process begins.
        machine.disk.crash_with_late_writes(Duration::from_millis(50));
        let (found, report) = machine.found(0);
        assert!(found.starts_with(&acked.borrow()), "seed {seed}: {found:?}");
        assert_eq!(report.suspects, vec![], "seed {seed}");
        machine.runtime.run_for(Duration::from_millis(200)).unwrap();
        let (again, report) = machine.found(0);
        assert_eq!((again, report.suspects), (found, vec![]), "seed {seed}");
    }
}

#[test]
fn schedule_14_a_truncation_and_an_append_at_once_and_one_into_a_sealed_segment() {
    for operation in (1..260).step_by(3) {
        let machine = Machine::new(operation);
        machine.live(|_, stores, _| async move {
            let config = LogConfig { segment_bytes: 40_000, ..LogConfig::default() };
            let log = stores[0].create_log(partition(0), config).await.unwrap();
            for tag in 0..12 {
                put(&stores[0], &log, tag, 9000).await;
            }
            assert!(log.segment_count() > 2);
        });
        machine.crash(Fate::Any);
        let done = Rc::new(RefCell::new((false, 0)));
        let told = Rc::clone(&done);
        machine.live_until_cut(operation, Fate::Any, |_, stores, _| async move {
            let log = stores[0].log(partition(0)).unwrap();
            log.set_config(LogConfig { segment_bytes: 40_000, ..LogConfig::default() });
            // Into the first segment: its successors go.
            log.truncate(Offset(2)).await.unwrap();
            told.borrow_mut().0 = true;
            for tag in 100..104 {
                put(&stores[0], &log, tag, 500).await;
                told.borrow_mut().1 += 1;
            }
        });
        let (found, report) = machine.found(0);
        assert_eq!(report.suspects, vec![], "cut at {operation}");
        let (is_cut, appended) = *done.borrow();
        let new: Vec<_> = found.iter().skip(2).filter(|tag| tag.len() == 3).collect();
        assert_eq!(found[..2], ["0", "1"], "cut at {operation}");
        if is_cut {
            assert!(
                new.len() >= appended && new.len() == found.len() - 2,
                "{operation}: {found:?}"
            );
        } else {
            // Either the old branch, whole, or the cut one.
            assert!(found.len() == 12 || found.len() == 2, "cut at {operation}: {found:?}");
        }
    }
}
