//! `levada bench`: loads a cluster and tells how fast it was.

mod compare;
mod embedded;
mod limits;
mod run;
mod search;

use std::process::ExitCode;

use clap::Subcommand;
use levada_bench::run::Interrupt;

use crate::args::ConnectArgs;
use crate::signals::Signals;

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

impl BenchCommand {
    /// Whether it loads a broker; if so, it can be asked to end with what there is.
    pub(crate) fn runs(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Search(_))
    }
}

/// Does it.
pub(crate) fn run(
    command: &BenchCommand,
    connect: &ConnectArgs,
    signals: Option<Signals>,
) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::default();
    if let Some(signals) = signals {
        let asked = interrupt.clone();
        let first = move || asked.ask();
        signals.watch_with("nothing is written", first, embedded::end_all)?;
    }
    match command {
        BenchCommand::Limits(args) => limits::run(args, connect.output),
        BenchCommand::Compare(args) => compare::run(args, connect.output),
        BenchCommand::Search(args) => search::run(args, connect, &interrupt),
        BenchCommand::Run(args) => run::run(args, connect, &interrupt),
    }
}
