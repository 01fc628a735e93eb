//! `cargo xtask`: the project's own tasks, one module each.

mod codegen;
mod conformance;
mod flatbuffers;

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Codegen => codegen::run(),
        Task::Flatbuffers => flatbuffers::run(),
        Task::Conformance(options) => conformance::run(&options),
    }
}
