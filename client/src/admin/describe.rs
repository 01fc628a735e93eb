//! The cluster itself: its brokers, and what their log directories hold.

use levada_protocol::kafka::ApiKey;
use levada_protocol::kafka::describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
use levada_protocol::kafka::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::{Admin, check};
use crate::cluster::AutoCreate;
use crate::error::{CallError, ClientError};
use crate::metadata::{Asked, Node};

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Its name.
    pub cluster_id: Option<String>,
    /// A broker that takes requests for the controller.
    pub controller: Option<i32>,
    /// Its brokers, by number.
    pub brokers: Vec<BrokerInfo>,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Number, address and rack.
    pub node: Node,
    /// Whether it is registered but not alive.
    pub fenced: bool,
}

/// A log directory of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirInfo {
    /// Its path, as the broker says it.
    pub path: String,
    /// Size of its file system in bytes, if the broker tells.
    pub total_bytes: Option<u64>,
    /// What is free there in bytes, if the broker tells.
    pub usable_bytes: Option<u64>,
    /// What it holds.
    pub partitions: Vec<PartitionSize>,
}

/// The size of a partition on one broker's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSize {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Bytes of its segments.
    pub bytes: u64,
}

impl Admin {
    /// The cluster and its brokers, including those that are registered but not alive where the
    /// broker tells of them.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn describe_cluster(&self) -> Result<ClusterInfo, ClientError> {
        let connection = self.cluster.any().await?;
        let version = match connection.version(ApiKey::DescribeCluster) {
            Ok(version) => version,
            Err(CallError::Unsupported { .. }) => return self.cluster_of_metadata().await,
            Err(error) => return Err(error.into()),
        };
        let request =
            DescribeClusterRequest { include_fenced_brokers: 2 <= version, ..Default::default() };
        let reply = connection.call(&request).await?;
        let response: DescribeClusterResponse<'_> = reply.body()?;
        check("cluster", response.error_code, response.error_message.as_deref())?;
        let brokers = response.brokers.iter().map(|broker| BrokerInfo {
            node: Node {
                id: broker.broker_id,
                host: broker.host.to_string(),
                port: u16::try_from(broker.port).unwrap_or(0),
                rack: broker.rack.as_deref().map(str::to_owned),
            },
            fenced: broker.is_fenced,
        });
        let mut brokers: Vec<_> = brokers.collect();
        brokers.sort_by_key(|broker| broker.node.id);
        Ok(ClusterInfo {
            cluster_id: Some(response.cluster_id.to_string()),
            controller: (0 <= response.controller_id).then_some(response.controller_id),
            brokers,
        })
    }

    /// The same from an older broker.
    async fn cluster_of_metadata(&self) -> Result<ClusterInfo, ClientError> {
        let (view, _) = self.cluster.refresh(Asked::Topics(&[]), AutoCreate::Never).await?;
        let brokers = view.nodes.values().cloned().map(|node| BrokerInfo { node, fenced: false });
        let brokers = brokers.collect();
        Ok(ClusterInfo {
            cluster_id: view.cluster_id.clone(),
            controller: view.controller,
            brokers,
        })
    }

    /// The log directories of a broker.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn log_dirs(&self, broker: i32) -> Result<Vec<LogDirInfo>, ClientError> {
        let connection = self.cluster.node(broker).await?;
        let reply = connection.call(&DescribeLogDirsRequest { topics: None }).await?;
        let response: DescribeLogDirsResponse<'_> = reply.body()?;
        let subject = format!("broker {broker}");
        check(&subject, response.error_code, None)?;
        let mut dirs = Vec::new();
        for row in &response.results {
            check(&format!("{subject}, {}", row.log_dir), row.error_code, None)?;
            let mut partitions = Vec::new();
            for topic in &row.topics {
                partitions.extend(topic.partitions.iter().map(|partition| PartitionSize {
                    topic: topic.name.to_string(),
                    partition: partition.partition_index,
                    bytes: u64::try_from(partition.partition_size).unwrap_or(0),
                }));
            }
            dirs.push(LogDirInfo {
                path: row.log_dir.to_string(),
                total_bytes: u64::try_from(row.total_bytes).ok(),
                usable_bytes: u64::try_from(row.usable_bytes).ok(),
                partitions,
            });
        }
        Ok(dirs)
    }
}
