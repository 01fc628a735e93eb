//! The life of one shard's thread.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::FutureExt as _;
use levada_engine::{
    DirectDisk, DirectoryOptions, GlommioRuntime, OpenedDirectory, Placement, Runtime as _, Store,
    StoreConfig, StoreSeed, mark_clean, open_directory, peek_identity,
};
use levada_protocol::cluster::id::{ClusterId, DirectoryId, Incarnation};
use levada_protocol::cluster::request::LastStop;
use levada_protocol::cluster::{Address, ClusterImage};
use levada_record::{BrokerId, PartitionId, ShardIndex};

use super::image_pump::ImagePump;
use crate::api::context::{KAFKA_LISTENER, SHARD_LISTENER};
use crate::config::{BrokerConfig, split_host_port};
use crate::controller_link::{Asks, ControllerHandle, ControllerLink, Introduction};
use crate::net::listener::run_listener;
use crate::runtime::event::Flag;
use crate::runtime::executors::ShardExit;
use crate::runtime::socket::Listener;
use crate::shard::mailbox::{MailSender, Mailbox};
use crate::shard::router::Router;
use crate::shard::{Shard, ShardParts};

/// How often a draining shard looks whether its connections have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// What the supervisor says to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// Accept connections.
    Listen,
    /// Accept no more, answer what was asked, close.
    Drain,
    /// Make everything stable.
    CloseStore,
    /// Say on disk that the stop was clean.
    MarkClean,
    /// End.
    Exit,
}

/// What a shard says to the supervisor.
#[derive(Debug)]
pub(super) enum Report {
    /// From shard 0: all shards act on an image that has this broker in it.
    Prepared { broker: BrokerId },
    /// Accepts connections.
    Listening,
    /// No connection is left.
    Drained,
    /// Everything is stable.
    StoreClosed,
    /// The directory is marked clean.
    MarkedClean,
    /// The broker cannot go on.
    Failed { reason: String },
    /// The thread ends.
    Exit { shard: u16, exit: ShardExit },
}

/// What all shards are started with.
pub(super) struct SharedStart {
    pub(super) config: Arc<BrokerConfig>,
    pub(super) kafka_address: SocketAddr,
    /// Where shard 0 takes connections of its own; each further shard a port behind.
    pub(super) shard_address: Option<SocketAddr>,
    pub(super) shards: u16,
    pub(super) mail: Vec<MailSender>,
    pub(super) controller: ControllerHandle,
    pub(super) reports: flume::Sender<Report>,
}

/// What a shard starts its store with.
pub(super) struct SeedMail {
    seed: StoreSeed,
    image: Arc<ClusterImage>,
    broker: BrokerId,
}

/// What one shard is started with.
pub(super) struct ShardStart {
    pub(super) index: u16,
    pub(super) shared: Arc<SharedStart>,
    pub(super) socket: OwnedFd,
    /// For connections to this shard alone.
    pub(super) own_socket: Option<OwnedFd>,
    pub(super) mailbox: Mailbox,
    pub(super) controls: flume::Receiver<Control>,
    pub(super) seed: flume::Receiver<SeedMail>,
    /// For shard 0: what the others ask the controller, and the ways to hand them their seeds.
    pub(super) first: Option<(Asks, Vec<flume::Sender<SeedMail>>)>,
}

/// Runs one shard from its first task to its last.
pub(super) async fn run(start: ShardStart) -> Result<(), String> {
    #[cfg(feature = "planted-bugs")]
    plant_bug()?;
    let runtime = GlommioRuntime::default();
    let panicked = Flag::default();
    let raise = panicked.clone();
    runtime.on_panic(move |_| raise.raise());
    let disk = DirectDisk::open(&start.shared.config.data_dir)
        .await
        .map_err(|error| format!("open {}: {error}", start.shared.config.data_dir.display()))?;
    let index = start.index;
    let living = live(start, &runtime, &disk);
    let panicking = async {
        panicked.raised().await;
        let task = runtime.panicked().unwrap_or("some task");
        Err(format!("shard {index} panicked in {task}"))
    };
    let outcome = panicking.or(living).await;
    runtime.stop().await;
    disk.settle().await;
    outcome
}

