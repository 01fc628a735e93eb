//! The strangers: idle connections, writers of a byte at a time, and a stream of connections whose first bytes are no
//! request. All of them live on one thread that sleeps most of the time and gives way to the client that is measured.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};

use crate::crash::clock;

/// Connections that asked once and then say nothing; they stay.
const IDLE: usize = 2_000;
/// Connections that never say anything; they are closed, and come back.
const SILENT: usize = 200;
/// Connections that send a byte at a time; they are closed, and come back.
pub(super) const SLOW: usize = 200;

/// Every other slow writer sends this often.
const SLOW_EVERY: Duration = Duration::from_millis(100);
/// And the others this often.
const LESS_SLOW_EVERY: Duration = Duration::from_millis(10);
/// A connection that sends no request is opened this often.
const MALFORMED_EVERY: Duration = Duration::from_millis(5);
/// How long the broker may take to close it.
const MALFORMED_LIMIT: Duration = Duration::from_secs(2);
/// What is lost is looked for, and opened again, this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_millis(1);
/// How long it may take until all are there.
const ARRIVE_LIMIT: Duration = Duration::from_secs(20);
/// Below this part of what is aimed at, the attack was none: the machine was too busy for it.
const RATE_MIN: f64 = 0.5;

/// `ApiVersions` 0 without a client id.
const HELLO: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
/// The beginning of a Produce of 1 MiB; zeroes follow.
const SLOW_HEAD: [u8; 12] = [0, 0x10, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1];

/// Open files that all of them need, on either side, with a reserve.
pub(super) fn files(slow_writers: usize) -> u64 {
    let reserve = 1_024;
    u64::try_from(IDLE + SILENT + slow_writers + reserve).expect("some thousands")
}

/// What the strangers did and got.
#[derive(Default)]
pub(super) struct Tally {
    /// Connections that the broker should have kept.
    idle_lost: u64,
    /// Slow writers at a time.
    slow: usize,
    slow_bytes: u64,
    slow_closed: u64,
    silent_closed: u64,
    /// Connections that sent no request.
    pub(super) malformed: u64,
    /// Those of them that the broker did not close in time.
    malformed_kept: u64,
    /// Longest time until it did.
    malformed_slowest: Duration,
}

impl Tally {
    /// Adds what another attack did and got.
    pub(super) fn add(&mut self, more: &Self) {
        self.slow = more.slow;
        self.idle_lost += more.idle_lost;
        self.slow_bytes += more.slow_bytes;
        self.slow_closed += more.slow_closed;
        self.silent_closed += more.silent_closed;
        self.malformed += more.malformed;
        self.malformed_kept += more.malformed_kept;
        self.malformed_slowest = self.malformed_slowest.max(more.malformed_slowest);
    }

