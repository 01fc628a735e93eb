//! The lives of the broker's process: open the directory, hold what came back against the oracle, work under faults,
//! end in some ugly way; and at last the end of the run, when everything is healed and read.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use levada_engine::disk::simulated::{Fate, Fault, Faults, Latency};
use levada_engine::runtime::simulated::Stopped;
use levada_engine::{
    DirectoryOptions, OpenError, Placement, RecoveryReport, Store, StoreConfig, StoreListener,
    mark_clean, open_directory,
};
use levada_record::{BrokerId, PartitionId, ShardIndex};
use rand::Rng;

use super::damage;
use super::oracle::{Existence, Standing};
use super::server::{Ear, Server};
use super::workload::{create_existing, drain, operate, probe_producers, produce, read, read_some};
use super::world::World;

/// Root of the log directory on the simulated disk.
pub(super) const ROOT: &str = "/data";
/// Steps that one run may take before it is called a livelock.
const STEPS_MAX: u64 = 30_000_000;
/// A clean stop must be done within this time once nothing goes wrong any more.
const STOP_WAIT: Duration = Duration::from_mins(2);

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    PowerCut,
    Kill,
    CleanStop,
}

/// What the disk says of the running incarnation; damage is aimed with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Incarnation {
    pub(super) number: u64,
    pub(super) shard_uids: Vec<u64>,
}

/// A whole run. How many lives there were.
pub(super) fn run(world: &Rc<World>) -> u64 {
    let options = world.options.clone();
    world.runtime.set_step_limit(STEPS_MAX);
    for _ in 0..options.partitions {
        world.new_partition();
    }
    for index in 0..options.producers {
        world.add_producer(index % options.partitions);
    }
    if options.faults.small_disk {
        world.disk.set_capacity_bytes(options.disk_bytes);
    }
    let mut shards = options.shards;
    let mut lives = 0;
    for _ in 0..options.lives {
        lives += life(world, shards);
        if world.violation.borrow().is_some() {
            return lives;
        }
        if options.duties.reshard {
            shards = world.life_range(1..=4);
        }
    }
    lives + heal(world, shards)
}

/// One life, from the start of the process to its end.
fn life(world: &Rc<World>, shards: u16) -> u64 {
    let options = &world.options;
    if options.faults.slow_disk && world.life_chance(0.5) {
        world.disk.set_latency(Latency::default().slowed(options.slow_factor));
    } else {
        world.disk.set_latency(Latency::default());
    }
    let Some((server, incarnation, attempts)) = start(world, shards) else { return 1 };
    let ending = arm(world);
    world.event(|| format!("life with {shards} shards, to end by {ending:?}"));
    let body = live(Rc::clone(world), server, ending);
    let ended = world.runtime.run(body);
    match ended {
        Ok(is_clean) => world.event(|| format!("the life ends, clean: {is_clean}")),
        Err(Stopped::Interrupted { .. }) => world.event(|| "interrupted".to_owned()),
        Err(stopped) => world.violate("liveness", &stopped.to_string()),
    }
    if world.violation.borrow().is_some() {
        return attempts;
    }
    crash(world, ending);
    if options.faults.rot && world.life_chance(0.6) {
        damage::rot(world, &incarnation);
    }
    attempts
}

/// Ends the process as planned, or the machine.
fn crash(world: &Rc<World>, ending: Ending) {
    world.runtime.kill_all();
    world.set_server(None);
    world.disk.set_faults(Faults::none());
    let mut rng = world.life_rng.borrow_mut();
    if ending == Ending::Kill {
        let latest = Duration::from_micros(rng.random_range(0..20_000));
        drop(rng);
        world.event(|| format!("the process is gone, its writes land within {latest:?}"));
        world.disk.crash_with_late_writes(latest);
    } else {
        let fate = match rng.random_range(0..10) {
            0 => Fate::Lost,
            1 => Fate::Kept,
            2 => Fate::Damaged,
            _ => Fate::Any,
        };
        drop(rng);
        world.event(|| format!("power cut, {fate:?}"));
        world.disk.crash_with(fate);
    }
}

