//! `cargo xtask doctor`: puts a broker into surroundings in which it cannot do its work, and reads what `levada doctor`
//! says about them: the cause, what to do, exit code 1. `levada dev` and `levada broker` must refuse, or warn, in the
//! same words.
//!
//! Each case is a process of its own, started by this binary again ([`launch`]): what it takes away from itself is gone
//! for `levada`, and for nobody else. A case that this machine does not allow is skipped.

mod cases;
pub(crate) mod launch;
mod sysctl;

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::crash::{self, broker, clock};
use cases::{CASES, Case, Surroundings, Then};

/// Which broker, and how far it may go.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A `levada` that is built already.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Sets the sysctl `kernel.io_uring_disabled` to 1 for a moment, which other users of this machine notice.
    #[arg(long)]
    sysctl: bool,
}

/// How long a `levada` may take to say what it has to say.
const SAY_LIMIT: Duration = Duration::from_secs(20);
/// How long one may take to end, once told.
const END_LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// Runs every case.
///
/// # Errors
/// When a case is not explained as it should be.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => broker::build(&["--release"])?,
    };
    let binary = fs::canonicalize(&binary).with_context(|| binary.display().to_string())?;
    let directory = crash::fresh_directory("doctor")?;
    let mut out = std::io::stdout().lock();
    let mut failed = Vec::new();
    for case in CASES {
        let place = directory.path.join(case.name);
        fs::create_dir(&place)?;
        let patient = Patient { case, binary: &binary, place: &place };
        match patient.examine(options) {
            Ok(Examined::Explained(told)) => writeln!(out, "doctor: {}: {told}", case.name)?,
            Ok(Examined::Skipped(reason)) => {
                writeln!(out, "doctor: {}: skipped: {reason}", case.name)?;
            }
            Err(error) => {
                writeln!(out, "doctor: {}: FAILED: {error:#}", case.name)?;
                failed.push(case.name);
            }
        }
    }
    ensure!(failed.is_empty(), "{}; see {}", failed.join(", "), directory.path.display());
    directory.remove()
}

enum Examined {
    Explained(String),
    Skipped(String),
}

/// What `levada doctor` found about one thing.
struct Finding {
    severity: String,
    found: String,
    remedy: String,
}

/// One case, and where it happens.
struct Patient<'a> {
    case: &'a Case,
    binary: &'a Path,
    place: &'a Path,
}

