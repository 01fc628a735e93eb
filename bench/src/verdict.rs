//! Better, worse or noise: what runs of two sides say about each other. `[P]`
//!
//! The unit is the run: samples of one run are not independent, thousands of them prove nothing about
//! the next run. What disturbs a run makes it slower, sometimes much slower, never faster: such figures are compared by
//! their ranks (`verdict/ranks.rs`), which take one bad run for one. With too few runs for that, fewer than five a side,
//! it is Welch's interval (1947) of their logarithms, which lets the two sides vary differently but takes them for
//! normal.

mod ranks;

use serde::{Deserialize, Serialize};

use crate::number::{count, float, size, whole};

/// A difference that no run on a shared machine can tell from nothing, as a share.
pub const NOISE_FLOOR: f64 = 0.02;

/// Student's t for an interval of 99 %, by degrees of freedom from 1.
const T_99: [f64; 30] = [
    63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055, 3.012,
    2.977, 2.947, 2.921, 2.898, 2.878, 2.861, 2.845, 2.831, 2.819, 2.807, 2.797, 2.787, 2.779,
    2.771, 2.763, 2.756, 2.750,
];
/// And for many.
const T_99_MANY: f64 = 2.576;

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Good {
    /// Latencies.
    Less,
    /// Throughputs.
    More,
}

/// What is to be thought of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The second side is better.
    Better,
    /// The second side is worse.
    Worse,
    /// Not to be told from chance.
    Noise,
    /// Too few runs to say.
    Undecided,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Noise => "noise",
            Self::Undecided => "undecided",
        })
    }
}

/// The second side as a multiple of the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The median of the ratios of any run of the second side to any of the first; of their geometric means where
    /// there are too few.
    pub ratio: f64,
    /// Between which the true ratio lies, with 99 %; `None` with fewer than two runs a side.
    pub interval: Option<(f64, f64)>,
    /// What to think of it.
    pub verdict: Verdict,
}

/// Compares a figure of the runs of two sides; `None` when a side has no figure above 0.
pub fn change(first: &[f64], second: &[f64], good: Good) -> Option<Change> {
    let (a, b) = (Spread::of(first)?, Spread::of(second)?);
    if a.runs < 2.0 || b.runs < 2.0 {
        let ratio = (b.mean - a.mean).exp();
        return Some(Change { ratio, interval: None, verdict: Verdict::Undecided });
    }
    let by_ranks = ranks::ratio(first, second);
    let (ratio, low, high) = by_ranks.unwrap_or_else(|| welch(&a, &b));
    let verdict = match (low > 1.0 + NOISE_FLOOR, high < 1.0 / (1.0 + NOISE_FLOOR), good) {
        (true, _, Good::Less) | (_, true, Good::More) => Verdict::Worse,
        (true, _, Good::More) | (_, true, Good::Less) => Verdict::Better,
        (false, false, _) => Verdict::Noise,
    };
    Some(Change { ratio, interval: Some((low, high)), verdict })
}

/// Ratio of the geometric means, and the ends of its interval.
fn welch(first: &Spread, second: &Spread) -> (f64, f64, f64) {
    let difference = second.mean - first.mean;
    let (a, b) = (first.variance / first.runs, second.variance / second.runs);
    let spread = a + b;
    let half = if spread > 0.0 {
        let freedom = spread * spread / (a * a / (first.runs - 1.0) + b * b / (second.runs - 1.0));
        t_99(freedom) * spread.sqrt()
    } else {
        0.0
    };
    (difference.exp(), (difference - half).exp(), (difference + half).exp())
}

/// One verdict of several figures of the same runs: whatever got worse counts, then what got better.
pub fn overall(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Worse => 3,
        Verdict::Better => 2,
        Verdict::Noise => 1,
        Verdict::Undecided => 0,
    };
    verdicts.into_iter().max_by_key(rank).unwrap_or(Verdict::Undecided)
}

/// Logarithms of the figures of one side.
struct Spread {
    runs: f64,
    mean: f64,
    variance: f64,
}

impl Spread {
    fn of(figures: &[f64]) -> Option<Self> {
        if figures.is_empty() || figures.iter().any(|figure| *figure <= 0.0 || !figure.is_finite())
        {
            return None;
        }
        let runs = float(count(figures.len()));
        let mean = figures.iter().map(|figure| figure.ln()).sum::<f64>() / runs;
        let squares: f64 = figures.iter().map(|figure| (figure.ln() - mean).powi(2)).sum();
        Some(Self { runs, mean, variance: squares / (runs - 1.0).max(1.0) })
    }
}

fn t_99(freedom: f64) -> f64 {
    let place = size(whole(freedom.floor())).max(1) - 1;
    T_99.get(place).copied().unwrap_or(T_99_MANY)
}

/// When a comparison counts as failed: `p99>+5%`, `end-to-end.p50>+10%`, `throughput<-3%`.
#[derive(Debug, Clone, PartialEq)]
pub struct FailIf {
    /// The text, for people.
    pub text: String,
    /// Name of the figure.
    pub metric: String,
    /// The ratio from which on it fails.
    pub ratio: f64,
    /// Whether it fails above or below.
    pub above: bool,
}