    fn rates(&self, time: Duration) -> [(&'static str, f64, f64); 2] {
        let per_second = |every: Duration| 1.0 / every.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds")]
        let rate = |count: u64| count as f64 / time.as_secs_f64();
        let half = f64::from(u32::try_from(self.slow / 2).expect("some thousands"));
        let slow = half * (per_second(SLOW_EVERY) + per_second(LESS_SLOW_EVERY));
        [
            ("bytes of slow writers", rate(self.slow_bytes), slow),
            ("connections without a request", rate(self.malformed), per_second(MALFORMED_EVERY)),
        ]
    }

    /// What should not be, after `time` of attack.
    pub(super) fn findings(&self, time: Duration) -> Vec<String> {
        let mut findings = Vec::new();
        for (what, rate, aim) in self.rates(time) {
            if rate < aim * RATE_MIN {
                findings.push(format!(
                    "the attack was too weak: {rate:.0} {what} per second, not {aim:.0}"
                ));
            }
        }
        if self.idle_lost > 0 {
            findings.push(format!("{} idle connections were closed", self.idle_lost));
        }
        if self.malformed_kept > 0 {
            let kept = self.malformed_kept;
            findings
                .push(format!("{kept} malformed connections were open after {MALFORMED_LIMIT:?}"));
        }
        findings
    }

    /// For the report.
    pub(super) fn describe(&self, time: Duration) -> String {
        let [(slow, slow_rate, _), (malformed, malformed_rate, _)] = self.rates(time);
        format!(
            "strangers: {IDLE} idle ({} lost), {SILENT} silent ({} closed), {} slow writers ({} closed); {slow_rate:.0} \
             {slow} and {malformed_rate:.0} {malformed} per second, the slowest closed after {:.1?}",
            self.idle_lost, self.silent_closed, self.slow, self.slow_closed, self.malformed_slowest
        )
    }
}

/// An attack under way.
pub(super) struct Strangers {
    leaving: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Tally>>,
}

impl Strangers {
    /// Starts the attack, and waits until all connections are there.
    ///
    /// # Errors
    /// When the broker does not take them.
    pub(super) fn arrive(address: SocketAddr, slow_writers: usize) -> anyhow::Result<Self> {
        let leaving = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (leaving, arrived) = (Arc::clone(&leaving), Arc::clone(&arrived));
            move || Attack::open(address, slow_writers)?.run(&leaving, &arrived)
        });
        let end = clock::now() + ARRIVE_LIMIT;
        let strangers = Self { leaving, thread };
        while !arrived.load(Ordering::Relaxed) {
            if strangers.thread.is_finished() || clock::now() > end {
                strangers.leave()?;
                bail!("the strangers did not arrive within {ARRIVE_LIMIT:?}");
            }
            clock::wait(TICK);
        }
        Ok(strangers)
    }

    /// Ends the attack.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub(super) fn leave(self) -> anyhow::Result<Tally> {
        self.leaving.store(true, Ordering::Relaxed);
        self.thread.join().expect("the strangers panicked")
    }
}

/// One slow writer.
struct Slow {
    stream: TcpStream,
    sent: usize,
    every: Duration,
    due: Instant,
}

/// One connection that sent no request.
struct Malformed {
    stream: TcpStream,
    opened: Instant,
}

struct Attack {
    address: SocketAddr,
    idle: Vec<TcpStream>,
    silent: Vec<TcpStream>,
    slow: Vec<Slow>,
    malformed: Vec<Malformed>,
    tally: Tally,
}

impl Attack {
    fn open(address: SocketAddr, slow_writers: usize) -> anyhow::Result<Self> {
        give_way();
        let mut idle = Vec::with_capacity(IDLE);
        let mut silent = Vec::with_capacity(SILENT);
        let mut slow = Vec::with_capacity(slow_writers);
        for number in 0..IDLE {
            idle.push(hello(address).with_context(|| format!("idle connection {number}"))?);
        }
        for _ in 0..SILENT {
            silent.push(connect(address)?);
        }
        for number in 0..slow_writers {
            let every = if number % 2 == 0 { SLOW_EVERY } else { LESS_SLOW_EVERY };
            let due = clock::now() + TICK * u32::try_from(number)?;
            slow.push(Slow { stream: connect(address)?, sent: 0, every, due });
        }
        let tally = Tally { slow: slow_writers, ..Tally::default() };
        Ok(Self { address, idle, silent, slow, malformed: Vec::new(), tally })
    }

    fn run(mut self, leaving: &AtomicBool, arrived: &AtomicBool) -> anyhow::Result<Tally> {
        let mut next_malformed = clock::now();
        let mut next_look = next_malformed + LOOK_EVERY;
        arrived.store(true, Ordering::Relaxed);
        while !leaving.load(Ordering::Relaxed) {
            let now = clock::now();
            self.write_slowly(now)?;
            self.look_at_malformed(now);
            if next_malformed <= now {
                // What the machine was too busy for is not made up for in a burst.
                next_malformed = (next_malformed + MALFORMED_EVERY).max(now);
                self.send_malformed(now)?;
            }
            if next_look <= now {
                next_look = now + LOOK_EVERY;
                self.look_at_quiet()?;
            }
            clock::wait(TICK);
        }
        self.look_at_quiet()?;
        Ok(self.tally)
    }

