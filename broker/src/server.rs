//! A whole broker in this process: start and stop order, and what happens when a shard dies.
//!
//! Start: preflight, lock, bind, one thread per shard; shard 0 registers and recovers the log
//! directory; every shard starts its store; the image's logs are created; all listen. Stop: nobody
//! listens, owed replies are sent, every store stops, the directory is marked clean.

mod shard_main;
mod image_pump;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use levada_record::BrokerId;

use crate::admin::Admin;
use crate::config::{BrokerConfig, ConfigError};
use crate::controller_link::controller_channel;
use crate::runtime::executors::{ExecutorPlan, ShardExit, spawn_shard};
use crate::runtime::lock::{DirectoryLock, LockError};
use crate::runtime::placement::{self, Pinning, usable_cpus};
use crate::runtime::preflight::{self, Finding, Severity};
use crate::runtime::socket::{bind_row, bind_shared};
use crate::shard::mailbox::mailboxes;
use shard_main::{Control, Report, ShardStart, SharedStart};

/// A shard that fails while the others serve gets them stopped; each has this long for it.
const ABORT_WITHIN: Duration = Duration::from_secs(10);
/// Tries to bind an address that is taken.
const BIND_TRIES: u32 = 40;
/// Pause between them.
const BIND_RETRY: Duration = Duration::from_millis(50);

/// Why a broker does not start. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine.
    #[error("this machine cannot run a broker: {}", findings_text(.0))]
    Preflight(Vec<Finding>),
    /// The data directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// An address.
    #[error(
        "listen on {address}: {source}; is another broker running there? choose another address with {key}"
    )]
    Bind {
        /// The key of the setting.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread.
    #[error("start a thread: {0}")]
    Thread(#[source] io::Error),
    /// A shard.
    #[error("{0}")]
    Shard(String),
    /// Whoever started it wants it no more.
    #[error("the start was given up")]
    Cancelled,
}

/// Binds, and tries again for a while when the address is taken: the kernel takes the rings of a process that was
/// killed down some time after the process itself, and its listeners with them.
fn until_free<T>(
    cancelled: &flume::Receiver<()>,
    bind: impl Fn() -> io::Result<T>,
) -> Result<io::Result<T>, StartError> {
    let (_never_sent, nothing) = flume::bounded::<()>(0);
    for _ in 0..BIND_TRIES {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return Ok(other),
        }
        if cancelled.try_recv().is_ok() {
            return Err(StartError::Cancelled);
        }
        let _waited = nothing.recv_timeout(BIND_RETRY);
    }
    Ok(bind())
}

fn findings_text(findings: &[Finding]) -> String {
    let texts: Vec<_> = findings.iter().map(|f| format!("{}: {}", f.found, f.remedy)).collect();
    texts.join("; ")
}

/// The way to start brokers.
#[derive(Debug, Clone, Copy)]
pub struct Broker;

