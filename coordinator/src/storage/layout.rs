//! The bytes of a command log. `[P]` Integers are little-endian.
//!
//! A file begins with 64 bytes:
//!
//! ```text
//! offset | size | field
//!      0 |    8 | magic "LVDCLOG\n"
//!      8 |    2 | format, 1
//!     10 |    2 | zero
//!     12 |    4 | coordinator id
//!     16 |   16 | cluster id
//!     32 |   16 | salt: random per file, enters every checksum below
//!     48 |    8 | index of the first command
//!     56 |    4 | zero
//!     60 |    4 | CRC-32C of bytes 0..60
//! ```
//!
//! Then frames, one per write, each synced before the next is begun:
//!
//! ```text
//!      0 |    4 | magic "LVCF"
//!      4 |    4 | CRC-32C of the salt and of bytes 8.. of the frame
//!      8 |    4 | length of the frame, this header included
//!     12 |    4 | number of commands; 0 seals what was written before
//!     16 |    8 | index of the first command
//!     24 |    8 | term
//!     32 |      | commands: length (4), bytes
//! ```
//!
//! Behind the last frame there may be zeros: room that was made before it is needed.
//!
//! A frame that is not whole is *torn* if nothing whole follows it: its write was never finished and
//! nothing in it was acknowledged. If a whole frame follows, the write had been finished, so the
//! bytes were damaged since: *corrupt*. The salt keeps bytes inside a command from posing as a frame.

use super::identity::Identity;

/// Bytes before the first frame.
pub const FILE_HEADER_BYTES: usize = 64;
/// Bytes of a frame before its commands.
pub const FRAME_HEADER_BYTES: usize = 32;
/// Longest frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Format of the file.
pub const FORMAT: u16 = 1;

const FILE_MAGIC: [u8; 8] = *b"LVDCLOG\n";
const FRAME_MAGIC: [u8; 4] = *b"LVCF";

const _: () = assert!(FRAME_HEADER_BYTES <= FILE_HEADER_BYTES);

/// A file cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutError {
    /// Another format.
    Version {
        /// The file's.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// Damage.
    Corrupt {
        /// Where, in bytes.
        position: u64,
        /// How it shows.
        reason: &'static str,
    },
}

/// What a file says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Whose it is.
    pub identity: Identity,
    /// See the layout.
    pub salt: [u8; 16],
    /// Index of the first command.
    pub first_index: u64,
}

impl FileHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        put(&mut bytes, 0, &FILE_MAGIC);
        put(&mut bytes, 8, &FORMAT.to_le_bytes());
        put(&mut bytes, 12, &self.identity.member.to_le_bytes());
        put(&mut bytes, 16, &self.identity.cluster.0);
        put(&mut bytes, 32, &self.salt);
        put(&mut bytes, 48, &self.first_index.to_le_bytes());
        let checksum = crc32c::crc32c(bytes.get(..60).unwrap_or_default());
        put(&mut bytes, 60, &checksum.to_le_bytes());
        bytes
    }

    /// Reads it from the start of a file.
    ///
    /// # Errors
    /// [`LayoutError`] when it is not whole or of another format.
    pub fn decode(file: &[u8]) -> Result<Self, LayoutError> {
        let corrupt = |position, reason| LayoutError::Corrupt { position, reason };
        let Some(header) = file.first_chunk::<FILE_HEADER_BYTES>() else {
            return Err(corrupt(0, "the file is shorter than its header"));
        };
        if array::<8>(header, 0) != Some(FILE_MAGIC) {
            return Err(corrupt(0, "it is no command log"));
        }
        if u32_at(header, 60) != Some(crc32c::crc32c(header.get(..60).unwrap_or_default())) {
            return Err(corrupt(60, "the header's checksum does not match"));
        }
        let format = array(header, 8).map_or(0, u16::from_le_bytes);
        if format != FORMAT {
            return Err(LayoutError::Version { found: format, known: FORMAT });
        }
        let member = array(header, 12).map_or(0, i32::from_le_bytes);
        let cluster = levada_protocol::cluster::ClusterId(array(header, 16).unwrap_or_default());
        Ok(Self {
            identity: Identity { cluster, member },
            salt: array(header, 32).unwrap_or_default(),
            first_index: u64_at(header, 48).unwrap_or_default(),
        })
    }
}

/// One frame in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Index of its first command.
    pub first_index: u64,
    /// Its term.
    pub term: u64,
    /// Its commands, each with its position in the file.
    pub commands: Vec<(u64, &'a [u8])>,
}

