//! `cargo xtask`: the project's own tasks, one module each.

mod bench_check;
mod codegen;
mod conformance;
#[cfg_attr(
    not(feature = "powercut"),
    allow(dead_code, reason = "shared with the runs behind the feature")
)]
mod crash;
mod doctor;
mod flatbuffers;
mod hostile;
mod powercut;
mod screenshots;
mod sim;
mod versus;

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
    /// Measures the bench: a build against itself, and against a broker that answers later.
    BenchCheck(bench_check::Options),
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
    /// Takes away what a broker needs, and reads what `levada doctor` says about it.
    Doctor(doctor::Options),
    /// One case of `doctor`: becomes another program in surroundings that lack something.
    #[command(hide = true)]
    DoctorLaunch(doctor::launch::Options),
    /// Measures what strangers do to a well-behaved client, and to the broker's memory.
    Hostile(hostile::Options),
    /// Runs the same loads on Levada and on another broker, in turn, and compares them.
    Versus(versus::Options),
    /// Opens the pages of a run and of a comparison in Chromium and takes pictures of them.
    Screenshots(screenshots::Options),
    /// Measures the start with many segments, and with a full journal.
    Starts(crash::starts::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::BenchCheck(options) => bench_check::run(&options),
        Task::Codegen => codegen::run(),
        Task::Flatbuffers => flatbuffers::run(),
        Task::Conformance(options) => conformance::run(&options),
        Task::Crash(options) => crash::run(&options),
        Task::Sim(options) => sim::run(&options),
        Task::Powercut(options) => powercut::run(&options),
        Task::Fulldisk(options) => powercut::run_fulldisk(&options),
        Task::Doctor(options) => doctor::run(&options),
        Task::DoctorLaunch(options) => doctor::launch::run(&options),
        Task::Hostile(options) => hostile::run(&options),
        Task::Versus(options) => versus::run(&options),
        Task::Screenshots(options) => screenshots::run(&options),
        Task::Starts(options) => crash::starts::run(&options),
    }
}
