//! `levada broker`: one broker of a cluster.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use levada_broker::{Broker, BrokerConfig, BrokerHandle};

use crate::config::{ConfigArgs, broker_keys};
use crate::limits::raise_open_files;
use crate::output::print_line;
use crate::signals::Signals;

/// Options of `levada broker`.
#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where Kafka clients connect; setting `listen`
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Directory of the log; setting `data_dir`
    #[arg(long, value_name = "PATH")]
    data_dir: Option<String>,
    /// Number of shards; setting `shards`
    #[arg(long)]
    shards: Option<u16>,
    /// The coordinators of the cluster; setting `coordinators`
    #[arg(long, value_name = "HOST:PORT,...")]
    coordinators: Option<String>,
}

/// Runs until a signal comes or the broker fails.
pub(crate) fn run(args: &BrokerArgs, signals: Signals) -> anyhow::Result<ExitCode> {
    let flags = [
        ("listen", args.listen.clone()),
        ("data_dir", args.data_dir.clone()),
        ("shards", args.shards.map(|shards| shards.to_string())),
        ("coordinators", args.coordinators.clone()),
    ];
    let config = BrokerConfig::from_table(args.config.merged(&broker_keys(), &flags)?)?;
    let stop = signals.watch()?;
    raise_open_files();
    let place = std::path::absolute(&config.data_dir)?;
    eprintln!("data stays in {}; waiting for {}", place.display(), config.coordinators.join(", "));
    let broker = Broker::start_unless(config, &stop)?;
    print_line(&format!("ready: kafka={}", broker.kafka_address()))?;
    say_admin(&broker);
    until_stopped(&broker, &stop, || Ok(()))?;
    stop_cleanly(broker)?;
    Ok(ExitCode::SUCCESS)
}

/// Says where the admin port is.
pub(crate) fn say_admin(broker: &BrokerHandle) {
    if let Some(address) = broker.admin_address() {
        eprintln!("metrics: http://{address}/metrics  health: http://{address}/health");
    }
}

/// Waits for a signal, or fails with the broker; asks `check` once in a while.
pub(crate) fn until_stopped(
    broker: &BrokerHandle,
    stop: &flume::Receiver<()>,
    mut check: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    const CHECK_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
    loop {
        let event = flume::Selector::new()
            .recv(stop, |_| Ok(()))
            .recv(broker.ended(), |ended| {
                let reason = ended.unwrap_or_else(|_| Err("its threads are gone".to_owned()));
                Err(reason.err().unwrap_or_else(|| "it stopped by itself".to_owned()))
            })
            .wait_timeout(CHECK_EVERY);
        match event {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => return Err(anyhow!("the broker ended: {reason}")),
            Err(_) => check()?,
        }
    }
}

/// Stops it and says so.
pub(crate) fn stop_cleanly(broker: BrokerHandle) -> anyhow::Result<()> {
    broker.stop().map_err(|reason| anyhow!("stop the broker: {reason}"))?;
    eprintln!("stopped cleanly");
    Ok(())
}
