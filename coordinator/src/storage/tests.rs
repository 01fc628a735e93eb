//! Data directories through restarts, crashes, damage and mistakes.

use std::fs;
use std::path::Path;

use levada_protocol::cluster::command::Command;
use levada_protocol::cluster::{Committed, encode_image};
use levada_record::id::TopicId;
use tempfile::TempDir;

use super::*;
use crate::controller::apply::apply;
use crate::controller::fixture::{Fixture, new_topic, topic_id};
use crate::controller::plan::{self, Plan};

const MEMBER: i32 = 1;
const CLUSTER: ClusterId = ClusterId([9; 16]);

fn open(directory: &Path) -> Result<(Storage, Recovered), StorageError> {
    Storage::open(directory, MEMBER, Some(CLUSTER))
}

/// A cluster whose commands are appended to `storage` one by one.
fn history(storage: &mut Storage, topics: usize) -> Fixture {
    let mut fixture = Fixture::empty();
    let register = crate::controller::fixture::registration(1, 1, 2);
    let (_, command) = plan::register(&fixture.image, &register).unwrap();
    execute(storage, &mut fixture, &command);
    for number in 0..topics {
        create(storage, &mut fixture, &format!("topic-{number}"));
    }
    fixture
}

fn create(storage: &mut Storage, fixture: &mut Fixture, name: &str) {
    let (broker, epoch) = (levada_record::id::BrokerId(1), fixture.epoch(1));
    let state = levada_protocol::cluster::BrokerState::Active;
    execute(storage, fixture, &Command::SetBrokerState { broker, epoch, state });
    let topic = new_topic(name, Some(1), Some(1), &[]);
    let id: TopicId = topic_id(name);
    let planned = Plan::new(&fixture.image, &fixture.policy).create_topic(&topic, id);
    execute(storage, fixture, &planned.unwrap().0);
}

fn execute(storage: &mut Storage, fixture: &mut Fixture, command: &Command) {
    storage.append(1, &[command.encode()], Room::Common).unwrap();
    drop(fixture.execute(command));
}

/// The image that a recovery leads to.
fn replay(recovered: Recovered) -> ClusterImage {
    let mut image = recovered.image;
    for entry in recovered.entries {
        match apply(&image, entry.index, &entry.command) {
            Ok(changes) => {
                let (previous, index) = (image.index(), entry.index);
                image.apply(&Committed { previous, index, changes }).unwrap();
            }
            Err(_) => image.skip_to(entry.index),
        }
    }
    image
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in files(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn a_restart_recovers_every_appended_command() {
    let directory = TempDir::new().unwrap();
    let (mut storage, _) = open(directory.path()).unwrap();
    let fixture = history(&mut storage, 5);
    drop(storage);
    let (storage, recovered) = open(directory.path()).unwrap();
    assert_eq!((recovered.torn_bytes, recovered.term), (0, 1));
    assert_eq!(storage.next_index(), fixture.image.index() + 1);
    assert_eq!(encode_image(&replay(recovered)), encode_image(&fixture.image));
}

#[test]
fn a_log_cut_anywhere_opens_with_a_whole_number_of_writes_and_goes_on() {
    let directory = TempDir::new().unwrap();
    let (mut storage, _) = open(directory.path()).unwrap();
    history(&mut storage, 1);
    let end = usize::try_from(storage.log_bytes()).unwrap();
    drop(storage);
    let name = "commands-00000000000000000001.log";
    let mut log = fs::read(directory.path().join(name)).unwrap();
    // Without the room behind the last write.
    log.truncate(end);
    let scratch = TempDir::new().unwrap();
    copy(directory.path(), scratch.path());
    for cut in 64..log.len() {
        fs::write(scratch.path().join(name), &log[..cut]).unwrap();
        let (mut storage, recovered) = open(scratch.path()).unwrap();
        let kept = storage.log_bytes();
        let whole = layout::scan(&log[..cut]).unwrap().end;
        assert_eq!(kept, u64::try_from(whole).unwrap(), "cut at {cut}");
        assert!(recovered.torn_bytes <= u64::try_from(cut - whole).unwrap());
        if cut % 16 == 0 {
            storage.append(2, &[], Room::Common).unwrap();
            drop(storage);
            assert_eq!(open(scratch.path()).unwrap().1.torn_bytes, 0);
        }
    }
    fs::write(scratch.path().join(name), &log[..63]).unwrap();
    assert!(matches!(open(scratch.path()), Err(StorageError::Corrupt { .. })));
}

#[test]
fn damage_before_the_last_write_is_refused_with_file_and_position() {
    let directory = TempDir::new().unwrap();
    let (mut storage, _) = open(directory.path()).unwrap();
    history(&mut storage, 3);
    drop(storage);
    let path = directory.path().join("commands-00000000000000000001.log");
    let mut log = fs::read(&path).unwrap();
    log[100] ^= 1;
    fs::write(&path, &log).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { position: 64, .. }), "{error}");
    assert!(error.to_string().contains("commands-"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), log, "nothing is changed");
}

