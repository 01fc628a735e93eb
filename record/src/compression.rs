//! The four codecs of Kafka's batches, in both directions. `[P]`
//! Inflating is bounded: the caller names the most bytes it will hold, and never gets more.

use std::io::{self, Read, Write};

mod lz4;
mod snappy;
mod zstandard;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, in the blocks of the Java library when we write.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard frames (RFC 8878).
    Zstd,
}

/// Why bytes could not be inflated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// They inflate to more than the caller holds.
    #[error("{codec} records inflate to more than {max_bytes} B")]
    TooLarge {
        /// The codec.
        codec: Compression,
        /// The limit.
        max_bytes: usize,
    },
    /// They are not what the codec writes.
    #[error("inflate {codec} records: {reason}")]
    Corrupt {
        /// The codec.
        codec: Compression,
        /// What the codec says.
        reason: String,
    },
}

impl Compression {
    /// All of them, in the order of their numbers.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// The number in the attributes of a batch.
    pub const fn id(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }

    /// The codec with that number.
    pub fn from_id(id: u8) -> Option<Compression> {
        Self::ALL.into_iter().find(|codec| codec.id() == id)
    }

    /// The name that Kafka's configuration uses.
    pub const fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// The codec with that name.
    pub fn from_name(name: &str) -> Option<Compression> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Appends `input`, compressed at the codec's default level, to `out`.
    pub fn compress(self, input: &[u8], out: &mut Vec<u8>) {
        let done = match self {
            Compression::None => out.write_all(input),
            Compression::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(out, flate2::Compression::default());
                gzip.write_all(input).and_then(|()| gzip.try_finish())
            }
            Compression::Snappy => snappy::compress(input, out),
            Compression::Lz4 => lz4::compress(input, out),
            Compression::Zstd => zstandard::compress(input, out),
        };
        // Compressing memory into memory has no peer and no device that could be at fault.
        assert!(done.is_ok(), "{self} refused {} B: {done:?}", input.len());
    }

    /// Inflates `input` into `out`, whose old content goes. `out` never grows past `max_bytes` and
    /// one (its allocation past twice that), and no length that `input` claims allocates anything
    /// before it was held against `max_bytes`.
    ///
    /// # Errors
    /// [`CompressionError::TooLarge`] above `max_bytes`; [`CompressionError::Corrupt`] for anything
    /// that is not exactly one stream of the codec. `out` is empty then.
    pub fn decompress_bounded(
        self,
        input: &[u8],
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        out.clear();
        let done = match self {
            Compression::None if input.len() > max_bytes => Err(Stop::TooLarge),
            Compression::None => {
                out.extend_from_slice(input);
                Ok(())
            }
            Compression::Gzip => {
                read_bounded(flate2::bufread::MultiGzDecoder::new(input), max_bytes, out)
            }
            Compression::Snappy => snappy::decompress(input, max_bytes, out),
            Compression::Lz4 => lz4::decompress(input, max_bytes, out),
            Compression::Zstd => zstandard::decompress(input, max_bytes, out),
        };
        done.map_err(|stop| {
            out.clear();
            match stop {
                Stop::TooLarge => CompressionError::TooLarge { codec: self, max_bytes },
                Stop::Corrupt(reason) => CompressionError::Corrupt { codec: self, reason },
            }
        })
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a codec stopped, before anybody says which codec it was.
enum Stop {
    TooLarge,
    Corrupt(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Corrupt(error.to_string())
    }
}

impl From<&str> for Stop {
    fn from(reason: &str) -> Self {
        Stop::Corrupt(reason.to_owned())
    }
}

/// Reads to the end, or to one byte past the limit: the buffer grows with what really arrives.
fn read_bounded(reader: impl Read, max_bytes: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
    let one_more = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(one_more).read_to_end(out)?;
    if out.len() > max_bytes { Err(Stop::TooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
