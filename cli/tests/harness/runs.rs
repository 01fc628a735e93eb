//! Runs of the bench against a server, for the tests of the bench.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::process::{Server, levada};

impl Server {
    /// A run against it, with results in `directory`.
    pub(crate) fn bench(&self, directory: &Path, arguments: &str) -> Command {
        let mut command = levada();
        command
            .args(["bench", "run", "--quiet", "--no-limits", "--bootstrap", self.bootstrap(), "-d"])
            .arg(directory)
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

pub(crate) fn read(directory: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(directory.join("run.json")).unwrap()).unwrap()
}

pub(crate) fn wait_ms(ms: u64) {
    let end = Duration::from_millis(ms);
    levada_bench::clock::pause(end);
}
