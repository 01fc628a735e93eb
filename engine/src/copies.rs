//! Small files of ours, kept twice and written in turn: a crash damages at most the copy that was being
//! written.
//!
//! | offset | size | field | endianness |
//! |---|---|---|---|
//! | 0 | 4 | magic, says which kind of file | - |
//! | 4 | 2 | version, 1 | little |
//! | 6 | 2 | zero | little |
//! | 8 | 8 | sequence: the copy with the higher one is newer | little |
//! | 16 | 8 | length of the content in bytes | little |
//! | 24 | 8 | checksum of bytes 0..24 and of the content | little |
//! | 32 | | content, then zeros up to the block | |

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Buffer, Disk, OpenMode};
use crate::fields::{FieldError, FieldReader, FieldWriter, checksum};

/// Bytes before the content.
pub const COPY_HEADER_BYTES: usize = 32;
/// Version of the layout; a higher one was written by a newer Levada.
pub const COPY_VERSION: u16 = 1;

/// What was found under the name of one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    /// No such file, or an empty one.
    Missing,
    /// A file, but not whole.
    Damaged(FieldError),
    /// Written by a newer version.
    Newer(u16),
    /// Whole.
    Whole {
        /// The higher one is newer.
        sequence: u64,
        /// The bytes.
        content: Vec<u8>,
    },
}

/// The path of copy `which` (0 or 1) of `stem`.
pub fn copy_path(stem: &Path, which: usize) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(if which == 0 { ".0" } else { ".1" });
    PathBuf::from(name)
}

/// Header and content, without padding.
pub fn seal(magic: [u8; 4], sequence: u64, content: &[u8]) -> Vec<u8> {
    let mut out = FieldWriter::new();
    out.put_raw(&magic);
    out.put_u16(COPY_VERSION);
    out.put_u16(0);
    out.put_u64(sequence);
    out.put_u64(content.len() as u64);
    let mut summed = out.bytes().to_vec();
    summed.extend_from_slice(content);
    out.put_u64(checksum(&summed));
    out.put_raw(content);
    out.into_bytes()
}

/// Reads what [`seal`] wrote; bytes behind the content are ignored. Total.
pub fn unseal(magic: [u8; 4], bytes: &[u8]) -> Copy {
    if bytes.is_empty() {
        return Copy::Missing;
    }
    let whole = || -> Result<Copy, FieldError> {
        let mut input = FieldReader::new(bytes);
        let found: [u8; 4] = input.take(4, "magic")?.try_into().unwrap_or_default();
        if found != magic {
            return Err(FieldError::Value {
                field: "magic",
                got: u64::from(u32::from_be_bytes(found)),
            });
        }
        let version = input.u16("version")?;
        input.u16("reserved")?;
        let sequence = input.u64("sequence")?;
        let length = input.u64("length")?;
        let expected = input.u64("checksum")?;
        let content = input.take(usize::try_from(length).unwrap_or(usize::MAX), "content")?;
        let mut summed = bytes.get(..24).unwrap_or(&[]).to_vec();
        summed.extend_from_slice(content);
        let got = checksum(&summed);
        if got != expected {
            return Err(FieldError::Checksum { got, expected });
        }
        if version > COPY_VERSION {
            return Ok(Copy::Newer(version));
        }
        Ok(Copy::Whole { sequence, content: content.to_vec() })
    };
    whole().unwrap_or_else(Copy::Damaged)
}

/// Writes one copy and makes it stable, its name too when it is new.
///
/// # Errors
/// Of the disk. After one, this copy may be damaged; the other is as it was.
pub async fn write_copy(
    disk: &dyn Disk,
    path: &Path,
    magic: [u8; 4],
    sequence: u64,
    content: &[u8],
) -> io::Result<()> {
    let (file, is_new) = match disk.open(path, OpenMode::Existing).await {
        Ok(file) => (file, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (disk.open(path, OpenMode::CreateNew).await?, true)
        }
        Err(error) => return Err(error),
    };
    // While our write is under way whoever comes after us waits for it, even if we are killed (J24).
    file.try_lock()?;
    let buffer = Buffer::padded_copy(&seal(magic, sequence, content), disk.block_bytes());
    let end = buffer.capacity() as u64;
    let length = file.length().await?;
    if length < end {
        // Room first: a full disk must refuse before it damages the copy.
        if let Err(error) = file.allocate(length, end).await {
            file.close().await?;
            return Err(error);
        }
    }
    file.write_at(buffer.freeze(), 0).await?;
    file.sync().await?;
    file.close().await?;
    if is_new {
        let parent = path.parent().unwrap_or(Path::new("."));
        disk.sync_directory(parent).await?;
    }
    Ok(())
}

