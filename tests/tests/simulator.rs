//! A few seeds of the simulator; `cargo xtask sim` runs many.

use levada_tests::sim;

#[test]
fn seeds_pass_and_the_same_seed_gives_the_same_trace() {
    for seed in [1, 7, 42] {
        let run = || sim::run(seed).unwrap_or_else(|failed| panic!("{failed}"));
        let (first, again) = (run(), run());
        assert_eq!(first.trace, again.trace, "seed {seed}");
        assert!(first.acked > 0, "seed {seed} did nothing");
    }
    let traces: Vec<u64> = [1, 7].map(|seed| sim::run(seed).unwrap().trace).into();
    assert_ne!(traces[0], traces[1], "the seed decides");
}