/// The bytes of a frame; `None` when it would exceed [`FRAME_BYTES_MAX`].
pub fn encode_frame(
    salt: [u8; 16],
    first_index: u64,
    term: u64,
    commands: &[Vec<u8>],
) -> Option<Vec<u8>> {
    let length = commands.iter().fold(FRAME_HEADER_BYTES, |sum, command| sum + 4 + command.len());
    if FRAME_BYTES_MAX < length {
        return None;
    }
    let mut frame = Vec::with_capacity(length);
    frame.extend_from_slice(&FRAME_MAGIC);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
    frame.extend_from_slice(&u32::try_from(commands.len()).ok()?.to_le_bytes());
    frame.extend_from_slice(&first_index.to_le_bytes());
    frame.extend_from_slice(&term.to_le_bytes());
    for command in commands {
        frame.extend_from_slice(&u32::try_from(command.len()).ok()?.to_le_bytes());
        frame.extend_from_slice(command);
    }
    let checksum = frame_checksum(salt, &frame);
    put(&mut frame, 4, &checksum.to_le_bytes());
    Some(frame)
}

/// What a whole file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The header.
    pub header: FileHeader,
    /// Its frames, in order.
    pub frames: Vec<Frame<'a>>,
    /// Where the last whole frame ends, in bytes. What follows is torn.
    pub end: usize,
    /// Index of the command to come.
    pub next_index: u64,
}

/// Reads a whole file.
///
/// # Errors
/// [`LayoutError`] when anything but the last write is damaged.
pub fn scan(file: &[u8]) -> Result<Scan<'_>, LayoutError> {
    let header = FileHeader::decode(file)?;
    let mut scan =
        Scan { header, frames: Vec::new(), end: FILE_HEADER_BYTES, next_index: header.first_index };
    while scan.end < file.len() {
        let position = u64::try_from(scan.end).unwrap_or(u64::MAX);
        let corrupt = |reason| Err(LayoutError::Corrupt { position, reason });
        let Some((frame, length)) = frame_at(file, scan.end, header.salt) else {
            let rest = file.get(scan.end + 1..).unwrap_or_default();
            let is_followed =
                (scan.end + 1..).zip(rest.windows(FRAME_MAGIC.len())).any(|(at, window)| {
                    window == FRAME_MAGIC && frame_at(file, at, header.salt).is_some()
                });
            if is_followed {
                return corrupt("a command is damaged, later ones are whole");
            }
            break;
        };
        if frame.first_index != scan.next_index {
            return corrupt("commands are not numbered on");
        }
        let count = u64::try_from(frame.commands.len()).unwrap_or(u64::MAX);
        scan.next_index = scan.next_index.saturating_add(count);
        scan.end += length;
        scan.frames.push(frame);
    }
    Ok(scan)
}

/// The whole frame at `at`, with its length.
fn frame_at(file: &[u8], at: usize, salt: [u8; 16]) -> Option<(Frame<'_>, usize)> {
    let rest = file.get(at..)?;
    if rest.first_chunk() != Some(&FRAME_MAGIC) {
        return None;
    }
    let length = usize::try_from(u32_at(rest, 8)?).ok()?;
    if length < FRAME_HEADER_BYTES {
        return None;
    }
    let frame = rest.get(..length)?;
    if u32_at(frame, 4)? != frame_checksum(salt, frame) {
        return None;
    }
    let count = u32_at(frame, 12)?;
    let mut commands = Vec::new();
    let mut position = FRAME_HEADER_BYTES;
    for _ in 0..count {
        let command_length = usize::try_from(u32_at(frame, position)?).ok()?;
        position += 4;
        let command = frame.get(position..position.checked_add(command_length)?)?;
        commands.push((u64::try_from(at + position).ok()?, command));
        position += command_length;
    }
    if position != length {
        return None;
    }
    Some((Frame { first_index: u64_at(frame, 16)?, term: u64_at(frame, 24)?, commands }, length))
}

