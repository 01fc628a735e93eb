//! Sends ten records and says where they went: `cargo run -p levada-client --example produce -- TOPIC`.
#![expect(clippy::print_stdout, reason = "the example's result")]

use levada_client::{Cluster, ClusterOptions, Producer, ProducerOptions, ProducerRecord};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "example".to_owned());
    let cluster = Cluster::connect("127.0.0.1:9092", ClusterOptions::default()).await?;
    let producer = Producer::start(cluster, ProducerOptions::default());
    let mut deliveries = Vec::new();
    for number in 0..10 {
        let (key, value) = (format!("key {}", number % 3), format!("record {number}"));
        let record = ProducerRecord {
            topic: &topic,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..Default::default()
        };
        // In a batch now; the delivery tells when and where it is in the log.
        deliveries.push(producer.send(&record).await?);
    }
    for delivery in deliveries {
        println!("{:?}", delivery.wait().await?);
    }
    Ok(())
}
