//! The result: operations × clients, on stdout and as JSON.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::ColumnResult;
use super::client::Outcome;
use super::operation::Operation;

/// All cells.
pub(crate) struct Matrix {
    operations: Vec<&'static Operation>,
    columns: Vec<ColumnResult>,
}

/// How many cells ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Matrix {
    pub(crate) fn new(operations: Vec<&'static Operation>, columns: Vec<ColumnResult>) -> Self {
        Self { operations, columns }
    }

    /// Prints the matrix, why cells were skipped, each failure with its output, and the tally as the last line.
    /// Returns whether nothing failed.
    ///
    /// # Errors
    /// When stdout is closed.
    pub(crate) fn print(&self) -> anyhow::Result<bool> {
        let text = self.render();
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("print the matrix")?;
        Ok(self.tally().failed == 0)
    }

    /// Writes every cell into `path`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let tally = self.tally();
        let cells: Vec<Value> = self
            .cells()
            .map(|(client, operation, outcome)| {
                let mut cell = json!({ "client": client, "operation": operation.name });
                let (word, more) = match outcome {
                    Outcome::Passed => ("passed", None),
                    Outcome::Failed { detail, output } => ("failed", Some(json!([detail, output]))),
                    Outcome::Skipped { reason } => ("skipped", Some(json!([reason]))),
                };
                cell["outcome"] = word.into();
                if let Some(more) = more {
                    cell["detail"] = more[0].clone();
                    if let Some(output) = more.get(1) {
                        cell["output"] = output.clone();
                    }
                }
                cell
            })
            .collect();
        let result = json!({
            "passed": tally.passed,
            "failed": tally.failed,
            "skipped": tally.skipped,
            "cells": cells,
        });
        std::fs::write(path, format!("{result:#}\n"))
            .with_context(|| format!("write {}", path.display()))
    }

    fn cells(&self) -> impl Iterator<Item = (&'static str, &'static Operation, &Outcome)> {
        self.columns.iter().flat_map(|column| {
            let client = column.client.name();
            column.outcomes.iter().map(move |(operation, outcome)| (client, *operation, outcome))
        })
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (_, _, outcome) in self.cells() {
            match outcome {
                Outcome::Passed => tally.passed += 1,
                Outcome::Failed { .. } => tally.failed += 1,
                Outcome::Skipped { .. } => tally.skipped += 1,
            }
        }
        tally
    }

    fn render(&self) -> String {
        let title_width =
            self.operations.iter().map(|operation| operation.title.len()).max().unwrap_or(0);
        let mut lines = Vec::new();
        let mut row = |title: &str, cells: Vec<&str>| {
            let cells: Vec<_> = cells.iter().map(|cell| format!(" {cell:>8}")).collect();
            lines.push(format!("{title:title_width$}{}", cells.concat()));
        };
        row("", self.columns.iter().map(|column| column.client.short_name()).collect());
        for (at, operation) in self.operations.iter().enumerate() {
            let words = self.columns.iter().map(|column| column.outcomes[at].1.word());
            row(operation.title, words.collect());
        }
        lines.push(String::new());
        lines.extend(self.skips());
        for (client, operation, outcome) in self.cells() {
            if let Outcome::Failed { detail, output } = outcome {
                lines.push(String::new());
                lines.push(format!("FAIL {client}: {} ({})", operation.title, operation.name));
                lines.push(format!("    {detail}"));
                lines.extend(output.lines().map(|line| format!("    | {line}")));
            }
        }
        let Tally { passed, failed, skipped } = self.tally();
        lines.push(String::new());
        lines.push(format!("{passed} passed, {failed} failed, {skipped} skipped"));
        lines.join("\n") + "\n"
    }

    /// One line per reason and set of operations: who was skipped in what.
    fn skips(&self) -> Vec<String> {
        let mut groups: Vec<(&str, Vec<&str>, Vec<&str>)> = Vec::new();
        for (client, operation, outcome) in self.cells() {
            let Outcome::Skipped { reason } = outcome else { continue };
            let group = match groups.iter_mut().find(|(known, ..)| known == reason) {
                Some(group) => group,
                None => {
                    groups.push((reason, Vec::new(), Vec::new()));
                    groups.last_mut().expect("just pushed")
                }
            };
            for (list, item) in [(&mut group.1, operation.name), (&mut group.2, client)] {
                if !list.contains(&item) {
                    list.push(item);
                }
            }
        }
        groups
            .into_iter()
            .map(|(reason, operations, clients)| {
                let clients = if clients.len() == self.columns.len() && clients.len() > 1 {
                    "all clients".to_owned()
                } else {
                    clients.join(", ")
                };
                format!("skipped: {reason}: {} ({clients})", operations.join(", "))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::super::operation::OPERATIONS;
    use super::*;

    fn matrix(outcomes: [Outcome; 2]) -> Matrix {
        let operations = vec![&OPERATIONS[0], &OPERATIONS[1]];
        let outcomes = operations.iter().copied().zip(outcomes).collect();
        Matrix::new(operations, vec![ColumnResult { client: Client::Kcat, outcomes }])
    }

    #[test]
    fn the_last_line_is_the_tally() {
        let skipped = Outcome::Skipped { reason: "needs consumer groups".to_owned() };
        let text = matrix([Outcome::Passed, skipped]).render();
        assert_eq!(text.lines().last(), Some("1 passed, 0 failed, 1 skipped"));
        assert!(text.contains("skipped: needs consumer groups: create_topic_configured (kcat)"));
    }

    #[test]
    fn a_failure_shows_client_operation_and_output() {
        let failed = Outcome::Failed { detail: "error 3".to_owned(), output: "a\nb".to_owned() };
        let text = matrix([failed, Outcome::Passed]).render();
        assert!(text.contains("FAIL kcat: create a topic (create_topic)"), "{text}");
        assert!(text.contains("    error 3\n    | a\n    | b\n"), "{text}");
        assert_eq!(text.lines().last(), Some("1 passed, 1 failed, 0 skipped"));
    }
}
