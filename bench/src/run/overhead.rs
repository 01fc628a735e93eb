//! What measuring itself costs per record.

use std::hint::black_box;

use crate::clock::now_ns;
use crate::number::float;
use crate::payload::{Pool, Stamp};
use crate::recorder::histogram;

/// Rounds of the measurement: some 10 ms.
const ROUNDS: u64 = 200_000;

/// Nanoseconds that clock, stamp and histograms take for one record.
pub(super) fn measure() -> f64 {
    let mut pool = Pool::new(16, 100, 1.0, 0);
    let mut samples = [histogram(), histogram()];
    let start_ns = now_ns();
    for sequence in 0..ROUNDS {
        let stamp = Stamp { run: 0, producer: 0, sequence, intended_ns: now_ns() };
        black_box(pool.stamped(&stamp));
        for sample in &mut samples {
            sample.saturating_record(black_box(sequence * 997));
        }
    }
    float(now_ns() - start_ns) / float(ROUNDS)
}
