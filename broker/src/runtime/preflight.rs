//! Looks at the machine before the first executor starts: io_uring, locked memory, open files, the
//! data directory, the clock. [`probe`] gathers facts, [`judge`] is pure and says what is wrong and
//! what to do; `levada doctor` prints all of it, a broker refuses to start on what is fatal.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

/// The executor refuses to start below this limit of locked memory, in bytes.
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Locked memory that the rings of one executor cost, in bytes; measured, rounded up.
const RINGS_BYTES: u64 = 64 << 10;

/// Smallest buffer memory that an executor registers, in bytes.
const IO_MEMORY_BYTES_MIN: u64 = 64 << 10;

/// Descriptors that a shard uses before the first connection or segment.
const FILES_PER_SHARD: u64 = 64;

/// Blocks are written past the page cache in multiples of this, in bytes.
const BLOCK_BYTES: usize = 4096;

/// 2024-01-01 in seconds since 1970: a clock before it was never set.
const WALL_CLOCK_S_MIN: i64 = 1_704_067_200;

/// What is to be run here.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Number of shards.
    pub shards: u16,
    /// Buffer memory wanted per shard, in bytes.
    pub io_memory_bytes: u64,
    /// Where data goes. Need not exist yet.
    pub data_dir: PathBuf,
    /// Connections expected, for the limit of open files.
    pub connections: u64,
}

/// How the kernel answered to io_uring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IoUring {
    /// It works.
    Works,
    /// A policy forbids it.
    Forbidden(Forbidder),
    /// The kernel has none, or a seccomp filter says so.
    Missing {
        /// Whether this process is under such a filter.
        filtered: bool,
    },
    /// Not enough locked memory is left.
    NoMemory,
    /// Something else.
    Failed(String),
}

/// Who forbids io_uring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbidder {
    /// The sysctl `kernel.io_uring_disabled`, with its value.
    Sysctl(u8),
    /// A seccomp filter, as containers and sandboxes have.
    Seccomp,
    /// Neither of them: a security module perhaps.
    Unknown,
}

/// What is known of the file system under the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirectory {
    /// The directory that was looked at: the data directory or its nearest parent that exists.
    pub looked_at: PathBuf,
    /// Magic number of the file system.
    pub file_system: i64,
    /// What a write past the page cache gave: `None` when it worked.
    pub direct_io_error: Option<String>,
    /// Bytes free; `None` for a file system that does not count them.
    pub free_bytes: Option<u64>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whether io_uring can be used.
    pub io_uring: IoUring,
    /// Limit of locked memory, in bytes; `None` for none.
    pub memlock_bytes: Option<u64>,
    /// Whether this process is exempt from that limit.
    pub memlock_exempt: bool,
    /// Limit of open files; `None` for none.
    pub open_files: Option<u64>,
    /// The data directory, or why nothing could be found out.
    pub data_dir: Result<DataDirectory, String>,
    /// Wall clock in seconds since 1970.
    pub wall_clock_s: i64,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Works, but not as well as it could.
    Warning,
    /// A broker starts, but what it acknowledges is not safe.
    Unsafe,
    /// A broker does not start.
    Fatal,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which thing, in a word.
    pub what: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, in a sentence.
    pub found: String,
    /// What to do about it; empty when fine.
    pub remedy: String,
}

impl Finding {
    fn fine(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, severity: Severity::Fine, found: found.into(), remedy: String::new() }
    }

    fn warning(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, severity: Severity::Warning, found: found.into(), remedy: remedy.into() }
    }

    fn not_safe(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, severity: Severity::Unsafe, found: found.into(), remedy: remedy.into() }
    }

    fn fatal(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, severity: Severity::Fatal, found: found.into(), remedy: remedy.into() }
    }
}

/// Gathers the facts. Writes and removes one block in the data directory, if that exists.
pub fn probe(plan: &Plan) -> Facts {
    Facts {
        io_uring: probe_io_uring(),
        memlock_bytes: getrlimit(Resource::Memlock).current,
        memlock_exempt: has_capability(CapabilitySet::IPC_LOCK),
        open_files: getrlimit(Resource::Nofile).current,
        data_dir: probe_directory(&plan.data_dir).map_err(|error| error.to_string()),
        wall_clock_s: wall_clock_s(),
    }
}

