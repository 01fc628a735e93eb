//! Brokers that the suite starts, kills and starts again: `levada dev`, or Apache Kafka as the control.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{clock, wire};

/// How long a broker may take until a client can produce.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Which broker.
pub(crate) enum BrokerKind {
    /// `binary` is `levada`; `arguments` go to `levada dev`.
    Levada { binary: PathBuf, arguments: Vec<String> },
    /// `jars` is the directory of Apache Kafka's jars; `properties` are added to its file, `jvm` are options of Java.
    Apache { jars: PathBuf, properties: Vec<String>, jvm: Vec<String> },
}

/// A running broker; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    address: String,
    /// What starts it; the same again after a kill.
    command: Box<dyn Fn() -> Command>,
    log: PathBuf,
}

/// Builds the binary `levada` and returns its path.
///
/// # Errors
/// When it does not build.
pub(crate) fn build(debug: bool) -> anyhow::Result<PathBuf> {
    build_with(if debug { &[] } else { &["--release"] })
}

/// The same with these arguments for cargo.
///
/// # Errors
/// When it does not build.
pub(crate) fn build_with(arguments: &[&str]) -> anyhow::Result<PathBuf> {
    eprintln!("building levada");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--package", "levada-cli", "--message-format", "json-render-diagnostics"])
        .args(arguments)
        .current_dir(super::root())
        .stderr(Stdio::inherit());
    let output = command.output().context("run cargo build")?;
    ensure!(output.status.success(), "levada does not build");
    let executable = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .find(|path| path.file_name().is_some_and(|name| name == "levada"));
    executable.context("cargo built no executable levada")
}

impl Broker {
    /// Starts a broker with no data, on a free port; its files and its log lie at `directory`.
    ///
    /// # Errors
    /// When it does not start within the time limit; the end of its log is in the error.
    pub(crate) fn start(kind: &BrokerKind, directory: &Path) -> anyhow::Result<Self> {
        Self::start_on(kind, directory, None)
    }

    /// The same, bound to one CPU.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub(crate) fn start_on(
        kind: &BrokerKind,
        directory: &Path,
        cpu: Option<u16>,
    ) -> anyhow::Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(directory)
                .with_context(|| format!("empty {}", directory.display()))?;
        }
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let command: Box<dyn Fn() -> Command> = match kind {
            BrokerKind::Levada { binary, arguments } => {
                levada(binary, arguments, directory, &address)
            }
            BrokerKind::Apache { jars, properties, jvm } => {
                apache(jars, properties, jvm, directory, port)?
            }
        };
        let command: Box<dyn Fn() -> Command> = match cpu {
            Some(cpu) => Box::new(move || bound(&command(), cpu)),
            None => command,
        };
        let log = directory.join("broker.log");
        let child = spawn(&command, &log)?;
        let mut broker = Self { child, address, command, log };
        broker.wait_until_ready()?;
        Ok(broker)
    }

    /// Of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Kills the broker with SIGKILL and starts it on the same port and data.
    ///
    /// # Errors
    /// When it does not come back.
    pub(crate) fn kill_and_start(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("kill the broker")?;
        self.child.wait().context("wait for the killed broker")?;
        self.child = spawn(&self.command, &self.log)?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let end = clock::now() + START_LIMIT;
        loop {
            if wire::api_versions(&self.address).is_ok_and(|served| !served.is_empty()) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait().context("look at the broker")? {
                bail!("the broker ended with {status}: {}", self.log_end());
            }
            ensure!(clock::now() < end, "no answer after {START_LIMIT:?}: {}", self.log_end());
            clock::pause();
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

fn spawn(command: &dyn Fn() -> Command, log: &Path) -> anyhow::Result<Child> {
    let out = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    let errors = out.try_clone().context("open the log twice")?;
    let mut command = command();
    command.stdin(Stdio::null()).stdout(out).stderr(errors);
    command.spawn().with_context(|| format!("start {}", command.get_program().display()))
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// The same program, which is then the process itself, on one CPU.
fn bound(command: &Command, cpu: u16) -> Command {
    let mut taskset = Command::new("taskset");
    taskset.args(["-c", &cpu.to_string()]).arg(command.get_program()).args(command.get_args());
    taskset
}

fn levada(
    binary: &Path,
    arguments: &[String],
    directory: &Path,
    address: &str,
) -> Box<dyn Fn() -> Command> {
    let (binary, data, address) = (binary.to_owned(), directory.join("data"), address.to_owned());
    let arguments = arguments.to_vec();
    Box::new(move || {
        let mut command = Command::new(&binary);
        command.args(["dev", "--listen", &address, "--data-dir"]).arg(&data).args(&arguments);
        command
    })
}

fn apache(
    jars: &Path,
    properties: &[String],
    jvm: &[String],
    directory: &Path,
    port: u16,
) -> anyhow::Result<Box<dyn Fn() -> Command>> {
    const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAAg";
    let controller = free_port()?;
    let added = properties.join("\n");
    let properties = directory.join("server.properties");
    let data = directory.join("data");
    let text = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={}\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\n\
         group.initial.rebalance.delay.ms=0\n\
         {added}\n",
        data.display()
    );
    fs::write(&properties, text).with_context(|| format!("write {}", properties.display()))?;
    let class_path = jars.join("*");
    let mut format = Command::new("java");
    format
        .arg("-cp")
        .arg(&class_path)
        .args(["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c"])
        .arg(&properties);
    super::command::run(&mut format, b"", START_LIMIT).context("format Apache Kafka's storage")?;
    let jvm = jvm.to_vec();
    Ok(Box::new(move || {
        let mut command = Command::new("java");
        command.args(&jvm).arg("-cp").arg(&class_path).arg("kafka.Kafka").arg(&properties);
        command
    }))
}
