//! Random messages, made from the definitions without the generated code: what is right on the wire, and the same with
//! tagged fields that nobody knows.

use levada_protocol::kafka::{
    AnyRequest, AnyResponse, ApiKey, DecodeError, Encode as _, EncodeError, Writer,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

pub(crate) use super::schema::Role;
use super::schema::{Api, Field, Struct, Type};

/// Tag of Levada's own field in Fetch.
const LEVADA_COLUMNAR: u32 = 10_000;

/// First tag that no definition has.
const UNKNOWN_TAG: u32 = 20_000;

/// All definitions, by key.
pub(crate) fn definitions() -> Vec<Api> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kafka/schema");
    let mut apis: Vec<Api> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| Api::parse(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap())
        .collect();
    apis.sort_by_key(|api| api.key);
    apis
}

/// `LEVADA_SEED`, or another one each time; every assertion prints it.
pub(crate) fn seed() -> u64 {
    match std::env::var("LEVADA_SEED") {
        Ok(seed) => seed.parse().expect("LEVADA_SEED is a number"),
        Err(_) => StdRng::from_os_rng().random(),
    }
}

/// A body of some message.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Whose message.
    pub(crate) key: ApiKey,
    /// Request or response.
    pub(crate) role: Role,
    /// Version of the body.
    pub(crate) version: i16,
    /// The body.
    pub(crate) bytes: Vec<u8>,
    /// The body with unknown tagged fields; the same before the flexible versions.
    pub(crate) with_unknown_tags: Vec<u8>,
}

/// Calls `check` with `per_version` bodies of every API, role and version.
pub(crate) fn every_message(seed: u64, per_version: usize, mut check: impl FnMut(&Sample)) {
    let mut rng = StdRng::seed_from_u64(seed);
    for api in definitions() {
        let key = ApiKey::from_i16(api.key).unwrap();
        for role in [Role::Request, Role::Response] {
            for version in api.versions.min..=api.versions.max {
                for _ in 0..per_version {
                    let mut body = Body { api: &api, version, rng: &mut rng };
                    let (bytes, with_unknown_tags) = body.structure(api.body(role).unwrap());
                    check(&Sample { key, role, version, bytes, with_unknown_tags });
                }
            }
        }
    }
}

/// Any body, decoded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Any<'a> {
    Request(AnyRequest<'a>),
    Response(AnyResponse<'a>),
}

/// Decodes `bytes` as the kind of message that `sample` is.
pub(crate) fn decode<'a>(sample: &Sample, bytes: &'a [u8]) -> Result<Any<'a>, DecodeError> {
    match sample.role {
        Role::Request => AnyRequest::decode(sample.key, bytes, sample.version).map(Any::Request),
        _ => AnyResponse::decode(sample.key, bytes, sample.version).map(Any::Response),
    }
}

/// The bytes of a decoded body.
pub(crate) fn encode(any: &Any<'_>, version: i16) -> Result<Vec<u8>, EncodeError> {
    let mut w = Writer::new();
    match any {
        Any::Request(body) => body.encode(&mut w, version),
        Any::Response(body) => body.encode(&mut w, version),
    }
    w.finish().map(|encoded| encoded.bytes)
}

struct Body<'s> {
    api: &'s Api,
    version: i16,
    rng: &'s mut StdRng,
}

/// The same value twice: as it should be, and with unknown tagged fields.
type Pair = (Vec<u8>, Vec<u8>);

