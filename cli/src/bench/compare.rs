//! `levada bench compare`: runs against each other.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use levada_bench::compare::side::Side;
use levada_bench::compare::{Unlike, compare};
use levada_bench::verdict::FailIf;
use levada_bench::{files, report};

use crate::args::Output;
use crate::output::{print_json, print_line};

/// Options of `levada bench compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// What the others are compared with: the directory of a run or of several, or an .hlog, .hgrm (in
    /// ms) or `OpenMessaging` Benchmark .json
    first: PathBuf,
    /// The others
    #[arg(required = true)]
    others: Vec<PathBuf>,
    /// Exits with 1 when this holds: 'p99>+5%', 'throughput<-3%'; may be given several times
    #[arg(long, value_name = "CONDITION", value_parser = FailIf::parse)]
    fail_if: Vec<FailIf>,
    /// Compares even what is not alike, or void
    #[arg(long)]
    unlike: bool,
    /// Writes a page with the curves over each other into this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Compares and prints.
pub(crate) fn run(args: &CompareArgs, output: Output) -> anyhow::Result<ExitCode> {
    let paths = std::iter::once(&args.first).chain(&args.others);
    let sides = paths.map(|path| Side::read(path)).collect::<Result<Vec<_>, _>>()?;
    let unlike = if args.unlike { Unlike::Allowed } else { Unlike::Refused };
    let comparison = compare(&sides, &args.fail_if, unlike)?;
    if let Some(path) = &args.report {
        let page = report::of_comparison(&comparison, &sides);
        let directory = path.parent().unwrap_or(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files::put(directory, &name, page.as_bytes())?;
    }
    match output {
        Output::Json => print_json(&serde_json::to_value(&comparison)?)?,
        Output::Table => print_line(comparison.markdown().trim_end())?,
    }
    Ok(if comparison.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
