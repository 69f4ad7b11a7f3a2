//! Copies of a data folder, made at any moment and started on the same store: nothing is doubled, and
//! what the store lacks is reported to the unit.

use crate::harness::fleet::{Fleet, Seed, seeds};

#[tokio::test]
async fn copies_at_any_moment_double_nothing_and_lose_nothing_unreported() {
    let mut with_losses = 0;
    for seed in seeds(150) {
        let _seed = Seed(seed);
        let mut fleet = Fleet::new(seed);
        for _ in 0..60 {
            fleet.step(true).await;
        }
        with_losses += u32::from(fleet.settle().await > 0);
    }
    assert!(with_losses > 0, "the cases are too tame");
}