/// Plans what goes wrong in the life to come.
fn arm(world: &Rc<World>) -> Ending {
    let (mut rng, set) = (world.life_rng.borrow_mut(), &world.options.faults);
    let mut faults = Faults::none();
    let paths = ["", "journal", ".log", "checkpoint", "manifest"];
    let aim = |rng: &mut rand_pcg::Pcg64, faults: Faults, fault: Fault| {
        let path = paths.get(rng.random_range(0..paths.len())).copied().unwrap_or("");
        let skip =
            if rng.random_bool(0.5) { rng.random_range(0..30) } else { rng.random_range(0..600) };
        faults.with_once(fault, path, skip)
    };
    let has_sync_error = set.sync_error && rng.random_bool(0.6);
    if has_sync_error {
        faults = aim(&mut rng, faults, Fault::SyncError);
    }
    if set.write_error && rng.random_bool(0.6) {
        faults = aim(&mut rng, faults, Fault::WriteError);
    }
    if set.name_error && rng.random_bool(0.5) {
        let fault = if rng.random_bool(0.5) { Fault::NameError } else { Fault::SyncDirectoryError };
        faults = faults.with_once(fault, "", rng.random_range(0..20));
    }
    if set.read_error {
        faults = faults.with_chance(Fault::ReadError, rng.random_range(100..20_000));
    }
    let hangs = set.hang && rng.random_bool(0.6);
    if hangs {
        let fault = if rng.random_bool(0.5) { Fault::WriteHang } else { Fault::SyncHang };
        faults = aim(&mut rng, faults, fault);
    }
    for (is_on, fault) in
        [(set.lost_write, Fault::LostWrite), (set.misdirected_write, Fault::MisdirectedWrite)]
    {
        if is_on && rng.random_bool(0.6) {
            faults = faults.with_once(fault, ".log", rng.random_range(0..100));
            world.is_damaged.set(true);
        }
    }
    world.disk.set_faults(faults);
    let now_ns = world.runtime.now_ns();
    let life_ns = world.options.life_ms * 1_000_000;
    if hangs {
        let at = now_ns + rng.random_range(1_000_000..3_000_000_000);
        // Long enough for a stall, short enough for those who wait for the dead. The operation that hangs may come
        // late in the life: no disk hangs for ever.
        for again in 0..20 {
            let disk = world.disk.clone();
            world.runtime.call_at(at + again * 3_000_000_000, move || disk.release_hung());
        }
    }
    if set.full_disk && rng.random_bool(0.7) {
        let from = now_ns + rng.random_range(0..life_ns);
        let until = from + rng.random_range(1_000_000..=life_ns);
        let spare = rng.random_range(0..3_000_000);
        let (disk, is_healed) = (world.disk.clone(), Rc::clone(&world.is_healed));
        world.runtime.call_at(from, move || {
            if !is_healed.get() {
                disk.set_capacity_bytes(disk.used_bytes() + spare);
            }
        });
        let (disk, is_healed) = (world.disk.clone(), Rc::clone(&world.is_healed));
        let capacity = capacity(world);
        world.runtime.call_at(until, move || {
            if !is_healed.get() {
                disk.set_capacity_bytes(capacity);
            }
        });
    }
    let endings: Vec<Ending> =
        [(set.power_cut, Ending::PowerCut), (set.kill, Ending::Kill), (true, Ending::CleanStop)]
            .into_iter()
            .filter(|(is_on, _)| *is_on)
            .flat_map(|(_, ending)| vec![ending; if ending == Ending::CleanStop { 1 } else { 2 }])
            .collect();
    let ending = endings.get(rng.random_range(0..endings.len())).copied();
    let ending = ending.unwrap_or(Ending::CleanStop);
    // The power may also go in the middle of a clean stop.
    // What a failed sync did not save is forgotten before anybody reads it again: the machine goes down too.
    let ending = if has_sync_error && ending == Ending::Kill { Ending::PowerCut } else { ending };
    if set.power_cut && (ending == Ending::PowerCut || rng.random_bool(0.3)) {
        let operations = world.disk.counts().operations;
        let most = if rng.random_bool(0.3) { 200 } else { 6_000 };
        world.disk.cut_power_at_operation(operations + rng.random_range(1..most));
    }
    ending
}

fn capacity(world: &World) -> u64 {
    if world.options.faults.small_disk { world.options.disk_bytes } else { 1 << 40 }
}

