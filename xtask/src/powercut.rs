//! `cargo xtask powercut` and `cargo xtask fulldisk`: the broker on disks that lose power or are small.
//!
//! The disk of the power cut is a file of a FUSE file system that lives in this process and keeps every write to itself
//! until it is told to flush; on it a loop device, an ext4 and the broker. At the cut a part of what was not flushed is
//! gone, some of it torn, and the broker is killed.
//!
//! Both need the feature `powercut`; without it the command runs itself again with it.

#[cfg(feature = "powercut")]
mod fulldisk;
#[cfg(feature = "powercut")]
mod fuse;
#[cfg(feature = "powercut")]
mod mounts;
#[cfg(feature = "powercut")]
mod rounds;
#[cfg(feature = "powercut")]
mod volatile;

use std::path::PathBuf;

/// How often, and which broker.
#[derive(clap::Args)]
#[cfg_attr(
    not(feature = "powercut"),
    allow(dead_code, reason = "read by the run with the feature")
)]
pub(crate) struct Options {
    /// Power cuts.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Builds the broker with this mistake in it, and expects that loss is found.
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// A `levada` that is built already; with `--bug`, one with the feature `planted-bugs`.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Decides moments, sizes and what is lost.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Which broker.
#[derive(clap::Args)]
#[cfg_attr(
    not(feature = "powercut"),
    allow(dead_code, reason = "read by the run with the feature")
)]
pub(crate) struct FulldiskOptions {
    /// A `levada` that is built already.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

#[cfg(feature = "powercut")]
pub(crate) use fulldisk::run as run_fulldisk;
#[cfg(feature = "powercut")]
pub(crate) use rounds::run;

/// Runs this command again, with the feature.
#[cfg(not(feature = "powercut"))]
pub(crate) fn run(_: &Options) -> anyhow::Result<()> {
    run_with_feature()
}

/// Runs this command again, with the feature.
#[cfg(not(feature = "powercut"))]
pub(crate) fn run_fulldisk(_: &FulldiskOptions) -> anyhow::Result<()> {
    run_with_feature()
}

#[cfg(not(feature = "powercut"))]
fn run_with_feature() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    let failed = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--quiet", "--package", "levada-xtask", "--features", "powercut"])
        .arg("--manifest-path")
        .arg(crate::crash::root().join("Cargo.toml"))
        .arg("--")
        .args(std::env::args_os().skip(1))
        .exec();
    Err(anyhow::Error::new(failed).context("run cargo"))
}