    fn write_slowly(&mut self, now: Instant) -> anyhow::Result<()> {
        for slow in self.slow.iter_mut().filter(|slow| slow.due <= now) {
            slow.due = (slow.due + slow.every).max(now);
            let byte = SLOW_HEAD.get(slow.sent).copied().unwrap_or(0);
            match slow.stream.write(&[byte]) {
                Ok(_) => {
                    slow.sent += 1;
                    self.tally.slow_bytes += 1;
                }
                Err(error) if is_later(&error) => {}
                Err(_) => {
                    self.tally.slow_closed += 1;
                    slow.stream = connect(self.address)?;
                    slow.sent = 0;
                }
            }
        }
        Ok(())
    }

    fn send_malformed(&mut self, now: Instant) -> anyhow::Result<()> {
        let kinds: [&[u8]; 4] = [
            // 2 GiB, then no request.
            &[0x7f, 0xff, 0xff, 0xff],
            // Below zero.
            &[0x80, 0, 0, 0],
            // A whole frame of an API that nobody has.
            &[0, 0, 0, 10, 0x7f, 0, 0, 0, 0, 0, 0, 1, 0, 0],
            // As a length, it is too long.
            b"GET / HTTP/1.1\r\n\r\n",
        ];
        let kind = usize::try_from(self.tally.malformed).unwrap_or(0);
        // Every other one claims 2 GiB.
        let head = if kind.is_multiple_of(2) { kinds[0] } else { kinds[1 + kind / 2 % 3] };
        let mut bytes = [0xa5; 512];
        bytes[..head.len()].copy_from_slice(head);
        let mut stream = connect(self.address)?;
        match stream.write(&bytes) {
            // A connection that is not through yet has sent nothing.
            Err(error) if is_later(&error) => return Ok(()),
            // Closed while we wrote: seen by the next look.
            Ok(_) | Err(_) => {}
        }
        self.tally.malformed += 1;
        self.malformed.push(Malformed { stream, opened: now });
        Ok(())
    }

    fn look_at_malformed(&mut self, now: Instant) {
        let tally = &mut self.tally;
        self.malformed.retain_mut(|malformed| {
            let age = now - malformed.opened;
            if is_closed(&mut malformed.stream) {
                tally.malformed_slowest = tally.malformed_slowest.max(age);
                return false;
            }
            if age > MALFORMED_LIMIT {
                tally.malformed_kept += 1;
            }
            age <= MALFORMED_LIMIT
        });
    }

    fn look_at_quiet(&mut self) -> anyhow::Result<()> {
        for stream in &mut self.idle {
            if is_closed(stream) {
                self.tally.idle_lost += 1;
                *stream = hello(self.address)?;
            }
        }
        for stream in &mut self.silent {
            if is_closed(stream) {
                self.tally.silent_closed += 1;
                *stream = connect(self.address)?;
            }
        }
        Ok(())
    }
}

/// Has this thread run only when nobody else of its CPU wants to: the client that is measured shares it.
fn give_way() {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let status = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status();
    if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!(
            "chrt --idle does not work here ({status:?}): the client is disturbed more than it should be"
        );
    }
}

/// A connection of which no call waits.
fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket: OwnedFd =
        rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))
            .context("a stranger's socket")?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error).context("a stranger's connection"),
    }
}

/// A connection that has asked for the versions, and read them.
fn hello(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ARRIVE_LIMIT))?;
    stream.write_all(&HELLO)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length))?;
    ensure!(length < 1 << 16, "an answer of {length} B");
    stream.read_exact(&mut vec![0; length])?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Whether the broker has closed it.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => !is_later(&error),
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
