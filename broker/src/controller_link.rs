//! The connection to the controller, on shard 0: registration, heartbeats, the stream of images, and
//! whatever any shard asks. The data path never waits for it.
//!
//! A lost connection is made again with growing pauses; what was asked meanwhile is answered with
//! [`ControllerError::Unavailable`], for the client to try again.

pub mod session;

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_lite::FutureExt as _;
use levada_engine::SharedRuntime;
use levada_protocol::cluster::id::{BrokerEpoch, ClusterId, DirectoryId, Incarnation};
use levada_protocol::cluster::reply::{Registered, Reply};
use levada_protocol::cluster::request::{Heartbeat, LastStop, Register, Request, Wish};
use levada_protocol::cluster::{Address, ClusterImage, Push, Refusal, RefusalCode};
use levada_record::BrokerId;

use crate::config::split_host_port;
use crate::runtime::event::{Bell, Flag};
use session::{Session, SessionError};

/// How often a broker tells the controller that it is alive.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);

/// A heartbeat that is not answered by then has been lost, and the connection with it.
const HEARTBEAT_ANSWER_WITHIN: Duration = Duration::from_millis(3_500);

/// How long a request may take before its asker gives up.
pub const ASK_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection attempt may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// First and last pause between connection attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Requests of all shards that may wait for the connection.
const ASKS_MAX: usize = 1024;

/// Why the controller did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// No coordinator is connected, or the connection broke: it is not known what was done.
    #[error("the coordinator cannot be reached")]
    Unavailable,
    /// No answer in time: it is not known what was done.
    #[error("the coordinator did not answer in time")]
    TimedOut,
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A request on its way to the controller.
#[derive(Debug)]
pub struct Ask {
    request: Request,
    reply: flume::Sender<Result<Reply, ControllerError>>,
}

/// How shards reach the controller. Clones are the same way.
#[derive(Debug, Clone)]
pub struct ControllerHandle {
    asks: flume::Sender<Ask>,
    connected: Arc<AtomicBool>,
}

/// The other end of a [`ControllerHandle`].
#[derive(Debug)]
pub struct Asks {
    asked: flume::Receiver<Ask>,
    connected: Arc<AtomicBool>,
}

/// A handle and its other end.
pub fn controller_channel() -> (ControllerHandle, Asks) {
    let (asks, asked) = flume::bounded(ASKS_MAX);
    let connected = Arc::new(AtomicBool::new(false));
    (ControllerHandle { asks, connected: Arc::clone(&connected) }, Asks { asked, connected })
}

impl ControllerHandle {
    /// Whether a coordinator is connected.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Asks the controller. A refusal is an error, too.
    ///
    /// # Errors
    /// [`ControllerError`].
    pub async fn ask(
        &self,
        runtime: &SharedRuntime,
        request: Request,
        within: Duration,
    ) -> Result<Reply, ControllerError> {
        let (reply, answer) = flume::bounded(1);
        let asking = async {
            let ask = Ask { request, reply };
            self.asks.send_async(ask).await.map_err(|_| ControllerError::Unavailable)?;
            answer.recv_async().await.map_err(|_| ControllerError::Unavailable)?
        };
        let timer = async {
            runtime.sleep(within).await;
            Err(ControllerError::TimedOut)
        };
        match asking.or(timer).await? {
            Reply::Refused(refusal) => Err(refusal.into()),
            reply => Ok(reply),
        }
    }
}

/// What the broker says of itself when it registers.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// Its number, if it has one.
    pub broker: Option<BrokerId>,
    /// The cluster its data belongs to, if it has data.
    pub cluster: Option<ClusterId>,
    /// This process.
    pub incarnation: Incarnation,
    /// Its log directory.
    pub directory: DirectoryId,
    /// Its listeners.
    pub addresses: Vec<Address>,
    /// Where it stands.
    pub rack: Option<String>,
    /// Its shards.
    pub shards: u16,
    /// How it last stopped.
    pub last_stop: LastStop,
}

