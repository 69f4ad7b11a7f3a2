//! A store that loses what it had confirmed: what the nodes still have is delivered again, what nobody
//! has is reported to the unit.

use crate::harness::fleet::{Fleet, Seed, seeds};

#[tokio::test]
async fn lost_answers_late_commits_and_stores_that_go_back_leave_the_sums_right() {
    let mut with_losses = 0;
    for seed in seeds(150) {
        let _seed = Seed(seed);
        let mut fleet = Fleet::new(seed);
        for _ in 0..60 {
            fleet.step(false).await;
            if rand::Rng::random_bool(&mut fleet.random, 0.25) {
                fleet.bad_day().await;
            }
        }
        with_losses += u32::from(fleet.settle().await > 0);
    }
    assert!(with_losses > 0, "the cases are too tame");
}
