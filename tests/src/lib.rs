//! What holds the parts of Levada against each other: the deterministic simulator ([`sim`]) and the checker of
//! client histories ([`history`]), which knows nothing of how the records were kept.

pub mod history;
pub mod sim;
