//! The coordinator: a light process that keeps the cluster's metadata. It registers brokers and
//! notices when they die, places and configures topics, and tells every broker what was decided.
//!
//! Decisions are pure, in [`controller`]. What is decided is on stable storage before anybody hears
//! of it.

pub mod controller;
