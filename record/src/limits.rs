//! Limits on the bytes of a batch, each with its unit and default. `[P]`

/// Most bytes a batch may have, header included, wherever nothing stricter is asked for. As large
/// as the largest request Kafka's brokers take by default (`socket.request.max.bytes`).
pub const BATCH_BYTES_MAX_DEFAULT: u32 = 100 * 1024 * 1024;

/// Most bytes the records of one compressed batch may inflate to. A producer batch of the default
/// `max.message.bytes` may shrink 64 times before it meets this.
pub const INFLATED_BYTES_MAX_DEFAULT: u32 = 64 * 1024 * 1024;

/// What [`crate::BatchView::verify`] puts up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyLimits {
    /// Most bytes of the whole batch, header included.
    pub max_batch_bytes: u32,
    /// Most bytes its records may inflate to, should anybody inflate them.
    pub max_inflated_bytes: u32,
}

impl VerifyLimits {
    /// [`BATCH_BYTES_MAX_DEFAULT`] and [`INFLATED_BYTES_MAX_DEFAULT`].
    pub const DEFAULT: VerifyLimits = VerifyLimits {
        max_batch_bytes: BATCH_BYTES_MAX_DEFAULT,
        max_inflated_bytes: INFLATED_BYTES_MAX_DEFAULT,
    };
}

impl Default for VerifyLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