fn frame_checksum(salt: [u8; 16], frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt), frame.get(8..).unwrap_or_default())
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes
        .get_mut(at..at + field.len())
        .expect("fields lie within the header that was just made")
        .copy_from_slice(field);
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_protocol::cluster::ClusterId;

    const SALT: [u8; 16] = [5; 16];

    fn header() -> FileHeader {
        let identity = Identity { cluster: ClusterId([3; 16]), member: 1 };
        FileHeader { identity, salt: SALT, first_index: 10 }
    }

    /// Three writes of one, two and one commands; with the ends of each.
    fn file() -> (Vec<u8>, Vec<usize>) {
        let mut file = header().encode().to_vec();
        let mut ends = vec![file.len()];
        let writes: [&[&[u8]]; 3] = [&[b"first"], &[b"second", b""], &[b"last, longer command"]];
        let mut index = 10;
        for commands in writes {
            let commands: Vec<Vec<u8>> = commands.iter().map(|bytes| bytes.to_vec()).collect();
            file.extend(encode_frame(SALT, index, 2, &commands).unwrap());
            index += u64::try_from(commands.len()).unwrap();
            ends.push(file.len());
        }
        (file, ends)
    }

    #[test]
    fn a_log_is_read_as_it_was_written() {
        let (file, _) = file();
        let scan = scan(&file).unwrap();
        assert_eq!(scan.header, header());
        assert_eq!((scan.end, scan.next_index), (file.len(), 14));
        let commands: Vec<&[u8]> =
            scan.frames.iter().flat_map(|frame| frame.commands.iter().map(|(_, c)| *c)).collect();
        assert_eq!(commands, [&b"first"[..], b"second", b"", b"last, longer command"]);
        let (position, command) = scan.frames[0].commands[0];
        let position = usize::try_from(position).unwrap();
        assert_eq!(&file[position..position + command.len()], command);
    }

    #[test]
    fn a_log_cut_at_any_byte_keeps_every_whole_write_and_drops_the_torn_one() {
        let (file, ends) = file();
        for cut in 0..=file.len() {
            match scan(&file[..cut]) {
                Ok(scan) => {
                    let whole = *ends.iter().rfind(|end| **end <= cut).unwrap();
                    assert_eq!(scan.end, whole, "cut at {cut}");
                }
                Err(_) => assert!(cut < FILE_HEADER_BYTES, "cut at {cut}"),
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_refused_unless_it_lies_in_the_last_write() {
        let (file, ends) = file();
        let last = ends[ends.len() - 2];
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match scan(&damaged) {
                Ok(scan) => {
                    assert!(last <= bit / 8, "bit {bit} went unnoticed");
                    assert_eq!(scan.end, last, "bit {bit}");
                }
                Err(LayoutError::Corrupt { position, .. }) => {
                    assert!(bit / 8 < last, "bit {bit}");
                    let position = usize::try_from(position).unwrap();
                    assert!(position <= bit / 8 || bit / 8 < FILE_HEADER_BYTES, "bit {bit}");
                }
                Err(LayoutError::Version { .. }) => panic!("bit {bit}"),
            }
        }
    }

    #[test]
    fn behind_a_seal_no_flipped_bit_goes_unnoticed() {
        let (mut file, _) = file();
        let sealed = file.len();
        file.extend(encode_frame(SALT, 14, 2, &[]).unwrap());
        assert_eq!(scan(&file).unwrap().next_index, 14);
        for bit in 0..sealed * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(scan(&damaged).is_err(), "bit {bit}");
        }
    }

    // A torn write may leave any mixture: here the first block of a write is missing and the rest,
    // which holds what looks like a frame, is there.
    #[test]
    fn bytes_of_a_command_cannot_pose_as_a_frame() {
        let mut file = header().encode().to_vec();
        let posing = encode_frame([0; 16], 11, 2, &[b"posing".to_vec()]).unwrap();
        let mut frame = encode_frame(SALT, 10, 2, &[posing]).unwrap();
        frame[..8].fill(0);
        file.extend(frame);
        assert_eq!(scan(&file).unwrap().end, FILE_HEADER_BYTES);
    }

    #[test]
    fn a_gap_in_the_numbers_is_damage() {
        let mut file = header().encode().to_vec();
        file.extend(encode_frame(SALT, 11, 2, &[b"first".to_vec()]).unwrap());
        assert!(matches!(scan(&file), Err(LayoutError::Corrupt { position: 64, .. })));
    }

    #[test]
    fn another_format_is_told_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(
            FileHeader::decode(&bytes),
            Err(LayoutError::Version { found: 2, known: FORMAT })
        );
    }

    #[test]
    fn a_frame_is_as_long_as_it_may_be_and_no_longer() {
        let longest = FRAME_BYTES_MAX - FRAME_HEADER_BYTES - 4;
        assert!(encode_frame(SALT, 1, 1, &[vec![0; longest]]).is_some());
        assert!(encode_frame(SALT, 1, 1, &[vec![0; longest + 1]]).is_none());
    }
}
