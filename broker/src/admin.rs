//! The admin port: `/metrics` as Prometheus text, `/health` as JSON. On a small thread of its own,
//! so that it answers even when shards are busy.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::metrics::Snapshot;
use crate::shard::mailbox::{MailSender, call};

/// A shard that does not answer within this is counted as stuck.
const SHARD_ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A running admin port.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Serves `listener` on a thread of its own; `shards` are the mailboxes of all shards.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub fn start(listener: TcpListener, shards: Vec<MailSender>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("levada-admin".into()).spawn(move || {
            let served = runtime.block_on(serve(listener, shards, stopped));
            if let Err(error) = served {
                tracing::error!(%error, "the admin port has stopped");
            }
        })?;
        Ok(Self { address, stop, thread })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it.
    pub fn stop(self) {
        self.stop.send(()).ok();
        self.thread.join().ok();
    }
}

async fn serve(
    listener: TcpListener,
    shards: Vec<MailSender>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(shards);
    let stopping = async {
        stopped.await.ok();
    };
    // Idle keep-alive connections must not hold up the end.
    tokio::select! {
        served = axum::serve(listener, app) => served,
        () = stopping => Ok(()),
    }
}

/// Asks every shard; `None` for one that does not answer in time.
async fn snapshots(shards: &[MailSender]) -> Vec<Option<Snapshot>> {
    let mut all = Vec::with_capacity(shards.len());
    for sender in shards {
        let asking = call(sender, |shard| async move { shard.snapshot() });
        let answer = tokio::time::timeout(SHARD_ANSWER_WITHIN, asking).await;
        all.push(answer.ok().and_then(Result::ok));
    }
    all
}

async fn metrics(State(shards): State<Vec<MailSender>>) -> Response {
    let total = snapshots(&shards).await.into_iter().flatten().reduce(|mut total, more| {
        total.add(&more);
        total
    });
    match total {
        Some(total) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, total.prometheus()).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "no shard answers\n").into_response(),
    }
}

async fn health(State(shards): State<Vec<MailSender>>) -> Response {
    let all = snapshots(&shards).await;
    let stuck = all.iter().filter(|snapshot| snapshot.is_none()).count();
    let sum = |name: &str| -> u64 {
        all.iter().flatten().filter_map(|snapshot| snapshot.value(name)).sum()
    };
    let failed = sum("store_failed");
    let is_well = stuck == 0 && failed == 0;
    let text = format!(
        "{{\"status\":\"{}\",\"shards\":{},\"shards_stuck\":{stuck},\"shards_failed\":{failed},\
         \"partitions\":{},\"partitions_suspect\":{},\"controller_connected\":{}}}\n",
        if is_well { "ok" } else { "failing" },
        shards.len(),
        sum("partitions"),
        sum("partitions_suspect"),
        sum("controller_connected") > 0,
    );
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