impl Broker {
    /// Starts a broker on threads of its own; returns once it serves clients.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: BrokerConfig) -> Result<BrokerHandle, StartError> {
        let (_cancel, never) = flume::bounded(0);
        Self::start_unless(config, &never)
    }

    /// The same, given up when a message comes out of `cancelled`: a start waits for the coordinator
    /// for as long as it takes.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start_unless(
        config: BrokerConfig,
        cancelled: &flume::Receiver<()>,
    ) -> Result<BrokerHandle, StartError> {
        config.validate()?;
        let cpus = usable_cpus();
        let pinning = if config.pin_shards { Pinning::OwnCpu } else { Pinning::Off };
        let bindings = placement::plan(config.shards, &cpus, pinning);
        let shards = u16::try_from(bindings.len()).unwrap_or(u16::MAX);
        let lock = DirectoryLock::take(&config.data_dir)?;
        let io_memory_bytes = check_machine(&config, shards)?;

        let bind_error = |key, address| move |source| StartError::Bind { key, address, source };
        let (kafka_address, sockets) =
            until_free(cancelled, || bind_shared(config.listen, bindings.len()))?
                .map_err(bind_error("listen", config.listen))?;
        let (shard_address, shard_sockets) = match shard_listen(&config, kafka_address, shards) {
            Some(address) => {
                let (first, sockets) = until_free(cancelled, || bind_row(address, bindings.len()))?
                    .map_err(bind_error("shard_port", address))?;
                (Some(first), sockets.into_iter().map(Some).collect())
            }
            None => (None, Vec::new()),
        };
        let shard_sockets: Vec<Option<OwnedFd>> = shard_sockets;
        let admin_listener = match config.admin_address() {
            Some(address) => Some(
                until_free(cancelled, || TcpListener::bind(address))?
                    .map_err(bind_error("admin_listen", address))?,
            ),
            None => None,
        };

        let capacity = usize::try_from(config.mailbox_capacity).unwrap_or(usize::MAX);
        let (senders, receivers) = mailboxes(bindings.len(), capacity);
        let (controller, asks) = controller_channel();
        let (reports, reported) = flume::unbounded();
        let (seed_senders, seeds): (Vec<_>, Vec<_>) =
            (0..bindings.len()).map(|_| flume::bounded(1)).unzip();
        let shared = Arc::new(SharedStart {
            config: Arc::new(config),
            kafka_address,
            shard_address,
            shards,
            mail: senders.clone(),
            controller,
            reports: reports.clone(),
        });
        let mut supervisor = Supervisor {
            controls: Vec::new(),
            threads: Vec::new(),
            reported,
            lock: Some(lock),
            admin: None,
        };
        let mut first = Some((asks, seed_senders));
        let own_sockets = shard_sockets.into_iter().chain(std::iter::repeat_with(|| None));
        let sockets = sockets.into_iter().zip(own_sockets);
        let starts = bindings.into_iter().zip(sockets).zip(receivers).zip(seeds);
        for (index, (((binding, (socket, own_socket)), mailbox), seed)) in (0u16..).zip(starts) {
            let (control, controls) = flume::unbounded();
            let start = ShardStart {
                index,
                shared: Arc::clone(&shared),
                socket,
                own_socket,
                mailbox,
                controls,
                seed,
                first: first.take(),
            };
            let plan = ExecutorPlan { shard: index, binding, io_memory_bytes };
            let exits = reports.clone();
            let on_exit = move |exit| {
                exits.send(Report::Exit { shard: index, exit }).ok();
            };
            let thread = spawn_shard(plan, move || shard_main::run(start), on_exit);
            match thread {
                Ok(thread) => supervisor.threads.push(thread),
                Err(error) => {
                    supervisor.abort();
                    return Err(StartError::Thread(error));
                }
            }
            supervisor.controls.push(control);
        }
        #[cfg(test)]
        let mail = senders.clone();
        if let Some(listener) = admin_listener {
            match Admin::start(listener, senders) {
                Ok(admin) => supervisor.admin = Some(admin),
                Err(error) => {
                    supervisor.abort();
                    return Err(StartError::Thread(error));
                }
            }
        }
        drop((shared, reports));
        let broker = match supervisor.until_ready(cancelled) {
            Ok(broker) => broker,
            Err(error) => {
                supervisor.abort();
                return Err(error);
            }
        };
        let admin_address = supervisor.admin.as_ref().map(Admin::address);
        let (stop, stops) = flume::bounded(1);
        let (ended, end) = flume::bounded(1);
        let thread = std::thread::Builder::new()
            .name("levada-supervisor".into())
            .spawn(move || {
                let outcome = supervisor.supervise(&stops);
                ended.send(outcome).ok();
            })
            .map_err(StartError::Thread)?;
        Ok(BrokerHandle {
            kafka_address,
            admin_address,
            broker,
            stop,
            end,
            thread: Some(thread),
            #[cfg(test)]
            mail,
        })
    }
}

