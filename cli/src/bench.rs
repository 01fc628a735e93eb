//! `levada bench`: loads a cluster and tells how fast it was.

mod embedded;
mod run;

use std::process::ExitCode;

use clap::Subcommand;

use crate::args::ConnectArgs;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Sends and reads records on a schedule, and measures
    Run(Box<run::RunArgs>),
}

/// Does it.
pub(crate) fn run(command: &BenchCommand, connect: &ConnectArgs) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Run(args) => run::run(args, connect),
    }
}