impl Introduction {
    fn request(&self, broker: Option<BrokerId>) -> Request {
        Request::Register(Register {
            broker,
            incarnation: self.incarnation,
            directory: self.directory,
            addresses: self.addresses.clone(),
            rack: self.rack.clone(),
            shards: self.shards,
            last_stop: self.last_stop,
        })
    }
}

/// The registration in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Our number.
    pub broker: BrokerId,
    /// Shown with every request.
    pub epoch: BrokerEpoch,
    /// Our cluster.
    pub cluster: ClusterId,
    /// The image that first shows it.
    pub index: u64,
}

impl From<Registered> for Registration {
    fn from(registered: Registered) -> Self {
        let Registered { broker, epoch, cluster, index } = registered;
        Self { broker, epoch, cluster, index }
    }
}

/// The link; one per broker, on shard 0.
pub struct ControllerLink {
    runtime: SharedRuntime,
    coordinators: Vec<String>,
    introduction: Introduction,
    asks: Asks,
    registration: Cell<Option<Registration>>,
    /// The newest image received.
    image: RefCell<Option<ClusterImage>>,
    image_moved: Bell,
    /// Index of the image that all shards act on.
    acted_on: Cell<u64>,
    /// Tells the heartbeat that there is news.
    news: Bell,
    wish: Cell<Wish>,
    /// Which coordinator is tried next.
    next: Cell<usize>,
    /// The coordinator named by one that is not the controller.
    hint: RefCell<Option<String>>,
    stopping: Flag,
    /// Why the broker must not go on, once there is a reason.
    fatal: RefCell<Option<String>>,
}

impl ControllerLink {
    /// A link that is not connected yet.
    pub fn new(
        runtime: SharedRuntime,
        coordinators: Vec<String>,
        introduction: Introduction,
        asks: Asks,
        stopping: Flag,
    ) -> Rc<Self> {
        Rc::new(Self {
            runtime,
            coordinators,
            introduction,
            asks,
            registration: Cell::new(None),
            image: RefCell::new(None),
            image_moved: Bell::default(),
            acted_on: Cell::new(0),
            news: Bell::default(),
            wish: Cell::new(Wish::Serve),
            next: Cell::new(0),
            hint: RefCell::new(None),
            stopping,
            fatal: RefCell::new(None),
        })
    }

    /// The registration in force, once there is one.
    pub fn registration(&self) -> Option<Registration> {
        self.registration.get()
    }

    /// Waits for an image newer than `index`, or for a reason not to go on.
    ///
    /// # Errors
    /// A sentence on why this broker cannot take part.
    pub async fn image_after(&self, index: u64) -> Result<Arc<ClusterImage>, String> {
        loop {
            let seen = self.image_moved.count();
            if let Some(reason) = &*self.fatal.borrow() {
                return Err(reason.clone());
            }
            let newer = self.image.borrow().as_ref().filter(|image| image.index() > index).cloned();
            if let Some(image) = newer {
                return Ok(Arc::new(image));
            }
            self.image_moved.after(seen).await;
        }
    }

    /// All shards act on the image `index` now.
    pub fn acts_on(&self, index: u64) {
        self.acted_on.set(index);
        self.news.ring();
    }

    /// Tells the controller with the next heartbeat that the broker wants to stop.
    pub fn wants_to_stop(&self) {
        self.wish.set(Wish::Stop);
        self.news.ring();
    }

