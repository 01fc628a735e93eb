//! Identities and epochs of the cluster's parts. `[P]`

use std::fmt;
use std::str::FromStr;

/// A string is not an id: wrong length, digit or dash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an id as 8-4-4-4-12 hexadecimal digits")]
pub struct ParseIdError;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Whether all bytes are zero: on the wire that says "none".
            pub fn is_nil(self) -> bool {
                self.0 == [0; 16]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hyphenated(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                write_hyphenated(self.0, f)?;
                f.write_str(")")
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hyphenated(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// Which cluster: made once, when the first coordinator starts on an empty directory. Nodes
    /// refuse frames and data directories of another.
    ClusterId
}
uuid_id! {
    /// One start of a broker process: random per start.
    Incarnation
}
uuid_id! {
    /// One log directory of a broker: made when the directory is first used.
    DirectoryId
}

/// One registration of a broker: the index of the image that first had it. Grows with every
/// registration, so an older process of the same broker is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BrokerEpoch(pub i64);

impl fmt::Display for BrokerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts every change of one partition's state, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionEpoch(pub i32);

impl PartitionEpoch {
    /// The epoch after this one. Stays at the largest when there is none.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for PartitionEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn write_hyphenated(bytes: [u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_hyphenated(text: &str) -> Result<[u8; 16], ParseIdError> {
    let digits = text.as_bytes();
    if digits.len() != 36 {
        return Err(ParseIdError);
    }
    let mut bytes = [0u8; 16];
    let mut nibbles = 0usize;
    for (at, digit) in digits.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if *digit != b'-' {
                return Err(ParseIdError);
            }
            continue;
        }
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return Err(ParseIdError),
        };
        let byte = bytes.get_mut(nibbles / 2).ok_or(ParseIdError)?;
        *byte = (*byte << 4) | value;
        nibbles += 1;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_hyphenated_and_parses_back() {
        let id = ClusterId(std::array::from_fn(|at| u8::try_from(at * 17).unwrap()));
        assert_eq!(id.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn anything_else_is_no_id() {
        for text in [
            "",
            "00112233445566778899aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeef",
            "00112233-4455-6677-8899-aabbccddeeffa",
            "0011223304455-6677-8899-aabbccddeeff",
            "g0112233-4455-6677-8899-aabbccddeeff",
            "é0112233-4455-6677-8899-aabbccddeef",
        ] {
            assert_eq!(text.parse::<Incarnation>(), Err(ParseIdError), "{text:?}");
        }
    }
}
