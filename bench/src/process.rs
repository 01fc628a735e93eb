//! What a process on this machine uses: CPU seconds and memory, from `/proc`; and which process
//! listens on a port.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs as _};

use serde::{Deserialize, Serialize};

/// Ticks of the kernel's CPU accounting per second: 100 on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time, user and system, in s; steps of 10 ms.
    pub cpu_s: f64,
    /// Most memory it ever had, in bytes.
    pub memory_bytes_peak: u64,
}

/// Of the process `pid`; `None` when it is gone or hidden.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage { cpu_s: cpu_s(&stat)?, memory_bytes_peak: peak_bytes(&status)? })
}

/// Fields 14 and 15 of `/proc/PID/stat`; the name in field 2 may hold anything, parentheses too.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The process of this machine that listens at the first of `bootstrap`; `None` when it is on another
/// machine, or another user's.
pub fn listener(bootstrap: &str) -> Option<u32> {
    let address = bootstrap.split(',').next()?.trim();
    let address: SocketAddr = address.to_socket_addrs().ok()?.next()?;
    let here = address.ip().is_loopback() || std::net::UdpSocket::bind((address.ip(), 0)).is_ok();
    if !here {
        return None;
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    let inodes: Vec<String> = tables
        .iter()
        .flat_map(|table| listening_inodes(table, address.port()))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| holds_one_of(*pid, &inodes))
}

/// The sockets of a table of `/proc/net` that listen on a port.
fn listening_inodes(table: &str, port: u16) -> Vec<&str> {
    const LISTEN: &str = "0A";
    let row = |line: &'_ str| -> Option<bool> {
        let mut fields = line.split_whitespace();
        let (_, local) = fields.nth(1)?.rsplit_once(':')?;
        let state = fields.nth(1)?;
        Some(u16::from_str_radix(local, 16) == Ok(port) && state == LISTEN)
    };
    let lines = table.lines().skip(1).filter(|line| row(line) == Some(true));
    lines.filter_map(|line| line.split_whitespace().nth(9)).collect()
}

fn holds_one_of(pid: u32, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        sockets.iter().any(|socket| target.as_os_str() == socket.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_port_and_has_used_something() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        assert_eq!(listener(&address), Some(std::process::id()));
        assert!(usage(std::process::id()).unwrap().memory_bytes_peak > 1 << 16);
        drop(socket);
        assert_eq!(listener(&address), None);
    }

    #[test]
    fn cpu_time_is_read_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu_s(stat), Some(2.0));
        assert_eq!(cpu_s("7 (x"), None);
    }
}