/// The work of one life. Whether it stopped cleanly.
async fn live(world: Rc<World>, server: Rc<Server>, ending: Ending) -> bool {
    world.set_stopping(false);
    let producers = world.producers.borrow().clone();
    for producer in producers {
        let task = produce(Rc::clone(&world), Rc::clone(&server), producer);
        world.spawn("producer", Box::pin(task));
    }
    for _ in 0..world.options.readers {
        let task = read(Rc::clone(&world), Rc::clone(&server));
        world.spawn("reader", Box::pin(task));
    }
    world.spawn("operator", Box::pin(operate(Rc::clone(&world), Rc::clone(&server))));
    let life_ms = world.range(1..=world.options.life_ms);
    world.sleep(Duration::from_millis(life_ms)).await;
    if ending != Ending::CleanStop {
        return false;
    }
    stop(&world, &server).await
}

/// Stops cleanly. Whether that worked; a failed store cannot.
async fn stop(world: &Rc<World>, server: &Rc<Server>) -> bool {
    world.set_stopping(true);
    // Clients end their last round; nobody needs to hear of it.
    world.sleep(Duration::from_millis(2_500)).await;
    for store in &server.stores {
        let stopped = futures_lite::future::or(async { Some(store.stop().await) }, async {
            world.runtime_sleep(STOP_WAIT).await;
            None
        });
        match stopped.await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                world.check_store_error("stop", &error);
                return false;
            }
            None => {
                world.violate("liveness", "a store does not stop");
                return false;
            }
        }
    }
    for number in world.partitions() {
        if let Some(served) = server.served(number) {
            world.observe(number, &served.log);
        }
    }
    match mark_clean(world.disk.shared().as_ref(), Path::new(ROOT)).await {
        Ok(()) => true,
        Err(error) => {
            check_open_error(world, &error);
            false
        }
    }
}

/// What one attempt to open gave.
type Opened = Result<(Rc<Server>, Incarnation, RecoveryReport), OpenError>;

/// Opens the directory, through crashes and errors, until it works, and holds what came back against the oracle.
fn start(world: &Rc<World>, shards: u16) -> Option<(Rc<Server>, Incarnation, u64)> {
    for attempt in 1..=12 {
        world.failures.set(0);
        if world.options.faults.crash_in_recovery && attempt < 5 && world.life_chance(0.6) {
            let operations = world.disk.counts().operations;
            let after = world.life_range(1..300);
            world.disk.cut_power_at_operation(operations + after);
        }
        let opened = world.runtime.run(open(Rc::clone(world), shards));
        match opened {
            Ok(Ok((server, incarnation, report))) => {
                world.disk.cut_power_at_operation(u64::MAX);
                world.event(|| format!("opened: {report:?}"));
                let checked =
                    world.runtime.run(reconcile(Rc::clone(world), Rc::clone(&server), report));
                match checked {
                    Ok(()) => {}
                    Err(Stopped::Interrupted { .. }) => return None,
                    Err(stopped) => {
                        world.violate("liveness", &stopped.to_string());
                        return None;
                    }
                }
                return Some((server, incarnation, attempt));
            }
            Ok(Err(error)) => {
                world.event(|| format!("open: {error}"));
                check_open_error(world, &error);
                if world.violation.borrow().is_some() {
                    return None;
                }
                let ending =
                    if world.options.faults.sync_error { Ending::PowerCut } else { Ending::Kill };
                crash(world, ending);
                if !damage::repair_start_record(world, &error) {
                    world.disk.set_faults(Faults::none());
                    world.disk.set_capacity_bytes(1 << 40);
                }
            }
            Err(Stopped::Interrupted { .. }) => {
                if world.violation.borrow().is_some() {
                    return None;
                }
                world.event(|| "power cut in recovery".to_owned());
                crash(world, Ending::PowerCut);
            }
            Err(stopped) => {
                world.violate("liveness", &format!("open: {stopped}"));
                return None;
            }
        }
    }
    world.violate("liveness", "the directory does not open");
    None
}