#[test]
fn a_sealed_log_does_not_lose_its_last_command_to_damage() {
    let directory = TempDir::new().unwrap();
    let (mut storage, _) = open(directory.path()).unwrap();
    history(&mut storage, 1);
    let unsealed = storage.log_bytes();
    storage.seal(1).unwrap();
    let sealed = storage.log_bytes();
    storage.seal(1).unwrap();
    assert_eq!(storage.log_bytes(), sealed, "one seal is enough");
    drop(storage);
    let path = directory.path().join("commands-00000000000000000001.log");
    let mut log = fs::read(&path).unwrap();
    log[usize::try_from(unsealed).unwrap() - 1] ^= 1;
    fs::write(&path, &log).unwrap();
    assert!(matches!(open(directory.path()), Err(StorageError::Corrupt { .. })));
}

#[test]
fn a_snapshot_replaces_the_log_and_two_are_kept() {
    let directory = TempDir::new().unwrap();
    let (mut storage, _) = open(directory.path()).unwrap();
    let mut fixture = history(&mut storage, 1);
    let mut snapshots = Vec::new();
    for number in 0..4 {
        storage.write_snapshot(&fixture.image, 1).unwrap();
        assert_eq!(storage.log_bytes(), 64);
        snapshots.push(fixture.image.index());
        create(&mut storage, &mut fixture, &format!("later-{number}"));
    }
    let [.., older, newer] = snapshots[..] else { panic!("four snapshots") };
    assert_eq!(
        files(directory.path()),
        [
            format!("commands-{:020}.log", older + 1),
            format!("commands-{:020}.log", newer + 1),
            "identity".to_owned(),
            "lock".to_owned(),
            format!("snapshot-{older:020}"),
            format!("snapshot-{newer:020}"),
        ]
    );
    drop(storage);
    let (storage, recovered) = open(directory.path()).unwrap();
    assert_eq!(storage.snapshot_index(), newer);
    assert_eq!(recovered.image.index(), newer);
    assert_eq!(encode_image(&replay(recovered)), encode_image(&fixture.image));
    drop(storage);

    // The newer snapshot rots, wherever: the older one and the commands since give the same image.
    let path = directory.path().join(format!("snapshot-{newer:020}"));
    let snapshot = fs::read(&path).unwrap();
    for at in (0..snapshot.len()).step_by(11) {
        let mut damaged = snapshot.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        let (_, recovered) = open(directory.path()).unwrap();
        assert_eq!(recovered.damaged_snapshots, std::slice::from_ref(&path), "byte {at}");
        assert_eq!(recovered.image.index(), older);
        assert_eq!(encode_image(&replay(recovered)), encode_image(&fixture.image));
    }
    // Both rot: the commands before the older one are gone, so nothing is made up.
    fs::write(directory.path().join(format!("snapshot-{older:020}")), b"rotten").unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StorageError::Hole { from: 1, .. }), "{error}");
}

#[test]
fn a_crash_at_any_step_of_a_snapshot_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let (mut storage, _) = open(directory.path()).unwrap();
    let mut fixture = history(&mut storage, 1);
    storage.write_snapshot(&fixture.image, 1).unwrap();
    create(&mut storage, &mut fixture, "more");
    let before = TempDir::new().unwrap();
    copy(directory.path(), before.path());
    storage.write_snapshot(&fixture.image, 1).unwrap();
    drop(storage);
    let image = encode_image(&fixture.image);
    let index = fixture.image.index();
    // Temporary files of an interrupted write are passed over.
    fs::write(before.path().join(format!("snapshot-{index:020}.tmp")), b"half").unwrap();
    let (storage, recovered) = open(before.path()).unwrap();
    assert_eq!(encode_image(&replay(recovered)), image);
    drop(storage);
    // The new log is there, its snapshot not yet: commands go on in the new log.
    let log = format!("commands-{:020}.log", index + 1);
    fs::copy(directory.path().join(&log), before.path().join(&log)).unwrap();
    let (mut storage, recovered) = open(before.path()).unwrap();
    assert!(recovered.image.index() < index);
    assert_eq!(storage.next_index(), index + 1);
    assert_eq!(storage.log_bytes(), 64);
    create(&mut storage, &mut fixture, "after");
    drop(storage);
    let (_, recovered) = open(before.path()).unwrap();
    assert_eq!(encode_image(&replay(recovered)), encode_image(&fixture.image));
}

