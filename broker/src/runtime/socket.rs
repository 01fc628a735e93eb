//! Sockets: listeners shared by all shards, streams with one reader and one writer, vectored sends.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use levada_protocol::frame::FrameBuffer;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use socket2::{Domain, Protocol, Type};

/// Connections that may wait to be accepted, per shard.
const BACKLOG: i32 = 1024;

/// Rows of free ports that are tried before giving up.
const ROW_TRIES: u32 = 32;

/// Room for what comes first after a pause, in bytes.
const FIRST_BYTES: usize = 4 << 10;

thread_local! {
    /// What comes first after a pause goes through here: the executor reads only into memory that has a value.
    static FIRST: RefCell<[u8; FIRST_BYTES]> = const { RefCell::new([0; FIRST_BYTES]) };
}

/// Most slices that the kernel takes in one send.
const SEND_SLICES_MAX: usize = 1024;

/// Binds `count` sockets to one address: one per shard, the kernel spreads connections over those
/// that listen. Port 0 takes any free port, the same for all. Nobody listens yet.
///
/// # Errors
/// Among others when another process has the port.
pub fn bind_shared(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    if address.port() != 0 {
        // Shared ports would let a second broker of the same user bind, too: it would steal
        // connections. A socket that does not share is refused while anybody listens.
        drop(bound_socket(address, Sharing::Alone)?);
    }
    let first = bound_socket(address, Sharing::BetweenShards)?;
    let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut sockets = vec![OwnedFd::from(first)];
    while sockets.len() < count {
        sockets.push(OwnedFd::from(bound_socket(address, Sharing::BetweenShards)?));
    }
    Ok((address, sockets))
}

/// Binds one socket of its own per shard: the first to `address`, each further one a port behind the one before. Port
/// 0 takes any free row of ports. Nobody listens yet.
///
/// # Errors
/// Among others when a port of the row is taken, or behind the last there is.
pub fn bind_row(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    let tries = if address.port() == 0 { ROW_TRIES } else { 1 };
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..tries {
        result = try_bind_row(address, count);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn try_bind_row(first: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    let socket = bound_socket(first, Sharing::Alone)?;
    let first = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut sockets = vec![OwnedFd::from(socket)];
    let mut next = first;
    while sockets.len() < count {
        next.set_port(next.port().checked_add(1).ok_or(io::ErrorKind::AddrNotAvailable)?);
        sockets.push(OwnedFd::from(bound_socket(next, Sharing::Alone)?));
    }
    Ok((first, sockets))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    BetweenShards,
}

fn bound_socket(address: SocketAddr, sharing: Sharing) -> io::Result<socket2::Socket> {
    // Blocking on purpose: a ring's accept on a non-blocking socket ends with EAGAIN.
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM.cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::BetweenShards {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// One shard's share of a listening address. Dropped, it listens no more.
pub struct Listener {
    inner: TcpListener,
}

impl Listener {
    /// Starts to listen on a socket of [`bind_shared`]. To be called on the shard.
    ///
    /// # Errors
    /// What the kernel says.
    #[expect(unsafe_code, reason = "the executor's listener takes a socket only by its number")]
    pub fn listen(socket: OwnedFd) -> io::Result<Self> {
        rustix::net::listen(&socket, BACKLOG)?;
        // SAFETY: the number comes from an owned descriptor that is given up here, so the listener
        // is its only owner.
        let inner = unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) };
        Ok(Self { inner })
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// Those of the connection, which is gone then, and those of the process: too many open files
    /// stays so until something is closed, so pause after an error.
    pub async fn accept(&self) -> io::Result<Socket> {
        let stream = self.inner.accept().await.map_err(io::Error::from)?;
        Socket::adopt(stream)
    }
}

/// Where received bytes go.
pub trait Inbox {
    /// The bytes that are there; the next read goes behind them, within the capacity.
    fn spare(&mut self) -> &mut Vec<u8>;
    /// As many bytes were read into [`Inbox::spare`].
    fn note_read(&mut self, read_bytes: usize);
    /// Takes bytes that were read elsewhere.
    fn feed(&mut self, bytes: &[u8]);
}

impl Inbox for FrameBuffer {
    fn spare(&mut self) -> &mut Vec<u8> {
        FrameBuffer::spare(self)
    }
    fn note_read(&mut self, read_bytes: usize) {
        FrameBuffer::note_read(self, read_bytes);
    }
    fn feed(&mut self, bytes: &[u8]) {
        FrameBuffer::feed(self, bytes);
    }
}

impl Inbox for Vec<u8> {
    fn spare(&mut self) -> &mut Vec<u8> {
        self.reserve(FIRST_BYTES);
        self
    }
    fn note_read(&mut self, _read_bytes: usize) {}
    fn feed(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A connected stream. One task may read while another writes.
pub struct Socket {
    stream: RefCell<TcpStream>,
    /// The last read took all there was: the next one waits for the executor to say that there is more.
    is_drained: Cell<bool>,
    local: SocketAddr,
    peer: SocketAddr,
}

impl Socket {
    fn adopt(stream: TcpStream) -> io::Result<Self> {
        let local = stream.local_addr().map_err(io::Error::from)?;
        let peer = stream.peer_addr().map_err(io::Error::from)?;
        stream.set_nodelay(true).map_err(io::Error::from)?;
        let socket =
            Self { stream: RefCell::new(stream), is_drained: Cell::new(false), local, peer };
        socket.with_fd(|fd| rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC))?;
        Ok(socket)
    }

    /// Connects to `address`.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await.map_err(io::Error::from)?;
        Self::adopt(stream)
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads what is there into `buffer`; 0 bytes at the end of the stream. With nothing there, arranges to be woken.
    ///
    /// A small request costs one system call: the executor's read takes it whole and begins to wait for the next at
    /// once. While there is more than that, bytes are read straight behind those in the buffer.
    pub fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut impl Inbox,
    ) -> Poll<io::Result<usize>> {
        if !self.is_drained.get() {
            let spare = buffer.spare();
            let room = spare.capacity() - spare.len();
            // Into memory that nobody has filled with zeros first.
            let read = self.with_fd(|fd| {
                let spare = rustix::buffer::spare_capacity(spare);
                rustix::net::recv(fd, spare, RecvFlags::DONTWAIT).map(|(read, _)| read)
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(read) => {
                    self.is_drained.set(read < room);
                    buffer.note_read(read);
                    return Poll::Ready(Ok(read));
                }
            }
        }
        FIRST.with_borrow_mut(|first| {
            let mut stream = self.stream.borrow_mut();
            let read = ready!(Pin::new(&mut *stream).poll_read(context, first))?;
            self.is_drained.set(read < first.len());
            buffer.feed(first.get(..read).unwrap_or_default());
            Poll::Ready(Ok(read))
        })
    }

    /// Reads what is there into `buffer`; 0 bytes at the end of the stream.
    ///
    /// # Errors
    /// What the kernel says; the connection is lost.
    pub async fn read(&self, buffer: &mut impl Inbox) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, buffer)).await
    }

    /// Sends all slices, in order. `progress` is called after each step that took bytes.
    ///
    /// # Errors
    /// What the kernel says; the connection is lost.
    pub async fn send_all(
        &self,
        mut slices: &mut [IoSlice<'_>],
        progress: impl Fn(),
    ) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while let Some(first) = slices.first() {
            let sent = match self.try_send(slices) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|context| {
                        let mut stream = self.stream.borrow_mut();
                        Pin::new(&mut *stream).poll_write(context, first)
                    })
                    .await?
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            progress();
            IoSlice::advance_slices(&mut slices, sent);
        }
        Ok(())
    }

    fn try_send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let slices = slices.get(..SEND_SLICES_MAX).unwrap_or(slices);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        self.with_fd(|fd| {
            rustix::net::sendmsg(fd, slices, &mut SendAncillaryBuffer::default(), flags)
        })
    }

    /// Ends both directions at once: whoever waits on it is woken, and the peer hears of it.
    pub fn shutdown(&self) {
        // A peer that went first has nothing left to be told.
        self.with_fd(|fd| rustix::net::shutdown(fd, rustix::net::Shutdown::Both)).ok();
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        self.with_fd(|fd| rustix::net::shutdown(fd, to_rustix(Shutdown::Write))).ok();
    }

    #[expect(unsafe_code, reason = "the executor's stream tells only the number of its socket")]
    fn with_fd<T>(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let stream = self.stream.borrow();
        // SAFETY: the stream owns the descriptor and is borrowed until the call has returned.
        let fd = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
        Ok(call(fd)?)
    }
}

