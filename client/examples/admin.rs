//! Creates a topic, looks at it and deletes it: `cargo run -p levada-client --example admin -- BROKER TOPIC`.
#![expect(clippy::print_stdout, reason = "the example's result")]

use levada_client::admin::NewTopic;
use levada_client::{Admin, Cluster, ClusterOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let broker = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "example".to_owned());

    let admin = Admin::new(Cluster::connect(&broker, ClusterOptions::default()).await?);
    let new = NewTopic {
        name: topic.clone(),
        partitions: Some(3),
        configs: vec![("retention.ms".to_owned(), "3600000".to_owned())],
        ..Default::default()
    };
    println!("created {}", admin.create_topic(&new, false).await?.name);
    // A refusal says why, in the broker's words.
    if let Err(refusal) = admin.create_topic(&new, false).await {
        println!("again: {refusal}");
    }
    for partition in admin.describe_topic(&topic).await?.partitions {
        println!("partition {} is led by {:?}", partition.index, partition.leader);
    }
    admin.delete_topic(&topic).await?;
    let is_listed = admin.list_topics().await?.iter().any(|known| *known.name == *topic);
    println!("listed: {is_listed}");
    Ok(())
}