/// Says of every fact whether it will do, and if not, what will. `[P]`
pub fn judge(facts: &Facts, plan: &Plan) -> Vec<Finding> {
    vec![
        judge_io_uring(&facts.io_uring),
        judge_memlock(facts, plan),
        judge_open_files(facts.open_files, plan),
        judge_direct_io(&facts.data_dir),
        judge_stable_storage(&facts.data_dir),
        judge_clock(facts.wall_clock_s),
    ]
}

/// Buffer memory to register per shard: as wanted, or what the limit of locked memory leaves when
/// another process of the same user may need as much. `[P]`
pub fn io_memory_bytes(facts: &Facts, plan: &Plan) -> u64 {
    let wanted = plan.io_memory_bytes.max(IO_MEMORY_BYTES_MIN);
    let limit = match facts.memlock_bytes {
        Some(limit) if !facts.memlock_exempt => limit,
        _ => return wanted,
    };
    let share = limit / (2 * u64::from(plan.shards.max(1)));
    let room = share.saturating_sub(RINGS_BYTES) / 3;
    let mut bytes = IO_MEMORY_BYTES_MIN;
    while bytes * 2 <= room.min(wanted) {
        bytes *= 2;
    }
    bytes
}

/// What to do about a seccomp filter.
const ALLOW_CALLS: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile (docker: \
                           --security-opt seccomp=PROFILE; systemd: SystemCallFilter=@aio)";

fn judge_forbidden(forbidder: Forbidder) -> Finding {
    const WHAT: &str = "io_uring";
    match forbidder {
        Forbidder::Sysctl(value) => Finding::fatal(
            WHAT,
            format!(
                "io_uring is forbidden here by the sysctl kernel.io_uring_disabled, which is {value}"
            ),
            "sysctl -w kernel.io_uring_disabled=0, and the same in /etc/sysctl.d for the next boot; or set it to 1 and \
             run the broker in the group of kernel.io_uring_group",
        ),
        Forbidder::Seccomp => {
            Finding::fatal(WHAT, "io_uring is forbidden here by a seccomp filter", ALLOW_CALLS)
        }
        Forbidder::Unknown => Finding::fatal(
            WHAT,
            "io_uring is forbidden here, by no sysctl and no seccomp filter: perhaps by a security module",
            "see the audit log, and allow io_uring in the policy of SELinux or whichever module it is",
        ),
    }
}

fn judge_io_uring(io_uring: &IoUring) -> Finding {
    const WHAT: &str = "io_uring";
    match io_uring {
        IoUring::Works => Finding::fine(WHAT, "io_uring works"),
        IoUring::Forbidden(forbidder) => judge_forbidden(*forbidder),
        IoUring::Missing { filtered: true } => Finding::fatal(
            WHAT,
            "this kernel has no io_uring, or the seccomp filter above this process says so",
            format!("{ALLOW_CALLS}; if they are, run on Linux 5.8 or newer"),
        ),
        IoUring::Missing { filtered: false } => Finding::fatal(
            WHAT,
            "this kernel or sandbox has no io_uring",
            "run on Linux 5.8 or newer, outside of sandboxes that replace the kernel",
        ),
        IoUring::NoMemory => Finding::fatal(
            WHAT,
            "not enough locked memory is left for io_uring; processes of one user share the limit",
            "raise the limit (ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; docker: \
             --ulimit memlock=-1), or stop other users of it",
        ),
        IoUring::Failed(error) => Finding::fatal(
            WHAT,
            format!("io_uring_setup failed: {error}"),
            "see the kernel log; io_uring needs Linux 5.8 or newer",
        ),
    }
}

fn judge_memlock(facts: &Facts, plan: &Plan) -> Finding {
    const WHAT: &str = "locked memory";
    const RAISE: &str = "raise it: ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; docker: --ulimit memlock=-1";
    let Some(limit) = facts.memlock_bytes else {
        return Finding::fine(WHAT, "no limit of locked memory");
    };
    if limit < MEMLOCK_BYTES_MIN {
        return Finding::fatal(
            WHAT,
            format!(
                "the limit of locked memory is {} KiB, at least {} KiB are needed",
                limit >> 10,
                MEMLOCK_BYTES_MIN >> 10
            ),
            RAISE,
        );
    }
    let need = u64::from(plan.shards) * (3 * plan.io_memory_bytes + RINGS_BYTES);
    if limit < need && !facts.memlock_exempt {
        return Finding::warning(
            WHAT,
            format!(
                "the limit of locked memory is {} KiB, {} KiB would be best: smaller buffers are \
                 registered with the kernel",
                limit >> 10,
                need >> 10
            ),
            RAISE,
        );
    }
    Finding::fine(WHAT, format!("locked memory: {} KiB allowed", limit >> 10))
}

