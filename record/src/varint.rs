//! Kafka's variable-length integers: seven bits a byte, low bits first, zigzag signed. `[P]`
//! Bounded: an `i32` takes at most five bytes, an `i64` ten, and no bit beyond the type may be set.

use crate::kafka_v2::RecordError;

/// Reads from the front of a slice; never past its end, never a panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, RecordError> {
        let (&first, rest) = self.rest.split_first().ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    #[inline]
    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A zigzag `i32` in at most five bytes.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<i32, RecordError> {
        let raw = self.unsigned(u64::from(u32::MAX))?;
        let raw = u32::try_from(raw).map_err(|_| RecordError::Varint)?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A zigzag `i64` in at most ten bytes.
    #[inline]
    pub(crate) fn varlong(&mut self) -> Result<i64, RecordError> {
        let raw = self.unsigned(u64::MAX)?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A length: -1 is `None`, other negatives are refused.
    #[inline]
    pub(crate) fn nullable(&mut self) -> Result<Option<&'a [u8]>, RecordError> {
        match self.varint()? {
            -1 => Ok(None),
            declared => {
                let bytes =
                    usize::try_from(declared).map_err(|_| RecordError::Length { declared })?;
                self.take(bytes).map(Some)
            }
        }
    }

    #[inline]
    fn unsigned(&mut self, max: u64) -> Result<u64, RecordError> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits > max >> shift {
                return Err(RecordError::Varint);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
            if max.checked_shr(shift).unwrap_or(0) == 0 {
                return Err(RecordError::Varint);
            }
        }
    }
}

/// Appends a zigzag `i32`.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_varlong(out, i64::from(value));
}

/// Appends a zigzag `i64`. An `i32` widened has the same bytes.
pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    while raw >= 0x80 {
        out.push(raw.to_le_bytes()[0] | 0x80);
        raw >>= 7;
    }
    out.push(raw.to_le_bytes()[0]);
}

/// How many bytes [`put_varlong`] appends.
pub(crate) fn varlong_bytes(value: i64) -> usize {
    match zigzag(value) {
        0 => 1,
        raw => (64 - raw.leading_zeros() as usize).div_ceil(7),
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_i32(bytes: &[u8]) -> Result<i32, RecordError> {
        Cursor::new(bytes).varint()
    }

    #[test]
    fn varints_never_exceed_their_type() {
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(i32::MIN));
        assert_eq!(read_i32(&[0xfe, 0xff, 0xff, 0xff, 0x0f]), Ok(i32::MAX));
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(RecordError::Varint));
        assert_eq!(read_i32(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]), Err(RecordError::Varint));
        assert_eq!(read_i32(&[0x80]), Err(RecordError::Truncated));
        let longest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Cursor::new(&longest).varlong(), Ok(i64::MIN));
        let eleven = [0x80; 11];
        assert_eq!(Cursor::new(&eleven).varlong(), Err(RecordError::Varint));
    }

    proptest! {
        #[test]
        fn integers_survive_and_take_the_bytes_announced(value: i64) {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            prop_assert_eq!(out.len(), varlong_bytes(value));
            prop_assert_eq!(Cursor::new(&out).varlong(), Ok(value));
            if let Ok(narrow) = i32::try_from(value >> 32) {
                out.clear();
                put_varint(&mut out, narrow);
                prop_assert_eq!(read_i32(&out), Ok(narrow));
            }
        }
    }
}
