//! The suite that every [`super::Disk`] passes.
