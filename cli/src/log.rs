//! `levada log`: prints or checks segment files, batch by batch, without a broker.

mod segment;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use levada_engine::segment::layout::SegmentName;
use serde_json::{Value, json};

use crate::args::Output;
use crate::output::{Table, human_bytes, print_json, stdout};
use crate::progress::{Counted, Progress};
use segment::{Found, Report, read_segment};

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Prints every batch of segment files
    Dump(LogArgs),
    /// Checks segment files; exit code 1 when one is damaged
    Verify(LogArgs),
}

/// Options of `levada log dump` and `levada log verify`.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// A segment file, or a directory in which all are sought
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

pub(crate) fn run(command: &LogCommand, output: Output) -> anyhow::Result<ExitCode> {
    let (LogCommand::Dump(args) | LogCommand::Verify(args)) = command;
    let mut files = Vec::new();
    for path in &args.paths {
        collect(path, &mut files)?;
    }
    if files.is_empty() {
        bail!("no segment file (<offset>-<generation>.log) in {}", args.paths[0].display());
    }
    files.sort();
    match command {
        LogCommand::Dump(_) => dump(&files, output),
        LogCommand::Verify(_) => verify(&files, output),
    }
}

/// The file itself, whatever its name is; of a directory, all segment files below it.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let context = || format!("read {}", path.display());
    if !std::fs::metadata(path).with_context(context)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).with_context(context)? {
        let entry = entry.with_context(context)?;
        let kind = entry.file_type().with_context(context)?;
        let name = entry.file_name();
        let is_segment = name.to_str().is_some_and(|name| SegmentName::parse(name).is_some());
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() && is_segment {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn dump(files: &[PathBuf], output: Output) -> anyhow::Result<ExitCode> {
    let mut out = stdout();
    let mut sound = true;
    for file in files {
        if output == Output::Table {
            writeln!(out, "{}", file.display())?;
        }
        let mut print = |found: &Found| match output {
            Output::Table => writeln!(out, "{}", found.line()),
            Output::Json => writeln!(out, "{}", found.json(file)),
        };
        let report = read_segment(file, &mut print)?;
        sound &= report.damage.is_none();
        match output {
            Output::Table => writeln!(out, "{}\n", report.sentence())?,
            Output::Json => writeln!(out, "{}", report_json(file, &report))?,
        }
    }
    out.flush()?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verify(files: &[PathBuf], output: Output) -> anyhow::Result<ExitCode> {
    let lengths = files.iter().map(|file| std::fs::metadata(file).map_or(0, |found| found.len()));
    let mut progress = Progress::new(Some(lengths.sum()), Counted::Bytes);
    let mut table = Table::new(&["SEGMENT", "BATCHES", "RECORDS", "OFFSETS", "BYTES", "VERDICT"]);
    let (mut rows, mut done_bytes, mut sound) = (Vec::new(), 0, true);
    for file in files {
        let report = read_segment(file, &mut |found| {
            progress.set(done_bytes + found.end_position());
            Ok(())
        })?;
        done_bytes += report.file_bytes;
        progress.set(done_bytes);
        sound &= report.damage.is_none();
        rows.push(report_json(file, &report));
        table.row(vec![
            file.display().to_string(),
            report.batches.to_string(),
            report.records.to_string(),
            report.offsets.map_or_else(|| "-".to_owned(), |(from, end)| format!("{from}..{end}")),
            human_bytes(report.batch_bytes),
            report.damage.as_ref().map_or_else(|| "good".to_owned(), ToString::to_string),
        ]);
    }
    progress.clear();
    match output {
        Output::Json => print_json(&Value::Array(rows))?,
        Output::Table => table.print()?,
    }
    if !sound {
        eprintln!(
            "the newest segment of a partition may end like this after a crash or while a broker runs: \
             the journal has the rest; anywhere else it is damage"
        );
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report_json(file: &Path, report: &Report) -> Value {
    json!({
        "segment": file.display().to_string(),
        "file_bytes": report.file_bytes,
        "batch_bytes": report.batch_bytes,
        "batches": report.batches,
        "records": report.records,
        "start": report.offsets.map(|(start, _)| start.get()),
        "end": report.offsets.map(|(_, end)| end.get()),
        "damage": report.damage.as_ref().map(|damage| json!({
            "position": damage.position,
            "reason": damage.reason,
        })),
    })
}
