//! The `levada` binary: one command for everything.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 refused or failed, 2 wrong
//! usage. Nothing ever prompts.

mod args;
mod bench;
mod broker;
mod cluster;
mod config;
mod consume;
mod coordinator;
mod dev;
mod doctor;
mod ephemeral;
mod group;
mod hint;
mod limits;
mod log;
mod output;
mod produce;
mod progress;
mod signals;
mod topic;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command, LogFormat};
use output::is_broken_pipe;
use signals::Signals;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before the first thread: threads inherit what is blocked.
    let signals = if cli.command.stops_cleanly() { Signals::block().map(Some) } else { Ok(None) };
    start_logging(&cli);
    let done = signals.map_err(anyhow::Error::from).and_then(|signals| run(&cli, signals));
    match done {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", hint::sentence(&error));
            if let Some(hint) = hint::what_next(&error, &cli.connect.bootstrap) {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, signals: Option<Signals>) -> anyhow::Result<ExitCode> {
    let connect = &cli.connect;
    match (&cli.command, signals) {
        (Command::Dev(args), Some(signals)) => dev::run(args, signals),
        (Command::Broker(args), Some(signals)) => broker::run(args, signals),
        (Command::Coordinator(args), Some(signals)) => coordinator::run(args, signals),
        (Command::Topic(command), _) => topic::run(command, connect),
        (Command::Produce(args), _) => produce::run(args, connect),
        (Command::Consume(args), _) => consume::run(args, connect),
        (Command::Group(args), _) => group::run(args),
        (Command::Cluster(command), _) => cluster::run(command, connect),
        (Command::Log(command), _) => log::run(command, connect.output),
        (Command::Bench(command), signals) => bench::run(command, connect, signals),
        (Command::Doctor(args), _) => doctor::run(args, connect.output),
        (Command::Dev(_) | Command::Broker(_) | Command::Coordinator(_), None) => {
            unreachable!("signals are blocked for every command that serves")
        }
    }
}

fn start_logging(cli: &Cli) {
    let default = if cli.command.serves() { "info" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::builder()
        .parse_lossy(cli.logging.log.as_deref().unwrap_or(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.logging.log_format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(ansi).init();
        }
    }
}
