//! Code made by flatc from `schema/batch.fbs` with `cargo xtask flatbuffers`. Nothing outside
//! `columnar` names it.

#[rustfmt::skip]
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    unused,
    mismatched_lifetime_syntaxes,
    reason = "made by flatc, which has its own style; reviewed as part of its crate"
)]
pub(crate) mod batch;
