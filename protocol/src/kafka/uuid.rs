//! Sixteen bytes that name a topic, a directory or nothing. `[P]`

use std::fmt;

/// A UUID as Kafka sends it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(
    /// In the order of the wire.
    pub [u8; 16],
);

impl Uuid {
    /// Names nothing.
    pub const ZERO: Self = Self([0; 16]);

    /// Whether it names nothing.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl From<[u8; 16]> for Uuid {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// Hexadecimal in the usual five groups.
impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