async fn open(world: Rc<World>, shards: u16) -> Opened {
    let random = {
        let mut rng = world.life_rng.borrow_mut();
        [rng.random(), rng.random(), rng.random(), rng.random()]
    };
    let options = DirectoryOptions {
        root: PathBuf::from(ROOT),
        cluster: [1; 16],
        broker: BrokerId(1),
        shards,
        random,
    };
    let metadata = Rc::clone(&world);
    let place = move |id: PartitionId| {
        let number = id.index.0.cast_unsigned();
        let is_known = usize::try_from(number).is_ok_and(|at| at < metadata.models.borrow().len());
        if !is_known || metadata.model(number, |m| m.existence == Existence::Gone) {
            return Placement::Quarantine;
        }
        Placement::Shard(ShardIndex(u16::try_from(number).unwrap_or(0) % shards))
    };
    let (disk, runtime) = (world.disk.shared(), world.runtime.shared());
    let opened = open_directory(disk, runtime, options, &place).await?;
    let incarnation = Incarnation {
        number: opened.incarnation,
        shard_uids: opened.seeds.iter().map(|seed| seed.shard_uid).collect(),
    };
    let mut stores = Vec::new();
    for seed in opened.seeds {
        let listener: Rc<dyn StoreListener> = Rc::new(Ear::new(&world, seed.shard.0));
        let config = StoreConfig {
            journal_file_bytes: 1 << 20,
            journal_files_max: world.options.journal_files,
            cache_bytes: world.options.cache_bytes,
        };
        let (disk, runtime) = (world.disk.shared(), world.runtime.shared());
        stores.push(Store::start(disk, runtime, config, seed, listener).await?);
    }
    let server = Rc::new(Server::new(stores, world.options.pressure_bytes));
    world.set_server(Some(Rc::clone(&server)));
    Ok((server, incarnation, opened.report))
}

/// A directory may refuse to open only for a reason.
fn check_open_error(world: &World, error: &OpenError) {
    let faults = &world.options.faults;
    let is_explained = match error {
        OpenError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            faults.full_disk || faults.small_disk
        }
        OpenError::Io { .. } => {
            faults.read_error || faults.write_error || faults.sync_error || faults.name_error
        }
        OpenError::NoStartRecord { .. } => world.is_damaged.get(),
        OpenError::Held { .. }
        | OpenError::OtherCluster { .. }
        | OpenError::OtherBroker { .. }
        | OpenError::NewerFormat { .. } => false,
    };
    if !is_explained {
        world.violate("open", &format!("{error}: {error:?}"));
    }
}

/// Holds every log that came back, and every one that did not, against the oracle.
async fn reconcile(world: Rc<World>, server: Rc<Server>, report: RecoveryReport) {
    let is_damaged = world.is_damaged.get();
    if !is_damaged {
        if !report.suspects.is_empty() || !report.missing.is_empty() {
            world.violate("J29", &format!("a healthy disk is called damaged: {report:?}"));
        }
        if !report.gaps.is_empty() {
            world.violate("J4", &format!("a healthy journal has gaps: {report:?}"));
        }
    }
    for number in world.partitions() {
        let log = server.store(number).log(world.partition_id(number));
        let existence = world.model(number, |model| model.existence);
        let Some(log) = log else {
            match existence {
                Existence::Creating | Existence::Gone | Existence::Lost => {}
                Existence::Removing => world.set_existence(number, Existence::Gone),
                Existence::Live => missing(&world, number, &report),
            }
            continue;
        };
        match existence {
            Existence::Gone => {
                world.violate("J8", &format!("p{number} was removed and is back"));
                continue;
            }
            Existence::Lost => {
                world.violate("J29", &format!("p{number} was lost and is back, silently"));
                continue;
            }
            Existence::Creating | Existence::Removing => {
                world.set_existence(number, Existence::Live);
            }
            Existence::Live => {}
        }
        log.set_config(world.draw_config());
        let standing = Standing {
            log_start: log.log_start().get(),
            log_end: log.log_end().get(),
            digest: log.digest(),
            last_epoch: log.last_epoch(),
        };
        if let Some(suspicion) = log.suspicion() {
            world.event(|| format!("p{number} is suspect: {suspicion:?}"));
            if !is_damaged {
                world
                    .violate("J29", &format!("p{number} is suspect without damage: {suspicion:?}"));
            }
            let from = suspicion.from.get();
            world.model(number, |model| model.damaged(from));
            world.history.borrow_mut().excuse(number, from);
        } else if world.model(number, |model| model.suspect_from.is_some()) {
            world.violate("J29", &format!("p{number} was suspect, and nobody says so any more"));
        } else {
            let result = world.model(number, |model| {
                let promised = if is_damaged {
                    model.before_last_round.unwrap_or(model.durable)
                } else {
                    model.durable
                };
                model.recovered(&standing, promised)
            });
            world.event(|| format!("p{number} came back: {standing:?}"));
            if let Err(what) = result {
                world.violate("K1 recovery", &format!("p{number}: {what}; {report:?}"));
                return;
            }
            world.history.borrow_mut().truncated(number, standing.log_end);
            world.observe(number, &log);
            probe_producers(&world, number, &log);
        }
        world.lead(&server, number, log);
        let audits = world.life_chance(0.3);
        if audits {
            audit(&world, &server, number).await;
        }
    }
    for number in world.partitions() {
        if world.model(number, |model| model.existence == Existence::Creating) {
            create_existing(&world, &server, number).await;
        }
    }
}

