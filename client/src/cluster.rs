//! The way to every broker of a cluster: what is known of it, and one connection to each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use levada_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use levada_protocol::kafka::{ApiKey, Request};
use tokio::sync::{Mutex, watch};
use tokio::time::{Duration, Instant, sleep};

use crate::clock::seed;
use crate::connection::{Connection, ConnectionOptions, Reply};
use crate::error::{ClientError, ConnectError, Refusal};
use crate::metadata::{Asked, ClusterView, Home, TopicView};
use crate::retry::{Advice, Backoff, Chance, advice};

/// The port of a bootstrap address that names none.
pub const DEFAULT_PORT: u16 = 9092;

/// Whether requests go straight to the core that has their partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShardPorts {
    /// Where the broker offers such ports and they can be reached; else to the broker's own port.
    #[default]
    WhenOffered,
    /// Everything to the broker's own port.
    Never,
}

/// How a cluster is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterOptions {
    /// How each connection behaves.
    pub connection: ConnectionOptions,
    /// How long to wait for a topic to exist and have leaders, and for a broker to be reached again.
    /// Default 30 s.
    pub patience: Duration,
    /// Pauses between tries. Default 50 ms doubling to 1 s.
    pub backoff: Backoff,
    /// Default when offered.
    pub shard_ports: ShardPorts,
    /// How long connecting to the port of a single core may take before the broker's own is used.
    /// Default 1 s.
    pub shard_port_timeout: Duration,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            patience: Duration::from_secs(30),
            backoff: Backoff::default(),
            shard_ports: ShardPorts::default(),
            shard_port_timeout: Duration::from_secs(1),
        }
    }
}

/// Whether asking for a missing topic may create it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCreate {
    /// If the broker is configured to.
    Allowed,
    /// In no case.
    Never,
}

/// The connection to one address, or the place for it.
type Slot = Arc<Mutex<Option<Connection>>>;

#[derive(Debug)]
struct Inner {
    bootstrap: Vec<String>,
    options: ClusterOptions,
    view: watch::Sender<Arc<ClusterView>>,
    connections: Mutex<HashMap<String, Slot>>,
    /// Ports of single cores that cannot be reached though their broker can.
    closed_ports: Mutex<HashSet<Home>>,
    /// One metadata request at a time.
    asking: Mutex<Chance>,
}

/// A handle of a cluster; cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

impl Cluster {
    /// Reaches the cluster through the first of `bootstrap` that answers (`host:port`, several
    /// separated by commas, port 9092 when left out) and asks for its brokers.
    ///
    /// # Errors
    /// [`ClientError`] when no address answers as a broker.
    pub async fn connect(bootstrap: &str, options: ClusterOptions) -> Result<Self, ClientError> {
        let cluster = Self {
            inner: Arc::new(Inner {
                bootstrap: parse_bootstrap(bootstrap)?,
                options,
                view: watch::Sender::new(Arc::default()),
                connections: Mutex::default(),
                closed_ports: Mutex::default(),
                asking: Mutex::new(Chance::new(seed())),
            }),
        };
        cluster.refresh(Asked::Topics(&[]), AutoCreate::Never).await?;
        Ok(cluster)
    }

