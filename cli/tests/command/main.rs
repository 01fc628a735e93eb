//! The binary as people use it: processes, files, pipes, exit codes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod errors;
#[path = "../harness/process.rs"]
mod process;
mod processes;
mod records;
mod restart;
mod topics;

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use process::{Server, levada};

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

impl Server {
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
