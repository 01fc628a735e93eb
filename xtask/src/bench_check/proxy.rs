//! Stands between client and broker and holds the broker's answers up: each byte passes so long after it came, however
//! many come behind it. A delay of nothing takes the same way.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::crash::clock;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 << 10;

/// What its threads share.
#[derive(Default)]
struct Shared {
    broker: OnceLock<SocketAddr>,
    delay_ns: AtomicU64,
}

/// A proxy; its threads end with their connections.
pub(super) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free port of the loopback; takes nobody before [`Proxy::forward_to`].
    ///
    /// # Errors
    /// When there is no port.
    pub(super) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("find a port for the proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let known = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Whom it cannot serve sees the connection close.
                drop(serve(&client, &known));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where clients connect.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where they end up. Only the first call counts.
    pub(super) fn forward_to(&self, broker: SocketAddr) {
        self.shared.broker.get_or_init(|| broker);
    }

    /// From now on answers pass so much later.
    pub(super) fn delay(&self, delay: Duration) {
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        self.shared.delay_ns.store(delay_ns, Ordering::Relaxed);
    }
}

fn serve(client: &TcpStream, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let broker = TcpStream::connect(shared.broker.get().context("nobody to forward to")?)?;
    for stream in [client, &broker] {
        stream.set_nodelay(true)?;
    }
    let (pieces, due) = mpsc::channel();
    let (requests, answers) = (client.try_clone()?, broker.try_clone()?);
    let (to_client, shared) = (client.try_clone()?, Arc::clone(shared));
    thread::spawn(move || copy(requests, broker));
    thread::spawn(move || take(answers, &pieces));
    thread::spawn(move || give(to_client, &due, &shared));
    Ok(())
}

/// Requests pass as they come.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..bytes]).is_err() {
            break;
        }
    }
    // The other side may have gone first.
    drop(to.shutdown(Shutdown::Both));
}

/// Answers are noted with the moment they came.
fn take(mut from: TcpStream, pieces: &Sender<(Instant, Vec<u8>)>) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut piece) {
        if pieces.send((clock::now(), piece[..bytes].to_vec())).is_err() {
            break;
        }
    }
}

/// And passed on when it is their time.
fn give(mut to: TcpStream, due: &Receiver<(Instant, Vec<u8>)>, shared: &Shared) {
    // Else every sleep ends some 50 µs late.
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        eprintln!("delays are longer than asked for: {error}");
    }
    for (came, piece) in due {
        let delay = Duration::from_nanos(shared.delay_ns.load(Ordering::Relaxed));
        let left = (came + delay).saturating_duration_since(clock::now());
        if !left.is_zero() {
            clock::wait(left);
        }
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_whole_and_late_and_requests_at_once() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start().unwrap();
        proxy.forward_to(server.local_addr().unwrap());
        let delay = Duration::from_millis(80);
        proxy.delay(delay);
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let (mut served, _) = server.accept().unwrap();
        client.write_all(b"question").unwrap();
        let mut question = [0; 8];
        served.read_exact(&mut question).unwrap();
        let asked = clock::now();
        let answer: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        served.write_all(&answer).unwrap();
        drop(served);
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == answer && &question == b"question");
        let took = clock::now() - asked;
        // Each piece is late once: the delays do not add up.
        assert!((delay..delay * 4).contains(&took), "{took:?}");
    }
}
