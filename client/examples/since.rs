//! Counts a partition's records that are not older than a time: `cargo run -p levada-client --example
//! since -- BROKER TOPIC PARTITION MS`, in ms since 1970.
#![expect(clippy::print_stdout, reason = "the example's result")]

use std::{convert::Infallible, time::Duration};

use levada_client::{Cluster, ClusterOptions, Consumer, ConsumerOptions, Position, Timestamp};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [broker, topic, partition, ms] = arguments.as_slice() else {
        return Err("usage: since BROKER TOPIC PARTITION MS".into());
    };
    let (partition, since) = (partition.parse()?, Timestamp(ms.parse()?));

    let cluster = Cluster::connect(broker, ClusterOptions::default()).await?;
    let mut consumer = Consumer::new(cluster, ConsumerOptions::default());
    // The first record that is not older; those behind it may be, where producers give the times.
    consumer.assign(topic, partition, Position::Time(since)).await?;
    let end = consumer.offsets(topic, &[partition], Position::End).await?[&partition];
    let (mut count, mut scratch) = (0, Vec::new());
    while consumer.position(topic, partition).is_some_and(|at| at < end) {
        for records in consumer.poll(Duration::from_secs(1)).await? {
            records.visit(&mut scratch, |record| {
                count += u64::from(since <= record.timestamp);
                Ok::<(), Infallible>(())
            })?;
        }
    }
    println!("{count} records");
    Ok(())
}
