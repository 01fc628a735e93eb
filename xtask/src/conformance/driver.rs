//! Clients that are libraries: a driver program per client, one process for all its operations.
//!
//! The protocol is in `drivers/harness.py`: a request is a JSON line, its answer a line that begins with `@@ `, all
//! other lines are output. A driver that dies or exceeds the time limit is started anew for the next operation.

use std::process::Command;

use serde_json::{Value, json};

use super::client::{Column, Outcome, Request};
use super::clock;
use super::command::Running;

/// Lines of output that a failure keeps: the last ones.
const OUTPUT_LINES: usize = 200;

/// A driver program and how to start it.
pub(crate) struct Driver {
    command: Box<dyn Fn() -> Command + Send>,
    running: Option<Running>,
}

impl Driver {
    /// A driver that `command` starts.
    pub(crate) fn new(command: impl Fn() -> Command + Send + 'static) -> Self {
        Self { command: Box::new(command), running: None }
    }

    fn ask(
        &mut self,
        request: &mut Request<'_>,
        output: &mut Vec<String>,
    ) -> anyhow::Result<Outcome> {
        let running = match &mut self.running {
            Some(running) => running,
            none => none.insert(Running::start(&mut (self.command)())?),
        };
        let question = json!({
            "operation": request.operation.name,
            "bootstrap": request.bootstrap,
            "topic": request.topic,
            "partition_of_key": request.keys,
        });
        running.write(format!("{question}\n").as_bytes())?;
        let end = clock::now() + request.operation.limit;
        loop {
            let Some(line) = running.line(end.saturating_duration_since(clock::now()))? else {
                anyhow::bail!("the driver ended in the middle of the operation");
            };
            let Some(answer) = line.strip_prefix("@@ ") else {
                output.push(line);
                continue;
            };
            let answer: Value = serde_json::from_str(answer)?;
            let detail = answer["detail"].as_str().unwrap_or_default().to_owned();
            match answer["outcome"].as_str() {
                Some("passed") => return Ok(Outcome::Passed),
                Some("skipped") => return Ok(Outcome::Skipped { reason: detail }),
                Some("failed") => return Ok(Outcome::Failed { detail, output: String::new() }),
                Some("restart") => {
                    let restart = request.restart.as_mut();
                    restart.ok_or_else(|| anyhow::anyhow!("no restart in this operation"))?()?;
                    running.write(b"restarted\n")?;
                }
                _ => anyhow::bail!("the driver says {answer}"),
            }
        }
    }
}

impl Column for Driver {
    fn perform(&mut self, request: &mut Request<'_>) -> Outcome {
        let mut lines = Vec::new();
        let answered = self.ask(request, &mut lines);
        let kept = lines.len().saturating_sub(OUTPUT_LINES);
        let output = lines[kept..].join("\n");
        match answered {
            Ok(Outcome::Failed { detail, .. }) => Outcome::Failed { detail, output },
            Ok(outcome) => outcome,
            Err(error) => {
                self.running = None;
                Outcome::Failed { detail: format!("{error:#}"), output }
            }
        }
    }
}
