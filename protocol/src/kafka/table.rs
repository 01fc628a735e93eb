//! The API table: which versions of which API the codec reads, and which a broker lists. `[P]`
//! The rows are generated from the message definitions.

use std::fmt;

use super::generated::{API_TABLE, ApiKey};

/// A range of versions, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Lowest.
    pub min: i16,
    /// Highest.
    pub max: i16,
}

impl Versions {
    /// Whether `version` is one of them.
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Highest version of both ranges: what a client should send.
    pub fn highest_common(self, other: Self) -> Option<i16> {
        let max = self.max.min(other.max);
        (max >= self.min.max(other.min)).then_some(max)
    }
}

/// All that is fixed about one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiRow {
    /// Which API.
    pub key: ApiKey,
    /// Kafka's name of it.
    pub name: &'static str,
    /// Versions the codec reads and writes.
    pub accepted: Versions,
    /// Versions to list in `ApiVersions`. For Produce they begin at 0, though 0 to 2 are not accepted: librdkafka up
    /// to 2.11 stops compressing otherwise.
    pub advertised: Versions,
    /// First version with compact lengths and tagged fields.
    pub flexible_from: i16,
}

impl ApiKey {
    /// The whole table, by rising key.
    pub const fn table() -> &'static [ApiRow] {
        API_TABLE
    }

    /// The API with that number on the wire.
    pub fn from_i16(key: i16) -> Option<Self> {
        row_of(key).map(|row| row.key)
    }

    /// The number on the wire.
    pub const fn to_i16(self) -> i16 {
        self as i16
    }

    /// What is fixed about it.
    pub fn row(self) -> &'static ApiRow {
        row_of(self.to_i16()).expect("the enum and the table come from the same definitions")
    }

    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Versions the codec reads and writes.
    pub fn accepted(self) -> Versions {
        self.row().accepted
    }

    /// Versions to list in `ApiVersions`.
    pub fn advertised(self) -> Versions {
        self.row().advertised
    }

    /// Whether that version has compact lengths and tagged fields.
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.row().flexible_from
    }

    /// Version of the request header: 2 has tagged fields, 1 has not.
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the response header: 1 has tagged fields, 0 has not. `ApiVersions` never has them, because a client
    /// has to read that answer before it knows what the broker speaks.
    pub fn response_header_version(self, version: i16) -> i16 {
        i16::from(self != Self::ApiVersions && self.is_flexible(version))
    }
}

/// The row of that number; the table is ordered by number.
fn row_of(key: i16) -> Option<&'static ApiRow> {
    API_TABLE.get(API_TABLE.binary_search_by_key(&key, |row| row.key.to_i16()).ok()?)
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::super::generated::SCHEMAS;
    use super::{API_TABLE, ApiKey, Versions};

    #[test]
    fn generated_code_is_as_young_as_the_definitions() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kafka/schema");
        let files = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(files, SCHEMAS.len(), "run `cargo xtask codegen`");
        for &(name, text, hash) in SCHEMAS {
            let now = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
            assert_eq!(now, hash, "{name}: run `cargo xtask codegen`");
        }
    }

    #[test]
    fn table_is_ordered_so_that_keys_are_found() {
        assert!(API_TABLE.is_sorted_by_key(|row| row.key.to_i16()));
        for row in API_TABLE {
            assert_eq!(ApiKey::from_i16(row.key.to_i16()), Some(row.key));
            assert_eq!(row.key.to_string(), row.name);
        }
        for unknown in [-1, 4, 77, i16::MAX, i16::MIN] {
            assert_eq!(ApiKey::from_i16(unknown), None);
        }
    }

    #[test]
    fn produce_is_listed_from_0_and_accepted_from_3() {
        assert_eq!(ApiKey::Produce.advertised(), Versions { min: 0, max: 13 });
        assert_eq!(ApiKey::Produce.accepted(), Versions { min: 3, max: 13 });
        for row in API_TABLE.iter().filter(|row| row.key != ApiKey::Produce) {
            assert_eq!(row.advertised, row.accepted);
        }
    }

    #[test]
    fn headers_follow_the_flexible_versions_but_for_api_versions() {
        assert_eq!(ApiKey::Fetch.request_header_version(11), 1);
        assert_eq!(ApiKey::Fetch.request_header_version(12), 2);
        assert_eq!(ApiKey::Fetch.response_header_version(11), 0);
        assert_eq!(ApiKey::Fetch.response_header_version(12), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(3), 0);
    }

    #[test]
    fn highest_common_version_needs_an_overlap() {
        let ours = Versions { min: 3, max: 9 };
        assert_eq!(ours.highest_common(Versions { min: 0, max: 20 }), Some(9));
        assert_eq!(ours.highest_common(Versions { min: 0, max: 3 }), Some(3));
        assert_eq!(ours.highest_common(Versions { min: 0, max: 2 }), None);
        assert_eq!(ours.highest_common(Versions { min: 10, max: 12 }), None);
    }
}
