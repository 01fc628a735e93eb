//! When each record is meant to leave, decided before anything is sent. `[P]`
//! Source: wrk2's constant-throughput model: latency counts from these moments, whatever the system
//! does, and no slot is ever skipped.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::clock::SECOND_NS;
use crate::number::{float, whole};

/// How many records a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// As many as the client takes: closed by its back-pressure, says nothing about latency.
    Maximum,
    /// So many a second.
    Fixed(f64),
    /// Rising or falling evenly over the whole run.
    Ramp {
        /// Records a second at the beginning.
        from: f64,
        /// Records a second at the end.
        to: f64,
    },
}

/// How the moments lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Evenly.
    #[default]
    Even,
    /// As of independent senders: gaps are exponential.
    Poisson,
}

impl Rate {
    /// Reads `max`, a number, or `FROM..TO`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.trim().replace('_', "").parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
            _ => Err(format!("{text:?} is no rate: expected max, a number above 0, or FROM..TO")),
        };
        match (text, text.split_once("..")) {
            ("max", _) => Ok(Self::Maximum),
            (_, Some((from, to))) => Ok(Self::Ramp { from: number(from)?, to: number(to)? }),
            _ => Ok(Self::Fixed(number(text)?)),
        }
    }

    /// The share of one of `parts` equal senders.
    #[must_use]
    pub fn divided(self, parts: u64) -> Self {
        let parts = float(parts.max(1));
        match self {
            Self::Maximum => Self::Maximum,
            Self::Fixed(rate) => Self::Fixed(rate / parts),
            Self::Ramp { from, to } => Self::Ramp { from: from / parts, to: to / parts },
        }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Maximum => f.write_str("maximum rate"),
            Self::Fixed(rate) => write!(f, "{rate:.0} records/s"),
            Self::Ramp { from, to } => write!(f, "{from:.0} to {to:.0} records/s"),
        }
    }
}

/// The moments of one sender, in ns from the start, ending with the run.
#[derive(Debug)]
pub struct Schedule {
    from: f64,
    to: f64,
    length_s: f64,
    length_ns: u64,
    /// Records that should have left by the next moment; a fraction with [`Arrivals::Poisson`].
    due: f64,
    chance: Option<StdRng>,
}

impl Schedule {
    /// A schedule of `length_ns`; `None` at [`Rate::Maximum`], which has none. `phase` from 0 to 1
    /// shifts it within one gap, so that several senders do not send together.
    pub fn new(
        rate: Rate,
        arrivals: Arrivals,
        length_ns: u64,
        seed: u64,
        phase: f64,
    ) -> Option<Self> {
        let (from, to) = match rate {
            Rate::Maximum => return None,
            Rate::Fixed(rate) => (rate, rate),
            Rate::Ramp { from, to } => (from, to),
        };
        let chance = (arrivals == Arrivals::Poisson).then(|| StdRng::seed_from_u64(seed));
        let length_s = float(length_ns) / float(SECOND_NS);
        Some(Self { from, to, length_s, length_ns, due: phase, chance })
    }

    /// The moment, in seconds, by which `due` records should have left: the inverse of the integral of
    /// the rate.
    fn moment_s(&self, due: f64) -> f64 {
        let slope = (self.to - self.from) / self.length_s;
        if slope.abs() < f64::EPSILON {
            return due / self.from;
        }
        let root = self.from.mul_add(self.from, 2.0 * slope * due);
        // A falling ramp ends before `due` is reached: never.
        if root < 0.0 { f64::INFINITY } else { (root.sqrt() - self.from) / slope }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let at_ns = whole(self.moment_s(self.due) * 1e9);
        if self.length_ns <= at_ns {
            return None;
        }
        self.due += match &mut self.chance {
            None => 1.0,
            // 1 - x lies in (0, 1], whose logarithm is a number.
            Some(chance) => -(1.0 - chance.random::<f64>()).ln(),
        };
        Some(at_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(rate: Rate, arrivals: Arrivals, seconds: u64, seed: u64) -> Vec<u64> {
        Schedule::new(rate, arrivals, seconds * SECOND_NS, seed, 0.0).unwrap().collect()
    }

    #[test]
    fn a_fixed_rate_has_its_records_at_equal_distances() {
        let moments = moments(Rate::Fixed(1000.0), Arrivals::Even, 3, 0);
        assert_eq!(moments.len(), 3000);
        assert!(moments.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(1_000_000) <= 1));
    }

    #[test]
    fn a_ramp_sends_the_integral_of_its_rate_up_and_down() {
        let up = moments(Rate::Ramp { from: 100.0, to: 900.0 }, Arrivals::Even, 10, 0);
        assert!(up.len().abs_diff(5000) <= 1, "{}", up.len());
        let first = up.iter().filter(|at| **at < SECOND_NS).count();
        assert!(first.abs_diff(140) <= 1, "{first}");
        let down = moments(Rate::Ramp { from: 900.0, to: 100.0 }, Arrivals::Even, 10, 0);
        assert!(down.len().abs_diff(5000) <= 1, "{}", down.len());
        assert!(down.is_sorted());
    }

    #[test]
    fn poisson_gaps_have_the_mean_and_the_spread_of_an_exponential_and_one_seed_one_schedule() {
        let sent = moments(Rate::Fixed(10_000.0), Arrivals::Poisson, 10, 7);
        assert!(sent.len().abs_diff(100_000) < 1500, "{}", sent.len());
        let gaps: Vec<f64> = sent.windows(2).map(|pair| float(pair[1] - pair[0])).collect();
        let above_mean = gaps.iter().filter(|gap| **gap > 1e5).count();
        // e^-1 of them.
        assert!(above_mean.abs_diff(sent.len() * 368 / 1000) < 1500, "{above_mean}");
        assert_eq!(sent, moments(Rate::Fixed(10_000.0), Arrivals::Poisson, 10, 7));
        assert_ne!(sent, moments(Rate::Fixed(10_000.0), Arrivals::Poisson, 10, 8));
    }

    #[test]
    fn rates_are_read_and_nonsense_is_named() {
        assert_eq!(Rate::parse("max"), Ok(Rate::Maximum));
        assert_eq!(Rate::parse("10_000"), Ok(Rate::Fixed(10_000.0)));
        assert_eq!(Rate::parse("1..2.5"), Ok(Rate::Ramp { from: 1.0, to: 2.5 }));
        for bad in ["", "0", "-1", "inf", "NaN", "1..", "fast"] {
            assert!(Rate::parse(bad).is_err(), "{bad}");
        }
    }
}
