//! `levada bench`: loads a cluster and tells how fast it was.

mod compare;
mod embedded;
mod limits;
mod run;
mod search;

use std::process::ExitCode;

use clap::Subcommand;

use crate::args::ConnectArgs;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measures the bare disk and the bare loopback
    Limits(limits::LimitsArgs),
    /// Sends and reads records on a schedule, and measures
    Run(Box<run::RunArgs>),
    /// Compares runs: ratios, intervals, a verdict
    Compare(compare::CompareArgs),
    /// Finds the highest rate that holds an objective
    Search(Box<search::SearchArgs>),
}

/// Does it.
pub(crate) fn run(command: &BenchCommand, connect: &ConnectArgs) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Limits(args) => limits::run(args, connect.output),
        BenchCommand::Compare(args) => compare::run(args, connect.output),
        BenchCommand::Search(args) => search::run(args, connect),
        BenchCommand::Run(args) => run::run(args, connect),
    }
}
