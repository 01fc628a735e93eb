//! Snapshots of the image, so that the log need not be kept for ever.
//!
//! ```text
//! offset | size | field
//!      0 |    8 | magic "LVDCSNP\n"
//!      8 |    2 | format, 1
//!     10 |    2 | zero
//!     12 |    4 | coordinator id
//!     16 |   16 | cluster id
//!     32 |    8 | index: the last command that the image shows
//!     40 |    8 | term
//!     48 |    8 | length of the image, in bytes
//!     56 |    4 | CRC-32C of the image
//!     60 |    4 | CRC-32C of bytes 0..60
//!     64 |    n | the image: FlatBuffers table `Image`
//! ```

use std::path::{Path, PathBuf};

use levada_protocol::cluster::{ClusterId, ClusterImage, decode_image, encode_image};

use super::identity::Identity;
use super::{StorageError, file};

const PREFIX: &str = "snapshot-";
const MAGIC: [u8; 8] = *b"LVDCSNP\n";
const HEADER_BYTES: usize = 64;

/// Format of the file.
pub const FORMAT: u16 = 1;

/// A snapshot that was read.
#[derive(Debug)]
pub struct Snapshot {
    /// The image.
    pub image: ClusterImage,
    /// The term of its last command.
    pub term: u64,
}

/// All snapshots in `directory`: index and path, ascending.
///
/// # Errors
/// [`StorageError::Io`].
pub fn list(directory: &Path) -> Result<Vec<(u64, PathBuf)>, StorageError> {
    file::numbered(directory, PREFIX, "")
}

/// Writes a snapshot; whole and durable when this returns.
///
/// # Errors
/// [`StorageError::Io`].
pub fn write(
    directory: &Path,
    identity: Identity,
    image: &ClusterImage,
    term: u64,
) -> Result<(), StorageError> {
    let encoded = encode_image(image);
    let length = u64::try_from(encoded.len()).unwrap_or(u64::MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + encoded.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&identity.member.to_le_bytes());
    bytes.extend_from_slice(&identity.cluster.0);
    bytes.extend_from_slice(&image.index().to_le_bytes());
    bytes.extend_from_slice(&term.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&encoded).to_le_bytes());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    assert_eq!(bytes.len(), HEADER_BYTES);
    bytes.extend_from_slice(&encoded);
    file::write_whole(directory, &format!("{PREFIX}{:020}", image.index()), &bytes)
}

/// Reads the snapshot at `path`, which its name says covers `index`.
///
/// # Errors
/// [`StorageError::Corrupt`] when it is damaged, [`StorageError::NewerFormat`] when it is newer.
pub fn read(path: &Path, identity: Identity, index: u64) -> Result<Snapshot, StorageError> {
    let bytes = file::read_synced(path)?;
    decode(&bytes, identity, index).map_err(|error| match error {
        ReadError::Format(found) => {
            StorageError::NewerFormat { path: path.to_owned(), found, known: FORMAT }
        }
        ReadError::Damage(position, reason) => {
            StorageError::Corrupt { path: path.to_owned(), position, reason }
        }
    })
}

enum ReadError {
    Format(u16),
    Damage(u64, String),
}

fn decode(bytes: &[u8], identity: Identity, index: u64) -> Result<Snapshot, ReadError> {
    let damage = |position, reason: &str| ReadError::Damage(position, reason.to_owned());
    let Some((header, encoded)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(damage(0, "the file is shorter than its header"));
    };
    let field = |at: usize, length: usize| header.get(at..at + length).unwrap_or_default();
    let number = |at: usize| field(at, 8).try_into().map_or(0, u64::from_le_bytes);
    let checksum = |at: usize| field(at, 4).try_into().map_or(0, u32::from_le_bytes);
    if field(0, 8) != MAGIC {
        return Err(damage(0, "it is no snapshot"));
    }
    if checksum(60) != crc32c::crc32c(field(0, 60)) {
        return Err(damage(60, "the header's checksum does not match"));
    }
    let format = field(8, 2).try_into().map_or(0, u16::from_le_bytes);
    if format != FORMAT {
        return Err(ReadError::Format(format));
    }
    let member = field(12, 4).try_into().map_or(0, i32::from_le_bytes);
    let cluster = ClusterId(field(16, 16).try_into().unwrap_or_default());
    if (Identity { cluster, member }) != identity {
        return Err(damage(12, "it is another coordinator's or another cluster's"));
    }
    if number(48) != u64::try_from(encoded.len()).unwrap_or(u64::MAX) {
        return Err(damage(48, "the image is not as long as the header says"));
    }
    if checksum(56) != crc32c::crc32c(encoded) {
        return Err(damage(64, "the image's checksum does not match"));
    }
    let image = decode_image(encoded).map_err(|error| ReadError::Damage(64, error.to_string()))?;
    if image.index() != index || number(32) != index || image.cluster() != identity.cluster {
        return Err(damage(32, "the image is not the one that the file's name says"));
    }
    Ok(Snapshot { image, term: number(40) })
}
