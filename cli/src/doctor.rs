//! `levada doctor`: looks at this machine as a broker would, and says what to do.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use levada_broker::BrokerConfig;
use levada_broker::runtime::preflight::{DataDirectory, Facts, Plan, Severity, judge, probe};
use serde_json::{Value, json};

use crate::args::Output;
use crate::config::{ConfigArgs, broker_keys};
use crate::limits::raise_open_files;
use crate::output::{human_bytes, print_json, stdout};

/// Below this a broker soon refuses to write.
const FREE_BYTES_FATAL: u64 = 64 << 20;
/// Below this it may soon.
const FREE_BYTES_LOW: u64 = 2 << 30;

/// Options of `levada doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Where data shall stay
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Number of shards; 0 takes one per CPU
    #[arg(long)]
    shards: Option<u16>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Something looked at.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    severity: Severity,
    found: String,
    remedy: String,
}

pub(crate) fn run(args: &DoctorArgs, output: Output) -> anyhow::Result<ExitCode> {
    let flags = [
        ("data_dir", args.data_dir.as_ref().map(|path| path.display().to_string())),
        ("shards", args.shards.map(|shards| shards.to_string())),
    ];
    let config = BrokerConfig::from_table(args.config.merged(&broker_keys(), &flags)?)?;
    // As a broker does before it looks.
    raise_open_files();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = u16::try_from(cpus).unwrap_or(u16::MAX);
    let plan = Plan {
        shards: if config.shards == 0 { cpus } else { config.shards },
        io_memory_bytes: config.io_memory_bytes,
        data_dir: config.data_dir,
        connections: config.connections_max.min(1000),
    };
    let facts = probe(&plan);
    let findings = judge(&facts, &plan).into_iter().map(|finding| Finding {
        what: finding.what,
        severity: finding.severity,
        found: finding.found,
        remedy: finding.remedy,
    });
    let findings: Vec<Finding> = findings.chain(judge_free_space(&facts)).collect();
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Fine);
    match output {
        Output::Json => print_json(&to_json(&findings, worst))?,
        Output::Table => print_text(&findings, worst)?,
    }
    Ok(if worst >= Severity::Unsafe { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn judge_free_space(facts: &Facts) -> Option<Finding> {
    let DataDirectory { looked_at, free_bytes, .. } = facts.data_dir.as_ref().ok()?;
    let free_bytes = (*free_bytes)?;
    let found = format!("{} free in {}", human_bytes(free_bytes), looked_at.display());
    let (severity, remedy) = if free_bytes < FREE_BYTES_FATAL {
        (
            Severity::Fatal,
            "make room, or choose another data_dir: without room a broker refuses every write",
        )
    } else if free_bytes < FREE_BYTES_LOW {
        (
            Severity::Warning,
            "make room, or set retention.ms and retention.bytes of the topics lower",
        )
    } else {
        (Severity::Fine, "")
    };
    Some(Finding { what: "free space", severity, found, remedy: remedy.to_owned() })
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Fine => "good",
        Severity::Warning => "warning",
        Severity::Unsafe => "unsafe",
        Severity::Fatal => "fatal",
    }
}

fn to_json(findings: &[Finding], worst: Severity) -> Value {
    let rows = findings.iter().map(|finding| {
        json!({
            "what": finding.what,
            "severity": severity_name(finding.severity),
            "found": finding.found,
            "remedy": finding.remedy,
        })
    });
    json!({ "verdict": severity_name(worst), "findings": rows.collect::<Vec<_>>() })
}

fn print_text(findings: &[Finding], worst: Severity) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = stdout();
    for finding in findings {
        writeln!(
            out,
            "{:<8} {:<15} {}",
            severity_name(finding.severity),
            finding.what,
            finding.found
        )?;
        if !finding.remedy.is_empty() {
            writeln!(out, "{:<24} -> {}", "", finding.remedy)?;
        }
    }
    writeln!(out)?;
    let verdict = match worst {
        Severity::Fine => "A broker runs well here.",
        Severity::Warning => "A broker runs here; see the warnings.",
        Severity::Unsafe => {
            "A broker starts here, but what it acknowledges is not safe; see what is unsafe."
        }
        Severity::Fatal => "A broker does not start here; see what is fatal.",
    };
    writeln!(out, "{verdict}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use levada_broker::runtime::preflight::IoUring;

    use super::*;

    #[test]
    fn a_disk_that_fills_is_a_warning_and_a_full_one_fatal() {
        let facts = |free_bytes| Facts {
            io_uring: IoUring::Works,
            memlock_bytes: None,
            memlock_exempt: false,
            open_files: None,
            data_dir: Ok(DataDirectory {
                looked_at: "/d".into(),
                file_system: 0,
                direct_io_error: None,
                free_bytes: Some(free_bytes),
            }),
            wall_clock_s: 0,
        };
        let severity = |free_bytes| judge_free_space(&facts(free_bytes)).unwrap().severity;
        assert_eq!(severity(0), Severity::Fatal);
        assert_eq!(severity(1 << 30), Severity::Warning);
        assert_eq!(severity(1 << 40), Severity::Fine);
        let unknown = Facts { data_dir: Err("gone".to_owned()), ..facts(0) };
        assert_eq!(judge_free_space(&unknown), None, "told elsewhere");
        let mut uncounted = facts(0);
        uncounted.data_dir.as_mut().unwrap().free_bytes = None;
        assert_eq!(judge_free_space(&uncounted), None, "ramfs does not count");
    }
}
