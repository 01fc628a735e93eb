//! The surroundings that `levada doctor` must explain, and the words that make an explanation.

use super::launch::Surroundings as Launched;

/// How a case comes about.
pub(super) enum Surroundings {
    /// A process does it to itself.
    Launched(Launched),
    /// The machine is told, and `levada` is run by a user without privileges.
    Sysctl,
}

/// What a broker does there.
#[derive(Clone, Copy)]
pub(super) enum Then {
    /// It ends.
    Refuses,
    /// It starts.
    Warns,
}

/// One of them.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) surroundings: Surroundings,
    /// What `levada doctor` calls the thing.
    pub(super) what: &'static str,
    pub(super) severity: &'static str,
    /// Without these words the cause is not named.
    pub(super) cause: &'static [&'static str],
    /// Without these words nobody knows what to do.
    pub(super) remedy: &'static [&'static str],
    pub(super) then: Then,
}

/// All of them.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "seccomp-eperm",
        surroundings: Surroundings::Launched(Launched::SeccompEperm),
        what: "io_uring",
        severity: "fatal",
        cause: &["io_uring is forbidden", "seccomp filter"],
        remedy: &["allow io_uring_setup", "seccomp profile", "docker"],
        then: Then::Refuses,
    },
    Case {
        name: "seccomp-enosys",
        surroundings: Surroundings::Launched(Launched::SeccompEnosys),
        what: "io_uring",
        severity: "fatal",
        cause: &["no io_uring", "seccomp filter"],
        remedy: &["allow io_uring_setup", "seccomp profile", "Linux 5.8"],
        then: Then::Refuses,
    },
    Case {
        name: "sysctl",
        surroundings: Surroundings::Sysctl,
        what: "io_uring",
        severity: "fatal",
        cause: &["io_uring is forbidden", "sysctl kernel.io_uring_disabled"],
        remedy: &["sysctl -w kernel.io_uring_disabled=0"],
        then: Then::Refuses,
    },
    Case {
        name: "memlock",
        surroundings: Surroundings::Launched(Launched::Memlock),
        what: "locked memory",
        severity: "fatal",
        cause: &["limit of locked memory is 16 KiB", "512 KiB are needed"],
        remedy: &["ulimit -l", "LimitMEMLOCK", "--ulimit memlock"],
        then: Then::Refuses,
    },
    Case {
        name: "ramfs",
        surroundings: Surroundings::Launched(Launched::Ramfs),
        what: "direct I/O",
        severity: "fatal",
        cause: &["(ramfs)", "takes no direct I/O"],
        remedy: &["put data_dir on ext4 or XFS"],
        then: Then::Refuses,
    },
    Case {
        name: "tmpfs",
        surroundings: Surroundings::Launched(Launched::Tmpfs),
        what: "stable storage",
        severity: "unsafe",
        cause: &["tmpfs", "memory, not stable storage", "a power cut loses everything"],
        remedy: &["put data_dir on ext4 or XFS on a disk"],
        then: Then::Warns,
    },
];
