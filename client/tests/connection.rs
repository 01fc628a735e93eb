//! Connections against servers of a few lines that do what no broker should.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use levada_client::connection::{Connection, ConnectionOptions};
use levada_client::{CallError, ConnectError};
use levada_protocol::kafka::api_versions::{ApiVersion, ApiVersionsResponse};
use levada_protocol::kafka::metadata::{MetadataRequest, MetadataResponse};
use levada_protocol::kafka::{ApiKey, Reader, RequestHeader, encode_response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Reads one request frame: key, version, correlation id.
async fn request(stream: &mut TcpStream) -> Option<(ApiKey, i16, i32)> {
    let length = stream.read_u32().await.ok()?;
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.ok()?;
    let mut reader = Reader::new(&frame);
    let header = RequestHeader::decode(&mut reader).ok()?;
    Some((header.api_key, header.api_version, header.correlation_id))
}

async fn answer_versions(stream: &mut TcpStream) {
    let (key, version, id) = request(stream).await.unwrap();
    assert_eq!(key, ApiKey::ApiVersions);
    let row = |key: ApiKey, max_version| ApiVersion {
        api_key: key.to_i16(),
        min_version: 0,
        max_version,
    };
    let body = ApiVersionsResponse {
        api_keys: vec![row(ApiKey::ApiVersions, 4), row(ApiKey::Metadata, 1)],
        ..Default::default()
    };
    let frame = encode_response(key, version, id, &body).unwrap().bytes;
    stream.write_all(&frame).await.unwrap();
}

/// A server that does the handshake and then what `script` says with its first connection.
async fn serve<F, Fut>(script: F) -> String
where
    F: FnOnce(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer_versions(&mut stream).await;
        script(stream).await;
    });
    address
}

fn quick() -> ConnectionOptions {
    ConnectionOptions {
        request_timeout: Duration::from_millis(200),
        max_response_bytes: 1 << 16,
        ..Default::default()
    }
}

fn metadata(id: i32, cluster: &str) -> Vec<u8> {
    let body =
        MetadataResponse { controller_id: cluster.len().try_into().unwrap(), ..Default::default() };
    encode_response(ApiKey::Metadata, 1, id, &body).unwrap().bytes
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let address = serve(|mut stream| async move {
        let (_, version, first) = request(&mut stream).await.unwrap();
        assert_eq!(version, 1, "the highest that both speak");
        let (_, _, second) = request(&mut stream).await.unwrap();
        stream.write_all(&metadata(second, "22")).await.unwrap();
        stream.write_all(&metadata(first, "1")).await.unwrap();
        request(&mut stream).await;
    })
    .await;
    let connection = Connection::open(&address, &quick()).await.unwrap();
    let ask = MetadataRequest::default();
    let one = connection.start(&ask, &[], Duration::ZERO).unwrap();
    let two = connection.start(&ask, &[], Duration::ZERO).unwrap();
    for (pending, expected) in [(one, 1), (two, 2)] {
        let reply = pending.await.unwrap();
        let body: MetadataResponse<'_> = reply.body().unwrap();
        assert_eq!(body.controller_id, expected);
    }
    assert!(matches!(connection.version(ApiKey::Fetch), Err(CallError::Unsupported { .. })));
}

#[tokio::test]
async fn a_late_answer_ends_the_connection_and_tells_everybody() {
    let address =
        serve(|mut stream| async move { while request(&mut stream).await.is_some() {} }).await;
    let connection = Connection::open(&address, &quick()).await.unwrap();
    let ask = MetadataRequest::default();
    let first = connection.start(&ask, &[], Duration::ZERO).unwrap();
    let patient = connection.start(&ask, &[], Duration::from_mins(1)).unwrap();
    assert!(matches!(first.await, Err(CallError::TimedOut { after_ms: 200, .. })));
    let error = patient.await.unwrap_err();
    assert!(error.to_string().contains("within 200 ms"), "{error}");
    assert!(connection.call(&ask).await.unwrap_err().to_string().contains("within 200 ms"));
    assert!(connection.is_closed());
}

#[tokio::test]
async fn impossible_frames_end_the_connection() {
    let mut long = BytesMut::new();
    long.put_u32(0x7fff_ffff);
    let mut negative = BytesMut::new();
    negative.put_i32(-1);
    let unasked = metadata(77, "x");
    let mut short = BytesMut::new();
    short.put_u32(2);
    short.put_u16(0);
    for (bytes, says) in [
        (long.to_vec(), "exceeds"),
        (negative.to_vec(), "-1"),
        (unasked, "was not made"),
        (short.to_vec(), "was not made"),
    ] {
        let address = serve(|mut stream| async move {
            request(&mut stream).await;
            stream.write_all(&bytes).await.unwrap();
            request(&mut stream).await;
        })
        .await;
        let connection = Connection::open(&address, &quick()).await.unwrap();
        let error = connection.call(&MetadataRequest::default()).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_body_that_is_none_is_an_error_of_that_call_only() {
    let address = serve(|mut stream| async move {
        let (_, _, id) = request(&mut stream).await.unwrap();
        let mut frame = BytesMut::new();
        frame.put_u32(8);
        frame.put_i32(id);
        frame.put_u32(0x7fff_ffff);
        stream.write_all(&frame).await.unwrap();
        let (_, _, id) = request(&mut stream).await.unwrap();
        stream.write_all(&metadata(id, "1")).await.unwrap();
        request(&mut stream).await;
    })
    .await;
    let connection = Connection::open(&address, &quick()).await.unwrap();
    let reply = connection.call(&MetadataRequest::default()).await.unwrap();
    assert!(matches!(reply.body::<MetadataResponse<'_>>(), Err(CallError::Decode { .. })));
    let reply = connection.call(&MetadataRequest::default()).await.unwrap();
    assert!(reply.body::<MetadataResponse<'_>>().is_ok());
}

#[tokio::test]
async fn the_queue_is_bounded_while_the_socket_is_stuck() {
    let address = serve(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let options = ConnectionOptions { queued_requests_max: 4, ..quick() };
    let connection = Connection::open(&address, &options).await.unwrap();
    let ask = MetadataRequest::default();
    let mut pending = Vec::new();
    let full = (0..100).find_map(|_| match connection.start(&ask, &[], Duration::ZERO) {
        Ok(one) => {
            pending.push(one);
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(full, Some(CallError::QueueFull { max: 4, .. })), "{full:?}");
    assert_eq!(pending.len(), 4);
}

#[tokio::test]
async fn nobody_there_and_somebody_else_there_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Connection::open(&free, &quick()).await.unwrap_err();
    assert!(error.is_refused(), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    });
    let error = Connection::open(&address, &quick()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn an_older_broker_is_asked_again_in_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (key, _, id) = request(&mut stream).await.unwrap();
        let row = ApiVersion { api_key: 18, min_version: 0, max_version: 2 };
        let refusal =
            ApiVersionsResponse { error_code: 35, api_keys: vec![row], ..Default::default() };
        stream.write_all(&encode_response(key, 0, id, &refusal).unwrap().bytes).await.unwrap();
        let (_, version, id) = request(&mut stream).await.unwrap();
        let body = ApiVersionsResponse { error_code: 0, ..refusal };
        stream.write_all(&encode_response(key, version, id, &body).unwrap().bytes).await.unwrap();
        version
    });
    let connection = Connection::open(&address, &quick()).await.unwrap();
    assert_eq!(server.await.unwrap(), 2);
    assert_eq!(connection.version(ApiKey::ApiVersions).unwrap(), 2);
}
