//! Loop devices and file systems, by the tools of the system; undone when dropped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::crash::clock;

/// How long a file system may be busy when it shall be unmounted.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(20);

/// Why this machine cannot do it, when it cannot.
pub(crate) fn missing(needs_fuse: bool) -> Option<String> {
    let output = Command::new("id").arg("-u").output().ok()?;
    if output.stdout.trim_ascii() != b"0" {
        return Some("mounting needs root".to_owned());
    }
    if needs_fuse && std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return Some("/dev/fuse cannot be opened".to_owned());
    }
    if let Err(error) = run("losetup", &["--find"]) {
        return Some(format!("no loop device: {error:#}"));
    }
    ["mkfs.ext4", "mount", "umount"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("-V").output().is_err())
        .map(|tool| format!("{tool} is not installed"))
}

/// Runs a tool; its stdout.
///
/// # Errors
/// When it fails; its stderr is in the error.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(tool).args(arguments).output().with_context(|| format!("run {tool}"))?;
    ensure!(
        output.status.success(),
        "{tool} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A loop device on a file; detached when dropped.
pub(crate) struct LoopDevice {
    /// `/dev/loopN`
    pub(crate) path: String,
}

impl LoopDevice {
    /// # Errors
    /// When there is none free, or the file cannot be one's base.
    pub(crate) fn attach(file: &Path) -> anyhow::Result<Self> {
        let path = run("losetup", &["--find", "--show", "--direct-io=on", text(file)?])?;
        Ok(Self { path })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(error) = run("losetup", &["--detach", &self.path]) {
            eprintln!("cannot detach {}: {error:#}", self.path);
        }
    }
}

/// A mounted ext4; unmounted when dropped.
pub(crate) struct Mount {
    directory: PathBuf,
    device: Option<LoopDevice>,
}

impl Mount {
    /// Makes a file system on `file`.
    ///
    /// # Errors
    /// When mkfs fails.
    pub(crate) fn format(file: &Path, options: &[&str]) -> anyhow::Result<()> {
        let device = LoopDevice::attach(file)?;
        let mut arguments = vec!["-q", "-F"];
        arguments.extend(options);
        arguments.push(&device.path);
        run("mkfs.ext4", &arguments)?;
        Ok(())
    }

    /// Mounts the file system of `file` at `directory`.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn new(file: &Path, directory: &Path) -> anyhow::Result<Self> {
        let device = LoopDevice::attach(file)?;
        run("mount", &["-t", "ext4", &device.path, text(directory)?])?;
        Ok(Self { directory: directory.to_owned(), device: Some(device) })
    }

    /// Unmounts, and detaches the device.
    ///
    /// # Errors
    /// When the file system stays busy.
    pub(crate) fn unmount(mut self) -> anyhow::Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> anyhow::Result<()> {
        let Some(device) = self.device.take() else { return Ok(()) };
        let end = clock::now() + UNMOUNT_LIMIT;
        while let Err(error) = run("umount", &[text(&self.directory)?]) {
            if clock::now() > end {
                run("umount", &["--lazy", text(&self.directory)?])?;
                bail!("unmounted while busy: {error:#}");
            }
            clock::wait(Duration::from_millis(50));
        }
        drop(device);
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            eprintln!("{error:#}");
        }
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}
