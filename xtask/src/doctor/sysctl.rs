//! `kernel.io_uring_disabled`, set for the time of one case. 1 is enough, and what runs as root goes on: it forbids
//! io_uring to processes without privileges.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::Context;

/// Who runs `levada` then: a user, and a group, without privileges.
pub(super) const NOBODY: u32 = 65_534;

const PATH: &str = "/proc/sys/kernel/io_uring_disabled";
const UNPRIVILEGED: &str = "1";

/// The sysctl's value before; set again when dropped.
pub(super) struct Restored(Option<String>);

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(before) = &self.0
            && let Err(error) = fs::write(PATH, before)
        {
            eprintln!("{PATH} is {UNPRIVILEGED}, and was {}: {error}", before.trim());
        }
    }
}

/// Forbids io_uring to [`NOBODY`], who gets `place`; else the reason why not.
///
/// # Errors
/// When `place` cannot be given away.
pub(super) fn forbid(place: &Path) -> anyhow::Result<Result<Restored, String>> {
    let Ok(before) = fs::read_to_string(PATH) else {
        return Ok(Err("this kernel has no kernel.io_uring_disabled".to_owned()));
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(Err("it needs root".to_owned()));
    }
    chown(place, Some(NOBODY), Some(NOBODY)).context("give the place away")?;
    if before.trim() != "0" {
        return Ok(Ok(Restored(None)));
    }
    Ok(match fs::write(PATH, UNPRIVILEGED) {
        Ok(()) => Ok(Restored(Some(before))),
        Err(error) => Err(format!("{PATH}: {error}")),
    })
}