fn judge_open_files(limit: Option<u64>, plan: &Plan) -> Finding {
    const WHAT: &str = "open files";
    let need = FILES_PER_SHARD * u64::from(plan.shards) + plan.connections;
    match limit {
        None => Finding::fine(WHAT, "no limit of open files"),
        Some(limit) if limit < FILES_PER_SHARD * u64::from(plan.shards) => Finding::fatal(
            WHAT,
            format!(
                "{limit} open files are allowed, a broker of {} shards needs more",
                plan.shards
            ),
            "raise it: ulimit -n 65536; systemd: LimitNOFILE=65536",
        ),
        Some(limit) if limit < need => Finding::warning(
            WHAT,
            format!(
                "{limit} open files are allowed, {need} may be needed: connections beyond are refused"
            ),
            "raise it: ulimit -n 65536; systemd: LimitNOFILE=65536",
        ),
        Some(limit) => Finding::fine(WHAT, format!("open files: {limit} allowed")),
    }
}

fn judge_direct_io(data_dir: &Result<DataDirectory, String>) -> Finding {
    const WHAT: &str = "direct I/O";
    match data_dir {
        Err(error) => Finding::fatal(
            WHAT,
            format!("the data directory cannot be looked at: {error}"),
            "create it, or give this user the right to write there",
        ),
        Ok(directory) => match &directory.direct_io_error {
            None => Finding::fine(
                WHAT,
                format!("direct I/O works in {}", directory.looked_at.display()),
            ),
            Some(error) => Finding::fatal(
                WHAT,
                format!(
                    "{} ({}) takes no direct I/O: {error}",
                    directory.looked_at.display(),
                    file_system_name(directory.file_system)
                ),
                "put data_dir on ext4 or XFS; network file systems, ramfs and most FUSE mounts will not do",
            ),
        },
    }
}

fn judge_stable_storage(data_dir: &Result<DataDirectory, String>) -> Finding {
    const WHAT: &str = "stable storage";
    let Ok(directory) = data_dir else {
        return Finding::fatal(WHAT, "unknown: see direct I/O", "see direct I/O");
    };
    let name = file_system_name(directory.file_system);
    let place = directory.looked_at.display();
    match directory.file_system {
        TMPFS | RAMFS => Finding::not_safe(
            WHAT,
            format!(
                "{place} is on {name}: memory, not stable storage; a power cut loses everything"
            ),
            "put data_dir on ext4 or XFS on a disk, unless the data may be lost",
        ),
        NFS | CIFS | FUSE | NINE_P => Finding::warning(
            WHAT,
            format!("{place} is on {name}: whether a sync reaches a disk is up to somebody else"),
            "put data_dir on a local ext4 or XFS",
        ),
        _ => Finding::fine(WHAT, format!("{place} is on {name}")),
    }
}

fn judge_clock(wall_clock_s: i64) -> Finding {
    const WHAT: &str = "clock";
    if wall_clock_s < WALL_CLOCK_S_MIN {
        return Finding::warning(
            WHAT,
            "the wall clock stands before 2024: timestamps and retention by time will be wrong",
            "set the clock, run a time service (chrony, systemd-timesyncd)",
        );
    }
    Finding::fine(WHAT, "the wall clock is set")
}

const EXT4: i64 = 0xef53;
const XFS: i64 = 0x5846_5342;
const BTRFS: i64 = 0x9123_683e;
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;
const OVERLAY: i64 = 0x794c_7630;
const NFS: i64 = 0x6969;
const CIFS: i64 = 0xff53_4d42;
const FUSE: i64 = 0x6573_5546;
const NINE_P: i64 = 0x0102_1997;
const ZFS: i64 = 0x2fc1_2fc1;
const F2FS: i64 = 0xf2f5_2010;

