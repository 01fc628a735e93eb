//! `levada dev`: a coordinator and a broker in one process.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use levada_broker::{Broker, BrokerConfig};
use levada_coordinator::{Coordinator, CoordinatorConfig};

/// Options of `levada dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Where data stays.
    #[arg(long, default_value = "levada-data")]
    data_dir: PathBuf,
    /// Where Kafka clients connect.
    #[arg(long, default_value = "127.0.0.1:9092")]
    listen: SocketAddr,
    /// Shards; 0 takes one per CPU.
    #[arg(long, default_value_t = 0)]
    shards: u16,
}

/// Runs until SIGINT or SIGTERM.
#[expect(clippy::print_stdout, reason = "the ready line is the result")]
pub(crate) fn run(args: &DevArgs) -> anyhow::Result<()> {
    let coordinator = Coordinator::start(CoordinatorConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        http_enabled: false,
        data_dir: args.data_dir.join("coordinator"),
        ..CoordinatorConfig::default()
    })?;
    let broker = Broker::start(BrokerConfig {
        data_dir: args.data_dir.join("broker"),
        listen: args.listen,
        coordinators: vec![coordinator.address().to_string()],
        shards: args.shards,
        admin_listen: "127.0.0.1:0".to_owned(),
        ..BrokerConfig::default()
    })?;
    println!("ready: kafka={}", broker.kafka_address());
    let outcome = broker.ended().recv();
    tracing::info!(?outcome, "ended");
    Ok(())
}
