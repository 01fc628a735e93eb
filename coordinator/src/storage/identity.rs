//! Whose data directory this is. Its file is text, so that people can read it too.

use std::fs;
use std::io;
use std::path::Path;

use levada_protocol::cluster::ClusterId;
use serde::{Deserialize, Serialize};

use super::{StorageError, file};

/// Name of the file.
const NAME: &str = "identity";

/// Version of the data directory as a whole.
pub const FORMAT: u16 = 1;

/// Whose data directory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The coordinator's id.
    pub member: i32,
}

#[derive(Serialize, Deserialize)]
struct Text {
    format: u16,
    cluster: String,
    coordinator: i32,
    checksum: String,
}

impl Identity {
    /// Reads it, if it is there.
    ///
    /// # Errors
    /// [`StorageError`] when it is damaged or of a newer format.
    pub fn read(directory: &Path) -> Result<Option<Self>, StorageError> {
        let path = directory.join(NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StorageError::Io { action: "read", path, source }),
        };
        let corrupt = |reason: &str| StorageError::Corrupt {
            path: path.clone(),
            position: 0,
            reason: reason.to_owned(),
        };
        let text = String::from_utf8(bytes).map_err(|_| corrupt("it is no text"))?;
        let text: Text = toml::from_str(&text).map_err(|_| corrupt("it has not its four keys"))?;
        if text.format != FORMAT {
            return Err(StorageError::NewerFormat { path, found: text.format, known: FORMAT });
        }
        let cluster = text.cluster.parse().map_err(|_| corrupt("its cluster is no id"))?;
        let identity = Self { cluster, member: text.coordinator };
        if identity.checksum() != text.checksum {
            return Err(corrupt("its checksum does not match"));
        }
        Ok(Some(identity))
    }

    /// Writes it; durable when this returns.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn write(self, directory: &Path) -> Result<(), StorageError> {
        let text = Text {
            format: FORMAT,
            cluster: self.cluster.to_string(),
            coordinator: self.member,
            checksum: self.checksum(),
        };
        let text = toml::to_string(&text).expect("four plain values are always text");
        file::write_whole(directory, NAME, text.as_bytes())
    }

    fn checksum(self) -> String {
        let said = format!("{FORMAT} {} {}", self.cluster, self.member);
        format!("{:08x}", crc32c::crc32c(said.as_bytes()))
    }
}
