//! `cargo xtask sim`: builds the simulator and runs seeds; with `--bugs` every planted mistake too, each of which must
//! be found.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// The mistakes that can be planted; their names in the engine.
const BUGS: [&str; 8] = [
    "ack-before-sync",
    "retry-sync",
    "overlap-rounds",
    "recycle-before-sync",
    "rewrite-unjournaled",
    "believe-behind-end",
    "cut-by-pattern",
    "keep-producers-on-truncate",
];
/// Seeds within which a planted mistake must be found.
const BUG_SEEDS: u64 = 2_000;

/// Seeds that are run a second time: the trace must be the same.
const TWICE: u64 = 20;

/// Which seeds.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Only this one.
    #[arg(long)]
    seed: Option<u64>,
    /// Afterwards plants every mistake and says how many seeds it took to find it.
    #[arg(long)]
    bugs: bool,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(seed) = options.seed {
        return simulator(&[], &["--seed".to_owned(), seed.to_string()]);
    }
    let once_failed = include_str!("../../tests/seeds.txt").lines();
    let once_failed = once_failed.filter_map(|line| line.split(' ').next()?.parse::<u64>().ok());
    let once_failed: Vec<String> = once_failed.map(|seed| seed.to_string()).collect();
    eprintln!("sim: seeds that failed once");
    simulator(&[], &["--only".to_owned(), once_failed.join(",")])?;
    eprintln!("sim: {} seeds, the first {TWICE} of them twice", options.seeds);
    let mut arguments = vec!["--start".to_owned(), options.start.to_string()];
    arguments.extend(["--seeds".to_owned(), options.seeds.to_string()]);
    arguments.extend(["--twice".to_owned(), TWICE.to_string()]);
    simulator(&[], &arguments)?;
    if options.bugs {
        let mut missed = Vec::new();
        for bug in BUGS {
            let arguments =
                ["--seeds".to_owned(), BUG_SEEDS.to_string(), "--bug".to_owned(), bug.to_owned()];
            if simulator(&["--features", "planted-bugs"], &arguments).is_err() {
                missed.push(bug);
            }
        }
        if !missed.is_empty() {
            bail!("planted and not found within {BUG_SEEDS} seeds: {}", missed.join(", "));
        }
    }
    Ok(())
}

fn simulator(features: &[&str], arguments: &[String]) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["run", "--quiet", "--profile", "sim", "-p", "levada-tests", "--bin", "levada-sim"])
        .args(features)
        .arg("--")
        .args(arguments)
        .status()
        .context("run the simulator")?;
    if status.success() { Ok(()) } else { bail!("the simulator says no: {status}") }
}