/// Plants the bug that the environment names, on this shard's thread.
#[cfg(feature = "planted-bugs")]
fn plant_bug() -> Result<(), String> {
    use levada_engine::planted::{PlantedBug, plant};

    let Ok(name) = std::env::var("LEVADA_PLANTED_BUG") else { return Ok(()) };
    let bug = PlantedBug::from_name(&name)
        .ok_or_else(|| format!("LEVADA_PLANTED_BUG={name}: there is no such bug"))?;
    tracing::warn!(bug = name, "this broker has a planted bug");
    plant(Some(bug));
    Ok(())
}

async fn live(
    start: ShardStart,
    runtime: &GlommioRuntime,
    disk: &DirectDisk,
) -> Result<(), String> {
    let ShardStart { index, shared, socket, own_socket, mailbox, controls, seed, first } = start;
    let stopping = Flag::default();
    let link_stopping = Flag::default();
    let exiting = Exiting::new(controls);
    let link = match first {
        Some((asks, seeds)) => {
            let opening = open(&shared, runtime, disk, asks, seeds, link_stopping.clone());
            match exiting.or_exit(opening).await {
                Some(link) => Some(link?),
                None => return Ok(()),
            }
        }
        None => None,
    };
    let receiving = async {
        seed.recv_async().await.map_err(|_| "shard 0 did not open the log directory".to_owned())
    };
    let Some(mail) = exiting.or_exit(receiving).await else { return Ok(()) };
    // When shard 0 fails it says why; the others have nothing to add.
    let Ok(SeedMail { seed, image, broker }) = mail else { return exiting.until_exit().await };

    let shard = Shard::new(ShardParts {
        index: ShardIndex(index),
        broker,
        config: Arc::clone(&shared.config),
        runtime: runtime.shared(),
        image,
        router: Router::new(ShardIndex(index), shared.mail.clone()),
        controller: shared.controller.clone(),
        stopping: stopping.clone(),
    });
    let config = StoreConfig {
        journal_file_bytes: shared.config.journal_file_bytes,
        journal_files_max: usize::try_from(shared.config.journal_files_max).unwrap_or(usize::MAX),
        cache_bytes: usize::try_from(shared.config.cache_bytes).unwrap_or(usize::MAX),
    };
    let store = Store::start(disk.shared(), runtime.shared(), config, seed, shard.listener())
        .await
        .map_err(|error| format!("start the store of shard {index}: {}", causes(&error)))?;
    shard.take_store(Rc::new(store));
    runtime.spawn("mail-loop", Box::pin(Rc::clone(&shard).run_mail(mailbox)));
    runtime.spawn("ticks", Box::pin(Rc::clone(&shard).run_ticks()));
    runtime.spawn("retention", Box::pin(Rc::clone(&shard).run_retention()));
    if let Some(link) = &link {
        let pump = ImagePump::new(Rc::clone(link), Rc::clone(&shard), shared.reports.clone());
        runtime.spawn("image-pump", Box::pin(pump.run()));
    }
    let mut sockets = Some([Some(socket), own_socket]);
    while let Some(control) = exiting.next().await {
        let report = match control {
            Control::Listen => {
                let Some(sockets) = sockets.take() else { continue };
                for socket in sockets.into_iter().flatten() {
                    let listener = Listener::listen(socket)
                        .map_err(|error| format!("listen on {}: {error}", shared.kafka_address))?;
                    let port = shared.kafka_address.port();
                    let serving = run_listener(Rc::clone(&shard), listener, port);
                    runtime.spawn("listener", Box::pin(serving));
                }
                Report::Listening
            }
            Control::Drain => {
                if let Some(link) = &link {
                    link.wants_to_stop();
                }
                stopping.raise();
                shard.connections.drain_all();
                drain(&shard).await;
                Report::Drained
            }
            Control::CloseStore => {
                link_stopping.raise();
                if let Some(store) = shard.store() {
                    store.stop().await.map_err(|error| format!("stop the store: {error}"))?;
                }
                Report::StoreClosed
            }
            Control::MarkClean => {
                mark_clean(disk.shared().as_ref(), &shared.config.data_dir)
                    .await
                    .map_err(|error| format!("mark the log directory clean: {}", causes(&error)))?;
                Report::MarkedClean
            }
            Control::Exit => break,
        };
        shared.reports.send(report).ok();
    }
    stopping.raise();
    link_stopping.raise();
    shard.connections.close_all();
    Ok(())
}

