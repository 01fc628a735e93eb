//! What happens when a part of a broker breaks.

use std::net::SocketAddr;

use levada_coordinator::{Coordinator, CoordinatorConfig};

use super::*;
use crate::shard::mailbox::Mail;

#[test]
fn a_panic_in_one_shard_ends_the_whole_broker_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let coordinator = Coordinator::start(CoordinatorConfig {
        listen: any,
        http_enabled: false,
        data_dir: directory.path().join("coordinator"),
        ..CoordinatorConfig::default()
    })
    .unwrap();
    let config = BrokerConfig {
        data_dir: directory.path().join("broker"),
        listen: any,
        admin_listen: String::new(),
        coordinators: vec![coordinator.address().to_string()],
        shards: 3,
        pin_shards: false,
        io_memory_bytes: 64 << 10,
        ..BrokerConfig::default()
    };
    let broker = Broker::start(config.clone()).unwrap();
    let breaks = Mail::Call(Box::new(|_| Box::pin(async { panic!("planted") })));
    assert!(broker.mail[1].send(breaks).is_ok());
    let reason = broker.ended().recv().unwrap().unwrap_err();
    assert!(reason.contains("shard 1 panicked in mail"), "{reason}");
    // Nothing is left behind: it starts again.
    drop(broker);
    Broker::start(config).unwrap().stop().unwrap();
}
