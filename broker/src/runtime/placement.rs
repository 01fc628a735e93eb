//! Which shard runs on which CPU. The executor's own placement reads sysfs and ignores the CPU set
//! of the process; ours asks the kernel what the process may use.

use rustix::thread::{CpuSet, sched_getaffinity};

/// CPUs that this process may use, ascending; never empty.
pub fn usable_cpus() -> Vec<usize> {
    let cpus = sched_getaffinity(None)
        .map(|set| (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect::<Vec<_>>())
        .unwrap_or_default();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// Where one shard runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuBinding {
    /// Wherever the scheduler puts it.
    Anywhere,
    /// On this CPU only.
    Cpu(usize),
}

/// Whether shards are bound to CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinning {
    /// Each to its own, as long as there are enough.
    OwnCpu,
    /// Not at all.
    Off,
}

/// The bindings of `shards` shards (0: one per CPU) on `cpus`.
pub fn plan(shards: u16, cpus: &[usize], pinning: Pinning) -> Vec<CpuBinding> {
    let count = if shards == 0 { cpus.len().max(1) } else { usize::from(shards) };
    let count = count.min(usize::from(u16::MAX));
    (0..count)
        .map(|shard| match (pinning, cpus.get(shard)) {
            (Pinning::OwnCpu, Some(cpu)) if count <= cpus.len() => CpuBinding::Cpu(*cpu),
            _ => CpuBinding::Anywhere,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_gets_a_shard_by_default() {
        assert_eq!(plan(0, &[1, 3], Pinning::OwnCpu), [CpuBinding::Cpu(1), CpuBinding::Cpu(3)]);
    }

    #[test]
    fn more_shards_than_cpus_are_not_bound() {
        assert_eq!(plan(3, &[0, 1], Pinning::OwnCpu), [CpuBinding::Anywhere; 3]);
    }

    #[test]
    fn pinning_can_be_turned_off() {
        assert_eq!(plan(1, &[0, 1], Pinning::Off), [CpuBinding::Anywhere]);
    }

    #[test]
    fn the_process_may_use_some_cpu() {
        assert!(!usable_cpus().is_empty());
    }
}
