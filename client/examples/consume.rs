//! Prints every record of a topic up to its present end: `cargo run -p levada-client --example consume
//! -- BROKER TOPIC`.
#![expect(clippy::print_stdout, reason = "the example's result")]

use std::{convert::Infallible, time::Duration};

use levada_client::{Admin, Cluster, ClusterOptions, Consumer, ConsumerOptions, Position};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let broker = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "example".to_owned());

    let cluster = Cluster::connect(&broker, ClusterOptions::default()).await?;
    let partitions = Admin::new(cluster.clone()).describe_topic(&topic).await?.partitions;
    let partitions: Vec<i32> = partitions.iter().map(|partition| partition.index).collect();
    let mut consumer = Consumer::new(cluster, ConsumerOptions::default());
    consumer.assign_all(&topic, &partitions, Position::Start).await?;
    let ends = consumer.offsets(&topic, &partitions, Position::End).await?;
    // Compressed batches are inflated into it, again and again.
    let mut scratch = Vec::new();
    while ends.iter().any(|(p, end)| consumer.position(&topic, *p).is_some_and(|at| at < *end)) {
        for records in consumer.poll(Duration::from_secs(1)).await? {
            records.visit(&mut scratch, |record| {
                let text = |bytes: Option<&[u8]>| {
                    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
                };
                let (key, value) = (text(record.key), text(record.value));
                println!("{}@{} {key}: {value}", records.partition, record.offset);
                for header in record.headers {
                    println!("  {} = {}", text(Some(header.key)), text(header.value));
                }
                Ok::<(), Infallible>(())
            })?;
        }
    }
    Ok(())
}
