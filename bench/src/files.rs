//! A directory per run: `run.json`, `run.hlog`, a `.hgrm` for each series, `timeseries.csv`,
//! `omb.json`, `summary.md`, `report.html`.

pub mod csv;
pub mod hdr;
pub mod omb;
pub mod summary;

use std::fs;
use std::path::Path;

use crate::error::BenchError;
use crate::recorder::Series;
use crate::result::RunFile;
use crate::run::Outcome;

/// The file that makes a directory that of a run.
pub const RUN_FILE: &str = "run.json";
/// The histograms, second by second.
pub const HLOG_FILE: &str = "run.hlog";

/// Writes everything of a run into `directory`, which is made.
///
/// # Errors
/// [`BenchError::System`] for the first file that cannot be written.
pub fn write(directory: &Path, run: &RunFile, outcome: &Outcome) -> Result<(), BenchError> {
    fs::create_dir_all(directory)
        .map_err(BenchError::system(format!("make {}", directory.display())))?;
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| BenchError::file(directory, error.to_string()))
    };
    put(directory, RUN_FILE, json(serde_json::to_string_pretty(run))?.as_bytes())?;
    put(directory, HLOG_FILE, &hdr::log(run, outcome)?)?;
    for series in Series::ALL {
        if let Some(samples) = outcome.samples(series) {
            let name = format!("{}.hgrm", series.name());
            put(directory, &name, hdr::percentiles(&samples).as_bytes())?;
        }
    }
    put(directory, "timeseries.csv", csv::rows(outcome).as_bytes())?;
    put(
        directory,
        "omb.json",
        json(serde_json::to_string_pretty(&omb::result(run, outcome)))?.as_bytes(),
    )?;
    put(directory, "summary.md", summary::markdown(run).as_bytes())?;
    put(directory, "report.html", crate::report::of_run(run, outcome).as_bytes())
}

/// Writes one file.
///
/// # Errors
/// [`BenchError::System`].
pub fn put(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), BenchError> {
    let path = directory.join(name);
    fs::write(&path, bytes).map_err(BenchError::system(format!("write {}", path.display())))
}

/// Reads the `run.json` of a directory.
///
/// # Errors
/// [`BenchError`] when there is none, or none of a schema that we know.
pub fn read_run(directory: &Path) -> Result<RunFile, BenchError> {
    let path = directory.join(RUN_FILE);
    let text = fs::read_to_string(&path)
        .map_err(BenchError::system(format!("read {}", path.display())))?;
    let run: RunFile =
        serde_json::from_str(&text).map_err(|error| BenchError::file(&path, error.to_string()))?;
    if run.schema != crate::result::SCHEMA {
        let reason = format!("schema {} is not {}", run.schema, crate::result::SCHEMA);
        return Err(BenchError::file(&path, reason));
    }
    Ok(run)
}