/// The first of the addresses on which each shard takes connections of its own, when there are such.
fn shard_listen(config: &BrokerConfig, kafka: SocketAddr, shards: u16) -> Option<SocketAddr> {
    let port = match config.shard_port {
        Some(0) => return None,
        Some(port) => port,
        // Ports that nobody chose are of no use behind a firewall.
        None if kafka.ip().is_loopback() && shards > 1 => 0,
        None => return None,
    };
    Some(SocketAddr::new(kafka.ip(), port))
}

/// Buffer memory per shard, if the machine will do.
fn check_machine(config: &BrokerConfig, shards: u16) -> Result<usize, StartError> {
    let plan = preflight::Plan {
        shards,
        io_memory_bytes: config.io_memory_bytes,
        data_dir: config.data_dir.clone(),
        connections: config.connections_max.min(1_000),
    };
    let facts = preflight::probe(&plan);
    let findings = preflight::judge(&facts, &plan);
    let told = [Severity::Warning, Severity::Unsafe];
    for finding in findings.iter().filter(|finding| told.contains(&finding.severity)) {
        tracing::warn!(what = finding.what, remedy = finding.remedy, "{}", finding.found);
    }
    let fatal: Vec<_> =
        findings.into_iter().filter(|finding| finding.severity == Severity::Fatal).collect();
    if !fatal.is_empty() {
        return Err(StartError::Preflight(fatal));
    }
    let bytes = preflight::io_memory_bytes(&facts, &plan);
    Ok(usize::try_from(bytes).unwrap_or(64 << 10))
}

/// A running broker. Dropped, it stops.
#[derive(Debug)]
pub struct BrokerHandle {
    kafka_address: SocketAddr,
    admin_address: Option<SocketAddr>,
    broker: BrokerId,
    stop: flume::Sender<()>,
    end: flume::Receiver<Result<(), String>>,
    thread: Option<JoinHandle<()>>,
    /// For tests that break a shard.
    #[cfg(test)]
    mail: Vec<crate::shard::mailbox::MailSender>,
}

impl BrokerHandle {
    /// Where Kafka clients connect.
    pub fn kafka_address(&self) -> SocketAddr {
        self.kafka_address
    }

    /// Where `/metrics` and `/health` are served.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Its number in the cluster.
    pub fn broker_id(&self) -> BrokerId {
        self.broker
    }

    /// Gets one message when the broker has ended, asked to or not: `Err` says what went wrong.
    pub fn ended(&self) -> &flume::Receiver<Result<(), String>> {
        &self.end
    }

    /// Stops it cleanly and waits until it has.
    ///
    /// # Errors
    /// What went wrong, now or before; the next start recovers.
    pub fn stop(mut self) -> Result<(), String> {
        self.stop.try_send(()).ok();
        let outcome = self.end.recv().unwrap_or_else(|_| Err("the broker has ended before".into()));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        outcome
    }
}

