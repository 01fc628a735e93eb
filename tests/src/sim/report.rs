//! What became of a run, told so that a person can find the mistake.

use std::fmt;

use super::options::Options;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which: a rule of the storage pages, an invariant, an anomaly of the history.
    pub invariant: &'static str,
    /// With the values.
    pub what: String,
    /// When, in virtual nanoseconds.
    pub at_ns: u64,
}

/// A run that kept every promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Hash over everything that happened; equal for equal seeds.
    pub trace: u64,
    /// Virtual time, in nanoseconds.
    pub virtual_ns: u64,
    /// Disk operations.
    pub operations: u64,
    /// Lives of the process, failed recoveries included.
    pub lives: u64,
    /// Batches sent.
    pub sent: u64,
    /// Batches acknowledged.
    pub acked: u64,
    /// Batches that readers saw.
    pub reads: u64,
    /// Partitions whose damage was reported.
    pub suspects: u64,
}

/// A run that did not.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Its seed.
    pub seed: u64,
    /// Name of the bug that was planted, if one was.
    pub bug: Option<&'static str>,
    /// What it was like.
    pub options: Options,
    /// What was broken.
    pub violation: Violation,
    /// What happened last, oldest first.
    pub events: Vec<String>,
    /// Hash over everything until then.
    pub trace: u64,
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, options, violation, events, trace, .. } = self;
        let Violation { invariant, what, at_ns } = violation;
        writeln!(out, "seed {seed} FAILED: {invariant} at {} us: {what}", at_ns / 1000)?;
        writeln!(out, "options: {options:#?}")?;
        writeln!(out, "last events:")?;
        for event in events {
            writeln!(out, "  {event}")?;
        }
        writeln!(out, "{invariant} at {} us: {what}", at_ns / 1000)?;
        writeln!(out, "trace {trace:#018x}")?;
        write!(out, "replay: cargo xtask sim --seed {seed}")?;
        if let Some(bug) = self.bug {
            write!(out, " --bug {bug}")?;
        }
        Ok(())
    }
}
