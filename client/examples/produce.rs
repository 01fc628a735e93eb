//! Sends ten records and says where they went: `cargo run -p levada-client --example produce -- BROKER TOPIC`.
#![expect(clippy::print_stdout, reason = "the example's result")]

use levada_client::{
    Cluster, ClusterOptions, Producer, ProducerOptions, ProducerRecord, RecordHeader,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let broker = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "example".to_owned());

    let cluster = Cluster::connect(&broker, ClusterOptions::default()).await?;
    let producer = Producer::start(cluster, ProducerOptions::default());
    let mut deliveries = Vec::new();
    for number in 0..10 {
        let (key, value) = (format!("key {}", number % 3), format!("record {number}"));
        // Records of one key share a partition and keep their order.
        let record = ProducerRecord {
            topic: &topic,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[RecordHeader { key: b"from", value: Some(b"example") }],
            ..Default::default()
        };
        // In a batch now; the delivery tells when and where it is in the log.
        let delivery = producer.send(&record).await?;
        deliveries.push((value, delivery));
    }
    for (value, delivery) in deliveries {
        let ack = delivery.wait().await?;
        let offset = ack.offset.map_or("?".to_owned(), |offset| offset.to_string());
        println!("{value} is {}@{offset}", ack.partition);
    }
    Ok(())
}
