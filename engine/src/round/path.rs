//! `[P]` Which way appended bytes go: into the journal, or straight to their segment (J12).

/// This many waiting bytes or more of one log go straight to its segment.
pub const THROUGH_MIN_BYTES: u64 = 64 << 10;
/// At most this many bytes of one log go through in one round, unless a single batch is larger.
pub const THROUGH_MAX_BYTES: u64 = 4 << 20;
/// At most this many files are written through in one round.
pub const THROUGH_FILES_MAX: usize = 16;

/// The way chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// As payload of the round, as many batches as fit.
    Journal,
    /// Straight to the segment, at most that many bytes.
    Through {
        /// The share of one log.
        max_bytes: u64,
    },
    /// In the next round.
    Wait,
}

/// Chooses for a log with `waiting_bytes`, in a round that may write `through_files` more files through and has
/// `journal_bytes` left for payloads.
pub(crate) fn choose_path(waiting_bytes: u64, through_files: usize, journal_bytes: u64) -> Path {
    if waiting_bytes < THROUGH_MIN_BYTES {
        return if waiting_bytes <= journal_bytes { Path::Journal } else { Path::Wait };
    }
    if through_files > 0 {
        return Path::Through { max_bytes: THROUGH_MAX_BYTES };
    }
    // No file left: a part may still be journaled, whole batches as far as they fit.
    Path::Journal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_appends_are_journaled_large_ones_go_through_while_files_are_left() {
        assert_eq!(choose_path(100, 16, 1 << 20), Path::Journal);
        assert_eq!(choose_path(100, 16, 50), Path::Wait);
        let through = Path::Through { max_bytes: THROUGH_MAX_BYTES };
        assert_eq!(choose_path(THROUGH_MIN_BYTES, 1, 0), through);
        assert_eq!(choose_path(THROUGH_MIN_BYTES, 0, 1 << 20), Path::Journal);
    }
}
