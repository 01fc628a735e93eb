//! The machine and the build, as far as they explain a figure.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a run stood on. Empty where the system does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of the bench.
    pub version: String,
    /// The command as typed.
    pub command_line: Vec<String>,
    /// Name of the host.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// Model of the first CPU.
    pub cpu: String,
    /// CPUs that are online.
    pub cpus: u64,
    /// How their frequency is chosen.
    pub governor: String,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// The directory on whose disk was measured.
    pub directory: String,
    /// Its filesystem, with mount options.
    pub filesystem: String,
    /// Its device.
    pub device: String,
    /// The device's write cache, as the kernel sees it.
    pub write_cache: String,
}

impl Environment {
    /// Looks around; `directory` is where the disk is.
    pub fn look(directory: &Path) -> Self {
        let read = |path: &str| {
            std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        let cpuinfo = read("/proc/cpuinfo");
        let value_of = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = value_of(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        let directory = existing(directory);
        let mount = mount_of(&directory, &read("/proc/self/mountinfo")).unwrap_or_default();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command_line: std::env::args().collect(),
            host: read("/proc/sys/kernel/hostname"),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: value_of(&cpuinfo, "model name").unwrap_or_default(),
            cpus: std::thread::available_parallelism()
                .map_or(0, |cpus| crate::number::count(cpus.get())),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_bytes: kib * 1024,
            write_cache: read(&format!("/sys/dev/block/{}/queue/write_cache", mount.number)),
            directory: directory.display().to_string(),
            filesystem: mount.filesystem,
            device: mount.device,
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Mount {
    number: String,
    filesystem: String,
    device: String,
}

/// The nearest directory above that is there, without links.
fn existing(directory: &Path) -> PathBuf {
    let start = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    start.ancestors().find_map(|path| path.canonicalize().ok()).unwrap_or(start)
}

/// The mount of a directory: the longest mount point that it lies under.
fn mount_of(directory: &Path, mountinfo: &str) -> Option<Mount> {
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (number, point, options) = (left.get(2)?, left.get(4)?, left.get(5)?);
        let mount = Mount {
            number: (*number).to_owned(),
            filesystem: format!("{} ({options})", right.first()?),
            device: (*right.get(1)?).to_owned(),
        };
        Some((PathBuf::from(point), mount))
    };
    mountinfo
        .lines()
        .filter_map(parse)
        .filter(|(point, _)| directory.starts_with(point))
        .max_by_key(|(point, _)| point.as_os_str().len())
        .map(|(_, mount)| mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_above_a_directory_is_its_own() {
        let info = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                    30 22 0:30 / /data rw,noatime shared:2 - xfs /dev/nvme0n1 rw";
        let mount = mount_of(Path::new("/data/broker"), info).unwrap();
        assert_eq!(mount.filesystem, "xfs (rw,noatime)");
        assert_eq!(mount.device, "/dev/nvme0n1");
        assert_eq!(mount_of(Path::new("/database"), info).unwrap().number, "254:0");
    }

    #[test]
    fn this_machine_says_something_of_itself() {
        let environment = Environment::look(Path::new("not/there/yet"));
        assert!(!environment.kernel.is_empty());
        assert!(environment.cpus > 0);
        assert!(!environment.filesystem.is_empty());
    }
}
