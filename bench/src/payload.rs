//! What is in a record: a stamp that tells which record it is and when it was meant to leave, then
//! filler. `[P]`
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | run, tells this run's records from any others | little endian |
//! | 4 | 4 | producer | little endian |
//! | 8 | 8 | sequence in its partition, from 0 | little endian |
//! | 16 | 8 | intended moment, ns of `CLOCK_MONOTONIC` | little endian |

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

use crate::number::{float, size, whole};

/// Length of a stamp, and the least length of a record.
pub const STAMP_BYTES: usize = 24;

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The run it belongs to.
    pub run: u32,
    /// Who sent it.
    pub producer: u32,
    /// Its place among those that its producer sent to its partition, from 0.
    pub sequence: u64,
    /// When it should have left, in ns of [`crate::clock::now_ns`].
    pub intended_ns: u64,
}

impl Stamp {
    /// Writes it over the first bytes of `payload`, which has at least [`STAMP_BYTES`].
    pub fn write(&self, payload: &mut [u8]) {
        let fields =
            [u64::from(self.run) | u64::from(self.producer) << 32, self.sequence, self.intended_ns];
        for (place, field) in payload.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
    }

    /// Reads it back; `None` when there are too few bytes.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (head, rest) = payload.split_first_chunk::<8>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (intended, _) = rest.split_first_chunk::<8>()?;
        let (run, producer) = head.split_first_chunk::<4>()?;
        let producer = producer.first_chunk::<4>()?;
        Some(Self {
            run: u32::from_le_bytes(*run),
            producer: u32::from_le_bytes(*producer),
            sequence: u64::from_le_bytes(*sequence),
            intended_ns: u64::from_le_bytes(*intended),
        })
    }
}

/// Payloads to send in turn; only their stamps are written anew, so that making a record costs no copy.
#[derive(Debug)]
pub struct Pool {
    payloads: Vec<Vec<u8>>,
    turn: usize,
}

impl Pool {
    /// `count` payloads of `length` bytes, of which the share `random` is noise and the rest zeros:
    /// 1 cannot be compressed, 0 to almost nothing.
    pub fn new(count: usize, length: usize, random: f64, seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let length = length.max(STAMP_BYTES);
        let noise = size(whole(float(crate::number::count(length)) * random.clamp(0.0, 1.0)));
        let payload = |_| {
            let mut payload = vec![0; length];
            if let Some(part) = payload.get_mut(..noise.min(length)) {
                chance.fill_bytes(part);
            }
            payload
        };
        Self { payloads: (0..count.max(1)).map(payload).collect(), turn: 0 }
    }

    /// The next payload, stamped.
    pub fn stamped(&mut self, stamp: &Stamp) -> &[u8] {
        self.turn = if self.turn + 1 < self.payloads.len() { self.turn + 1 } else { 0 };
        let payload = self.payloads.get_mut(self.turn).expect("a pool has at least one payload");
        stamp.write(payload);
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_and_a_short_payload_has_none() {
        let stamp = Stamp { run: 1, producer: 2, sequence: u64::MAX - 3, intended_ns: 4 << 40 };
        let mut pool = Pool::new(3, 100, 1.0, 9);
        for _ in 0..7 {
            let payload = pool.stamped(&stamp);
            assert_eq!(payload.len(), 100);
            assert_eq!(Stamp::read(payload), Some(stamp));
        }
        assert_eq!(Stamp::read(&[0; STAMP_BYTES - 1]), None);
    }

    #[test]
    fn the_share_of_noise_is_what_was_asked_for() {
        // The stamp, all zeros here, lies over the first bytes; a byte of noise is 0 now and then.
        for (random, least, most) in [(0.0, 0, 0), (0.5, 460, 476), (1.0, 955, 976)] {
            let mut pool = Pool::new(1, 1000, random, 3);
            let stamp = Stamp { run: 0, producer: 0, sequence: 0, intended_ns: 0 };
            let noise = pool.stamped(&stamp).iter().filter(|byte| **byte != 0).count();
            assert!((least..=most).contains(&noise), "{random}: {noise}");
        }
    }
}