    /// What is known now.
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.inner.view.borrow())
    }

    /// How it is reached.
    pub fn options(&self) -> &ClusterOptions {
        &self.inner.options
    }

    /// Asks any broker for brokers and topics. The errors are those of single topics.
    ///
    /// # Errors
    /// [`ClientError`] when nobody answers.
    pub async fn refresh(
        &self,
        asked: Asked<'_>,
        auto_create: AutoCreate,
    ) -> Result<(Arc<ClusterView>, Vec<(Arc<str>, Refusal)>), ClientError> {
        let asking = self.inner.asking.lock().await;
        let connection = self.any().await?;
        let topic = |name: &&'_ str| MetadataRequestTopic {
            name: Some(String::from(*name).into()),
            ..Default::default()
        };
        // Version 0 knows no null: there an empty list means all.
        let topics = match asked {
            Asked::All if connection.version(ApiKey::Metadata)? == 0 => Some(Vec::new()),
            Asked::All => None,
            Asked::Topics(names) => Some(names.iter().map(topic).collect()),
        };
        let allow_auto_topic_creation = match auto_create {
            AutoCreate::Allowed => true,
            // Versions below 4 cannot say no.
            AutoCreate::Never => connection.version(ApiKey::Metadata)? < 4,
        };
        let levada_ports = i8::from(self.inner.options.shard_ports == ShardPorts::WhenOffered);
        let request = MetadataRequest {
            topics,
            allow_auto_topic_creation,
            levada_ports,
            ..Default::default()
        };
        let reply = connection.call(&request).await?;
        let response: MetadataResponse<'_> = reply.body()?;
        Refusal::check(response.error_code, None)
            .map_err(|refusal| ClientError::refused("metadata", refusal))?;
        let (view, errors) = self.view().after(asked, &response);
        let view = Arc::new(view);
        self.inner.view.send_replace(Arc::clone(&view));
        drop(asking);
        Ok((view, errors))
    }

    /// The topic, from what is known or from the cluster, once every partition has a leader. Waits
    /// with [`ClusterOptions::patience`] while it is being created or elects leaders.
    ///
    /// # Errors
    /// [`ClientError`]; `UNKNOWN_TOPIC_OR_PARTITION` when it does not exist and is not created.
    pub async fn topic(
        &self,
        name: &str,
        auto_create: AutoCreate,
    ) -> Result<TopicView, ClientError> {
        if let Some(topic) = self.view().topics.get(name) {
            return Ok(topic.clone());
        }
        let deadline = Instant::now() + self.inner.options.patience;
        let mut failed = 0;
        loop {
            let refusal = match self.refresh(Asked::Topics(&[name]), auto_create).await {
                Ok((view, errors)) => match (view.topics.get(name), errors.into_iter().next()) {
                    (Some(topic), _) if topic.partitions.iter().all(|p| p.leader.is_some()) => {
                        return Ok(topic.clone());
                    }
                    (Some(_), _) => levada_protocol::kafka::ErrorCode::LeaderNotAvailable.into(),
                    (None, Some((_, refusal))) => refusal,
                    (None, None) => {
                        levada_protocol::kafka::ErrorCode::UnknownTopicOrPartition.into()
                    }
                },
                Err(error) if Instant::now() < deadline && !is_final(&error) => {
                    failed += 1;
                    sleep(self.pause(failed).await).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let missing =
                refusal.code == levada_protocol::kafka::ErrorCode::UnknownTopicOrPartition;
            // A topic that nobody creates will not appear; one that is created answers so at first.
            let hopeless = missing && (auto_create == AutoCreate::Never || failed > 10);
            if hopeless || advice(refusal.code) == Advice::Fail || Instant::now() >= deadline {
                return Err(ClientError::refused(format!("topic {name}"), refusal));
            }
            failed += 1;
            sleep(self.pause(failed).await).await;
        }
    }

    async fn pause(&self, failed: u32) -> Duration {
        self.inner.options.backoff.delay(failed, &mut *self.inner.asking.lock().await)
    }

    /// A connection to any broker: one that is open, else the first that can be reached.
    ///
    /// # Errors
    /// [`ConnectError`] when none can be.
    pub async fn any(&self) -> Result<Connection, ConnectError> {
        let slots: Vec<Slot> =
            self.inner.connections.lock().await.values().map(Arc::clone).collect();
        for slot in slots {
            // One that is being opened is not waited for.
            let Ok(connection) = slot.try_lock() else { continue };
            if let Some(connection) = connection.as_ref().filter(|open| !open.is_closed()) {
                return Ok(connection.clone());
            }
        }
        let view = self.view();
        let known = view.nodes.values().map(crate::metadata::Node::address);
        let mut tried = 0;
        let mut last = None;
        for address in self.inner.bootstrap.iter().cloned().chain(known) {
            match self.open(&address, &self.inner.options.connection).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
            tried += 1;
        }
        match last {
            Some(last) if tried == 1 => Err(last),
            Some(last) => Err(ConnectError::NoneReached { tried, last: Box::new(last) }),
            None => Err(ConnectError::Address { address: String::new() }),
        }
    }

    /// The connection to a broker, opened if need be.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn node(&self, broker: i32) -> Result<Connection, ConnectError> {
        let view = self.view();
        let node = view.nodes.get(&broker).ok_or(ConnectError::UnknownBroker { broker })?;
        self.open(&node.address(), &self.inner.options.connection).await
    }

    /// The connection to the core that has a partition, opened if need be. Where its port cannot be reached and the
    /// broker can, it is the broker's from then on.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn home(&self, home: Home) -> Result<Connection, ConnectError> {
        let Some(port) = home.port else { return self.node(home.broker).await };
        if self.inner.closed_ports.lock().await.contains(&home) {
            return self.node(home.broker).await;
        }
        let view = self.view();
        let node = view
            .nodes
            .get(&home.broker)
            .ok_or(ConnectError::UnknownBroker { broker: home.broker })?;
        let hasty = ConnectionOptions {
            connect_timeout: self.inner.options.shard_port_timeout,
            ..self.inner.options.connection.clone()
        };
        match self.open(&node.address_at(port), &hasty).await {
            Ok(connection) => Ok(connection),
            Err(error) => {
                let connection = self.node(home.broker).await?;
                tracing::info!(broker = home.broker, port, %error, "the port of a core is closed");
                self.inner.closed_ports.lock().await.insert(home);
                Ok(connection)
            }
        }
    }

    async fn open(
        &self,
        address: &str,
        options: &ConnectionOptions,
    ) -> Result<Connection, ConnectError> {
        let slot = {
            let mut connections = self.inner.connections.lock().await;
            Arc::clone(connections.entry(address.to_owned()).or_default())
        };
        let mut connection = slot.lock().await;
        if let Some(open) = connection.as_ref().filter(|open| !open.is_closed()) {
            return Ok(open.clone());
        }
        let open = Connection::open(address, options).await?;
        *connection = Some(open.clone());
        Ok(open)
    }

    /// Sends a request to the broker that acts for the controller, or to any when none is named.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call_controller<R: Request>(
        &self,
        request: &R,
        wait: Duration,
    ) -> Result<Reply, ClientError> {
        let controller = self.view().controller;
        let connection = match controller {
            Some(controller) => self.node(controller).await,
            None => self.any().await,
        };
        // A controller that is gone is no reason to give up: every broker forwards.
        let connection = match connection {
            Ok(connection) => connection,
            Err(_) => self.any().await?,
        };
        Ok(connection.call_waiting(request, wait).await?)
    }
}