    /// Keeps the connection until the broker stops.
    pub async fn run(self: Rc<Self>) {
        let mut pause = PAUSES.0;
        let mut complaints = 0_u32;
        while !self.stopping.is_raised() && self.fatal.borrow().is_none() {
            let outcome = self.run_session().await;
            let was_connected = self.asks.connected.swap(false, Ordering::Relaxed);
            self.refuse_asks();
            if self.stopping.is_raised() {
                return;
            }
            if was_connected {
                pause = PAUSES.0;
                complaints = 0;
            }
            // The first, and then one every half minute or so.
            if let Err(error) = outcome {
                if complaints.is_multiple_of(16) {
                    tracing::warn!(
                        coordinators = self.coordinators.join(","),
                        %error,
                        "no connection to the coordinator; trying again"
                    );
                }
                complaints += 1;
            }
            let wait = self.runtime.sleep(pause);
            wait.or(self.stopping.raised()).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// One connection, from connect to its end.
    async fn run_session(&self) -> Result<(), SessionError> {
        let address = self.next_address();
        let cluster = self.registration.get().map(|r| r.cluster).or(self.introduction.cluster);
        let connecting = Session::connect(resolve(&address).await?, cluster);
        let timer = async {
            self.runtime.sleep(CONNECT_WITHIN).await;
            Err(SessionError::TimedOut { what: "connect" })
        };
        let session = connecting.or(timer).await?;
        let reading = session.read_all(|push| self.on_push(push));
        let working = self.work(&session);
        let stopping = async {
            self.stopping.raised().await;
            Ok(())
        };
        let outcome = reading.or(working).or(stopping).await;
        session.close();
        outcome
    }

    /// Registers, subscribes, then carries requests and heartbeats.
    async fn work(&self, session: &Session) -> Result<(), SessionError> {
        if self.registration.get().is_none() {
            self.register(session).await?;
        }
        let from_index = self.image.borrow().as_ref().map_or(0, ClusterImage::index);
        match self.answer(session, Request::Subscribe { from_index }).await? {
            Reply::Subscribed { .. } => {}
            Reply::Refused(refusal) => return Err(self.on_refusal(refusal)),
            _ => return Err(SessionError::Unexpected),
        }
        self.asks.connected.store(true, Ordering::Relaxed);
        tracing::info!(coordinator = %session.peer(), "connected to the coordinator");
        self.carry_asks(session).or(self.beat(session)).await
    }

    async fn register(&self, session: &Session) -> Result<(), SessionError> {
        let known = self.registration.get().map(|registration| registration.broker);
        let request = self.introduction.request(known.or(self.introduction.broker));
        match self.answer(session, request).await? {
            Reply::Registered(registered) => {
                if let Some(ours) = self.introduction.cluster
                    && ours != registered.cluster
                {
                    self.give_up(format!(
                        "the data directory belongs to cluster {ours}, the coordinator to {}: \
                         point data_dir or coordinators elsewhere",
                        registered.cluster
                    ));
                    return Err(SessionError::Unexpected);
                }
                session.belongs_to(registered.cluster);
                tracing::info!(
                    broker = registered.broker.0,
                    epoch = registered.epoch.0,
                    cluster = %registered.cluster,
                    "registered"
                );
                self.registration.set(Some(registered.into()));
                self.news.ring();
                Ok(())
            }
            Reply::Refused(refusal) => Err(self.on_refusal(refusal)),
            _ => Err(SessionError::Unexpected),
        }
    }

    /// What a refusal of the broker itself means.
    fn on_refusal(&self, refusal: Refusal) -> SessionError {
        match refusal.code {
            RefusalCode::NotController => self.hint.borrow_mut().clone_from(&refusal.subject),
            RefusalCode::StaleBrokerEpoch | RefusalCode::UnknownBroker => {
                self.registration.set(None);
            }
            RefusalCode::WrongCluster | RefusalCode::DuplicateBroker => {
                self.give_up(format!("the coordinator refuses this broker: {refusal}"));
            }
            _ => {}
        }
        SessionError::Refused(refusal)
    }

    fn give_up(&self, reason: String) {
        *self.fatal.borrow_mut() = Some(reason);
        self.image_moved.ring();
    }

    async fn answer(&self, session: &Session, request: Request) -> Result<Reply, SessionError> {
        let answer = session.ask(request).await?;
        let waiting = async { answer.recv_async().await.map_err(|_| SessionError::Closed) };
        let timer = async {
            self.runtime.sleep(ASK_WITHIN).await;
            Err(SessionError::TimedOut { what: "answer" })
        };
        waiting.or(timer).await?.map_err(|_| SessionError::Closed)
    }

    async fn carry_asks(&self, session: &Session) -> Result<(), SessionError> {
        while let Ok(Ask { request, reply }) = self.asks.asked.recv_async().await {
            session.ask_for(request, reply).await?;
        }
        Ok(())
    }

    async fn beat(&self, session: &Session) -> Result<(), SessionError> {
        loop {
            let seen = self.news.count();
            let Some(registration) = self.registration.get() else {
                self.register(session).await?;
                continue;
            };
            let heartbeat = Request::Heartbeat(Heartbeat {
                broker: registration.broker,
                epoch: registration.epoch,
                seen_index: self.acted_on.get(),
                wish: self.wish.get(),
            });
            let answer = session.ask(heartbeat).await?;
            let waiting = async { answer.recv_async().await.map_err(|_| SessionError::Closed) };
            let timer = async {
                self.runtime.sleep(HEARTBEAT_ANSWER_WITHIN).await;
                Err(SessionError::TimedOut { what: "heartbeat" })
            };
            match waiting.or(timer).await?.map_err(|_| SessionError::Closed)? {
                Reply::Heartbeat(_) => {}
                Reply::Refused(refusal) => {
                    let is_stale = refusal.code == RefusalCode::StaleBrokerEpoch
                        || refusal.code == RefusalCode::UnknownBroker;
                    let error = self.on_refusal(refusal);
                    if !is_stale {
                        return Err(error);
                    }
                    continue;
                }
                _ => return Err(SessionError::Unexpected),
            }
            let pause = self.runtime.sleep(HEARTBEAT_EVERY);
            pause.or(self.news.after(seen)).await;
        }
    }

    /// An image, or changes to it, came.
    fn on_push(&self, push: Push) -> Result<(), SessionError> {
        let mut current = self.image.borrow_mut();
        match push {
            Push::Image(image) => {
                if let Some(known) = &*current
                    && (known.cluster() != image.cluster() || image.index() < known.index())
                {
                    return Err(SessionError::Backwards {
                        have: known.index(),
                        got: image.index(),
                    });
                }
                *current = Some(*image);
            }
            Push::Changes(committed) => {
                let image = current.as_mut().ok_or(SessionError::Unexpected)?;
                if let Err(error) = image.apply(&committed) {
                    // The next subscription begins with a whole image.
                    *current = None;
                    return Err(SessionError::Image(error));
                }
            }
        }
        drop(current);
        self.image_moved.ring();
        Ok(())
    }

    /// Nobody waits for a connection that is not there.
    fn refuse_asks(&self) {
        for ask in self.asks.asked.try_iter() {
            ask.reply.try_send(Err(ControllerError::Unavailable)).ok();
        }
    }

    fn next_address(&self) -> String {
        if let Some(hint) = self.hint.borrow_mut().take() {
            return hint;
        }
        let at = self.next.get();
        self.next.set(at.wrapping_add(1));
        self.coordinators.get(at % self.coordinators.len().max(1)).cloned().unwrap_or_default()
    }
}

/// Looks a name up without blocking the shard; an address needs no looking up.
async fn resolve(address: &str) -> Result<SocketAddr, SessionError> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let unknown = || SessionError::Unresolved { address: address.to_owned() };
    let (host, port) = split_host_port(address).ok_or_else(unknown)?;
    let (host, (sender, receiver)) = (host.to_owned(), flume::bounded(1));
    std::thread::Builder::new()
        .name("levada-resolve".into())
        .spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().ok().and_then(|mut all| all.next());
            sender.try_send(found).ok();
        })
        .map_err(SessionError::Io)?;
    receiver.recv_async().await.ok().flatten().ok_or_else(unknown)
}
