//! The binary as people use it: processes, files, pipes, exit codes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod errors;
mod processes;
mod records;
mod restart;
mod topics;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The binary, without variables of ours.
fn levada() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEVADA_") {
            command.env_remove(name);
        }
    }
    command
}

/// So many lines.
fn numbered(count: u32, line: impl Fn(u32) -> String) -> String {
    let mut text = String::new();
    for index in 0..count {
        text.push_str(&line(index));
        text.push('\n');
    }
    text
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that serves until it is told to stop; ended with the test.
struct Server {
    child: Child,
    stderr: Option<ChildStderr>,
    /// What its ready line says behind `ready: `.
    ready: String,
}

impl Server {
    fn start(command: &mut Command) -> Self {
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

    fn dev(directory: &Path, port: u16) -> Self {
        Self::start(
            levada()
                .arg("dev")
                .arg("--data-dir")
                .arg(directory)
                .args(["--listen", &format!("127.0.0.1:{port}"), "--shards", "1"])
                .args(["--log", "warn"]),
        )
    }

    fn bootstrap(&self) -> &str {
        self.ready.split(' ').find_map(|part| part.strip_prefix("kafka=")).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Sends the signal and waits; what it said on stderr.
    fn end(mut self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        let stderr = self.stderr.take().unwrap();
        let said = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap());
        (self.child.wait().unwrap(), said.join().unwrap())
    }

    /// A command against this server.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = levada();
        command.args(arguments).args(["--bootstrap", self.bootstrap()]);
        command
    }

    /// Runs a command against this server to its end.
    fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments), b"")
    }

    /// The same; it must succeed. Its stdout.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        succeeded(&self.run(arguments))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// Runs a command with that stdin to its end.
fn run(command: &mut Command, stdin: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    // It may end without having read everything.
    let writer = std::thread::spawn(move || input.write_all(&bytes).is_ok());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// It must have failed with that exit code; its stderr.
#[track_caller]
fn failed(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(output.stdout, b"", "results only when there are some");
    stderr
}