/// A log that should be there is not.
fn missing(world: &World, number: u32, report: &RecoveryReport) {
    let id = world.partition_id(number);
    let name = format!("-{}", id.index.0);
    let is_reported = report.missing.contains(&id)
        || report.quarantined.iter().any(|directory| directory.ends_with(&name));
    if !world.is_damaged.get() || !is_reported {
        world.violate("J31", &format!("p{number} is not there: {report:?}"));
    }
    world.set_existence(number, Existence::Lost);
    world.history.borrow_mut().excuse(number, 0);
}

/// Reads a log whole. What it held: base offsets and values.
async fn audit(world: &Rc<World>, server: &Rc<Server>, number: u32) -> Vec<(i64, u64)> {
    let Some(served) = server.served(number) else { return Vec::new() };
    let log = &served.log;
    *world.collected.borrow_mut() = Some(Vec::new());
    let start = log.log_start().get();
    let end =
        world.model(number, |m| m.suspect_from).unwrap_or(i64::MAX).min(log.durable_end().get());
    if start < end {
        let first = world.model(number, |model| model.batch_at(start).map(|(_, b)| b.base));
        let reached = read_some(world, number, log, start, end, u32::MAX).await;
        world.event(|| format!("p{number} read whole from {first:?} to {reached:?}, end {end}"));
    }
    world.collected.borrow_mut().take().unwrap_or_default()
}

/// The end: nothing goes wrong any more, everything must work, and everything is read.
fn heal(world: &Rc<World>, shards: u16) -> u64 {
    world.is_healed.set(true);
    world.disk.release_hung();
    world.disk.set_faults(Faults::none());
    world.disk.set_capacity_bytes(1 << 40);
    world.disk.set_latency(Latency::default());
    let mut lives = 0;
    for round in 0..2 {
        let Some((server, _, attempts)) = start(world, shards) else { return lives };
        lives += attempts;
        let ended = world.runtime.run(finish(Rc::clone(world), server, round));
        match ended {
            Ok(()) | Err(Stopped::Interrupted { .. }) => {}
            Err(stopped) => world.violate("liveness", &stopped.to_string()),
        }
        if world.violation.borrow().is_some() {
            return lives;
        }
        crash(world, Ending::PowerCut);
    }
    let counts = world.disk.counts();
    if counts.overlapping_writes > 0 {
        world.violate("J5", &format!("{} writes overlapped another", counts.overlapping_writes));
    }
    lives
}

/// The last two lives: producers finish what they began and stop; then everything is read once more after a clean
/// start.
async fn finish(world: Rc<World>, server: Rc<Server>, round: u32) {
    // Those who began to produce to a partition that was just created make way.
    world.set_stopping(true);
    world.sleep(Duration::from_millis(2_500)).await;
    if round == 0 {
        let producers = world.producers.borrow().clone();
        for producer in producers {
            let partition = producer.borrow().partition;
            if !world.is_healthy(partition) {
                continue;
            }
            if let Err(what) = drain(&world, &server, &producer).await {
                world.violate("liveness", &format!("p{partition}: {what}"));
                return;
            }
        }
    }
    for number in world.partitions() {
        if world.model(number, |model| model.existence) != Existence::Live {
            continue;
        }
        let log = audit(&world, &server, number).await;
        let anomalies = world.history.borrow().check(number, &log);
        if let Some(first) = anomalies.first() {
            world.violate("history", &format!("{first}, and {} more", anomalies.len() - 1));
            return;
        }
    }
    if !stop(&world, &server).await && world.violation.borrow().is_none() {
        world.violate("liveness", "no clean stop on a healthy disk");
    }
}