impl FailIf {
    /// Reads one.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no condition: expected 'p99>+5%' or 'throughput<-5%'");
        let place = text.find(['<', '>']).ok_or_else(wrong)?;
        let (metric, rest) = text.split_at(place);
        let (sign, percent) = rest.split_at(1);
        let percent = percent.trim().strip_suffix('%').ok_or_else(wrong)?;
        let percent: f64 = percent.parse().map_err(|_| wrong())?;
        let metric = metric.trim().to_owned();
        if metric.is_empty() || !percent.is_finite() || percent <= -100.0 {
            return Err(wrong());
        }
        let ratio = 1.0 + percent / 100.0;
        Ok(Self { text: text.to_owned(), metric, ratio, above: sign == ">" })
    }

    /// Whether `change` is what it warns of: beyond the limit, and not to be told from chance only
    /// where there are too few runs to tell.
    pub fn is_met(&self, change: &Change) -> bool {
        let beyond = if self.above { change.ratio > self.ratio } else { change.ratio < self.ratio };
        beyond && change.verdict != Verdict::Noise
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    /// Runs whose figure varies by `spread`, about normally.
    fn runs(chance: &mut StdRng, level: f64, spread: f64, number: usize) -> Vec<f64> {
        let normal =
            |chance: &mut StdRng| (0..12).map(|_| chance.random::<f64>()).sum::<f64>() - 6.0;
        (0..number).map(|_| level * (normal(chance) * spread).exp()).collect()
    }

    /// Of comparisons of `number` runs a side, made by `runs`; fewer of them the longer each takes.
    fn share(
        verdict: Verdict,
        factor: f64,
        number: usize,
        runs: impl Fn(&mut StdRng, f64, usize) -> Vec<f64>,
    ) -> f64 {
        let mut chance = StdRng::seed_from_u64(5);
        let rounds = 10_000 / count(number);
        let met = (0..rounds).filter(|_| {
            let first = runs(&mut chance, 1.0, number);
            let second = runs(&mut chance, factor, number);
            change(&first, &second, Good::Less).unwrap().verdict == verdict
        });
        float(count(met.count())) / float(rounds)
    }

    fn share_of(verdict: Verdict, factor: f64, spread: f64) -> f64 {
        share(verdict, factor, 5, |chance, level, number| runs(chance, level, spread, number))
    }

    /// Runs on a machine with others on it: one in six is disturbed and up to three times as slow.
    fn disturbed(chance: &mut StdRng, level: f64, number: usize) -> Vec<f64> {
        let mut figures = runs(chance, level, 0.04, number);
        for figure in &mut figures {
            if chance.random_bool(1.0 / 6.0) {
                *figure *= chance.random_range(1.2..3.0);
            }
        }
        figures
    }

    /// By Welch's interval a quarter more went unseen in most of these comparisons: a single run that stood out
    /// stretched it over everything.
    #[test]
    fn disturbed_runs_neither_hide_a_change_nor_make_one() {
        for number in [5, 8, 12] {
            let noise = share(Verdict::Noise, 1.0, number, disturbed);
            assert!(noise > 0.985, "{number}: {noise}");
        }
        let worse = share(Verdict::Worse, 1.25, 16, disturbed);
        assert!(worse > 0.8, "{worse}");
        let mut chance = StdRng::seed_from_u64(5);
        let by_welch = (0..600).filter(|_| {
            let [first, second] = [1.0, 1.25].map(|level| disturbed(&mut chance, level, 16));
            welch(&Spread::of(&first).unwrap(), &Spread::of(&second).unwrap()).1 > 1.0 + NOISE_FLOOR
        });
        assert!(by_welch.count() < 300);
    }

    #[test]
    fn a_build_against_itself_is_noise_whatever_the_spread() {
        for spread in [0.005, 0.03, 0.2] {
            let noise = share_of(Verdict::Noise, 1.0, spread);
            assert!(noise > 0.985, "{spread}: {noise}");
        }
    }

    #[test]
    fn a_tenth_more_is_worse_when_runs_vary_by_little() {
        let worse = share_of(Verdict::Worse, 1.1, 0.02);
        assert!(worse > 0.9, "{worse}");
        let better = share_of(Verdict::Better, 0.9, 0.02);
        assert!(better > 0.9, "{better}");
    }

    #[test]
    fn throughput_is_good_upwards_and_one_run_decides_nothing() {
        let change = |a: &[f64], b: &[f64]| change(a, b, Good::More).unwrap();
        assert_eq!(change(&[1.0, 1.01], &[2.0, 2.01]).verdict, Verdict::Better);
        assert_eq!(change(&[1.0, 1.0], &[0.5, 0.5]).verdict, Verdict::Worse);
        let one = change(&[1.0], &[2.0]);
        assert_eq!((one.verdict, one.interval), (Verdict::Undecided, None));
        assert!((one.ratio - 2.0).abs() < 1e-9);
        assert_eq!(super::change(&[], &[1.0], Good::Less), None);
        assert_eq!(super::change(&[0.0], &[1.0], Good::Less), None);
    }

    #[test]
    fn conditions_are_read_and_met() {
        let fail = FailIf::parse("p99>+5%").unwrap();
        let with = |ratio, verdict| Change { ratio, interval: None, verdict };
        assert!(fail.is_met(&with(1.06, Verdict::Worse)));
        assert!(fail.is_met(&with(1.06, Verdict::Undecided)));
        assert!(!fail.is_met(&with(1.06, Verdict::Noise)));
        assert!(!fail.is_met(&with(1.04, Verdict::Worse)));
        assert!(FailIf::parse("throughput<-5%").unwrap().is_met(&with(0.9, Verdict::Worse)));
        for bad in ["p99", "p99>5", ">5%", "p99>x%", "p99=5%", "p99<-100%"] {
            assert!(FailIf::parse(bad).is_err(), "{bad}");
        }
    }
}
