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
    /// Runs exactly these, and nothing else.
    #[arg(long, value_delimiter = ',')]
    only: Vec<u64>,
    /// Runs this many of the seeds a second time; the trace must be the same.
    #[arg(long, default_value_t = 0)]
    twice: u64,
    /// Stops after this many failures.
    #[arg(long, default_value_t = 5)]
    failures: usize,
    /// Plants this mistake in the engine and expects that it is found; needs the feature `planted-bugs`.
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
}

#[cfg(feature = "planted-bugs")]
fn plant(name: &str) -> Result<(), String> {
    use levada_engine::planted::PlantedBug;

    let bug = PlantedBug::from_name(name).ok_or_else(|| format!("there is no bug {name}"))?;
    sim::plant(Some(bug));
    Ok(())
}

#[cfg(not(feature = "planted-bugs"))]
fn plant(name: &str) -> Result<(), String> {
    Err(format!("this simulator was built without the feature planted-bugs, so not with {name}"))
}

#[expect(clippy::print_stdout, reason = "a command that reports")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    sim::quiet_panics();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.start..arguments.start + arguments.seeds,
    };
    if let Some(name) = &arguments.bug {
        if let Err(error) = plant(name) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
        let first = seeds.start;
        for seed in seeds {
            if sim::run(seed).is_err() {
                println!("{name}: found by seed {seed}, after {} seeds", seed - first + 1);
                return ExitCode::SUCCESS;
            }
        }
        println!("{name}: not found");
        return ExitCode::FAILURE;
    }
    let mut failed = 0;
    let mut again = arguments.twice;
    let (mut acked, mut lives, mut ran) = (0, 0, 0);
    let seeds: Vec<u64> = if arguments.only.is_empty() { seeds.collect() } else { arguments.only };
    for seed in seeds {
        match sim::run(seed) {
            Ok(passed) => {
                if again > 0 {
                    again -= 1;
                    if sim::run(seed).ok().map(|second| second.trace) != Some(passed.trace) {
                        println!("seed {seed} gave another trace the second time");
                        failed += 1;
                    }
                }
                (acked, lives, ran) = (acked + passed.acked, lives + passed.lives, ran + 1);
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
    println!(
        "{ran} seeds passed ({lives} lives of a broker, {acked} batches acknowledged), {failed} failed"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