#[test]
fn a_removed_log_is_a_hole_and_not_a_shorter_history() {
    let directory = TempDir::new().unwrap();
    let (mut storage, _) = open(directory.path()).unwrap();
    let mut fixture = history(&mut storage, 1);
    for name in ["a", "b"] {
        storage.write_snapshot(&fixture.image, 1).unwrap();
        create(&mut storage, &mut fixture, name);
    }
    drop(storage);
    let logs = command_log::list(directory.path()).unwrap();
    for (first, path) in &logs[1..] {
        let kept = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, StorageError::Hole { from, .. } if from == *first), "{error}");
        fs::write(path, kept).unwrap();
    }
    open(directory.path()).unwrap();
    for (_, path) in command_log::list(directory.path()).unwrap() {
        fs::remove_file(path).unwrap();
    }
    assert!(matches!(open(directory.path()), Err(StorageError::NoHistory { .. })));
}

#[test]
fn a_directory_is_used_by_one_process_of_one_member_of_one_cluster() {
    let directory = TempDir::new().unwrap();
    let (storage, _) = open(directory.path()).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
    drop(storage);
    let error = Storage::open(directory.path(), 2, Some(CLUSTER)).unwrap_err();
    assert!(matches!(error, StorageError::OtherMember { found: 1, expected: 2, .. }), "{error}");
    let error = Storage::open(directory.path(), MEMBER, Some(ClusterId([1; 16]))).unwrap_err();
    assert!(matches!(error, StorageError::OtherCluster { .. }), "{error}");
    let (storage, _) = Storage::open(directory.path(), MEMBER, None).unwrap();
    assert_eq!(storage.cluster(), CLUSTER);
}

#[test]
fn a_newer_directory_is_told_from_a_damaged_one() {
    let directory = TempDir::new().unwrap();
    drop(open(directory.path()).unwrap());
    let path = directory.path().join("identity");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("format = 1", "format = 2")).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StorageError::NewerFormat { found: 2, .. }), "{error}");
    fs::write(&path, text.replace("0909", "0908")).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
}

#[test]
fn an_interrupted_first_start_begins_anew_and_a_lost_identity_does_not() {
    let directory = TempDir::new().unwrap();
    drop(open(directory.path()).unwrap());
    fs::remove_file(directory.path().join("identity")).unwrap();
    let (mut storage, _) = open(directory.path()).unwrap();
    history(&mut storage, 1);
    drop(storage);
    fs::remove_file(directory.path().join("identity")).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StorageError::NoIdentity { .. }), "{error}");
}

#[test]
fn without_a_name_a_new_cluster_gets_a_random_one() {
    let ids: Vec<ClusterId> = (0..2)
        .map(|_| {
            let directory = TempDir::new().unwrap();
            Storage::open(directory.path(), MEMBER, None).unwrap().0.cluster()
        })
        .collect();
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn what_there_is_no_room_for_is_refused_before_anything_is_written() {
    let directory = TempDir::new().unwrap();
    let (mut storage, _) = open(directory.path()).unwrap();
    let mut fixture = history(&mut storage, 1);
    storage.log_mut().disk_bytes = Some(command_log::GROWTH_BYTES);
    let command = |storage: &mut Storage, room| storage.append(1, &[vec![7; 1000]], room);
    let full = loop {
        if let Err(error) = command(&mut storage, Room::Common) {
            break error;
        }
        fixture.image.skip_to(fixture.image.index() + 1);
    };
    assert!(matches!(full, StorageError::Full { .. }), "{full}");
    assert!(full.is_harmless());
    let left = command_log::GROWTH_BYTES - storage.log_bytes();
    assert!((command_log::SPARE_BYTES..command_log::SPARE_BYTES + 2000).contains(&left), "{left}");
    // What has to be written still is, up to the very end.
    let mut spared = 0;
    while command(&mut storage, Room::Spare).is_ok() {
        spared += 1;
    }
    assert!(60 < spared, "{spared}");
    assert!(command_log::GROWTH_BYTES - storage.log_bytes() < 2000);
    // Space comes back, and it goes on by itself.
    storage.log_mut().disk_bytes = None;
    command(&mut storage, Room::Common).unwrap();
    let end = storage.log_bytes();
    drop(storage);
    let path = directory.path().join("commands-00000000000000000001.log");
    let scanned = fs::read(path).unwrap();
    assert_eq!(u64::try_from(layout::scan(&scanned).unwrap().end).unwrap(), end);
}

#[test]
fn a_log_that_failed_once_takes_nothing_more() {
    let directory = TempDir::new().unwrap();
    let (mut storage, _) = open(directory.path()).unwrap();
    let fixture = history(&mut storage, 1);
    storage.log_mut().break_disk();
    for _ in 0..2 {
        let error = storage.append(1, &[vec![7; 100]], Room::Common).unwrap_err();
        assert!(!error.is_harmless(), "{error}");
    }
    drop(storage);
    let (_, recovered) = open(directory.path()).unwrap();
    assert_eq!(encode_image(&replay(recovered)), encode_image(&fixture.image));
}
