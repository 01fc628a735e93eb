//! Foreign commands with a time limit: what they print is kept, and none outlives its limit.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use super::clock;

/// A running command whose output (stdout and stderr together) arrives by lines.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    name: String,
}

impl Running {
    /// Starts `command` with a pipe to its standard input.
    ///
    /// # Errors
    /// When there is no such program.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        let errors = writer.try_clone().context("make a pipe")?;
        command.stdin(Stdio::piped()).stdout(writer).stderr(errors);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        // The command holds our ends of the pipe; as long as it does, the reader sees no end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(count) if count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
                if sender.send(text).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok(Self { child, lines, name })
    }

    /// Writes `text` to the command's standard input.
    ///
    /// # Errors
    /// When the command has closed it, which most often means that it ended.
    pub(crate) fn write(&mut self, text: &[u8]) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("standard input is closed")?;
        stdin
            .write_all(text)
            .and_then(|()| stdin.flush())
            .with_context(|| format!("write to {}", self.name))
    }

    /// Ends the command's standard input.
    pub(crate) fn end_input(&mut self) {
        self.child.stdin = None;
    }

    /// The next line, `None` when the command closed its output.
    ///
    /// # Errors
    /// When none came within `limit`.
    pub(crate) fn line(&mut self, limit: Duration) -> anyhow::Result<Option<String>> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("{} said nothing for {limit:?}", self.name),
        }
    }

    /// Waits for the end of the command and returns its status and the rest of its output.
    ///
    /// # Errors
    /// When it did not end within `limit`; its output so far is in the error.
    pub(crate) fn finish(mut self, limit: Duration) -> anyhow::Result<(ExitStatus, Vec<String>)> {
        self.end_input();
        let end = clock::now() + limit;
        let mut output = Vec::new();
        loop {
            match self.line(end.saturating_duration_since(clock::now())) {
                Ok(Some(line)) => output.push(line),
                Ok(None) => break,
                Err(_) => {
                    bail!("{} did not end within {limit:?}: {}", self.name, output.join("\n"))
                }
            }
        }
        Ok((self.child.wait().with_context(|| format!("wait for {}", self.name))?, output))
    }

    /// Ends the command at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        // Both fail only when the process is gone already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `command` with `input` to its end and returns its output, by lines.
///
/// # Errors
/// When it cannot be started, exceeds `limit`, or ends with another exit code than 0.
pub(crate) fn run(
    command: &mut Command,
    input: &[u8],
    limit: Duration,
) -> anyhow::Result<Vec<String>> {
    let (success, output) = run_any(command, input, limit)?;
    if success {
        return Ok(output);
    }
    bail!("{} failed: {}", command.get_program().to_string_lossy(), output.join("\n"))
}

/// As [`run`], for commands that are expected to fail: returns also whether the exit code was 0.
///
/// # Errors
/// When it cannot be started or exceeds `limit`.
pub(crate) fn run_any(
    command: &mut Command,
    input: &[u8],
    limit: Duration,
) -> anyhow::Result<(bool, Vec<String>)> {
    let mut running = Running::start(command)?;
    let stdin = running.child.stdin.take();
    thread::scope(|scope| {
        scope.spawn(move || {
            // A command that refuses its input ends with a message of its own.
            if let Some(mut stdin) = stdin {
                drop(stdin.write_all(input));
            }
        });
        let (status, output) = running.finish(limit)?;
        Ok((status.success(), output))
    })
}
