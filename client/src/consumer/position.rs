//! Where to begin: a position turned into offsets by asking the leaders.

use std::collections::BTreeMap;

use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use levada_record::{Offset, Timestamp};
use tokio::time::{Instant, sleep};

use crate::clock::seed;
use crate::cluster::{AutoCreate, Cluster};
use crate::error::{ClientError, Refusal};
use crate::metadata::{Asked, Home};
use crate::retry::{Advice, Chance, advice};

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first record that is kept.
    Start,
    /// Behind the last record that can be read.
    End,
    /// This offset.
    Offset(Offset),
    /// The first record whose time is not before this; the end when there is none.
    Time(Timestamp),
}

/// The offset of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) partition: i32,
    pub(super) offset: Offset,
}

/// Kafka's special times.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Asks the leaders, again and again while leaders move, within the cluster's patience.
pub(super) async fn list_offsets(
    cluster: &Cluster,
    topic: &str,
    partitions: &[i32],
    position: Position,
) -> Result<Vec<Resolved>, ClientError> {
    let timestamp = match position {
        Position::Start => EARLIEST,
        Position::End => LATEST,
        Position::Time(time) => time.0.max(0),
        Position::Offset(offset) => {
            return Ok(partitions
                .iter()
                .map(|&partition| Resolved { partition, offset })
                .collect());
        }
    };
    let mut found = ask_until_known(cluster, topic, partitions, timestamp).await?;
    // No record is so young: from the end.
    let none: Vec<i32> = partitions.iter().copied().filter(|p| found.get(p) == Some(&-1)).collect();
    if !none.is_empty() {
        found.extend(ask_until_known(cluster, topic, &none, LATEST).await?);
    }
    let resolved = |(partition, offset)| Resolved { partition, offset: Offset(offset) };
    Ok(found.into_iter().map(resolved).collect())
}

async fn ask_until_known(
    cluster: &Cluster,
    topic: &str,
    partitions: &[i32],
    timestamp: i64,
) -> Result<BTreeMap<i32, i64>, ClientError> {
    let deadline = Instant::now() + cluster.options().patience;
    let mut chance = Chance::new(seed());
    let mut known = BTreeMap::new();
    let mut failed = 0;
    cluster.topic(topic, AutoCreate::Never).await?;
    loop {
        let missing: Vec<i32> =
            partitions.iter().copied().filter(|p| !known.contains_key(p)).collect();
        if missing.is_empty() {
            return Ok(known);
        }
        let Err(error) = ask(cluster, topic, &missing, timestamp, &mut known).await else {
            continue;
        };
        let passes = match &error {
            ClientError::Refused { refusal, .. } => advice(refusal.code) != Advice::Fail,
            ClientError::Connect(_) | ClientError::Call(_) => true,
            ClientError::Senseless { .. } => false,
        };
        if !passes || deadline <= Instant::now() {
            return Err(error);
        }
        failed += 1;
        sleep(cluster.options().backoff.delay(failed, &mut chance)).await;
        // Whether that helps shows with the next question.
        if let Err(error) = cluster.refresh(Asked::Topics(&[topic]), AutoCreate::Never).await {
            tracing::debug!(%error, "cannot get metadata");
        }
    }
}

/// Asks each leader once; fails when some partition is still unknown then.
async fn ask(
    cluster: &Cluster,
    topic: &str,
    partitions: &[i32],
    timestamp: i64,
    known: &mut BTreeMap<i32, i64>,
) -> Result<(), ClientError> {
    let view = cluster.view();
    let refused =
        |partition: i32, refusal| ClientError::refused(format!("{topic}-{partition}"), refusal);
    let mut by_leader: BTreeMap<Home, Vec<i32>> = BTreeMap::new();
    for &partition in partitions {
        let leader = view
            .home(topic, partition)
            .ok_or_else(|| refused(partition, ErrorCode::LeaderNotAvailable.into()))?;
        by_leader.entry(leader).or_default().push(partition);
    }
    for (leader, partitions) in by_leader {
        let asked = partitions.iter().map(|&partition_index| ListOffsetsPartition {
            partition_index,
            timestamp,
            ..Default::default()
        });
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic { name: topic.into(), partitions: asked.collect() }],
            ..Default::default()
        };
        let reply = cluster.home(leader).await?.call(&request).await?;
        let response: ListOffsetsResponse<'_> = reply.body()?;
        let rows = response.topics.iter().filter(|row| row.name == topic);
        for row in rows.flat_map(|row| &row.partitions) {
            if partitions.contains(&row.partition_index) {
                Refusal::check(row.error_code, None)
                    .map_err(|refusal| refused(row.partition_index, refusal))?;
                known.insert(row.partition_index, row.offset.max(-1));
            }
        }
        if let Some(partition) = partitions.iter().find(|partition| !known.contains_key(partition))
        {
            let reason = "it leaves the partition out";
            return Err(ClientError::Senseless { subject: format!("{topic}-{partition}"), reason });
        }
    }
    Ok(())
}
