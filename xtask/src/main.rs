//! `cargo xtask`: the project's own tasks, one module each.

mod codegen;

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Codegen => codegen::run(),
    }
}
