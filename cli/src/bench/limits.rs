//! `levada bench limits`: the bare disk and the bare loopback.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use levada_bench::limits::{Direction, Effort, Limits, measure};
use levada_bench::number::{bytes, duration};

use crate::args::Output;
use crate::output::{Table, print_json, print_line};

/// Options of `levada bench limits`.
#[derive(Debug, Args)]
pub(crate) struct LimitsArgs {
    /// A directory on the disk that is meant
    #[arg(long, short = 'd', value_name = "PATH", default_value = ".")]
    directory: PathBuf,
    /// Length of the file that is written and read, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    file_mib: u64,
    /// Milliseconds for each of some sixty points
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=600_000))]
    point_ms: u32,
}

/// Measures and prints.
pub(crate) fn run(args: &LimitsArgs, output: Output) -> anyhow::Result<ExitCode> {
    let effort =
        Effort { file_bytes: args.file_mib << 20, point_s: f64::from(args.point_ms) / 1000.0 };
    let limits = measure(&args.directory, effort, &mut |line| eprintln!("{line}"))?;
    match output {
        Output::Json => print_json(&serde_json::to_value(&limits)?)?,
        Output::Table => print(&limits)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(limits: &Limits) -> std::io::Result<()> {
    let mut best = Table::new(&["LIMIT", "MB/s"]);
    for (name, value) in [
        ("disk, sequential writes", limits.best(Direction::Write)),
        ("disk, sequential reads", limits.best(Direction::Read)),
        ("loopback", limits.best_loopback()),
    ] {
        best.row(vec![name.to_owned(), format!("{value:.0}")]);
    }
    best.print()?;
    print_line("")?;
    let mut syncs = Table::new(&["WRITE + FDATASYNC", "INTO", "p50", "p99", "p99.9", "MB/s"]);
    for sync in &limits.sync {
        let at = |name: &str| match sync.latency.at.get(name) {
            Some(ns) => duration(*ns),
            None => "too few".to_owned(),
        };
        syncs.row(vec![
            bytes(sync.bytes.into()),
            sync.state.to_string(),
            at("p50"),
            at("p99"),
            at("p99.9"),
            format!("{:.1}", sync.mb_per_s),
        ]);
    }
    syncs.print()?;
    let e = &limits.environment;
    print_line(&format!(
        "\n{} on {}, {}; Linux {}, {}",
        e.filesystem, e.device, e.directory, e.kernel, e.cpu
    ))
}
