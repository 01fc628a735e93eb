//! The highest rate that holds an objective: which rate to try next, and when to stop. `[P]`
//!
//! Doubling finds the first rate that does not hold, halving the gap narrows it down; every point
//! is kept, because the curve says more than its last point.

use serde::{Deserialize, Serialize};

/// What must hold: `p99<10ms`, `end-to-end.p99.9<1s`.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The text, for people.
    pub text: String,
    /// Series; the response when it is not named.
    pub series: crate::recorder::Series,
    /// Name of the percentile.
    pub percentile: String,
    /// It must be below.
    pub below_ns: u64,
}

impl Objective {
    /// Reads one.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no objective: expected 'p99<10ms' or 'end-to-end.p99<1s'");
        let (name, limit) = text.split_once('<').ok_or_else(wrong)?;
        let name = name.trim();
        let known = crate::recorder::Series::ALL.into_iter().find_map(|series| {
            Some((series, name.strip_prefix(series.name())?.strip_prefix('.')?))
        });
        let (series, percentile) = known.unwrap_or((crate::recorder::Series::Response, name));
        let told = crate::result::QUANTILES.iter().any(|(known, _)| *known == percentile);
        let limit = limit.trim();
        let digits = limit.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, unit) = limit.split_at(digits);
        let unit_ns = match unit.trim() {
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let below_ns = crate::number::whole(number * unit_ns);
        if !told || below_ns == 0 {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), series, percentile: percentile.to_owned(), below_ns })
    }

    /// Whether a run held it: the percentile below the limit, and nothing wrong with the run.
    pub fn is_held(&self, run: &crate::result::RunFile) -> bool {
        let at = run.latency.get(&self.series).and_then(|series| series.at.get(&self.percentile));
        run.void.is_empty() && at.is_some_and(|ns| *ns < self.below_ns)
    }
}

/// A rate that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Records a second.
    pub rate: f64,
    /// Whether the objective held.
    pub held: bool,
}

/// Chooses rates.
#[derive(Debug, Clone)]
pub struct Search {
    from: f64,
    most: f64,
    /// How near two rates may be, as a share, before there is nothing left to find.
    precision: f64,
    tried: Vec<Tried>,
}

impl Search {
    /// Begins at `from`, never asks for more than `most`, ends when the answer is known to `precision`.
    pub fn new(from: f64, most: f64, precision: f64) -> Self {
        Self { from: from.min(most), most, precision, tried: Vec::new() }
    }

    /// Highest rate that held, so far.
    pub fn best(&self) -> Option<f64> {
        let held = self.tried.iter().filter(|tried| tried.held).map(|tried| tried.rate);
        held.reduce(f64::max)
    }

    /// Lowest rate that did not hold and is above the best.
    fn lowest_missed(&self) -> Option<f64> {
        let missed = self.tried.iter().filter(|tried| !tried.held).map(|tried| tried.rate);
        missed.reduce(f64::min)
    }

    /// The rate to try next; `None` when the search is over.
    pub fn next_rate(&self) -> Option<f64> {
        match (self.best(), self.lowest_missed()) {
            (None, None) => Some(self.from),
            (Some(best), None) if best < self.most => Some((best * 2.0).min(self.most)),
            (Some(_), None) => None,
            // Nothing holds: down to a thousandth of where it began.
            (None, Some(missed)) => (missed > self.from / 1000.0).then_some(missed / 2.0),
            (Some(best), Some(missed)) => {
                (best * (1.0 + self.precision) < missed).then(|| f64::midpoint(best, missed))
            }
        }
    }

    /// Notes how a rate went.
    pub fn on_tried(&mut self, rate: f64, held: bool) {
        self.tried.push(Tried { rate, held });
    }

    /// All that was tried, in order.
    pub fn tried(&self) -> &[Tried] {
        &self.tried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(holds_below: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(1000.0, 1e6, 0.05);
        while let Some(rate) = search.next_rate() {
            search.on_tried(rate, rate < holds_below);
        }
        (search.best(), search.tried().len())
    }

    #[test]
    fn the_edge_is_found_to_the_precision_in_few_runs() {
        for edge in [1300.0, 47_000.0, 300_000.0, 600.0] {
            let (best, runs) = search(edge);
            let best = best.unwrap();
            assert!(best < edge && edge / best < 1.06, "{edge}: {best}");
            assert!(runs < 18, "{runs}");
        }
    }

    #[test]
    fn a_search_ends_where_everything_holds_or_nothing_does() {
        assert_eq!(search(f64::MAX).0, Some(1e6));
        assert_eq!(search(0.0).0, None);
    }

    #[test]
    fn objectives_are_read_and_nonsense_is_named() {
        let objective = Objective::parse("p99<10ms").unwrap();
        assert_eq!((objective.percentile.as_str(), objective.below_ns), ("p99", 10_000_000));
        let objective = Objective::parse("end-to-end.p99.9<1.5s").unwrap();
        assert_eq!(objective.series, crate::recorder::Series::EndToEnd);
        for bad in ["p99", "p99<10", "p98<1ms", "p99>1ms", "p99<xms", "p99<0ms", "p99<1m"] {
            assert!(Objective::parse(bad).is_err(), "{bad}");
        }
    }
}
