//! The rounds of `cargo xtask powercut`: FUSE file, loop device, ext4, broker, load, cut, and again.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use super::Options;
use super::fuse::{FILE, SharedDisk};
use super::mounts::{self, Mount};
use super::volatile::VolatileDisk;
use crate::crash::broker::{self, BrokerSettings};
use crate::crash::{self, Plan, stop};

const DISK_BYTES: u64 = 4 << 30;
/// Larger batches end long before the disk is full.
const LOAD_BYTES_MAX: u64 = 768 << 20;

/// Runs the cuts, or says why this machine cannot.
///
/// # Errors
/// When a promise is broken; with a planted bug, when none is.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(reason) = mounts::missing(true) {
        eprintln!("powercut: skipped: {reason}");
        return Ok(());
    }
    stop::watch()?;
    let binary = match (&options.binary, &options.bug) {
        (Some(binary), _) => binary.clone(),
        (None, None) => broker::build(&["--release"])?,
        (None, Some(_)) => broker::build(&["--release", "--features", "planted-bugs"])?,
    };
    let directory = crash::fresh_directory("powercut")?;
    let (fuse, data) = (directory.path.join("fuse"), directory.path.join("mount"));
    for path in [&fuse, &data] {
        fs::create_dir(path).with_context(|| format!("create {}", path.display()))?;
    }
    let image = StableImage(directory.path.join("stable.img"));
    let disk = SharedDisk::new(VolatileDisk::create(&image.0, DISK_BYTES)?);
    let session = disk.serve(&fuse).context("mount the FUSE file system")?;
    let ended = cut_rounds(options, &binary, &disk, &directory.path);
    session.umount_and_join().context("unmount the FUSE file system")?;
    drop(image);
    let clean = ended?;
    match (&options.bug, clean) {
        (None, true) => directory.remove(),
        (None, false) => bail!("promises were broken; see {}", directory.path.display()),
        (Some(bug), true) => bail!("the planted bug {bug} was not found"),
        (Some(bug), false) => {
            eprintln!("powercut: the planted bug {bug} was found, as it must be");
            directory.remove()
        }
    }
}

/// The largest file of a run, of no use afterwards.
struct StableImage(PathBuf);

impl Drop for StableImage {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Whether every promise was kept.
fn cut_rounds(
    options: &Options,
    binary: &std::path::Path,
    disk: &SharedDisk,
    directory: &std::path::Path,
) -> anyhow::Result<bool> {
    let file = directory.join("fuse").join(FILE);
    let mount_point = directory.join("mount");
    Mount::format(&file, &["-b", "4096"])?;
    let mut mount = Some(Mount::new(&file, &mount_point)?);
    let mut settings =
        BrokerSettings::new(binary, &mount_point.join("data"), &directory.join("broker.log"))?;
    settings.planted_bug.clone_from(&options.bug);
    let plan = Plan {
        rounds: options.rounds,
        seed: options.seed,
        producers: 4,
        bytes_max: LOAD_BYTES_MAX,
    };
    let ran = crash::run_rounds(&plan, &settings, &mut |broker, random| {
        let cut = disk.cut(random).context("cut the power")?;
        // It may have ended by itself: its disk is gone.
        drop(broker);
        if let Some(mount) = mount.take() {
            mount.unmount()?;
        }
        disk.power_on();
        eprintln!("power cut: {cut:?}");
        mount = Some(Mount::new(&file, &mount_point).context("mount after the cut")?);
        Ok(())
    });
    if let Some(mount) = mount.take() {
        mount.unmount()?;
    }
    match ran {
        Ok(outcome) => {
            outcome.report("powercut", &plan)?;
            Ok(outcome.verdict.is_clean())
        }
        // A broker that refuses to start on what a cut left found its own loss.
        Err(error) if options.bug.is_some() && stop::check().is_ok() => {
            ensure!(!format!("{error:#}").contains("mount"), error);
            eprintln!("{error:#}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
