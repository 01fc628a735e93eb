//! Processes of the binary under test, for all its tests.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The binary, without variables of ours.
pub(crate) fn levada() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEVADA_") {
            command.env_remove(name);
        }
    }
    command
}

/// A process that serves until it is told to stop; ended with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    stderr: Option<ChildStderr>,
    /// What its ready line says behind `ready: `.
    pub(crate) ready: String,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let stderr = child.stderr.take();
        match line.trim_end().strip_prefix("ready: ") {
            Some(ready) => Self { ready: ready.to_owned(), child, stderr },
            None => {
                child.kill().unwrap();
                let said = std::io::read_to_string(stderr.unwrap()).unwrap();
                panic!("not ready: {line:?}\n{said}");
            }
        }
    }

    pub(crate) fn dev(directory: &Path, port: u16) -> Self {
        Self::start(
            levada()
                .arg("dev")
                .arg("--data-dir")
                .arg(directory)
                .args(["--listen", &format!("127.0.0.1:{port}"), "--shards", "1"])
                .args(["--log", "warn"]),
        )
    }

    pub(crate) fn bootstrap(&self) -> &str {
        self.ready.split(' ').find_map(|part| part.strip_prefix("kafka=")).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Sends the signal and waits; what it said on stderr.
    pub(crate) fn end(mut self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        let stderr = self.stderr.take().unwrap();
        let said = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap());
        (self.child.wait().unwrap(), said.join().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}
