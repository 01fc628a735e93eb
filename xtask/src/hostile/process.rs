//! The broker seen from outside: its memory, its metrics, its CPU.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How long the admin port may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// For the broker and the client alike; only root may have less than 0.
const PRIORITY: i32 = -15;

/// Lets this process, and the broker after it, have `files` open files.
///
/// # Errors
/// When the system allows fewer.
pub(super) fn raise_open_files(files: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= files) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(files));
    let raised = Rlimit { current: Some(files), maximum };
    setrlimit(Resource::Nofile, raised)
        .with_context(|| format!("raise the limit of open files to {files}; ulimit -n"))
}

/// Puts this thread, and what it starts from now on, before other work of the machine, which is not what is measured.
pub(super) fn come_first() {
    if rustix::process::setpriority_process(None, PRIORITY).is_err() {
        eprintln!("no right to a higher priority: other work of this machine is measured, too");
    }
}

/// Which CPU the broker gets, and which one this process.
pub(super) enum Placement {
    Apart {
        broker: usize,
        us: usize,
    },
    /// There is but one.
    Together,
}

impl Placement {
    /// The last two of those that this process may use.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(super) fn choose() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None).context("ask for the CPUs")?;
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).rev();
        Ok(match (cpus.next(), cpus.next()) {
            (Some(broker), Some(us)) => Self::Apart { broker, us },
            _ => Self::Together,
        })
    }

    /// Puts this thread, and what it starts from now on, on the broker's CPU.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn for_broker(&self) -> anyhow::Result<()> {
        match self {
            Self::Apart { broker, .. } => pin(*broker),
            Self::Together => Ok(()),
        }
    }

    /// Puts this thread, and what it starts from now on, on the other CPU.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn for_us(&self) -> anyhow::Result<()> {
        match self {
            Self::Apart { us, .. } => pin(*us),
            Self::Together => Ok(()),
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apart { broker, us } => {
                write!(formatter, "one shard on CPU {broker}, client and strangers on CPU {us}")
            }
            Self::Together => write!(formatter, "one shard, client and strangers on one CPU"),
        }
    }
}

fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("move to CPU {cpu}"))
}

/// Resident memory of a process.
pub(super) struct Memory {
    pub(super) now_bytes: u64,
    /// Since its start.
    pub(super) peak_bytes: u64,
}

impl Memory {
    /// # Errors
    /// When there is no such process.
    pub(super) fn of(process: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))
            .context("read the broker's status")?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            value.with_context(|| format!("no {name} in the broker's status"))
        };
        Ok(Self { now_bytes: kib("VmRSS:")? << 10, peak_bytes: kib("VmHWM:")? << 10 })
    }
}

/// The figures of `/metrics` that have no labels.
pub(super) struct Metrics(BTreeMap<String, u64>);

impl Metrics {
    /// # Errors
    /// When the admin port does not answer.
    pub(super) fn get(admin: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&admin, ANSWER_LIMIT).context("admin port")?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: levada\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("read /metrics")?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "/metrics: {answer}");
        Ok(Self::parse(&answer))
    }

    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("levada_")?.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        });
        Self(pairs.collect())
    }

    /// The metric called `name`, without prefix; 0 when there is none.
    pub(super) fn value(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// How much more each is than it was.
    pub(super) fn since(&self, before: &Self) -> Self {
        let more = self
            .0
            .iter()
            .map(|(name, value)| (name.clone(), value.saturating_sub(before.value(name))));
        Self(more.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_by_name_and_subtracted() {
        let before = Metrics::parse("# HELP levada_x x\r\nlevada_x 3\nlevada_api{api=\"a\"} 9\n");
        assert_eq!(before.value("x"), 3);
        assert_eq!(before.value("y"), 0);
        let now = Metrics::parse("levada_x 10\nlevada_y 2\n").since(&before);
        assert_eq!((now.value("x"), now.value("y")), (7, 2));
    }
}
