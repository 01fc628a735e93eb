//! Any bytes, as a whole request frame and as a body of any message in any version.
//!
//! The first byte says which: a frame, a request body or a response body; the next two choose API and
//! version of a body, so that the fuzzer does not have to find them.
#![no_main]

use levada_protocol::kafka::{
    AnyRequest, AnyResponse, ApiKey, Encode, HeaderError, Reader, RequestHeader, Writer,
};
use libfuzzer_sys::fuzz_target;

/// Memory for the items of one message, in bytes.
const HEAP_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    if choice % 3 == 0 {
        return frame(rest);
    }
    let [api, version, body @ ..] = rest else { return };
    let row = ApiKey::table()[usize::from(*api) % ApiKey::table().len()];
    let versions = row.accepted.max - row.accepted.min + 1;
    let version = row.accepted.min + i16::from(*version) % versions;
    if choice % 3 == 1 { request(row.key, version, body) } else { response(row.key, version, body) }
});

fn frame(bytes: &[u8]) {
    let mut r = Reader::with_heap_bytes_max(bytes, HEAP_BYTES_MAX);
    match RequestHeader::decode(&mut r) {
        Ok(header) => {
            assert!(header.api_key.accepted().contains(header.api_version));
            let at = r.position();
            request(header.api_key, header.api_version, &bytes[at..]);
        }
        Err(HeaderError::Malformed(_)) => {}
        Err(HeaderError::UnknownApi { api_key, .. }) => {
            assert_eq!(ApiKey::from_i16(api_key), None);
        }
        Err(HeaderError::UnsupportedVersion { api_key, api_version, .. }) => {
            assert!(!api_key.accepted().contains(api_version));
        }
    }
}

/// What can be read can be written, is not longer then, and is read as the same again.
fn request(api: ApiKey, version: i16, bytes: &[u8]) {
    let reader = Reader::with_heap_bytes_max(bytes, HEAP_BYTES_MAX);
    let Ok(body) = AnyRequest::decode_from(api, reader, version) else { return };
    let written = write(&body, version, bytes);
    assert_eq!(AnyRequest::decode(api, &written, version).as_ref(), Ok(&body));
}

fn response(api: ApiKey, version: i16, bytes: &[u8]) {
    let reader = Reader::with_heap_bytes_max(bytes, HEAP_BYTES_MAX);
    let Ok(body) = AnyResponse::decode_from(api, reader, version) else { return };
    let written = write(&body, version, bytes);
    assert_eq!(AnyResponse::decode(api, &written, version).as_ref(), Ok(&body));
}

fn write(body: &dyn Encode, version: i16, read: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    body.encode(&mut w, version);
    let written = w.finish().expect("its version has all its fields");
    assert!(written.splices.is_empty());
    assert!(written.bytes.len() <= read.len());
    written.bytes
}
