//! The other end of a coordinator's connection: blocking, one request at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use levada_protocol::cluster::frame::{Envelope, FrameReader, Message, Push};
use levada_protocol::cluster::reply::{HeartbeatAck, Registered};
use levada_protocol::cluster::request::{Heartbeat, LastStop, Register, Request, Wish};
use levada_protocol::cluster::{
    Address, ClusterId, ClusterImage, DirectoryId, Incarnation, MAX_FRAME_BYTES, MAX_REQUEST_BYTES,
    Reply,
};
use levada_record::id::BrokerId;

/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Peer {
    stream: TcpStream,
    frames: FrameReader,
    cluster: Option<ClusterId>,
    registered: Option<Registered>,
    image: Option<ClusterImage>,
    images_received: usize,
    next_request: u64,
    /// Id of the request that was answered last.
    last_reply: u64,
}

/// A broker's registration.
pub(crate) fn registration(id: i32, incarnation: u8) -> Request {
    Request::Register(Register {
        broker: Some(BrokerId(id)),
        incarnation: Incarnation([incarnation; 16]),
        directory: DirectoryId([u8::try_from(id).unwrap(); 16]),
        addresses: vec![Address { listener: "kafka".into(), host: "127.0.0.1".into(), port: 9092 }],
        rack: None,
        shards: 2,
        last_stop: LastStop::Clean,
    })
}

impl Peer {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            frames: FrameReader::new(MAX_FRAME_BYTES),
            cluster: None,
            registered: None,
            image: None,
            images_received: 0,
            next_request: 1,
            last_reply: 0,
        }
    }

    /// Lets the kernel keep little of what this end does not read.
    pub(crate) fn shrink_receive_buffer(&self) {
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(64 << 10).unwrap();
    }

    /// Names the cluster in every request from now on.
    pub(crate) fn join(&mut self, cluster: ClusterId) {
        self.cluster = Some(cluster);
    }

    /// Goes on as a broker that registered on an earlier connection.
    pub(crate) fn resume(&mut self, registered: Registered, image: ClusterImage) {
        self.join(registered.cluster);
        self.registered = Some(registered);
        self.image = Some(image);
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The coordinator may have closed it already: the next read will tell.
        drop(self.stream.write_all(bytes));
    }

    pub(crate) fn ask(&mut self, request: Request) -> Reply {
        self.send_request(request);
        self.reply().expect("connection is open")
    }

    /// Sends a request whose reply is read later.
    pub(crate) fn send_request(&mut self, request: Request) {
        let request_id = self.next_request;
        self.next_request += 1;
        let envelope =
            Envelope { cluster: self.cluster, request_id, message: Message::Request(request) };
        let frame = envelope.encode(MAX_REQUEST_BYTES).unwrap();
        self.send(&frame);
    }

    /// The next reply; `None` when the connection is closed.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        loop {
            let envelope = self.try_receive()?;
            match envelope.message {
                Message::Reply(reply) => {
                    self.last_reply += 1;
                    assert_eq!(envelope.request_id, self.last_reply);
                    return Some(reply);
                }
                Message::Push(push) => self.on_push(push),
                Message::Request(request) => panic!("was asked {request:?}"),
            }
        }
    }

    pub(crate) fn register(&mut self, id: i32, incarnation: u8) -> Registered {
        match self.ask(registration(id, incarnation)) {
            Reply::Registered(registered) => {
                self.join(registered.cluster);
                self.registered = Some(registered);
                registered
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn subscribe(&mut self) {
        let from_index = self.image.as_ref().map_or(0, ClusterImage::index);
        let reply = self.ask(Request::Subscribe { from_index });
        let Reply::Subscribed { index } = reply else { panic!("{reply:?}") };
        if index != from_index {
            self.follow_to(index);
        }
    }

    pub(crate) fn heartbeat(&mut self, wish: Wish) -> HeartbeatAck {
        let Registered { broker, epoch, .. } = self.registered.unwrap();
        let seen_index = self.image.as_ref().map_or(0, ClusterImage::index);
        match self.ask(Request::Heartbeat(Heartbeat { broker, epoch, seen_index, wish })) {
            Reply::Heartbeat(ack) => ack,
            other => panic!("{other:?}"),
        }
    }

    /// Reads pushes until the image is at `index` or beyond.
    pub(crate) fn follow_to(&mut self, index: u64) -> &ClusterImage {
        while self.image.as_ref().is_none_or(|image| image.index() < index) {
            match self.receive().message {
                Message::Push(push) => self.on_push(push),
                other => panic!("{other:?}"),
            }
        }
        self.image.as_ref().unwrap()
    }

    pub(crate) fn images_received(&self) -> usize {
        self.images_received
    }

    /// Reads whatever comes until the coordinator closes the connection: images, changes.
    pub(crate) fn read_to_end(&mut self) -> (usize, usize) {
        let mut counts = (0, 0);
        while let Some(envelope) = self.try_receive() {
            match envelope.message {
                Message::Push(Push::Image(_)) => counts.0 += 1,
                Message::Push(Push::Changes(_)) => counts.1 += 1,
                other => panic!("{other:?}"),
            }
        }
        counts
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        self.try_receive().is_none()
    }

    pub(crate) fn receive(&mut self) -> Envelope {
        self.try_receive().expect("connection is open")
    }

    /// The next frame; `None` when the connection is closed.
    fn try_receive(&mut self) -> Option<Envelope> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(envelope) = self.frames.next_frame().unwrap() {
                return Some(envelope);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.frames.feed(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn on_push(&mut self, push: Push) {
        match push {
            Push::Image(image) => {
                self.images_received += 1;
                self.image = Some(*image);
            }
            Push::Changes(committed) => {
                self.image.as_mut().expect("an image came first").apply(&committed).unwrap();
            }
        }
    }
}
