//! Topic names, legal by construction. `[P]` Source: the rule of Kafka's `Topic.validate`.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest topic name in bytes; Kafka's limit, so that `<name>-<partition>` fits a file name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A legal topic name: 1 to 249 of `a-z A-Z 0-9 . _ -`, not `.` and not `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why a text is no topic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing.
    #[error("topic name is invalid: it is empty")]
    Empty,
    /// A directory's own name or its parent's.
    #[error("topic name is invalid: it cannot be \".\" or \"..\"")]
    Dots,
    /// Longer than [`TOPIC_NAME_BYTES_MAX`].
    #[error("topic name is invalid: {got_bytes} B exceed {TOPIC_NAME_BYTES_MAX} B")]
    TooLong {
        /// Its length.
        got_bytes: usize,
    },
    /// A character outside the legal set.
    #[error(
        "topic name is invalid: it contains {found:?}, only a-z, A-Z, 0-9, '.', '_' and '-' are legal"
    )]
    Character {
        /// The first such character.
        found: char,
    },
}

impl TopicName {
    /// Checks and keeps `name`.
    ///
    /// # Errors
    /// [`NameError`] says which rule it breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check(name)?;
        Ok(TopicName(Arc::from(name)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of the platform's own topics (two leading underscores).
    pub fn is_internal(&self) -> bool {
        self.0.starts_with("__")
    }

    /// Whether metrics could not tell the two apart: they differ only in `.` against `_`. Kafka
    /// refuses to create the second of such a pair.
    pub fn collides_with(&self, other: &TopicName) -> bool {
        let folded = |byte: u8| if byte == b'.' { b'_' } else { byte };
        self.0.bytes().map(folded).eq(other.0.bytes().map(folded))
    }
}

/// Checks `name` without keeping it.
///
/// # Errors
/// [`NameError`] says which rule it breaks.
pub fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(NameError::Dots);
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(NameError::TooLong { got_bytes: name.len() });
    }
    let legal = |found: char| found.is_ascii_alphanumeric() || matches!(found, '.' | '_' | '-');
    match name.chars().find(|&found| !legal(found)) {
        Some(found) => Err(NameError::Character { found }),
        None => Ok(()),
    }
}

impl FromStr for TopicName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        TopicName::new(name)
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicName({:?})", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_for_the_rule_they_break() {
        let refused = |name: &str| TopicName::new(name).unwrap_err();
        assert_eq!(refused(""), NameError::Empty);
        assert_eq!(refused("."), NameError::Dots);
        assert_eq!(refused(".."), NameError::Dots);
        assert_eq!(refused("a/b"), NameError::Character { found: '/' });
        assert_eq!(refused("größe"), NameError::Character { found: 'ö' });
        assert_eq!(refused(&"x".repeat(250)), NameError::TooLong { got_bytes: 250 });
        assert!(TopicName::new(&"x".repeat(249)).is_ok());
        assert!(TopicName::new("...").is_ok());
    }

    #[test]
    fn dots_and_underscores_collide() {
        let name = |text| TopicName::new(text).unwrap();
        assert!(name("a.b").collides_with(&name("a_b")));
        assert!(!name("a.b").collides_with(&name("a-b")));
        assert!(name("__consumer_offsets").is_internal());
    }
}
