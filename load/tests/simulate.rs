//! The simulation: real nodes on machines, disks, a network and a store that fail as a seed says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::AtomicBool;

use event_load::simulate::{Script, play, run};

/// Where the normal seeds begin: those of earlier faults come first.
const FIRST: u64 = 0;
const SEEDS: u64 = 20_000;

#[test]
fn in_twenty_thousand_simulations_nothing_is_lost_doubled_or_shown_out_of_bounds() {
    let run = run(FIRST, SEEDS, 0, &AtomicBool::new(false)).unwrap();
    assert!(run.failed.is_empty(), "event-load simulate --seeds 1 --seed N tells of each: {:?}", run.failed);
    run.figures.check(run.played).unwrap();
    assert_eq!(run.played, SEEDS);
}

#[test]
fn the_same_seed_is_the_same_history_to_the_last_word() {
    for seed in 0..300 {
        let [first, second] = [(), ()].map(|()| play(&Script::of(seed), seed).unwrap().trace);
        assert_eq!(first, second, "seed {seed}");
        assert!(first.lines().count() > 10, "{first}");
    }
}

/// Each has found a fault once, see the changelog.
#[test]
fn seeds_that_found_faults_find_none_any_more() {
    for seed in [4_815] {
        let ended = play(&Script::of(seed), seed).unwrap();
        assert!(ended.wrong.is_empty(), "seed {seed}: {:?}\n{}", ended.wrong, ended.trace);
    }
}
