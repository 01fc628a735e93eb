//! Byte sizes as people write them: `65536`, `64KiB`, `1 GiB`. `[P]`

use std::fmt;
use std::str::FromStr;

/// A number of bytes that reads and prints with binary units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// Unit names and how far each shifts a number to the left, greatest first.
const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl ByteSize {
    /// `count` times 1,024 bytes.
    pub const fn kib(count: u32) -> Self {
        ByteSize((count as u64) << 10)
    }

    /// `count` times 1,048,576 bytes.
    pub const fn mib(count: u32) -> Self {
        ByteSize((count as u64) << 20)
    }

    /// The number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    /// Exact: the greatest unit that divides it without remainder.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            let whole = self.0 >> shift;
            if whole > 0 && whole << shift == self.0 {
                return write!(f, "{whole}{unit}");
            }
        }
        write!(f, "0B")
    }
}

/// The text is no byte size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "read {text:?} as byte size: expected a whole number with B, KiB, MiB, GiB, TiB or nothing"
)]
pub struct ParseByteSizeError {
    text: String,
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    /// A whole number, then optionally spaces and a unit. Decimal units (`kB`, `MB`) are refused:
    /// half of the world means the binary ones by them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseByteSizeError { text: text.chars().take(64).collect() };
        let trimmed = text.trim();
        let digits_end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (digits, unit) = trimmed.split_at_checked(digits_end).ok_or_else(refuse)?;
        let count: u64 = digits.parse().map_err(|_| refuse())?;
        let unit = unit.trim_start();
        let shift = match unit {
            "" => 0,
            _ => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?.1,
        };
        count.checked_mul(1 << shift).map(ByteSize).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_binary_and_spelled_out() {
        assert_eq!("64KiB".parse(), Ok(ByteSize(65_536)));
        assert_eq!("1 GiB".parse(), Ok(ByteSize(1 << 30)));
        assert_eq!("123".parse(), Ok(ByteSize(123)));
        for text in ["", "KiB", "1kB", "1MB", "-1", "1.5MiB", "99999999999999999999", "16777216TiB"]
        {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(ByteSize::mib(64).to_string(), "64MiB");
        assert_eq!(ByteSize(1025).to_string(), "1025B");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }

    proptest! {
        #[test]
        fn sizes_survive_printing_and_parsing(bytes: u64) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }
}
