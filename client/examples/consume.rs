//! Prints every record of a topic up to its present end: `cargo run -p levada-client --example consume
//! -- TOPIC`.
#![expect(clippy::print_stdout, reason = "the example's result")]

use std::time::Duration;

use levada_client::{AutoCreate, Cluster, ClusterOptions, Consumer, ConsumerOptions, Position};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "example".to_owned());
    let cluster = Cluster::connect("127.0.0.1:9092", ClusterOptions::default()).await?;
    let partitions: Vec<i32> = cluster
        .topic(&topic, AutoCreate::Never)
        .await?
        .partitions
        .iter()
        .map(|p| p.index)
        .collect();
    let mut consumer = Consumer::new(cluster, ConsumerOptions::default());
    consumer.assign_all(&topic, &partitions, Position::Start).await?;
    let ends = consumer.offsets(&topic, &partitions, Position::End).await?;
    let mut scratch = Vec::new();
    while ends.iter().any(|(p, end)| consumer.position(&topic, *p).is_some_and(|at| at < *end)) {
        for records in consumer.poll(Duration::from_secs(1)).await? {
            records.visit(&mut scratch, |record| {
                let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                println!("{}@{} {value}", records.partition, record.offset);
                Ok::<(), std::convert::Infallible>(())
            })?;
        }
    }
    Ok(())
}