impl Drop for BrokerHandle {
    fn drop(&mut self) {
        self.stop.try_send(()).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Watches over the shards.
struct Supervisor {
    controls: Vec<flume::Sender<Control>>,
    threads: Vec<JoinHandle<()>>,
    reported: flume::Receiver<Report>,
    lock: Option<DirectoryLock>,
    admin: Option<Admin>,
}

impl Supervisor {
    fn tell_all(&self, control: Control) {
        for sender in &self.controls {
            // A shard that is gone has said so.
            sender.send(control).ok();
        }
    }

    /// Takes reports until `count` of them satisfy `wanted`. An end of a shard is an error.
    fn until_all(&self, count: usize, wanted: impl Fn(&Report) -> bool) -> Result<(), String> {
        let mut seen = 0;
        while seen < count {
            match self.reported.recv() {
                Ok(Report::Exit { shard, exit }) => return Err(exit_text(shard, &exit)),
                Ok(Report::Failed { reason }) => return Err(reason),
                Ok(report) if wanted(&report) => seen += 1,
                Ok(_) => {}
                Err(_) => return Err("all shards are gone".into()),
            }
        }
        Ok(())
    }

    fn until_ready(&self, cancelled: &flume::Receiver<()>) -> Result<BrokerId, StartError> {
        // Only a message cancels; a sender that is gone never will.
        let (_keep, never) = flume::bounded(0);
        let cancelled = if cancelled.is_disconnected() { &never } else { cancelled };
        let broker = loop {
            let report = flume::Selector::new()
                .recv(cancelled, |message| message.ok().map(|()| None))
                .recv(&self.reported, |report| report.ok().map(Some))
                .wait();
            match report {
                Some(None) => return Err(StartError::Cancelled),
                Some(Some(Report::Prepared { broker })) => break broker,
                Some(Some(Report::Exit { shard, exit })) => {
                    return Err(StartError::Shard(exit_text(shard, &exit)));
                }
                Some(Some(Report::Failed { reason })) => return Err(StartError::Shard(reason)),
                Some(Some(_)) => {}
                None if cancelled.is_disconnected() => {
                    return Err(StartError::Cancelled);
                }
                None => return Err(StartError::Shard("all shards are gone".into())),
            }
        };
        self.tell_all(Control::Listen);
        self.until_all(self.controls.len(), |report| matches!(report, Report::Listening))
            .map_err(StartError::Shard)?;
        Ok(broker)
    }

    /// Waits for the stop or for the first failure.
    fn supervise(mut self, stops: &flume::Receiver<()>) -> Result<(), String> {
        enum Event {
            Stop,
            Report(Option<Report>),
        }
        loop {
            let event = flume::Selector::new()
                .recv(stops, |_| Event::Stop)
                .recv(&self.reported, |report| Event::Report(report.ok()))
                .wait();
            let reason = match event {
                Event::Stop => {
                    let outcome = self.stop_cleanly();
                    if outcome.is_err() {
                        self.abort();
                    }
                    return outcome;
                }
                Event::Report(Some(Report::Exit { shard, exit })) => exit_text(shard, &exit),
                Event::Report(Some(Report::Failed { reason })) => reason,
                Event::Report(Some(_)) => continue,
                Event::Report(None) => "all shards are gone".into(),
            };
            tracing::error!(reason, "the broker ends: it does not go on with a part of its shards");
            self.abort();
            return Err(reason);
        }
    }

    fn stop_cleanly(&mut self) -> Result<(), String> {
        let count = self.controls.len();
        self.tell_all(Control::Drain);
        self.until_all(count, |report| matches!(report, Report::Drained))?;
        self.tell_all(Control::CloseStore);
        self.until_all(count, |report| matches!(report, Report::StoreClosed))?;
        // Shard 0 marks the directory clean, now that every store has stopped.
        if let Some(first) = self.controls.first() {
            first.send(Control::MarkClean).map_err(|_| "shard 0 is gone".to_owned())?;
        }
        self.until_all(1, |report| matches!(report, Report::MarkedClean))?;
        self.end_threads();
        Ok(())
    }

    /// Ends what is left, without waiting for clients and without marking anything clean.
    fn abort(&mut self) {
        self.tell_all(Control::Exit);
        let mut left = self.threads.iter().filter(|thread| !thread.is_finished()).count();
        while left > 0 {
            match self.reported.recv_timeout(ABORT_WITHIN) {
                Ok(Report::Exit { .. }) => left -= 1,
                Ok(_) => {}
                Err(_) => {
                    tracing::error!(threads = left, "shards do not end; they are left behind");
                    self.threads.clear();
                    break;
                }
            }
        }
        self.end_threads();
    }

    fn end_threads(&mut self) {
        self.tell_all(Control::Exit);
        self.controls.clear();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
        if let Some(admin) = self.admin.take() {
            admin.stop();
        }
        drop(self.lock.take());
    }
}

fn exit_text(shard: u16, exit: &ShardExit) -> String {
    match exit {
        ShardExit::Done => format!("shard {shard} ended before the broker did"),
        ShardExit::Failed(reason) => reason.clone(),
        ShardExit::Panicked(text) => format!("shard {shard} panicked: {text}"),
    }
}
