//! HTTP for people and monitoring: `/health`, `/metrics` (Prometheus text), `/status` (JSON).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use levada_protocol::cluster::BrokerState;
use levada_protocol::cluster::reply::{MemberRole, Reply, Status};
use levada_protocol::cluster::request::Request;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::server::Event;

/// How long the controller may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
struct Shared {
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
}

/// Serves until `stop` says so.
pub(crate) async fn serve(
    listener: TcpListener,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics_text))
        .route("/status", get(status))
        .with_state(Shared { events, metrics });
    let serving = axum::serve(listener, router);
    tokio::select! {
        served = async { serving.await } => served,
        () = crate::stopped(&mut stop) => Ok(()),
    }
}

/// Asks the loop itself: an answer proves that it goes round.
async fn ask(shared: &Shared) -> Option<Box<Status>> {
    let (reply, answered) = oneshot::channel();
    let event = Event::Request { connection: None, request: Request::Status, reply };
    shared.events.send_timeout(event, PATIENCE).await.ok()?;
    match timeout(PATIENCE, answered).await {
        Ok(Ok(Reply::Status(status))) => Some(status),
        _ => None,
    }
}

async fn health(State(shared): State<Shared>) -> Response {
    match ask(&shared).await {
        Some(status) => {
            Json(Health { status: "ok", controller: status.controller, index: status.index })
                .into_response()
        }
        None => unavailable(),
    }
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.text()).into_response()
}

async fn status(State(shared): State<Shared>) -> Response {
    match ask(&shared).await {
        Some(status) => Json(StatusText::new(&status)).into_response(),
        None => unavailable(),
    }
}

fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the controller does not answer\n").into_response()
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    controller: i32,
    index: u64,
}

#[derive(Serialize)]
struct StatusText {
    cluster_id: String,
    cluster_name: Option<String>,
    controller: i32,
    term: u64,
    members: Vec<MemberText>,
    index: u64,
    snapshot_index: u64,
    log_bytes: u64,
    brokers: Vec<BrokerText>,
    topics: u32,
    partitions: u32,
    partitions_leaderless: u32,
    partitions_out_of_sync: u32,
    replicas_unconfirmed: u32,
    uptime_ms: u64,
}

#[derive(Serialize)]
struct MemberText {
    id: i32,
    address: String,
    role: &'static str,
}

#[derive(Serialize)]
struct BrokerText {
    id: i32,
    epoch: i64,
    state: &'static str,
    incarnation: String,
    addresses: Vec<String>,
    rack: Option<String>,
    shards: u16,
    lease_age_ms: Option<u64>,
    seen_index: u64,
    replicas: u32,
    leaders: u32,
}

impl StatusText {
    fn new(status: &Status) -> Self {
        Self {
            cluster_id: status.cluster.to_string(),
            cluster_name: status.cluster_name.clone(),
            controller: status.controller,
            term: status.term,
            members: status
                .members
                .iter()
                .map(|member| MemberText {
                    id: member.id,
                    address: member.address.clone(),
                    role: match member.role {
                        MemberRole::Controller => "controller",
                        MemberRole::Follower => "follower",
                    },
                })
                .collect(),
            index: status.index,
            snapshot_index: status.snapshot_index,
            log_bytes: status.log_bytes,
            brokers: status
                .brokers
                .iter()
                .map(|status| {
                    let broker = &status.broker;
                    BrokerText {
                        id: broker.id.0,
                        epoch: broker.epoch.0,
                        state: match broker.state {
                            BrokerState::Fenced => "fenced",
                            BrokerState::Active => "active",
                            BrokerState::Draining => "draining",
                        },
                        incarnation: broker.incarnation.to_string(),
                        addresses: broker
                            .addresses
                            .iter()
                            .map(|a| format!("{}={}:{}", a.listener, a.host, a.port))
                            .collect(),
                        rack: broker.rack.clone(),
                        shards: broker.shards,
                        lease_age_ms: status.lease_age_ms,
                        seen_index: status.seen_index,
                        replicas: status.replicas,
                        leaders: status.leaders,
                    }
                })
                .collect(),
            topics: status.topics,
            partitions: status.partitions,
            partitions_leaderless: status.leaderless,
            partitions_out_of_sync: status.out_of_sync,
            replicas_unconfirmed: status.unconfirmed,
            uptime_ms: status.uptime_ms,
        }
    }
}
