//! Connections of brokers and the command line: one task each, one request at a time, every wait
//! bounded.

mod connection;

use std::sync::Arc;
use std::time::Duration;

use levada_protocol::cluster::ClusterId;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::config::CoordinatorConfig;
use crate::metrics::Metrics;
use crate::server::Event;
use crate::server::subscribers::ConnectionId;
use connection::Connection;

/// A request longer than this takes its bytes out of the budget that all connections share.
const FREE_REQUEST_BYTES: usize = 16 << 10;

/// The budget is counted in units of so many bytes.
const BUDGET_UNIT_BYTES: usize = 1 << 10;

/// At most one complaint about peers in so long.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// What all connections share.
#[derive(Debug)]
struct Shared {
    config: CoordinatorConfig,
    cluster: ClusterId,
    events: mpsc::Sender<Event>,
    budget: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// Accepts connections until `stop` says so; then ends all of them.
pub(crate) async fn serve(
    listener: TcpListener,
    config: CoordinatorConfig,
    cluster: ClusterId,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let units = config.request_budget_bytes / BUDGET_UNIT_BYTES;
    let budget = Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)));
    let shared = Arc::new(Shared { config, cluster, events, budget, metrics });
    let mut connections: JoinSet<Option<String>> = JoinSet::new();
    let mut next_connection = 0;
    let mut complaints = Complaints::default();
    loop {
        tokio::select! {
            () = crate::stopped(&mut stop) => break,
            Some(ended) = connections.join_next() => {
                shared.metrics.connections.uncount();
                match ended {
                    Ok(Some(complaint)) => {
                        shared.metrics.connections_dropped.count();
                        complaints.make(&complaint);
                    }
                    Ok(None) => {}
                    Err(error) => tracing::error!(%error, "a connection's task failed"),
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if shared.config.max_connections <= connections.len() {
                        shared.metrics.connections_refused.count();
                        complaints.make("too many connections, one was closed at once");
                        continue;
                    }
                    shared.metrics.connections.count();
                    next_connection += 1;
                    let id = ConnectionId(next_connection);
                    let connection = Connection::new(id, peer, stream, Arc::clone(&shared));
                    connections.spawn(connection.run());
                }
                Err(error) => {
                    // No descriptors, most likely: they come back when connections end.
                    complaints.make(&format!("a connection cannot be accepted: {error}"));
                    sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Log lines about peers, not more than one per interval: a hostile peer shall not fill the log.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    kept_back: u64,
}

impl Complaints {
    fn make(&mut self, complaint: &str) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < COMPLAINT_INTERVAL) {
            self.kept_back += 1;
            return;
        }
        tracing::warn!(kept_back = self.kept_back, "{complaint}");
        self.last = Some(now);
        self.kept_back = 0;
    }
}