/// The controls of a shard; an exit can end what the shard waits for.
struct Exiting {
    controls: flume::Receiver<Control>,
}

impl Exiting {
    fn new(controls: flume::Receiver<Control>) -> Self {
        Self { controls }
    }

    /// The next control; `None` when there will be no more.
    async fn next(&self) -> Option<Control> {
        self.controls.recv_async().await.ok()
    }

    /// `work`, unless the shard has to end before; then `None`. While starting there is no other
    /// control.
    async fn or_exit<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let working = async { Some(work.await) };
        let exit = async {
            self.next().await;
            None
        };
        working.or(exit).await
    }

    async fn until_exit(&self) -> Result<(), String> {
        while self.next().await.is_some_and(|control| control != Control::Exit) {}
        Ok(())
    }
}

/// Waits until all connections have ended, at most as long as configured.
async fn drain(shard: &Shard) {
    let begun_ns = shard.runtime.now().monotonic_ns;
    let grace_ns = shard.config.stop_grace_ms * 1_000_000;
    while !shard.connections.is_empty() {
        if shard.runtime.now().monotonic_ns.saturating_sub(begun_ns) >= grace_ns {
            tracing::warn!(
                connections = shard.connections.len(),
                "closing connections that are still busy"
            );
            shard.connections.close_all();
            break;
        }
        shard.runtime.sleep(DRAIN_LOOK).await;
    }
}

/// On shard 0: registers, recovers the log directory, hands out the seeds.
async fn open(
    shared: &SharedStart,
    runtime: &GlommioRuntime,
    disk: &DirectDisk,
    asks: Asks,
    seeds: Vec<flume::Sender<SeedMail>>,
    stopping: Flag,
) -> Result<Rc<ControllerLink>, String> {
    let config = &shared.config;
    let root = &config.data_dir;
    let identity =
        peek_identity(disk.shared().as_ref(), root).await.map_err(|error| causes(&error))?;
    let random = random_numbers();
    let directory = identity
        .as_ref()
        .map_or_else(|| new_directory_id(random), |identity| identity.directory_id);
    let was_clean = identity.as_ref().is_some_and(|identity| identity.is_clean);
    if let (Some(identity), Some(configured)) = (&identity, config.broker_id)
        && identity.broker.0 != configured
    {
        return Err(format!(
            "{} belongs to broker {}, broker_id is {configured}: change broker_id or data_dir",
            root.display(),
            identity.broker.0
        ));
    }
    let introduction = Introduction {
        broker: identity
            .as_ref()
            .map(|identity| identity.broker)
            .or(config.broker_id.map(BrokerId)),
        cluster: identity.as_ref().map(|identity| ClusterId(identity.cluster)),
        incarnation: Incarnation(*uuid::Uuid::new_v4().as_bytes()),
        directory: DirectoryId(directory),
        addresses: addresses(shared),
        rack: config.rack.clone(),
        shards: shared.shards,
        last_stop: if was_clean { LastStop::Clean } else { LastStop::Unclean },
    };
    let link = ControllerLink::new(
        runtime.shared(),
        config.coordinators.clone(),
        introduction,
        asks,
        stopping,
    );
    runtime.spawn("controller-link", Box::pin(Rc::clone(&link).run()));
    let (registration, image) = loop {
        let image = link.image_after(0).await?;
        // The image has to show this registration: placements follow from it.
        if let Some(registration) = link.registration()
            && image.index() >= registration.index
        {
            break (registration, image);
        }
        link.image_after(image.index()).await?;
    };
    let broker = registration.broker;
    let options = DirectoryOptions {
        root: root.clone(),
        cluster: registration.cluster.0,
        broker,
        shards: shared.shards,
        random,
    };
    let place = |id: PartitionId| match image.partition(id).and_then(|p| p.replica_on(broker)) {
        Some(replica) if replica.shard.0 < shared.shards => Placement::Shard(replica.shard),
        Some(_) => Placement::Shard(ShardIndex(0)),
        None => Placement::Quarantine,
    };
    let opened = open_directory(disk.shared(), runtime.shared(), options, &place)
        .await
        .map_err(|error| format!("open {}: {}", root.display(), causes(&error)))?;
    report(&opened);
    for (seed, sender) in opened.seeds.into_iter().zip(seeds) {
        let mail = SeedMail { seed, image: Arc::clone(&image), broker };
        sender.send(mail).map_err(|_| "a shard has ended".to_owned())?;
    }
    Ok(link)
}

