//! The client while its broker is killed and comes back: nothing acknowledged is lost, nothing comes
//! twice, and the order holds.

use std::collections::BTreeSet;
use std::time::Duration;

use levada_client::consumer::{Consumer, ConsumerOptions, Position};
use levada_client::producer::{Producer, ProducerOptions, ProducerRecord};
use levada_client::{Cluster, ClusterOptions};
use nix::sys::signal::Signal;

use super::{Server, free_port};

const ROUNDS: usize = 4;
const RECORDS_PER_ROUND: usize = 3000;

#[test]
fn a_producer_survives_kills_of_its_broker_without_loss_or_duplicates() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let port = free_port();
    let mut server = Server::dev(directory.path(), port);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster =
        runtime.block_on(Cluster::connect(server.bootstrap(), ClusterOptions::default())).unwrap();
    // Small batches: many are in flight when the broker dies.
    let options =
        ProducerOptions { batch_bytes: 2000, linger: Duration::ZERO, ..Default::default() };
    let producer = runtime.block_on(async { Producer::start(cluster.clone(), options) });

    let mut deliveries = Vec::new();
    for round in 0..ROUNDS {
        runtime.block_on(async {
            for index in 0..RECORDS_PER_ROUND {
                let value = (round * RECORDS_PER_ROUND + index).to_string();
                let record = ProducerRecord {
                    topic: "t",
                    value: Some(value.as_bytes()),
                    ..Default::default()
                };
                deliveries.push(producer.send(&record).await.unwrap());
                // The first of the round are answered, the last are somewhere on the way.
                if index == RECORDS_PER_ROUND / 2 {
                    deliveries[deliveries.len() - RECORDS_PER_ROUND / 4].wait().await.unwrap();
                }
            }
        });
        let (status, _) = server.end(Signal::SIGKILL);
        assert!(!status.success());
        server = Server::dev(directory.path(), port);
    }

    let offsets = runtime.block_on(async {
        producer.flush().await.unwrap();
        let mut offsets = Vec::new();
        for delivery in &deliveries {
            offsets.push(delivery.wait().await.unwrap().offset.map(|offset| offset.0));
        }
        offsets
    });
    let total = ROUNDS * RECORDS_PER_ROUND;
    let known: BTreeSet<i64> = offsets.iter().flatten().copied().collect();
    assert_eq!(known.len(), offsets.iter().flatten().count(), "no offset twice");

    let values = runtime.block_on(async {
        let mut consumer = Consumer::new(cluster, ConsumerOptions::default());
        consumer.assign("t", 0, Position::Start).await.unwrap();
        let mut values: Vec<String> = Vec::new();
        while values.len() < total {
            let fetched = consumer.poll(Duration::from_secs(30)).await.unwrap();
            assert!(!fetched.is_empty(), "{} of {total} records are there", values.len());
            for records in fetched {
                let walked = records.visit(&mut Vec::new(), |record| {
                    values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                    Ok::<(), ()>(())
                });
                walked.unwrap();
            }
        }
        values
    });
    let expected: Vec<String> = (0..total).map(|index| index.to_string()).collect();
    assert!(values == expected, "every record once, in order");
}
