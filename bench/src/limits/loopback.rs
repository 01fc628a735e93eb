//! The bare loopback: one TCP connection, a thread at each end.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use hdrhistogram::Histogram;

use crate::clock::now_ns;
use crate::error::BenchError;
use crate::number::{float, share, size, whole};
use crate::recorder::histogram;

/// Bytes of a question and of its answer.
const PING_BYTES: usize = 100;

fn pair() -> Result<(TcpStream, TcpStream), BenchError> {
    let connect = || -> std::io::Result<_> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let one = TcpStream::connect(listener.local_addr()?)?;
        let (other, _) = listener.accept()?;
        one.set_nodelay(true)?;
        other.set_nodelay(true)?;
        Ok((one, other))
    };
    connect().map_err(BenchError::system("connect over the loopback"))
}

/// Writes of `block_bytes` for `seconds`, in 10^6 bytes a second that arrived.
///
/// # Errors
/// [`BenchError::System`].
pub fn throughput(block_bytes: u32, seconds: f64) -> Result<f64, BenchError> {
    let (mut from, mut to) = pair()?;
    let failed = || BenchError::system("move bytes over the loopback");
    std::thread::scope(|scope| {
        let start_ns = now_ns();
        let receiver = scope.spawn(move || -> std::io::Result<u64> {
            let mut buffer = vec![0; 1 << 20];
            let mut moved = 0;
            loop {
                match to.read(&mut buffer)? {
                    0 => return Ok(moved),
                    read => moved += crate::number::count(read),
                }
            }
        });
        let block = vec![7; size(block_bytes.into())];
        let end_ns = start_ns + whole(seconds * 1e9);
        while now_ns() < end_ns {
            from.write_all(&block).map_err(failed())?;
        }
        from.shutdown(Shutdown::Write).map_err(failed())?;
        let moved = receiver.join().map_err(|_| BenchError::Panicked)?.map_err(failed())?;
        Ok(share(float(moved) * 1e3, float(now_ns() - start_ns)))
    })
}

/// How long 100 B take there and back, one after the other for `seconds`.
///
/// # Errors
/// [`BenchError::System`].
pub fn round_trips(seconds: f64) -> Result<Histogram<u64>, BenchError> {
    let (mut near, mut far) = pair()?;
    let failed = || BenchError::system("ask over the loopback");
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || {
            let mut ping = [0; PING_BYTES];
            // Ends with the connection.
            while far.read_exact(&mut ping).and_then(|()| far.write_all(&ping)).is_ok() {}
        });
        let mut samples = histogram();
        let mut ping = [1; PING_BYTES];
        let end_ns = now_ns() + whole(seconds * 1e9);
        loop {
            let start_ns = now_ns();
            if end_ns <= start_ns {
                break;
            }
            near.write_all(&ping).and_then(|()| near.read_exact(&mut ping)).map_err(failed())?;
            samples.saturating_record(now_ns() - start_ns);
        }
        near.shutdown(Shutdown::Both).map_err(failed())?;
        echo.join().map_err(|_| BenchError::Panicked)?;
        Ok(samples)
    })
}
