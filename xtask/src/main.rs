//! `cargo xtask`: the project's own tasks, one module each.

mod codegen;
mod conformance;
#[cfg_attr(
    not(feature = "powercut"),
    allow(dead_code, reason = "shared with the runs behind the feature")
)]
mod crash;
mod flatbuffers;
mod powercut;
mod sim;

use clap::{Parser, Subcommand};

/// Tasks of the Levada workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Makes the committed generated code anew.
    Codegen,
    /// Makes the committed FlatBuffers code anew; needs the feature `flatc`.
    Flatbuffers,
    /// Runs foreign Kafka clients against a fresh broker.
    Conformance(conformance::Options),
    /// Kills a broker under load again and again, and looks for what it acknowledged.
    Crash(crash::Options),
    /// Runs the simulator: the production engine on a disk that forgets, one seed after another.
    Sim(sim::Options),
    /// Cuts the power under a broker again and again, and looks for what it acknowledged.
    Powercut(powercut::Options),
    /// Fills a small file system under a broker.
    Fulldisk(powercut::FulldiskOptions),
    /// Measures the start with many segments, and with a full journal.
    Starts(crash::starts::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Codegen => codegen::run(),
        Task::Flatbuffers => flatbuffers::run(),
        Task::Conformance(options) => conformance::run(&options),
        Task::Crash(options) => crash::run(&options),
        Task::Sim(options) => sim::run(&options),
        Task::Powercut(options) => powercut::run(&options),
        Task::Fulldisk(options) => powercut::run_fulldisk(&options),
        Task::Starts(options) => crash::starts::run(&options),
    }
}
