//! A disk with a volatile write cache, as bytes: what was written and not flushed may be gone after the power is cut.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::crash::random::Random;

/// Unit in which writes are kept until a flush.
const BLOCK_BYTES: u64 = 4096;
const BLOCK: usize = 4096;
/// Unit in which a write can be torn.
const SECTOR: usize = 512;
/// The file system's superblock, which it expects to be written whole.
const NEVER_TORN: u64 = 0;

/// What became of the unflushed blocks in a power cut.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) kept: u64,
    pub(crate) dropped: u64,
    pub(crate) torn: u64,
}

/// The disk.
pub(crate) struct VolatileDisk {
    /// What is stable.
    stable: File,
    bytes: u64,
    /// By block number: what is written and not flushed.
    cache: BTreeMap<u64, Box<[u8; BLOCK]>>,
    powered: bool,
}

impl VolatileDisk {
    /// A disk of zeros whose stable bytes are in `file`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn create(file: &Path, bytes: u64) -> io::Result<Self> {
        let stable = File::options().read(true).write(true).create_new(true).open(file)?;
        stable.set_len(bytes)?;
        Ok(Self { stable, bytes, cache: BTreeMap::new(), powered: true })
    }

    /// Size of the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn powered(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(io::Error::other("no power")) }
    }

    fn block(&self, number: u64) -> io::Result<Box<[u8; BLOCK]>> {
        if let Some(cached) = self.cache.get(&number) {
            return Ok(cached.clone());
        }
        let mut block = Box::new([0; BLOCK]);
        self.stable.read_exact_at(block.as_mut_slice(), number * BLOCK_BYTES)?;
        Ok(block)
    }

    /// Bytes from `offset` on, fewer at the end of the disk.
    ///
    /// # Errors
    /// Without power, or when the stable file cannot be read.
    pub(crate) fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.powered()?;
        let end = offset.saturating_add(length as u64).min(self.bytes);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap_or(0)];
        self.stable.read_exact_at(&mut bytes, offset)?;
        for (number, block) in self.cache.range(offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES)) {
            let begin = number * BLOCK_BYTES;
            let (from, to) = (begin.max(offset), (begin + BLOCK_BYTES).min(end));
            let position = |at: u64, base: u64| usize::try_from(at - base).expect("inside");
            bytes[position(from, offset)..position(to, offset)]
                .copy_from_slice(&block[position(from, begin)..position(to, begin)]);
        }
        Ok(bytes)
    }

    /// Puts bytes into the cache.
    ///
    /// # Errors
    /// Without power, behind the end of the disk, or when the stable file cannot be read.
    pub(crate) fn write(&mut self, offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        self.powered()?;
        if offset.saturating_add(bytes.len() as u64) > self.bytes {
            return Err(io::Error::other("behind the end of the disk"));
        }
        let mut at = offset;
        while !bytes.is_empty() {
            let number = at / BLOCK_BYTES;
            let inside = usize::try_from(at % BLOCK_BYTES).expect("below a block");
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - inside));
            let mut block =
                if now.len() == BLOCK { Box::new([0; BLOCK]) } else { self.block(number)? };
            block[inside..inside + now.len()].copy_from_slice(now);
            self.cache.insert(number, block);
            at += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Makes everything stable.
    ///
    /// # Errors
    /// Without power, or when the stable file cannot be written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.powered()?;
        for (number, block) in &self.cache {
            self.stable.write_all_at(block.as_slice(), number * BLOCK_BYTES)?;
        }
        self.cache.clear();
        Ok(())
    }

    /// Cuts the power. Every unflushed block is there, is gone, or is a mixture of old and new sectors.
    ///
    /// # Errors
    /// When the stable file cannot be written.
    pub(crate) fn cut(&mut self, random: &mut Random) -> io::Result<Cut> {
        self.powered = false;
        let mut cut = Cut::default();
        // Some cuts lose nearly everything, some nearly nothing.
        let lose_percent = random.range(20, 101);
        for (number, new) in std::mem::take(&mut self.cache) {
            if !random.chance(lose_percent) {
                self.stable.write_all_at(new.as_slice(), number * BLOCK_BYTES)?;
                cut.kept += 1;
            } else if number != NEVER_TORN && random.chance(25) {
                for (sector, bytes) in new.chunks_exact(SECTOR).enumerate() {
                    if random.chance(50) {
                        let offset = number * BLOCK_BYTES + (sector * SECTOR) as u64;
                        self.stable.write_all_at(bytes, offset)?;
                    }
                }
                cut.torn += 1;
            } else {
                cut.dropped += 1;
            }
        }
        Ok(cut)
    }

    /// Gives power again.
    pub(crate) fn power_on(&mut self) {
        self.powered = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str) -> VolatileDisk {
        let file = std::env::temp_dir().join(format!("levada-{name}-{}", std::process::id()));
        let disk = VolatileDisk::create(&file, 1 << 20).unwrap();
        std::fs::remove_file(file).unwrap();
        disk
    }

    #[test]
    fn what_was_flushed_survives_a_cut_and_nothing_is_served_without_power() {
        let mut disk = disk("flushed");
        disk.write(5000, &[7; 10_000]).unwrap();
        disk.flush().unwrap();
        disk.cut(&mut Random::new(1, 1)).unwrap();
        assert!(disk.read(0, 1).is_err() && disk.write(0, &[1]).is_err() && disk.flush().is_err());
        disk.power_on();
        assert_eq!(disk.read(4999, 10_002).unwrap(), [&[0][..], &[7; 10_000], &[0]].concat());
    }

    #[test]
    fn a_cut_loses_some_of_what_was_not_flushed() {
        let mut disk = disk("unflushed");
        disk.write(0, &vec![9; 400_000]).unwrap();
        assert_eq!(disk.read(0, 400_000).unwrap(), vec![9; 400_000]);
        let cut = disk.cut(&mut Random::new(3, 1)).unwrap();
        assert!(cut.dropped > 0 && cut.torn > 0, "{cut:?}");
        disk.power_on();
        assert_ne!(disk.read(0, 400_000).unwrap(), vec![9; 400_000]);
    }
}
