//! `levada cluster`: how the cluster is, and its brokers; the way to it for all other commands.

use std::collections::BTreeMap;
use std::future::Future;
use std::process::ExitCode;

use clap::Subcommand;
use levada_client::admin::{BrokerInfo, LogDirInfo};
use levada_client::metadata::TopicView;
use levada_client::{Admin, ClientError, Cluster, ClusterOptions};
use serde_json::json;

use crate::args::{ConnectArgs, Output};
use crate::output::{Table, human_bytes, print_json};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Shows how the cluster is; exit code 1 when brokers, leaders or replicas are missing
    Status,
    /// Lists the brokers with what they lead, hold and have left
    Brokers,
}

/// Runs client code to its end.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Reaches the cluster that the command line names.
pub(crate) async fn connect(to: &ConnectArgs) -> Result<Cluster, ClientError> {
    let mut options = ClusterOptions::default();
    "levada-cli".clone_into(&mut options.connection.client_id);
    Cluster::connect(&to.bootstrap, options).await
}

pub(crate) fn run(command: &ClusterCommand, to: &ConnectArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let admin = Admin::new(connect(to).await?);
        match command {
            ClusterCommand::Status => status(&admin, to.output).await,
            ClusterCommand::Brokers => brokers(&admin, to.output).await,
        }
    })
}

/// What is counted over all partitions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Health {
    topics: usize,
    partitions: usize,
    leaderless: usize,
    out_of_sync: usize,
    brokers: usize,
    fenced: usize,
}

impl Health {
    fn of(brokers: &[BrokerInfo], topics: &[TopicView]) -> Self {
        let partitions = || topics.iter().flat_map(|topic| &topic.partitions);
        Self {
            topics: topics.len(),
            partitions: partitions().count(),
            leaderless: partitions().filter(|partition| partition.leader.is_none()).count(),
            out_of_sync: partitions()
                .filter(|partition| partition.isr.len() < partition.replicas.len())
                .count(),
            brokers: brokers.len(),
            fenced: brokers.iter().filter(|broker| broker.fenced).count(),
        }
    }

    /// Whether nothing is missing.
    fn is_well(&self) -> bool {
        self.brokers > 0 && self.fenced + self.leaderless + self.out_of_sync == 0
    }
}

async fn status(admin: &Admin, output: Output) -> anyhow::Result<ExitCode> {
    let info = admin.describe_cluster().await?;
    let health = Health::of(&info.brokers, &admin.list_topics().await?);
    let well = health.is_well();
    match output {
        Output::Json => print_json(&json!({
            "healthy": well,
            "cluster_id": info.cluster_id,
            "controller": info.controller,
            "brokers": health.brokers,
            "brokers_fenced": health.fenced,
            "topics": health.topics,
            "partitions": health.partitions,
            "partitions_leaderless": health.leaderless,
            "partitions_out_of_sync": health.out_of_sync,
        }))?,
        Output::Table => {
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
            let mut table = Table::new(&["CLUSTER", &or_none(info.cluster_id)]);
            let controller = info.controller.map(|id| format!("broker {id}"));
            for (name, value) in [
                (
                    "health",
                    if well { "good".to_owned() } else { "something is missing".to_owned() },
                ),
                ("requests for the controller", or_none(controller)),
                ("brokers", format!("{}, {} of them fenced", health.brokers, health.fenced)),
                ("topics", health.topics.to_string()),
                ("partitions", health.partitions.to_string()),
                ("  without a leader", health.leaderless.to_string()),
                ("  with replicas out of sync", health.out_of_sync.to_string()),
            ] {
                table.row(vec![name.to_owned(), value]);
            }
            table.print()?;
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn brokers(admin: &Admin, output: Output) -> anyhow::Result<ExitCode> {
    let info = admin.describe_cluster().await?;
    let topics = admin.list_topics().await?;
    let mut counts: BTreeMap<i32, (usize, usize)> = BTreeMap::new();
    for partition in topics.iter().flat_map(|topic| &topic.partitions) {
        for replica in &partition.replicas {
            let (leads, holds) = counts.entry(*replica).or_default();
            *holds += 1;
            *leads += usize::from(partition.leader == Some(*replica));
        }
    }
    let mut rows = Vec::new();
    let mut table =
        Table::new(&["ID", "ADDRESS", "RACK", "STATE", "LEADS", "HOLDS", "DATA", "FREE"]);
    for BrokerInfo { node, fenced } in &info.brokers {
        let (leads, holds) = counts.get(&node.id).copied().unwrap_or_default();
        let dirs = if *fenced { Vec::new() } else { log_dirs(admin, node.id).await };
        let data_bytes: u64 =
            dirs.iter().flat_map(|dir| &dir.partitions).map(|size| size.bytes).sum();
        let free_bytes = dirs.iter().map(|dir| dir.usable_bytes).sum::<Option<u64>>();
        let state = if *fenced { "fenced" } else { "alive" };
        table.row(vec![
            node.id.to_string(),
            node.address(),
            node.rack.clone().unwrap_or_else(|| "-".to_owned()),
            state.to_owned(),
            leads.to_string(),
            holds.to_string(),
            human_bytes(data_bytes),
            free_bytes.filter(|_| !dirs.is_empty()).map_or_else(|| "?".to_owned(), human_bytes),
        ]);
        rows.push(json!({
            "id": node.id,
            "address": node.address(),
            "rack": node.rack,
            "state": state,
            "leads": leads,
            "holds": holds,
            "data_bytes": data_bytes,
            "log_dirs": dirs.iter().map(|dir| json!({
                "path": dir.path,
                "total_bytes": dir.total_bytes,
                "usable_bytes": dir.usable_bytes,
                "partitions": dir.partitions.len(),
            })).collect::<Vec<_>>(),
        }));
    }
    match output {
        Output::Json => print_json(&rows.into())?,
        Output::Table => table.print()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The log directories of a broker; a broker that does not tell is no reason to show nothing.
async fn log_dirs(admin: &Admin, broker: i32) -> Vec<LogDirInfo> {
    match admin.log_dirs(broker).await {
        Ok(dirs) => dirs,
        Err(error) => {
            eprintln!("broker {broker} does not tell about its disk: {error}");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use levada_client::metadata::{Node, PartitionView};
    use levada_record::TopicId;

    use super::*;

    #[test]
    fn a_missing_leader_or_replica_is_no_good_health() {
        let partition = PartitionView {
            index: 0,
            leader: Some(1),
            port: None,
            leader_epoch: 0,
            replicas: vec![1, 2],
            isr: vec![1, 2],
            offline: vec![],
            error: None,
        };
        let topic = |partition: PartitionView| TopicView {
            name: Arc::from("t"),
            id: TopicId::ZERO,
            internal: false,
            partitions: vec![partition],
        };
        let node = Node { id: 1, host: "h".to_owned(), port: 1, rack: None };
        let brokers = [BrokerInfo { node, fenced: false }];
        let well =
            |brokers: &[BrokerInfo], partition| Health::of(brokers, &[topic(partition)]).is_well();
        assert!(well(&brokers, partition.clone()));
        assert!(!well(&brokers, PartitionView { leader: None, ..partition.clone() }));
        assert!(!well(&brokers, PartitionView { isr: vec![1], ..partition.clone() }));
        assert!(!well(&[BrokerInfo { fenced: true, ..brokers[0].clone() }], partition.clone()));
        assert!(!well(&[], partition));
    }
}