fn to_rustix(how: Shutdown) -> rustix::net::Shutdown {
    match how {
        Shutdown::Read => rustix::net::Shutdown::Read,
        Shutdown::Write => rustix::net::Shutdown::Write,
        Shutdown::Both => rustix::net::Shutdown::Both,
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // With a read still in the kernel, the peer would hear of the end only when the executor
        // gets around to it.
        self.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn run<T: Send + 'static, F: Future<Output = T>>(
        main: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        glommio::LocalExecutorBuilder::default()
            .io_memory(64 << 10)
            .make()
            .unwrap()
            .run(async move { main().await })
    }

    #[test]
    fn a_port_is_shared_between_shards_but_not_with_others() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, sockets) = bind_shared(any, 3).unwrap();
        assert_eq!(sockets.len(), 3);
        run(move || async move {
            let _listener = Listener::listen(sockets.into_iter().next().unwrap()).unwrap();
            let error = bind_shared(address, 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        });
    }

    #[test]
    fn a_row_has_one_port_after_the_other_and_is_refused_when_one_is_taken() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (first, sockets) = bind_row(any, 4).unwrap();
        let ports: Vec<u16> = sockets
            .iter()
            .map(|socket| socket2::SockRef::from(socket).local_addr().unwrap())
            .map(|address| address.as_socket().unwrap().port())
            .collect();
        let port = first.port();
        assert_eq!(ports, [port, port + 1, port + 2, port + 3]);
        rustix::net::listen(&sockets[2], 1).unwrap();
        let error = bind_row(first, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let last = SocketAddr::from(([127, 0, 0, 1], u16::MAX));
        assert!(bind_row(last, 2).is_err(), "there is no port behind the last");
    }

    #[test]
    fn slices_of_all_sizes_arrive_whole_and_in_order_at_a_slow_reader() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, mut sockets) = bind_shared(any, 1).unwrap();
        let parts: Vec<Vec<u8>> =
            (0..3000u32).map(|at| vec![at.to_le_bytes()[0]; at as usize]).collect();
        let expected = parts.concat();
        let reader = run(move || async move {
            let listener = Listener::listen(sockets.pop().unwrap()).unwrap();
            let reader = std::thread::spawn(move || {
                let mut received = Vec::new();
                std::net::TcpStream::connect(address).unwrap().read_to_end(&mut received).unwrap();
                received
            });
            let socket = listener.accept().await.unwrap();
            let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            socket.send_all(&mut slices, || ()).await.unwrap();
            socket.finish();
            assert_eq!(socket.read(&mut Vec::new()).await.unwrap(), 0);
            reader
        });
        assert!(reader.join().unwrap() == expected);
    }
}
