//! How two sides differ by the ranks of their figures, whatever these are distributed like: Hodges and Lehmann's
//! estimate (1963) with the interval that Mann and Whitney's test (1947) leaves. `[P]`

use crate::number::{count, float, size, whole};

/// How often the true ratio may lie below the interval, and as often above: 99 % lie in it.
const TAIL: f64 = 0.005;
/// The same by the normal distribution.
const TAIL_Z: f64 = 2.576;
/// Products of the numbers of runs up to which the distribution is counted out.
const EXACT_MAX: usize = 400;

/// The ratio of the second side to the first and the ends of its interval; `None` with too few runs for one.
pub(super) fn ratio(first: &[f64], second: &[f64]) -> Option<(f64, f64, f64)> {
    let outside = outside(first.len(), second.len())?;
    let mut ratios: Vec<f64> =
        second.iter().flat_map(|b| first.iter().map(move |a| b / a)).collect();
    ratios.sort_by(f64::total_cmp);
    let low = *ratios.get(outside)?;
    let high = *ratios.get(ratios.len().checked_sub(1 + outside)?)?;
    let upper = *ratios.get(ratios.len() / 2)?;
    let lower = *ratios.get((ratios.len() - 1) / 2)?;
    Some(((lower * upper).sqrt(), low, high))
}

/// How many of all ratios lie outside of the interval on either side.
fn outside(first: usize, second: usize) -> Option<usize> {
    let pairs = first.checked_mul(second)?;
    if EXACT_MAX < pairs {
        let (n, m) = (float(count(first)), float(count(second)));
        let deviation = (n * m * (n + m + 1.0) / 12.0).sqrt();
        return Some(size(whole((n * m / 2.0 - TAIL_Z * deviation - 0.5).max(0.0).floor())));
    }
    let mut below = 0.0;
    let mut outside = 0;
    for probability in distribution(first, second) {
        below += probability;
        if TAIL < below {
            break;
        }
        outside += 1;
    }
    // With 0 outside the interval would have to be endless.
    (0 < outside).then(|| outside - 1)
}

/// Of the number of pairs in which the second figure is the lower one, when the sides do not differ: the probabilities
/// of 0, 1, 2 and so on.
fn distribution(first: usize, second: usize) -> Vec<f64> {
    // By the number of figures of the second side; for so many of the first as rounds were made.
    let mut rows: Vec<Vec<f64>> = vec![vec![1.0]; second + 1];
    for n in 1..=first {
        let mut next: Vec<Vec<f64>> = vec![vec![1.0]];
        for (m, fewer_of_first) in rows.iter().enumerate().skip(1) {
            let mut row = vec![0.0; n * m + 1];
            // The greatest figure of all is one of the first side: every one of the second is lower.
            let share = float(count(n)) / float(count(n + m));
            for (slot, probability) in row.iter_mut().skip(m).zip(fewer_of_first) {
                *slot += share * probability;
            }
            // Or one of the second.
            let fewer_of_second = next.last().map_or(&[][..], Vec::as_slice);
            for (slot, probability) in row.iter_mut().zip(fewer_of_second) {
                *slot += (1.0 - share) * probability;
            }
            next.push(row);
        }
        rows = next;
    }
    rows.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Critical values as tables of the test print them, for 1 % on both sides.
    #[test]
    fn the_interval_is_that_of_the_printed_tables() {
        for (first, second, expected) in [
            (4, 4, None),
            (4, 6, Some(0)),
            (5, 5, Some(0)),
            (6, 6, Some(2)),
            (8, 8, Some(7)),
            (10, 10, Some(16)),
            (20, 20, Some(105)),
            (8, 12, Some(15)),
        ] {
            assert_eq!(outside(first, second), expected, "{first} and {second}");
        }
        let sum: f64 = distribution(7, 9).iter().sum();
        assert!((sum - 1.0).abs() < 1e-12);
        // Where it is no longer counted out it goes on as it was.
        let (counted, estimated) = (outside(20, 20).unwrap(), outside(20, 21).unwrap());
        assert!((counted..counted + 12).contains(&estimated), "{counted} {estimated}");
    }

    #[test]
    fn one_wild_run_moves_an_end_and_not_the_ratio() {
        let first = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98, 1.0];
        let mut second = first.map(|figure| figure * 2.0);
        let (calm, calm_low, _) = ratio(&first, &second).unwrap();
        second[0] = 900.0;
        let (wild, low, high) = ratio(&first, &second).unwrap();
        assert!((calm - 2.0).abs() < 0.01 && (wild - 2.0).abs() < 0.1, "{calm} {wild}");
        assert!(calm_low <= low && low < wild && 100.0 < high, "{calm_low} {low} {high}");
    }
}
