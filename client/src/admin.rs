//! Manages a cluster: topics, their settings and partitions, records, brokers, log directories.

mod configs;
mod describe;
mod topics;

use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::Request;
use tokio::time::{Duration, Instant, sleep};

use crate::clock::seed;
use crate::cluster::{AutoCreate, Cluster};
use crate::connection::Reply;
use crate::error::{CallError, ClientError, Refusal};
use crate::metadata::Asked;
use crate::retry::Chance;

pub use configs::{ConfigChange, ConfigEntry, ConfigSource, Resource};
pub use describe::{BrokerInfo, ClusterInfo, LogDirInfo, PartitionSize};
pub use topics::{CreatedTopic, NewTopic};

/// How long a broker may take for a change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Manages a cluster; cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    cluster: Cluster,
}

impl Admin {
    /// The administration of `cluster`.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// The cluster it manages.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Sends a change to whoever acts for the controller; `refused` tells from the reply whether it
    /// was the wrong broker, then it is sought and asked again.
    async fn change<R: Request>(
        &self,
        request: &R,
        refused: impl Fn(&Reply) -> Result<Option<ErrorCode>, CallError>,
    ) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + self.cluster.options().patience;
        let mut chance = Chance::new(seed());
        let mut failed = 0;
        loop {
            let reply = self.cluster.call_controller(request, CHANGE_TIMEOUT).await?;
            if refused(&reply)? != Some(ErrorCode::NotController) || deadline <= Instant::now() {
                return Ok(reply);
            }
            failed += 1;
            sleep(self.cluster.options().backoff.delay(failed, &mut chance)).await;
            self.cluster.refresh(Asked::Topics(&[]), AutoCreate::Never).await?;
        }
    }
}

fn change_timeout_ms() -> i32 {
    i32::try_from(CHANGE_TIMEOUT.as_millis()).unwrap_or(i32::MAX)
}

/// The first code of an answer with one per thing.
fn first_code(mut codes: impl Iterator<Item = i16>) -> Option<ErrorCode> {
    codes.next().and_then(ErrorCode::from_i16)
}

fn check(subject: &str, code: i16, message: Option<&str>) -> Result<(), ClientError> {
    Refusal::check(code, message).map_err(|refusal| ClientError::refused(subject, refusal))
}

fn left_out(subject: &str) -> ClientError {
    ClientError::Senseless {
        subject: subject.to_owned(),
        reason: "it leaves out what was asked for",
    }
}
