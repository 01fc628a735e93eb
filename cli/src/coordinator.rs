//! `levada coordinator`: one member of the coordinators.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use levada_coordinator::{Coordinator, CoordinatorConfig};

use crate::config::{ConfigArgs, coordinator_keys};
use crate::limits::raise_open_files;
use crate::output::print_line;
use crate::signals::Signals;

/// How often to look whether it still runs.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Options of `levada coordinator`.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where brokers connect; setting `listen`
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Directory of the command log; setting `data_dir`
    #[arg(long, value_name = "PATH")]
    data_dir: Option<String>,
}

/// Runs until a signal comes or the coordinator fails.
pub(crate) fn run(args: &CoordinatorArgs, signals: Signals) -> anyhow::Result<ExitCode> {
    let flags = [("listen", args.listen.clone()), ("data_dir", args.data_dir.clone())];
    let table = args.config.merged(&coordinator_keys(), &flags)?;
    let config = CoordinatorConfig::from_toml(&table.to_string())?;
    let stop = signals.watch()?;
    raise_open_files();
    eprintln!("data stays in {}", std::path::absolute(&config.data_dir)?.display());
    let coordinator = Coordinator::start(config)?;
    let http = coordinator.http_address().map(|address| format!(" http={address}"));
    let address = coordinator.address();
    print_line(&format!("ready: coordinator={address}{}", http.unwrap_or_default()))?;
    while let Err(flume::RecvTimeoutError::Timeout) = stop.recv_timeout(CHECK_EVERY) {
        if !coordinator.is_running() {
            coordinator.stop().context("the coordinator ended")?;
            anyhow::bail!("the coordinator ended by itself");
        }
    }
    coordinator.stop()?;
    eprintln!("stopped cleanly");
    Ok(ExitCode::SUCCESS)
}
