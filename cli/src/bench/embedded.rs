//! A broker for a bench without one: this binary again, as `levada dev` in a process of its own, so that
//! its CPU time and memory are not mixed with the generator's.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The process of the broker that runs now, 0 without one: a bench has one at a time.
static RUNNING: AtomicI32 = AtomicI32::new(0);

/// Tells the broker that runs to stop, for a process that ends without dropping anything.
pub(crate) fn end_all() {
    let pid = RUNNING.load(Ordering::Relaxed);
    if pid != 0 {
        // It may be gone already.
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap_or_default();
    }
}

/// A broker that ends, with its data, when it is dropped.
#[derive(Debug)]
pub(crate) struct EmbeddedBroker {
    child: Child,
    bootstrap: String,
    data: PathBuf,
}

impl EmbeddedBroker {
    /// Starts it with data below `directory`.
    pub(crate) fn start(directory: &Path, shards: u16) -> anyhow::Result<Self> {
        let data = directory.join("broker-data");
        let log = directory.join("broker.log");
        std::fs::create_dir_all(directory)
            .with_context(|| format!("make {}", directory.display()))?;
        let log = std::fs::File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let mut child = Command::new(std::env::current_exe().context("find this program")?)
            .args(["dev", "--listen", "127.0.0.1:0", "--log", "warn", "--shards"])
            .arg(shards.to_string())
            .arg("--data-dir")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is for the bench alone: it tells the broker to stop when it is done with it.
            .process_group(0)
            .spawn()
            .context("start a broker")?;
        RUNNING.store(i32::try_from(child.id()).unwrap_or(0), Ordering::Relaxed);
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).context("wait for the broker")?;
        }
        let ready = line.trim_end().strip_prefix("ready: kafka=").map(str::to_owned);
        let broker = Self { child, bootstrap: ready.clone().unwrap_or_default(), data };
        if ready.is_none() {
            bail!("the broker did not start; {} says why", directory.join("broker.log").display());
        }
        Ok(broker)
    }

    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        end_all();
        RUNNING.store(0, Ordering::Relaxed);
        if let Err(error) = self.child.wait() {
            eprintln!("cannot wait for the broker: {error}");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.data)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("cannot remove {}: {error}", self.data.display());
        }
    }
}
