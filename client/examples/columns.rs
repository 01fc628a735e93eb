//! Writes bytes into partition 0 in columns and adds them up without decoding a record: `cargo run -p
//! levada-client --example columns -- BROKER TOPIC`.
#![expect(clippy::print_stdout, reason = "the example's result")]

use std::time::Duration;

use levada_client::consumer::VisitError;
use levada_client::{Cluster, ClusterOptions, Consumer, ConsumerOptions, Encoding, Position};
use levada_client::{Producer, ProducerOptions, ProducerRecord};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [broker, topic] = arguments.as_slice() else { return Err("usage: BROKER TOPIC".into()) };
    let cluster = Cluster::connect(broker, ClusterOptions::default()).await?;
    let options = ProducerOptions { encoding: Encoding::Columnar, ..Default::default() };
    let producer = Producer::start(cluster.clone(), options);
    for number in 1..=100_u8 {
        let (partition, value) = (Some(0), Some(&[number][..]));
        producer.send(&ProducerRecord { topic, partition, value, ..Default::default() }).await?;
    }
    producer.flush().await?;
    let mut consumer = Consumer::new(cluster, ConsumerOptions::default());
    consumer.assign(topic, 0, Position::Start).await?;
    let (mut scratch, mut sum) = (Vec::new(), 0);
    while consumer.position(topic, 0).is_some_and(|at| at.get() < 100) {
        for records in consumer.poll(Duration::from_secs(1)).await? {
            records.visit_batches(|batch| {
                let columns = batch.columns(&mut scratch, 1 << 20).map_err(VisitError::Batch)?;
                let values = columns.iter().flat_map(|columns| columns.values().flatten());
                sum += values.flatten().map(|byte| u32::from(*byte)).sum::<u32>();
                Ok::<(), VisitError<String>>(())
            })?;
        }
    }
    println!("sum {sum}");
    Ok(())
}
