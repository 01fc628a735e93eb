//! `levada group`: says that there are no groups yet.

use std::process::ExitCode;

use clap::Args;

/// Whatever was asked for.
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    /// list, describe, seek, delete
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &GroupArgs) -> anyhow::Result<ExitCode> {
    let asked = args.rest.first().map(|word| format!(" {word}")).unwrap_or_default();
    anyhow::bail!(
        "group{asked}: brokers do not serve consumer groups yet; `levada consume TOPIC` reads partitions directly"
    )
}
