//! `levada dev`: a whole cluster in one process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use levada_broker::{Broker, BrokerConfig};
use levada_coordinator::{Coordinator, CoordinatorConfig};

use crate::broker::{say_admin, stop_cleanly, until_stopped};
use crate::config::{ConfigArgs, broker_keys};
use crate::ephemeral::EphemeralDirectory;
use crate::limits::raise_open_files;
use crate::output::print_line;
use crate::signals::Signals;

/// Options of `levada dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Number of brokers, on ports that follow each other
    #[arg(long, default_value_t = 1)]
    brokers: u16,
    /// Where data stays
    #[arg(long, env = "LEVADA_DATA_DIR", value_name = "PATH", default_value = "levada-data")]
    data_dir: PathBuf,
    /// Uses a temporary directory and removes it at the end
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Where Kafka clients connect
    #[arg(
        long,
        env = "LEVADA_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9092"
    )]
    listen: SocketAddr,
    /// Where /metrics and /health are served; port 0 takes any free port
    #[arg(
        long,
        env = "LEVADA_ADMIN_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:0"
    )]
    admin_listen: String,
    /// Number of shards; 0 takes one per CPU
    #[arg(long, env = "LEVADA_SHARDS", default_value_t = 0)]
    shards: u16,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs until a signal comes or a part fails.
pub(crate) fn run(args: &DevArgs, signals: Signals) -> anyhow::Result<ExitCode> {
    if args.brokers != 1 {
        bail!(
            "--brokers {}: a cluster of several brokers needs replication, which Levada does not have yet; \
             run one broker",
            args.brokers
        );
    }
    let stop = signals.watch()?;
    raise_open_files();
    // Removed last of all: declared before everything that uses it.
    let ephemeral = if args.ephemeral { Some(EphemeralDirectory::create()?) } else { None };
    let root = ephemeral.as_ref().map_or(args.data_dir.as_path(), EphemeralDirectory::path);
    let root = std::path::absolute(root)?;
    let fate = if ephemeral.is_some() { "goes at the end, from" } else { "stays in" };
    eprintln!("data {fate} {}; Ctrl-C stops", root.display());

    let coordinator = Coordinator::start(CoordinatorConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        http_enabled: false,
        data_dir: root.join("coordinator"),
        ..CoordinatorConfig::default()
    })?;
    let broker = Broker::start_unless(broker_config(args, &root, coordinator.address())?, &stop)?;
    print_line(&format!("ready: kafka={}", broker.kafka_address()))?;
    say_admin(&broker);
    until_stopped(&broker, &stop, || {
        if !coordinator.is_running() {
            bail!("the coordinator ended; its log says why");
        }
        Ok(())
    })?;
    stop_cleanly(broker)?;
    coordinator.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn broker_config(
    args: &DevArgs,
    root: &Path,
    coordinator: SocketAddr,
) -> anyhow::Result<BrokerConfig> {
    let mut table = args.config.merged(&broker_keys(), &[])?;
    // What dev decides by itself, or has a flag for.
    for key in ["data_dir", "listen", "coordinators", "admin_listen", "shards"] {
        table.remove(key);
    }
    let config = BrokerConfig::from_table(table)?;
    let config = BrokerConfig {
        data_dir: root.join("broker"),
        listen: args.listen,
        coordinators: vec![coordinator.to_string()],
        admin_listen: args.admin_listen.clone(),
        shards: args.shards,
        ..config
    };
    config.validate()?;
    Ok(config)
}
