//! `[P]` Which sealed segments go: by the age of their newest record, and by the size of the log.

/// What retention looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentAge {
    /// Bytes of batches.
    pub length_bytes: u64,
    /// Newest record timestamp, -1 when none.
    pub max_timestamp: i64,
}

/// How many of the leading `sealed` segments go. `total_bytes` counts the active segment too. By size, a segment goes
/// while what is left without it still reaches the limit, as in Kafka.
pub(crate) fn segments_to_drop(
    sealed: &[SegmentAge],
    total_bytes: u64,
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
    now_ms: i64,
) -> usize {
    let by_time = retention_ms.map_or(0, |keep| {
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        sealed
            .iter()
            .take_while(|s| s.max_timestamp >= 0 && now_ms.saturating_sub(s.max_timestamp) > keep)
            .count()
    });
    let mut left = total_bytes;
    let by_size = retention_bytes.map_or(0, |keep| {
        sealed
            .iter()
            .take_while(|segment| {
                left = left.saturating_sub(segment.length_bytes);
                left >= keep
            })
            .count()
    });
    by_time.max(by_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(time: Option<u64>, bytes: Option<u64>, expected: usize) {
        let sealed: Vec<_> = [(100, 1_000), (100, 2_000), (100, 3_000)]
            .into_iter()
            .map(|(length_bytes, max_timestamp)| SegmentAge { length_bytes, max_timestamp })
            .collect();
        assert_eq!(segments_to_drop(&sealed, 350, time, bytes, 4_000), expected);
    }

    #[test]
    fn age_and_size_each_drop_from_the_front() {
        check(None, None, 0);
        check(Some(1_500), None, 2);
        check(Some(5_000), None, 0);
        check(Some(0), None, 3);
        check(None, Some(250), 1);
        check(None, Some(251), 0);
        check(None, Some(0), 3);
        check(Some(2_500), Some(150), 2);
    }
}
