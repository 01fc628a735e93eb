//! The `levada` binary.

mod dev;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "levada", version, about = "An event-streaming platform")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a whole cluster in one process.
    Dev(dev::DevArgs),
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Dev(args) => dev::run(&args),
    }
}
