//! Whole numbers and fractions, and how people read them. `[P]`

/// A count as a fraction: exact below 2^53, and no figure of a bench needs more.
#[expect(clippy::cast_precision_loss, reason = "figures are read with three digits")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// The nearest whole number, 0 for what is below or no number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and negative is 0"
)]
pub fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A length as a count.
pub fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A count as a length or place.
pub fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// `a / b`, 0 when there is no b.
pub fn share(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// Nanoseconds with three digits and a unit: `1.23 ms`.
pub fn duration(ns: u64) -> String {
    let value = float(ns);
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", three_digits(value / 1e3)),
        1_000_000..1_000_000_000 => format!("{} ms", three_digits(value / 1e6)),
        _ => format!("{} s", three_digits(value / 1e9)),
    }
}

/// Bytes in binary units, as sizes are given: `4 KiB`.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{} KiB", trimmed(float(bytes) / 1024.0)),
        0x10_0000..0x4000_0000 => format!("{} MiB", trimmed(float(bytes) / 1_048_576.0)),
        _ => format!("{} GiB", trimmed(float(bytes) / 1_073_741_824.0)),
    }
}

/// A rate for people: `12.3 k`.
pub fn rate(per_second: f64) -> String {
    if per_second < 1e3 {
        three_digits(per_second)
    } else if per_second < 1e6 {
        format!("{} k", three_digits(per_second / 1e3))
    } else {
        format!("{} M", three_digits(per_second / 1e6))
    }
}

/// Three digits that count.
pub fn three_digits(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude < 9.995 {
        format!("{value:.2}")
    } else if magnitude < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn trimmed(value: f64) -> String {
    let text = three_digits(value);
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_three_digits_and_a_unit() {
        for (ns, text) in [(12, "12 ns"), (1_230, "1.23 µs"), (999_000_000, "999 ms")] {
            assert_eq!(duration(ns), text);
        }
        for (size, text) in [(100, "100 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (1 << 20, "1 MiB")]
        {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(rate(1_234_567.0), "1.23 M");
    }

    #[test]
    fn fractions_become_whole_numbers_without_surprises() {
        assert_eq!(
            (whole(-3.0), whole(f64::NAN), whole(2.5), whole(f64::INFINITY)),
            (0, 0, 3, u64::MAX)
        );
        assert!(share(1.0, 0.0).abs() < f64::EPSILON);
    }
}
