//! The process under test: `levada dev`, started, killed and started again on one data directory.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{clock, stop};

/// How long a broker may take until it says that it is ready.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long a broker may take to stop after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(20);

/// Builds the binary `levada` and returns its path.
///
/// # Errors
/// When it does not build.
pub(crate) fn build(arguments: &[&str]) -> anyhow::Result<PathBuf> {
    eprintln!("building levada");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--package", "levada-cli", "--message-format", "json-render-diagnostics"])
        .args(arguments)
        .current_dir(super::root())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo build")?;
    ensure!(output.status.success(), "levada does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .find(|path| path.file_name().is_some_and(|name| name == "levada"))
        .context("cargo built no executable levada")
}

/// How a broker is started; the same for all its lives.
#[derive(Clone)]
pub(crate) struct BrokerSettings {
    /// The binary `levada`.
    pub(crate) binary: PathBuf,
    /// Where it keeps its data.
    pub(crate) data: PathBuf,
    /// Its log, to which every life appends.
    pub(crate) log: PathBuf,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// How many shards.
    pub(crate) shards: u16,
    /// Further arguments.
    pub(crate) arguments: Vec<String>,
    /// The bug that the broker is built and told to have.
    pub(crate) planted_bug: Option<String>,
}

impl BrokerSettings {
    /// `binary` on the data directory `data` and a free port.
    ///
    /// # Errors
    /// When no port is free.
    pub(crate) fn new(binary: &Path, data: &Path, log: &Path) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        Ok(Self {
            binary: binary.to_owned(),
            data: data.to_owned(),
            log: log.to_owned(),
            address: listener.local_addr()?,
            shards: 2,
            arguments: Vec::new(),
            planted_bug: None,
        })
    }
}

/// A running broker; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    ready: Receiver<()>,
    log: PathBuf,
    spawned: Instant,
}

impl Broker {
    /// Starts the process, and does not wait for it.
    ///
    /// # Errors
    /// When the system does not start it.
    pub(crate) fn spawn(settings: &BrokerSettings) -> anyhow::Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&settings.log)
            .with_context(|| format!("open {}", settings.log.display()))?;
        let mut command = Command::new(&settings.binary);
        command
            .args(["dev", "--listen", &settings.address.to_string()])
            .args(["--shards", &settings.shards.to_string(), "--data-dir"])
            .arg(&settings.data)
            .args(&settings.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(bug) = &settings.planted_bug {
            command.env("LEVADA_PLANTED_BUG", bug);
        }
        let spawned = clock::now();
        let mut child =
            command.spawn().with_context(|| format!("start {}", settings.binary.display()))?;
        let out = child.stdout.take().expect("asked for above");
        let (tell, ready) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if line.starts_with("ready: ") && tell.send(()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, ready, log: settings.log.clone(), spawned })
    }

    /// Of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the broker says that it is ready; the time since its start.
    ///
    /// # Errors
    /// When it ends instead, or does not say so within a minute; the end of its log is in the error.
    pub(crate) fn wait_until_ready(&mut self) -> anyhow::Result<Duration> {
        let end = self.spawned + START_LIMIT;
        loop {
            match self.ready.recv_timeout(LOOK) {
                Ok(()) => return Ok(clock::now() - self.spawned),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("wait for the broker")?;
                    bail!("the broker ended with {status}; its log ends:\n{}", self.log_end());
                }
            }
            stop::check()?;
            ensure!(clock::now() < end, "not ready after {START_LIMIT:?}:\n{}", self.log_end());
        }
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// When it ended by itself before: the end of its log is in the error.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the broker had ended with {status}; its log ends:\n{}", self.log_end());
        }
        self.child.kill().context("kill the broker")?;
        self.child.wait().context("wait for the killed broker")?;
        Ok(())
    }

    /// SIGTERM, and waits until the process has stopped cleanly; the time that it took.
    ///
    /// # Errors
    /// When it does not, or says that it failed.
    pub(crate) fn stop(mut self) -> anyhow::Result<Duration> {
        let begin = clock::now();
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status().context("run kill")?;
        ensure!(status.success(), "kill -TERM {id}: {status}");
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the stop ended with {status}:\n{}", self.log_end());
                return Ok(clock::now() - begin);
            }
            ensure!(clock::now() - begin < STOP_LIMIT, "no stop:\n{}", self.log_end());
            clock::wait(LOOK);
        }
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