fn file_system_name(magic: i64) -> String {
    match magic {
        EXT4 => "ext4".into(),
        XFS => "XFS".into(),
        BTRFS => "btrfs".into(),
        TMPFS => "tmpfs".into(),
        RAMFS => "ramfs".into(),
        OVERLAY => "overlayfs".into(),
        NFS => "NFS".into(),
        CIFS => "CIFS".into(),
        FUSE => "FUSE".into(),
        NINE_P => "9p".into(),
        ZFS => "ZFS".into(),
        F2FS => "F2FS".into(),
        other => format!("a file system of type {other:#x}"),
    }
}

#[expect(
    unsafe_code,
    reason = "the wrapper of io_uring_setup is unsafe for one flag we do not set"
)]
fn probe_io_uring() -> IoUring {
    use rustix::io::Errno;
    let mut params = rustix::io_uring::io_uring_params::default();
    // SAFETY: the one requirement concerns `wq_fd` under ATTACH_WQ; all flags are zero.
    match unsafe { rustix::io_uring::io_uring_setup(4, &mut params) } {
        Ok(_ring) => IoUring::Works,
        Err(Errno::PERM | Errno::ACCESS) => {
            let privileged = has_capability(CapabilitySet::SYS_ADMIN);
            IoUring::Forbidden(forbidder(io_uring_disabled(), privileged, is_filtered()))
        }
        Err(Errno::NOSYS) => IoUring::Missing { filtered: is_filtered() },
        Err(Errno::NOMEM) => IoUring::NoMemory,
        Err(errno) => IoUring::Failed(errno.to_string()),
    }
}

/// Who it was that said no. `[P]`
fn forbidder(sysctl: Option<u8>, privileged: bool, filtered: bool) -> Forbidder {
    match sysctl {
        Some(value @ 2..) => Forbidder::Sysctl(value),
        Some(1) if !privileged => Forbidder::Sysctl(1),
        _ if filtered => Forbidder::Seccomp,
        _ => Forbidder::Unknown,
    }
}

/// The sysctl, where the kernel has it.
fn io_uring_disabled() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Whether a seccomp filter is above this process.
fn is_filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

fn has_capability(capability: CapabilitySet) -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

#[expect(clippy::disallowed_methods, reason = "before any runtime exists")]
fn wall_clock_s() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or(0)
}

fn probe_directory(data_dir: &Path) -> io::Result<DataDirectory> {
    let absolute = std::path::absolute(data_dir)?;
    let looked_at = absolute
        .ancestors()
        .find(|path| path.is_dir())
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let handle = std::fs::File::open(looked_at)?;
    let facts = rustix::fs::fstatfs(&handle)?;
    let blocks: u64 = facts.f_bavail;
    let block_bytes = u64::try_from(facts.f_bsize).unwrap_or(0);
    Ok(DataDirectory {
        looked_at: looked_at.to_owned(),
        file_system: facts.f_type,
        direct_io_error: probe_direct_io(handle.as_fd()).err().map(|error| error.to_string()),
        free_bytes: (facts.f_blocks > 0).then(|| blocks.saturating_mul(block_bytes)),
    })
}

