//! The simulation: real nodes on machines, disks, a network and a store that fail as a seed says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use event_load::simulate::disk::Left;
use event_load::simulate::images::try_images;
use event_load::simulate::script::{HOT, Look, Script, Settings, Step};
use event_load::simulate::{play, run};
use event_tracker::domain::Ack;

const SEEDS: u64 = 20_000;
const IMAGES: u64 = 50_000;

#[test]
fn in_twenty_thousand_simulations_nothing_is_lost_doubled_or_shown_out_of_bounds() {
    let run = run(0, SEEDS, 0, &|_| false).unwrap();
    assert!(run.failed.is_empty(), "event-load simulate --seeds 1 --seed N tells of each: {:?}", run.failed);
    run.figures.check(run.played).unwrap();
    assert_eq!(run.played, SEEDS);
}

#[test]
fn a_node_starts_from_whatever_a_power_cut_leaves_with_all_that_was_on_the_disk() {
    let tried = try_images(0, IMAGES, 0, &AtomicBool::new(false)).unwrap();
    assert!(tried.wrong.is_empty(), "{}", tried.wrong.join("\n"));
    assert!(
        tried.lives > 0 && tried.whole * 2 > tried.cuts,
        "{} lives, {} of {}",
        tried.lives,
        tried.whole,
        tried.cuts
    );
}

#[test]
fn the_same_seed_is_the_same_history_to_the_last_word() {
    for seed in 0..300 {
        let [first, second] = [(), ()].map(|()| play(&Script::of(seed), seed).unwrap().trace);
        assert_eq!(first, second, "seed {seed}");
        assert!(first.lines().count() > 10, "{first}");
    }
}

/// As the simulation found it, made as short as it could be: the store went back between the choice of a batch
/// and its request, so that it took the place of an earlier one.
#[test]
fn a_batch_does_not_overtake_one_that_waits_again_since_the_store_went_back() {
    let settings = Settings {
        machines: 1,
        flush_interval: Duration::from_secs(1),
        fold_interval: Duration::from_millis(100),
        kept_files_max: 18,
        segment_bytes_max: 538,
        begins: Duration::from_secs(1_792_463_969),
    };
    let count = || Step::Count { machine: 0, event: None, count: 1_000, ack: Ack::Store };
    let read = || Step::Read { machine: 0, look: Look::Hourly };
    for seed in 0..200 {
        let wait = |ms| Step::Wait(Duration::from_millis(ms + seed));
        let steps =
            vec![Step::SaveStore, wait(2_000), count(), wait(1_300), count(), read(), Step::SetStoreBack, read()];
        let ended = play(&Script { settings, steps }, seed).unwrap();
        assert!(ended.wrong.is_empty(), "seed {seed}: {:?}\n{}", ended.wrong, ended.trace);
    }
}

/// The same, of a start: the store went back, and a power cut undid the renaming of one committed segment and not
/// that of the next.
#[test]
fn a_node_starts_after_a_power_cut_whatever_names_of_its_segments_that_left() {
    let settings = Settings {
        machines: 2,
        flush_interval: Duration::from_millis(50),
        fold_interval: Duration::from_millis(100),
        kept_files_max: 18,
        segment_bytes_max: 3_409,
        begins: Duration::from_secs(1_848_300_222),
    };
    let count = |ack| Step::Count { machine: 1, event: Some(HOT[2]), count: 1_000, ack };
    for seed in 0..200 {
        let steps = vec![
            count(Ack::Journal),
            Step::SaveStore,
            Step::Wait(Duration::from_millis(1_790)),
            count(Ack::Memory),
            Step::SetStoreBack,
            Step::Wait(Duration::from_millis(4_658)),
            Step::CutPower { machine: 1, left: Left(0.5), seed },
        ];
        let ended = play(&Script { settings, steps }, seed).unwrap();
        assert!(ended.wrong.is_empty(), "seed {seed}: {:?}\n{}", ended.wrong, ended.trace);
    }
}
