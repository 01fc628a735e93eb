//! Runs seeds of the simulator; `cargo xtask sim` builds and calls it.

use std::process::ExitCode;

use clap::Parser;
use levada_tests::sim;

/// Runs seeds of the simulator.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Only this one.
    #[arg(long)]
    seed: Option<u64>,
    /// Stops after this many failures.
    #[arg(long, default_value_t = 5)]
    failures: usize,
}

#[expect(clippy::print_stdout, reason = "a command that reports")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    sim::quiet_panics();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.start..arguments.start + arguments.seeds,
    };
    let mut failed = 0;
    for seed in seeds {
        match sim::run(seed) {
            Ok(passed) => {
                if arguments.seed.is_some() {
                    println!("seed {seed} passed: {passed:?}");
                }
            }
            Err(failure) => {
                println!("{failure}");
                failed += 1;
                if failed >= arguments.failures {
                    break;
                }
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
