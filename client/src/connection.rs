//! One socket to one broker: requests go out in the order they were started, answers are matched by
//! number, every request has a deadline, every frame a limit.
//!
//! A connection is driven by a task of its own, so an answer is received while nobody polls for it.
//! It ends with the first thing that goes wrong; all that wait learn why. Handles are cheap to clone;
//! the task ends when the last one is gone and nothing is owed any more.

mod driver;
mod versions;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use levada_protocol::kafka::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use levada_protocol::kafka::{
    ApiKey, Decode, Encoded, ErrorCode, Reader, Request, decode_response_header, encode_request,
};
use levada_record::Encoding;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, timeout};

use crate::error::{CallError, ConnectError, Refusal};
use driver::{Driver, Outgoing, ReplyTo};
pub use versions::ServedVersions;

/// How connections behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// The name that brokers see. Default `levada`.
    pub client_id: String,
    /// How long connecting, with the first request, may take. Default 10 s.
    pub connect_timeout: Duration,
    /// How long an answer may take, beyond the time the request itself asks the broker to wait.
    /// Default 30 s.
    pub request_timeout: Duration,
    /// Longest answer, in bytes. Default 100 MiB.
    pub max_response_bytes: u32,
    /// Requests that may wait for the socket; at least 1. Default 64.
    pub queued_requests_max: usize,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            client_id: "levada".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            max_response_bytes: levada_protocol::frame::MAX_FRAME_BYTES_DEFAULT,
            queued_requests_max: 64,
        }
    }
}

/// What all handles of a connection and its task share.
#[derive(Debug)]
struct Shared {
    address: Arc<str>,
    options: ConnectionOptions,
    served: OnceLock<ServedVersions>,
    /// Why it ended; empty while it lives.
    end: OnceLock<Arc<str>>,
    next_correlation_id: AtomicI32,
}

impl Shared {
    fn closed(&self) -> CallError {
        let reason = self.end.get().cloned().unwrap_or_else(|| Arc::from("closed"));
        CallError::Closed { address: Arc::clone(&self.address), reason }
    }
}

/// A handle of a connection.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Outgoing>,
}