impl Body<'_> {
    fn flexible(&self) -> bool {
        self.api.is_flexible(self.version)
    }

    fn structure(&mut self, part: &Struct) -> Pair {
        let mut out = Pair::default();
        let version = self.version;
        let fields = part.fields.iter().filter(|field| field.span.contains(version));
        for field in fields.clone().filter(|field| field.tag.is_none()) {
            let value = self.field(field);
            append(&mut out, &value);
        }
        if !self.flexible() {
            return out;
        }
        let mut tagged: Vec<(u32, Pair)> = Vec::new();
        for field in fields {
            if let Some(tag) = field.tag
                && self.rng.random_bool(0.5)
            {
                tagged.push((tag, self.set(field)));
            }
        }
        tagged.sort_by_key(|(tag, _)| *tag);
        let unknown = if self.rng.random_bool(0.3) { self.rng.random_range(1..4) } else { 0 };
        let count = u32::try_from(tagged.len()).unwrap();
        varint(&mut out.0, count);
        varint(&mut out.1, count + unknown);
        for (tag, (clean, dirty)) in tagged {
            for (out, value) in [(&mut out.0, clean), (&mut out.1, dirty)] {
                varint(out, tag);
                varint(out, u32::try_from(value.len()).unwrap());
                out.extend(value);
            }
        }
        for index in 0..unknown {
            let size = self.rng.random_range(0..200);
            varint(&mut out.1, UNKNOWN_TAG + index);
            varint(&mut out.1, size);
            out.1.extend((0..size).map(|_| self.rng.random::<u8>()));
        }
        out
    }

    fn field(&mut self, field: &Field) -> Pair {
        let nullable = field.nullable_from.is_some_and(|from| self.version >= from);
        if nullable && self.rng.random_bool(0.2) {
            return same(self.null(&field.ty));
        }
        let mut out = Pair::default();
        if matches!(field.ty, Type::Struct(_)) && field.nullable_from.is_some() {
            out = same(vec![1]);
        }
        let value = self.value(&field.ty, 0);
        append(&mut out, &value);
        out
    }

    /// A value that is not the default, since encoders leave defaults of tagged fields out.
    fn set(&mut self, field: &Field) -> Pair {
        match field.ty {
            Type::Bool => same(vec![1]),
            Type::I8 if field.tag == Some(LEVADA_COLUMNAR) => same(vec![1]),
            _ => self.value(&field.ty, 1),
        }
    }

    fn null(&self, ty: &Type) -> Vec<u8> {
        match ty {
            Type::Struct(_) => vec![0xff],
            _ if self.flexible() => vec![0],
            Type::String => vec![0xff; 2],
            _ => vec![0xff; 4],
        }
    }

    fn value(&mut self, ty: &Type, items_min: usize) -> Pair {
        match ty {
            Type::Bool => same(vec![u8::from(self.rng.random::<bool>())]),
            Type::I8 => same(self.rng.random::<i8>().to_be_bytes().into()),
            Type::I16 => same(self.rng.random::<i16>().to_be_bytes().into()),
            Type::I32 => same(self.rng.random::<i32>().to_be_bytes().into()),
            Type::I64 => same(self.rng.random::<i64>().to_be_bytes().into()),
            Type::Uuid => same(self.rng.random::<[u8; 16]>().into()),
            Type::String | Type::Bytes | Type::Records => {
                let longest = if self.rng.random_bool(0.1) { 300 } else { 12 };
                let length = self.rng.random_range(items_min..=longest);
                // No b at the end of a word: the oracle looks for the b before a quote.
                let letters = (0..length).map(|_| self.rng.random_range(b'c'..=b'z'));
                let letters: Vec<u8> = letters.collect();
                let mut out = self.length(length, *ty == Type::String);
                out.extend(letters);
                same(out)
            }
            Type::Array(item) => {
                let most = if self.rng.random_bool(0.02) { 140 } else { 3 };
                let most = if matches!(**item, Type::Struct(_)) { most.min(6) } else { most };
                let length = self.rng.random_range(items_min..=most);
                let mut out = same(self.length(length, false));
                for _ in 0..length {
                    let item = self.value(item, 0);
                    append(&mut out, &item);
                }
                out
            }
            Type::Struct(name) => self.structure(self.api.find(name).unwrap()),
        }
    }

    fn length(&self, length: usize, short: bool) -> Vec<u8> {
        if self.flexible() {
            let mut out = Vec::new();
            varint(&mut out, u32::try_from(length + 1).unwrap());
            out
        } else if short {
            i16::try_from(length).unwrap().to_be_bytes().into()
        } else {
            i32::try_from(length).unwrap().to_be_bytes().into()
        }
    }
}

fn same(bytes: Vec<u8>) -> Pair {
    (bytes.clone(), bytes)
}

fn append(out: &mut Pair, value: &Pair) {
    out.0.extend(&value.0);
    out.1.extend(&value.1);
}

fn varint(out: &mut Vec<u8>, mut value: u32) {
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}
