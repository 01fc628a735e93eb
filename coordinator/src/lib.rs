//! The coordinator: a light process that keeps the cluster's metadata. It registers brokers and
//! notices when they die, places and configures topics, and tells every broker what was decided.
//!
//! [`run`] is the process; [`Coordinator::start`] is the same on a thread of its own, for a cluster
//! in one process and for tests. Decisions are pure, in [`controller`]; [`server`] is the loop around
//! them. What is decided is on stable storage before anybody hears of it.

pub mod config;
pub mod controller;
pub mod consensus;
pub mod storage;
pub mod server;
pub mod metrics;
mod net;
mod http;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

pub use config::{ConfigError, CoordinatorConfig};
use metrics::Metrics;
use server::{EVENTS_MAX, Server};
pub use storage::StorageError;

/// A coordinator cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used, or a write to it failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An address cannot be listened on.
    #[error("listen on {address}: {source}; is another process there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// Thread or runtime cannot be made.
    #[error("start the coordinator's thread: {0}")]
    Thread(#[source] io::Error),
    /// The coordinator's thread ended by a bug.
    #[error("the coordinator's thread panicked")]
    Panicked,
}

/// Where a coordinator listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For brokers and the command line.
    pub cluster: SocketAddr,
    /// For HTTP, if it is served.
    pub http: Option<SocketAddr>,
}

/// Runs a coordinator in this thread until `shutdown` completes, then stops it cleanly.
///
/// # Errors
/// [`Error`] when it cannot start, or when its storage fails.
pub fn run(config: CoordinatorConfig, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    runtime()?.block_on(serve(config, |_| {}, shutdown))
}

/// A coordinator in a thread of its own.
#[derive(Debug)]
pub struct Coordinator;

impl Coordinator {
    /// Starts one; it serves when this returns. Ports may be 0: the handle tells the real ones.
    ///
    /// # Errors
    /// [`Error`] when it cannot start.
    pub fn start(config: CoordinatorConfig) -> Result<Handle, Error> {
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            // The starter waits for it.
            let on_ready = move |addresses| ready.send(addresses).unwrap_or_default();
            // A handle that is gone stops it, too.
            let shutdown = async { drop(stopped.await) };
            runtime()?.block_on(serve(config, on_ready, shutdown))
        };
        let thread = std::thread::Builder::new()
            .name("coordinator".to_owned())
            .spawn(body)
            .map_err(Error::Thread)?;
        if let Ok(addresses) = is_ready.recv() {
            Ok(Handle { addresses, stop: Some(stop), thread: Some(thread) })
        } else {
            thread.join().map_err(|_| Error::Panicked)??;
            Err(Error::Panicked)
        }
    }
}

/// A running coordinator. Dropping it stops it, too, without telling how that went.
#[derive(Debug)]
pub struct Handle {
    addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Handle {
    /// Where brokers and the command line reach it.
    pub fn address(&self) -> SocketAddr {
        self.addresses.cluster
    }

    /// Where HTTP reaches it, if it is served.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.addresses.http
    }

    /// Whether it still runs; if not, [`stop`](Self::stop) tells why.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops it and waits for its end.
    ///
    /// # Errors
    /// [`Error`] that ended it earlier, or came up while stopping.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            stop.send(()).unwrap_or_default();
        }
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| Error::Panicked)?,
            None => Ok(()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "coordinator ended badly");
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)
}

async fn serve(
    config: CoordinatorConfig,
    on_ready: impl FnOnce(Addresses),
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    config.check()?;
    let metrics = Arc::new(Metrics::default());
    let listener = listen(config.listen).await?;
    let http = if config.http_enabled { Some(listen(config.http_listen).await?) } else { None };
    let local = |listener: &TcpListener| {
        let address = config.listen;
        listener.local_addr().map_err(|source| Error::Listen { address, source })
    };
    let addresses =
        Addresses { cluster: local(&listener)?, http: http.as_ref().map(local).transpose()? };
    if !addresses.cluster.ip().is_loopback() {
        tracing::warn!(address = %addresses.cluster, "coordinator listens beyond this machine");
    }
    let server = Server::open(config.clone(), addresses.cluster.to_string(), Arc::clone(&metrics))?;
    let cluster = server.cluster();
    let (events, received) = mpsc::channel(EVENTS_MAX);
    let (stop_server, server_stopped) = oneshot::channel();
    let (stop_tasks, tasks_stopped) = watch::channel(false);
    let net = tokio::spawn(net::serve(
        listener,
        config,
        cluster,
        events.clone(),
        Arc::clone(&metrics),
        tasks_stopped.clone(),
    ));
    let http =
        http.map(|listener| tokio::spawn(http::serve(listener, events, metrics, tasks_stopped)));
    tracing::info!(address = %addresses.cluster, http = ?addresses.http, "coordinator serves");
    on_ready(addresses);
    let server = server.run(received, server_stopped);
    tokio::pin!(server, shutdown);
    let outcome = tokio::select! {
        outcome = &mut server => outcome,
        () = &mut shutdown => {
            // The loop first: whoever waits for a reply is told that we stop.
            stop_server.send(()).unwrap_or_default();
            server.await
        }
    };
    stop_tasks.send_replace(true);
    if net.await.is_err() {
        return Err(Error::Panicked);
    }
    if let Some(http) = http
        && let Ok(Err(error)) = http.await
    {
        tracing::warn!(%error, "http ended badly");
    }
    tracing::info!("coordinator stopped");
    Ok(outcome?)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Completes once `stop` says so, or nobody is left to say it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
