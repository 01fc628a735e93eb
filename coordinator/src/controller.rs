//! What the cluster's history is made of. `[P]`
//!
//! A request is first [planned](plan): checked against the image and the configured limits, its
//! choices made, a [`Command`](levada_protocol::cluster::command::Command) written down. Once the
//! command is committed it is [applied](apply): that part knows no limits and makes no choices that
//! could differ from one coordinator, or one version, to the next.

pub mod policy;
pub mod plan;
pub mod settings;
pub mod place;
pub mod apply;
pub mod elect;
pub mod lease;
#[cfg(test)]
pub(crate) mod invariants;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