/// Errors that no waiting cures.
fn is_final(error: &ClientError) -> bool {
    match error {
        ClientError::Connect(ConnectError::Address { .. }) => true,
        ClientError::Call(error) => matches!(
            error,
            crate::error::CallError::Unsupported { .. }
                | crate::error::CallError::Encode { .. }
                | crate::error::CallError::Decode { .. }
        ),
        ClientError::Connect(_) | ClientError::Senseless { .. } => false,
        ClientError::Refused { refusal, .. } => advice(refusal.code) == Advice::Fail,
    }
}

/// Splits `host:port,host:port`.
fn parse_bootstrap(text: &str) -> Result<Vec<String>, ConnectError> {
    let addresses = text.split(',').map(str::trim).filter(|address| !address.is_empty());
    let addresses: Vec<_> = addresses.map(parse_address).collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        return Err(ConnectError::Address { address: text.to_owned() });
    }
    Ok(addresses)
}

fn parse_address(text: &str) -> Result<String, ConnectError> {
    let wrong = || ConnectError::Address { address: text.to_owned() };
    let (host, port) = match text.rsplit_once(':') {
        // The last part of an IPv6 address is no port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.map_or(Ok(DEFAULT_PORT), str::parse::<u16>).map_err(|_| wrong())?;
    if host.is_empty() || port == 0 || host.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(if bare.contains(':') { format!("[{bare}]:{port}") } else { format!("{bare}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_addresses_are_a_list_with_a_default_port() {
        let parse = |text| parse_bootstrap(text).ok().map(|list| list.join(" "));
        assert_eq!(parse("a:1, b ,[::1]:3").as_deref(), Some("a:1 b:9092 [::1]:3"));
        assert_eq!(parse("::1").as_deref(), Some("[::1]:9092"));
        assert_eq!(parse("127.0.0.1").as_deref(), Some("127.0.0.1:9092"));
        for text in ["", ",", "a:0", "a:b", ":9092", "a b:1", "a:70000"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
