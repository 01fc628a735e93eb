//! Topics of a run: made before, deleted afterwards.

use levada_client::admin::NewTopic;
use levada_client::{Admin, Cluster};

use super::Place;
use crate::error::BenchError;
use crate::options::{Durability, Options};

/// Creates the topics; their names.
pub(super) async fn topics(
    options: &Options,
    place: &Place,
    run: u32,
) -> Result<Vec<String>, BenchError> {
    let admin = Admin::new(Cluster::connect(&place.bootstrap, options.cluster_options()).await?);
    let durability = match options.durability {
        Durability::Fsync => Some("fsync"),
        Durability::Replicated => Some("replicated"),
        Durability::Default => None,
    };
    let mut names = Vec::new();
    for number in 0..options.topics {
        let name = format!("levada-bench-{run:08x}-{number}");
        let topic = NewTopic {
            name: name.clone(),
            partitions: i32::try_from(options.partitions).ok(),
            replicas: i16::try_from(options.replicas).ok(),
            configs: durability
                .map(|durability| ("durability".to_owned(), durability.to_owned()))
                .into_iter()
                .collect(),
        };
        admin.create_topic(&topic, false).await?;
        names.push(name);
    }
    Ok(names)
}

/// Deletes them.
pub(super) async fn delete(
    options: &Options,
    place: &Place,
    topics: &[String],
) -> Result<(), BenchError> {
    let admin = Admin::new(Cluster::connect(&place.bootstrap, options.cluster_options()).await?);
    for topic in topics {
        admin.delete_topic(topic).await?;
    }
    Ok(())
}