impl Patient<'_> {
    fn examine(&self, options: &Options) -> anyhow::Result<Examined> {
        let _restored_at_the_end = match self.case.surroundings {
            Surroundings::Sysctl if !options.sysctl => {
                let reason = "it concerns the whole machine; --sysctl allows it";
                return Ok(Examined::Skipped(reason.to_owned()));
            }
            Surroundings::Sysctl => match sysctl::forbid(self.place)? {
                Ok(guard) => Some(guard),
                Err(reason) => return Ok(Examined::Skipped(reason)),
            },
            Surroundings::Launched(_) => None,
        };
        let (code, said) = self.end_of("doctor", &["doctor", "-o", "json"])?;
        if code == launch::SKIPPED {
            return Ok(Examined::Skipped(said.trim().to_owned()));
        }
        ensure!(code == 1, "levada doctor ended with {code}, not 1:\n{said}");
        let finding = self.finding(&said)?;
        let Case { severity, cause, remedy, .. } = self.case;
        ensure!(finding.severity == *severity, "{}, not {severity}", finding.severity);
        has_words("the cause", &finding.found, cause)?;
        has_words("the remedy", &finding.remedy, remedy)?;
        let (_, text) = self.end_of("doctor.text", &["doctor"])?;
        ensure!(text.contains(&finding.found), "not in the table: {}\n{text}", finding.found);
        self.broker_says_the_same(&finding)?;
        let Finding { severity, found, remedy } = finding;
        let then = match self.case.then {
            Then::Refuses => "dev and broker refuse in the same words",
            Then::Warns => "dev and broker start, and warn in the same words",
        };
        Ok(Examined::Explained(format!(
            "exit 1, {severity}: {found}\n    -> {remedy}\n    ({then})"
        )))
    }

    /// The one about the case's thing.
    fn finding(&self, said: &str) -> anyhow::Result<Finding> {
        let answer: Value = serde_json::from_str(said).with_context(|| said.to_owned())?;
        let rows = answer["findings"].as_array().context("doctor names no findings")?;
        let what = self.case.what;
        let row = rows
            .iter()
            .find(|row| row["what"] == what)
            .with_context(|| format!("doctor does not look at {what}: {said}"))?;
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        Ok(Finding { severity: text("severity"), found: text("found"), remedy: text("remedy") })
    }

    fn broker_says_the_same(&self, finding: &Finding) -> anyhow::Result<()> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let commands: [&[&str]; 2] = [
            &["dev", "--admin-listen", "127.0.0.1:0", "--listen", &address],
            // Nobody coordinates there: it is said before anybody is waited for.
            &[
                "broker",
                "--set",
                "admin_listen=",
                "--coordinators",
                &address,
                "--listen",
                "127.0.0.1:0",
            ],
        ];
        for arguments in commands {
            let name = arguments[0];
            let ends = matches!(self.case.then, Then::Refuses);
            let (code, said) = if ends {
                self.end_of(name, arguments)?
            } else {
                // `dev` says that it is ready; `broker` waits, and has said what it had to say.
                let last = if name == "dev" { "ready: kafka=" } else { finding.remedy.as_str() };
                (0, self.said_until(name, arguments, last)?)
            };
            ensure!(ends == (code == 1), "levada {name} ended with {code}:\n{said}");
            // The directory that it names may be another: its own, below the one that doctor saw.
            has_words(&format!("what levada {name} said"), &said, self.case.cause)?;
            ensure!(
                said.contains(&finding.remedy),
                "levada {name} does not say: {}\n{said}",
                finding.remedy
            );
        }
        Ok(())
    }

    /// Exit code of `levada` in these surroundings, and all that it said.
    fn end_of(&self, name: &str, arguments: &[&str]) -> anyhow::Result<(i32, String)> {
        let log = self.place.join(format!("{name}.log"));
        let mut child = Ended(self.spawn(arguments, &log)?);
        let end = clock::now() + SAY_LIMIT;
        loop {
            if let Some(status) = child.0.try_wait()? {
                let said = fs::read_to_string(&log)?;
                let code = status.code().with_context(|| format!("{status}:\n{said}"))?;
                return Ok((code, said));
            }
            if clock::now() > end {
                let said = fs::read_to_string(&log)?;
                bail!("levada {name} does not end within {SAY_LIMIT:?}:\n{said}");
            }
            clock::wait(LOOK);
        }
    }

    /// What `levada` said until `last`; it is told to stop then.
    fn said_until(&self, name: &str, arguments: &[&str], last: &str) -> anyhow::Result<String> {
        let log = self.place.join(format!("{name}.log"));
        let mut child = Ended(self.spawn(arguments, &log)?);
        let end = clock::now() + SAY_LIMIT;
        loop {
            let said = fs::read_to_string(&log)?;
            if said.contains(last) {
                child.stop()?;
                return Ok(said);
            }
            let status = child.0.try_wait()?;
            ensure!(status.is_none(), "levada {name} ended:\n{said}");
            ensure!(clock::now() < end, "levada {name} does not say {last:?}:\n{said}");
            clock::wait(LOOK);
        }
    }

    fn spawn(&self, arguments: &[&str], log: &Path) -> anyhow::Result<Child> {
        let data = self.place.join("data");
        let mut command = match self.case.surroundings {
            Surroundings::Launched(surroundings) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("doctor-launch").arg(surroundings).arg(self.place).arg(self.binary);
                command
            }
            Surroundings::Sysctl => {
                let mut command = Command::new(self.binary);
                command.uid(sysctl::NOBODY).gid(sysctl::NOBODY);
                command
            }
        };
        let log = File::create(log)?;
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(data)
            .args(["--shards", "1"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {command:?}"))
    }
}

fn has_words(what: &str, text: &str, words: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
    ensure!(missing.is_empty(), "{what} lacks {missing:?}: {text}");
    Ok(())
}

/// A process that is killed when dropped.
struct Ended(Child);

impl Ended {
    fn stop(&mut self) -> anyhow::Result<()> {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let end = clock::now() + END_LIMIT;
        while self.0.try_wait()?.is_none() {
            ensure!(clock::now() < end, "process {id:?} does not stop");
            clock::wait(LOOK);
        }
        Ok(())
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