fn report(opened: &OpenedDirectory) {
    let report = &opened.report;
    tracing::info!(
        incarnation = opened.incarnation,
        clean = report.was_clean,
        rounds = report.rounds,
        torn = report.torn.len(),
        replayed_bytes = report.replayed_bytes,
        verified_bytes = report.verified_bytes,
        "log directory open"
    );
    for (partition, suspicion) in &report.suspects {
        tracing::error!(
            %partition,
            from = suspicion.from.0,
            reason = suspicion.reason,
            "damaged: offsets from here on are not served"
        );
    }
    for name in &report.quarantined {
        tracing::warn!(directory = name, "not known to the cluster: moved to quarantine");
    }
    for partition in &report.missing {
        tracing::error!(%partition, "its directory was here before and is gone");
    }
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn random_numbers() -> [u64; 4] {
    let mut numbers = [0; 4];
    for pair in numbers.chunks_mut(2) {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        pair.iter_mut().zip([high, low]).for_each(|(place, number)| *place = number);
    }
    numbers
}

/// The id that the engine will give a new directory, from the same random numbers.
fn new_directory_id(random: [u64; 4]) -> [u8; 16] {
    let [high, low, ..] = random;
    (u128::from(high) | (u128::from(low) << 64)).to_le_bytes()
}

/// What is registered: where clients come, and the first of the shards' own ports.
fn addresses(shared: &SharedStart) -> Vec<Address> {
    let address = advertised(&shared.config, shared.kafka_address);
    let shards = shared.shard_address.map(|first| Address {
        listener: SHARD_LISTENER.to_owned(),
        host: address.host.clone(),
        port: first.port(),
    });
    std::iter::once(address).chain(shards).collect()
}

/// What other brokers and clients of them are told.
fn advertised(config: &BrokerConfig, bound: SocketAddr) -> Address {
    let listener = KAFKA_LISTENER.to_owned();
    if let Some((host, port)) = config.advertised.as_deref().and_then(split_host_port) {
        return Address { listener, host: host.to_owned(), port };
    }
    if bound.ip().is_unspecified() {
        tracing::warn!(
            listen = %bound,
            "listening on all addresses without `advertised`: clients that ask another broker are \
             told 127.0.0.1"
        );
        return Address { listener, host: "127.0.0.1".into(), port: bound.port() };
    }
    Address { listener, host: bound.ip().to_string(), port: bound.port() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_registered_under_the_id_that_the_engine_gives_it() {
        let random = random_numbers();
        let id = new_directory_id(random);
        assert_eq!(id[..8], random[0].to_le_bytes());
        assert_eq!(id[8..], random[1].to_le_bytes());
    }
}