impl Connection {
    /// Connects to `address` (`host:port`) and asks which versions are served there.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn open(address: &str, options: &ConnectionOptions) -> Result<Self, ConnectError> {
        let after_ms = u64::try_from(options.connect_timeout.as_millis()).unwrap_or(u64::MAX);
        timeout(options.connect_timeout, Self::open_unhurried(address, options))
            .await
            .unwrap_or_else(|_| {
                Err(ConnectError::TimedOut { address: address.to_owned(), after_ms })
            })
    }

    async fn open_unhurried(
        address: &str,
        options: &ConnectionOptions,
    ) -> Result<Self, ConnectError> {
        let failed =
            |source| ConnectError::Socket { address: address.to_owned(), source: Arc::new(source) };
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let shared = Arc::new(Shared {
            address: Arc::from(address),
            options: options.clone(),
            served: OnceLock::new(),
            end: OnceLock::new(),
            next_correlation_id: AtomicI32::new(0),
        });
        let (requests, queue) = mpsc::channel(options.queued_requests_max.max(1));
        // Owned by its handles: it ends when the last is dropped.
        drop(tokio::spawn(Driver::new(Arc::clone(&shared), queue).run(stream)));
        let connection = Self { shared, requests };
        let served = connection
            .handshake()
            .await
            .map_err(|source| ConnectError::Handshake { address: address.to_owned(), source })?;
        let served = connection.shared.served.get_or_init(|| served);
        tracing::debug!(address, ?served, "connected");
        Ok(connection)
    }

    /// Asks for the served versions; a broker that is older than this client says what it speaks.
    async fn handshake(&self) -> Result<ServedVersions, CallError> {
        let request = ApiVersionsRequest {
            client_software_name: "levada".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let mut version = ApiKey::ApiVersions.accepted().max;
        loop {
            let reply = self.start_version(version, &request, &[], Duration::ZERO)?.await?;
            if reply.leading_i16() == Some(ErrorCode::UnsupportedVersion.to_i16()) && version > 0 {
                let served = ServedVersions::from_response(&reply.at_version(0).body()?);
                version = served.common(ApiKey::ApiVersions).filter(|v| *v < version).unwrap_or(0);
                continue;
            }
            let response: ApiVersionsResponse<'_> = reply.body()?;
            return Refusal::check(response.error_code, None)
                .map(|()| ServedVersions::from_response(&response))
                .map_err(|refusal| CallError::Closed {
                    address: Arc::clone(&self.shared.address),
                    reason: refusal.to_string().into(),
                });
        }
    }

    /// Whom it leads to.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Whether it has ended; every request would fail.
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    /// The version in which this connection sends `api`.
    ///
    /// # Errors
    /// [`CallError::Unsupported`] when there is none in common.
    pub fn version(&self, api: ApiKey) -> Result<i16, CallError> {
        let served = self.shared.served.get();
        served.and_then(|served| served.common(api)).ok_or_else(|| CallError::Unsupported {
            address: Arc::clone(&self.shared.address),
            api,
        })
    }

    /// Columnar when this broker takes and gives such batches, else Kafka's records.
    pub fn best_encoding(&self) -> Encoding {
        self.shared.served.get().map_or(Encoding::KafkaV2, ServedVersions::best_encoding)
    }

    /// Sends `request` and waits for the answer; waits for room in the queue before.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<R: Request>(&self, request: &R) -> Result<Reply, CallError> {
        self.call_waiting(request, Duration::ZERO).await
    }

    /// The same for a request that asks the broker to wait: the deadline is later by `wait`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_waiting<R: Request>(
        &self,
        request: &R,
        wait: Duration,
    ) -> Result<Reply, CallError> {
        let version = self.version(R::API)?;
        let (outgoing, pending) = self.prepare(version, request, &[], wait)?;
        self.requests.send(outgoing).await.map_err(|_| self.shared.closed())?;
        pending.await
    }

    /// Puts `request` into the queue now: requests are written in the order of these calls.
    /// Records given as `External` are taken from `payloads` by their token.
    ///
    /// # Errors
    /// [`CallError`] when it cannot be sent; the returned future tells the rest.
    pub fn start<R: Request>(
        &self,
        request: &R,
        payloads: &[Bytes],
        wait: Duration,
    ) -> Result<Pending, CallError> {
        self.start_version(self.version(R::API)?, request, payloads, wait)
    }

    fn start_version<R: Request>(
        &self,
        version: i16,
        request: &R,
        payloads: &[Bytes],
        wait: Duration,
    ) -> Result<Pending, CallError> {
        let (outgoing, pending) = self.prepare(version, request, payloads, wait)?;
        self.enqueue(outgoing)?;
        Ok(pending)
    }

    /// Puts a request that has no answer (Produce with acks 0) into the queue. The future ends when
    /// its bytes were handed to the system.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_unanswered<R: Request>(
        &self,
        request: &R,
        payloads: &[Bytes],
    ) -> Result<impl Future<Output = Result<(), CallError>> + Send + use<R>, CallError> {
        let encoded = self.encode(self.version(R::API)?, request)?;
        let (written, wait) = oneshot::channel();
        let outgoing = Outgoing {
            correlation_id: encoded.0,
            api: R::API,
            chunks: driver::chunks(encoded.1, payloads),
            reply: ReplyTo::Written(written),
            deadline: self.deadline(Duration::ZERO),
            wait: Duration::ZERO,
        };
        self.enqueue(outgoing)?;
        let shared = Arc::clone(&self.shared);
        Ok(async move { wait.await.unwrap_or_else(|_| Err(shared.closed())) })
    }

    fn enqueue(&self, outgoing: Outgoing) -> Result<(), CallError> {
        self.requests.try_send(outgoing).map_err(|error| match error {
            mpsc::error::TrySendError::Closed(_) => self.shared.closed(),
            mpsc::error::TrySendError::Full(_) => CallError::QueueFull {
                address: Arc::clone(&self.shared.address),
                max: self.shared.options.queued_requests_max,
            },
        })
    }

    fn deadline(&self, wait: Duration) -> Instant {
        Instant::now() + self.shared.options.request_timeout + wait
    }

    fn encode<R: Request>(&self, version: i16, request: &R) -> Result<(i32, Encoded), CallError> {
        let correlation_id = self.shared.next_correlation_id.fetch_add(1, Ordering::Relaxed);
        let client_id = Some(self.shared.options.client_id.as_str());
        encode_request(version, correlation_id, client_id, request)
            .map(|encoded| (correlation_id, encoded))
            .map_err(|source| CallError::Encode { api: R::API, source })
    }

    fn prepare<R: Request>(
        &self,
        version: i16,
        request: &R,
        payloads: &[Bytes],
        wait: Duration,
    ) -> Result<(Outgoing, Pending), CallError> {
        let (correlation_id, encoded) = self.encode(version, request)?;
        let (reply, frame) = oneshot::channel();
        let outgoing = Outgoing {
            correlation_id,
            api: R::API,
            chunks: driver::chunks(encoded, payloads),
            reply: ReplyTo::Frame(reply),
            deadline: self.deadline(wait),
            wait,
        };
        let shared = Arc::clone(&self.shared);
        Ok((outgoing, Pending { frame, api: R::API, version, shared }))
    }
}

/// An answer that has not come yet. Dropping it lets the answer be thrown away.
#[derive(Debug)]
pub struct Pending {
    frame: oneshot::Receiver<Result<Bytes, CallError>>,
    api: ApiKey,
    version: i16,
    shared: Arc<Shared>,
}

impl Future for Pending {
    type Output = Result<Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.frame).poll(context);
        polled.map(|frame| match frame {
            Ok(Ok(frame)) => Ok(Reply { frame, api: self.api, version: self.version }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.shared.closed()),
        })
    }
}

/// The frame of an answer; bodies are read out of it without a copy.
#[derive(Debug, Clone)]
pub struct Reply {
    frame: Bytes,
    api: ApiKey,
    version: i16,
}

impl Reply {
    /// The body, which must fill the frame.
    ///
    /// # Errors
    /// [`CallError::Decode`] when it is no such body.
    pub fn body<'a, T: Decode<'a>>(&'a self) -> Result<T, CallError> {
        self.read().map_err(|source| CallError::Decode { api: self.api, source })
    }

    fn read<'a, T: Decode<'a>>(&'a self) -> Result<T, levada_protocol::kafka::DecodeError> {
        let mut reader = Reader::new(&self.frame);
        decode_response_header(&mut reader, self.api, self.version)?;
        T::decode_all(reader, self.version)
    }

    /// The bytes of the frame that `part`, which was read out of it, lies in.
    pub(crate) fn slice_of(&self, part: &[u8]) -> Bytes {
        self.frame.slice_ref(part)
    }

    /// The first field behind the correlation id.
    fn leading_i16(&self) -> Option<i16> {
        let [_, _, _, _, high, low, ..] = self.frame[..] else { return None };
        Some(i16::from_be_bytes([high, low]))
    }

    fn at_version(&self, version: i16) -> Reply {
        Reply { version, ..self.clone() }
    }
}