/// Whether somebody may be writing what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Nobody but us.
    Ours,
    /// A process that is going away; then the read is refused with `WouldBlock`.
    Dying,
}

/// Reads one copy; syncs it first, so that what is believed now is still there after the next crash (J25).
///
/// # Errors
/// Of the disk; a missing or damaged file is not an error but a [`enum@Copy`].
pub async fn read_copy(
    disk: &dyn Disk,
    path: &Path,
    magic: [u8; 4],
    writers: Writers,
) -> io::Result<Copy> {
    let file = match disk.open(path, OpenMode::Existing).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Copy::Missing),
        Err(error) => return Err(error),
    };
    if writers == Writers::Dying
        && let Err(error) = file.try_lock()
    {
        file.close().await?;
        return Err(error);
    }
    file.sync().await?;
    let length = file.length().await?;
    let block = disk.block_bytes() as u64;
    let whole_blocks = usize::try_from(length.next_multiple_of(block)).unwrap_or(usize::MAX);
    let bytes =
        if whole_blocks == 0 { Vec::new() } else { file.read_at(0, whole_blocks).await?.to_vec() };
    file.close().await?;
    Ok(unseal(magic, &bytes))
}

/// Both copies of `stem`, the newer whole one first.
#[derive(Debug)]
pub struct BothCopies {
    /// What stands in copy 0 and copy 1.
    pub found: [Copy; 2],
}

impl BothCopies {
    /// Reads both.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn read(disk: &dyn Disk, stem: &Path, magic: [u8; 4]) -> io::Result<Self> {
        let first = read_copy(disk, &copy_path(stem, 0), magic, Writers::Dying).await?;
        let second = read_copy(disk, &copy_path(stem, 1), magic, Writers::Dying).await?;
        Ok(Self { found: [first, second] })
    }

    /// Sequence and content of the newer whole copy.
    pub fn newest(&self) -> Option<(u64, &[u8])> {
        self.found
            .iter()
            .filter_map(|copy| match copy {
                Copy::Whole { sequence, content } => Some((*sequence, content.as_slice())),
                _ => None,
            })
            .max_by_key(|(sequence, _)| *sequence)
    }

    /// Whether neither name exists.
    pub fn are_missing(&self) -> bool {
        self.found.iter().all(|copy| *copy == Copy::Missing)
    }

    /// The version of a copy that a newer Levada wrote.
    pub fn newer_version(&self) -> Option<u16> {
        self.found.iter().find_map(|copy| match copy {
            Copy::Newer(version) => Some(*version),
            _ => None,
        })
    }

    /// Why no copy is whole, for a message.
    pub fn damage(&self) -> String {
        let say = |copy: &Copy| match copy {
            Copy::Missing => "missing".to_owned(),
            Copy::Damaged(error) => error.to_string(),
            Copy::Newer(version) => format!("version {version}"),
            Copy::Whole { .. } => "whole".to_owned(),
        };
        format!("copy 0: {}; copy 1: {}", say(&self.found[0]), say(&self.found[1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 4] = *b"TEST";

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let sealed = seal(MAGIC, 9, b"some content");
        assert_eq!(
            unseal(MAGIC, &sealed),
            Copy::Whole { sequence: 9, content: b"some content".to_vec() }
        );
        for end in 0..sealed.len() {
            assert!(!matches!(unseal(MAGIC, &sealed[..end]), Copy::Whole { .. }), "cut at {end}");
        }
        for bit in 0..sealed.len() * 8 {
            let mut bytes = sealed.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(unseal(MAGIC, &bytes), Copy::Whole { .. }), "bit {bit}");
        }
    }
}