/// A block at an address that direct I/O takes.
#[repr(align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// Writes one block past the page cache into a file without a name.
fn probe_direct_io(directory: rustix::fd::BorrowedFd<'_>) -> io::Result<()> {
    let name = format!(".levada-probe-{}", std::process::id());
    let file = rustix::fs::openat(
        directory,
        name.as_str(),
        OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    );
    let outcome = file.map_err(io::Error::from).and_then(|file| {
        let block = Block([0; BLOCK_BYTES]);
        let written = rustix::io::pwrite(&file, &block.0, 0)?;
        if written == BLOCK_BYTES { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    });
    match rustix::fs::unlinkat(directory, name.as_str(), rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => outcome,
        Err(errno) => outcome.and(Err(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            shards: 2,
            io_memory_bytes: 1 << 20,
            data_dir: std::env::temp_dir(),
            connections: 1000,
        }
    }

    fn good() -> Facts {
        Facts {
            io_uring: IoUring::Works,
            memlock_bytes: None,
            memlock_exempt: false,
            open_files: Some(65_536),
            data_dir: Ok(DataDirectory {
                looked_at: "/data".into(),
                file_system: EXT4,
                direct_io_error: None,
                free_bytes: Some(1 << 40),
            }),
            wall_clock_s: WALL_CLOCK_S_MIN + 1,
        }
    }

    #[track_caller]
    fn check(facts: &Facts, what: &str, severity: Severity, remedy_says: &str) {
        let findings = judge(facts, &plan());
        let finding = findings.iter().find(|finding| finding.what == what).unwrap();
        assert_eq!(finding.severity, severity, "{finding:?}");
        assert!(finding.remedy.contains(remedy_says), "{finding:?}");
    }

    #[test]
    fn a_good_machine_has_nothing_to_complain_about() {
        assert!(judge(&good(), &plan()).iter().all(|finding| finding.severity == Severity::Fine));
    }

    #[test]
    fn forbidden_io_uring_is_fatal_and_says_who_forbids_it() {
        let facts = |forbidder| Facts { io_uring: IoUring::Forbidden(forbidder), ..good() };
        check(&facts(Forbidder::Sysctl(2)), "io_uring", Severity::Fatal, "io_uring_disabled=0");
        check(&facts(Forbidder::Seccomp), "io_uring", Severity::Fatal, "seccomp");
        check(&facts(Forbidder::Unknown), "io_uring", Severity::Fatal, "SELinux");
        assert_eq!(forbidder(Some(2), true, true), Forbidder::Sysctl(2));
        assert_eq!(forbidder(Some(1), false, true), Forbidder::Sysctl(1));
        assert_eq!(forbidder(Some(1), true, true), Forbidder::Seccomp);
        assert_eq!(forbidder(None, false, true), Forbidder::Seccomp);
        assert_eq!(forbidder(Some(0), false, false), Forbidder::Unknown);
    }

    #[test]
    fn missing_io_uring_is_fatal_and_a_filter_may_be_why() {
        let facts = |filtered| Facts { io_uring: IoUring::Missing { filtered }, ..good() };
        check(&facts(false), "io_uring", Severity::Fatal, "Linux 5.8");
        check(&facts(true), "io_uring", Severity::Fatal, "seccomp profile");
    }

    #[test]
    fn a_low_limit_of_locked_memory_is_fatal_or_a_warning() {
        let facts = Facts { memlock_bytes: Some(64 << 10), ..good() };
        check(&facts, "locked memory", Severity::Fatal, "ulimit -l");
        let facts = Facts { memlock_bytes: Some(1 << 20), ..good() };
        check(&facts, "locked memory", Severity::Warning, "LimitMEMLOCK");
        let facts = Facts { memlock_bytes: Some(1 << 20), memlock_exempt: true, ..good() };
        check(&facts, "locked memory", Severity::Fine, "");
    }

    #[test]
    fn a_file_system_without_direct_io_is_fatal() {
        let mut facts = good();
        facts.data_dir.as_mut().unwrap().direct_io_error = Some("Invalid argument".into());
        facts.data_dir.as_mut().unwrap().file_system = RAMFS;
        check(&facts, "direct I/O", Severity::Fatal, "ext4");
    }

    #[test]
    fn memory_is_no_stable_storage() {
        let mut facts = good();
        facts.data_dir.as_mut().unwrap().file_system = TMPFS;
        check(&facts, "stable storage", Severity::Unsafe, "disk");
    }

    #[test]
    fn few_open_files_are_a_warning_and_too_few_fatal() {
        check(&Facts { open_files: Some(1024), ..good() }, "open files", Severity::Warning, "-n");
        check(&Facts { open_files: Some(20), ..good() }, "open files", Severity::Fatal, "-n");
    }

    #[test]
    fn buffers_shrink_with_the_limit_of_locked_memory() {
        assert_eq!(io_memory_bytes(&good(), &plan()), 1 << 20);
        let low = Facts { memlock_bytes: Some(8 << 20), ..good() };
        assert_eq!(io_memory_bytes(&low, &plan()), 512 << 10);
        let lowest = Facts { memlock_bytes: Some(512 << 10), ..good() };
        assert_eq!(io_memory_bytes(&lowest, &plan()), IO_MEMORY_BYTES_MIN);
    }

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan { data_dir: directory.path().join("not/yet"), ..plan() };
        let facts = probe(&plan);
        assert_eq!(facts.data_dir.unwrap().looked_at, directory.path());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
