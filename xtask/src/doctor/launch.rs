//! `xtask doctor-launch`: takes something away from this process, then becomes another program. What was taken away
//! stays so, for that program alone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::UnshareFlags;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Exit code when this machine does not allow it; the reason is on stderr.
pub(super) const SKIPPED: i32 = 77;

/// Below what an executor needs, above nothing.
const MEMLOCK_BYTES: u64 = 16 << 10;

/// What is taken away.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Surroundings {
    /// `io_uring_setup` gives EPERM.
    SeccompEperm,
    /// `io_uring_setup` gives ENOSYS.
    SeccompEnosys,
    /// Little memory may be locked.
    Memlock,
    /// The place is a ramfs.
    Ramfs,
    /// The place is a tmpfs.
    Tmpfs,
}

impl AsRef<std::ffi::OsStr> for Surroundings {
    fn as_ref(&self) -> &std::ffi::OsStr {
        match self {
            Self::SeccompEperm => "seccomp-eperm",
            Self::SeccompEnosys => "seccomp-enosys",
            Self::Memlock => "memlock",
            Self::Ramfs => "ramfs",
            Self::Tmpfs => "tmpfs",
        }
        .as_ref()
    }
}

/// What to take away, and what to become.
#[derive(clap::Args)]
pub(crate) struct Options {
    surroundings: Surroundings,
    /// Directory on which file systems are mounted; nobody else sees them.
    place: PathBuf,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Does not come back, unless it fails.
///
/// # Errors
/// When the program cannot be started.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if let Err(reason) = options.surroundings.enter(&options.place) {
        eprintln!("{reason:#}");
        std::process::exit(SKIPPED);
    }
    let failed = Command::new(&options.program).args(&options.arguments).exec();
    Err(failed).with_context(|| format!("run {}", options.program.display()))
}

impl Surroundings {
    fn enter(self, place: &Path) -> anyhow::Result<()> {
        match self {
            Self::SeccompEperm => forbid_io_uring(libc::EPERM),
            Self::SeccompEnosys => forbid_io_uring(libc::ENOSYS),
            Self::Memlock => {
                let limit = Rlimit { current: Some(MEMLOCK_BYTES), maximum: Some(MEMLOCK_BYTES) };
                setrlimit(Resource::Memlock, limit).context("lower the limit of locked memory")
            }
            Self::Ramfs => mount_for_us_alone("ramfs", place),
            Self::Tmpfs => mount_for_us_alone("tmpfs", place),
        }
    }
}

fn forbid_io_uring(error: i32) -> anyhow::Result<()> {
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(error.cast_unsigned()),
        std::env::consts::ARCH.try_into().context("a seccomp filter for this CPU")?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter(&program).context("install a seccomp filter")
}

/// Mounts where other processes do not see it, and from where it goes with the last process that does.
#[expect(unsafe_code, reason = "unshare is unsafe for the sake of one flag")]
fn mount_for_us_alone(file_system: &str, place: &Path) -> anyhow::Result<()> {
    // SAFETY: the requirement concerns FILES alone, which is not set.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .context("a mount namespace of its own")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("keep mounts from others")?;
    mount("levada-xtask", place, file_system, MountFlags::empty(), None)
        .with_context(|| format!("mount a {file_system}"))
}
