//! What restores touch is recorded, filled ahead of the next one, and forgotten when it is stale.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod common;

use std::time::{Duration, Instant};

use common::{Clone, Rig};
use pool_model::Prefetch;
use pool_pager::{BaseStats, PagerError, RefusalCode};
use pool_store::WorkingSet;

async fn record(rig: &Rig, clone: &Clone) {
    rig.client().await.record(i32::try_from(clone.pid()).unwrap()).await.unwrap();
}

fn recorded(rig: &Rig) -> Vec<u32> {
    let path = rig.snapshot_dir(rig.snapshot).join("working-set");
    WorkingSet::load(&path).unwrap().unwrap().windows().collect()
}

/// A new base, with its working set filled ahead.
async fn new_base(rig: &Rig) -> BaseStats {
    let client = rig.client().await;
    rig.until_clones(0).await;
    client.drop_base(rig.snapshot).await.unwrap();
    let (dir, bytes) = (rig.snapshot_dir(rig.snapshot), rig.bytes as u64);
    client.base(rig.snapshot, &dir, bytes, Prefetch::WorkingSet).await.unwrap();
    let until = Instant::now() + common::DEADLINE;
    loop {
        let base = client.stats().await.unwrap().bases.remove(0);
        if base.prefetched_units == base.working_set_units {
            return base;
        }
        assert!(Instant::now() < until, "{base:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A clone that has read each `every`th window.
fn clone_that_read(rig: &Rig, every: &str) -> Clone {
    let mut clone = rig.clone_with(&["hold=yes", every]);
    clone.go();
    assert_eq!(clone.pass().wrong, 0);
    clone
}

#[tokio::test]
async fn recorded_set_is_filled_ahead_and_the_next_clone_hardly_faults() {
    let rig = Rig::new(32);
    let clone = clone_that_read(&rig, "every=4");
    record(&rig, &clone).await;
    let expected: Vec<u32> = (0..512).step_by(4).collect();
    assert_eq!(recorded(&rig), expected);
    let before = rig.stats().await.bases[0].faults;
    drop(clone);

    let base = new_base(&rig).await;
    assert_eq!(base.prefetched_units, before, "the units that faulted before");
    assert!(base.prefetched_bytes == 128 << 16 && base.prefetch_us > 0, "{base:?}");
    let clone = clone_that_read(&rig, "every=4");
    record(&rig, &clone).await;
    let base = rig.stats().await.bases.remove(0);
    assert!(base.faults * 20 <= before, "{} faults, {before} before", base.faults);
    let rates = (base.working_set_hits, base.working_set_misses, base.working_set_untouched);
    assert_eq!(rates, (128, 0, 0));
}

#[tokio::test]
async fn stale_set_is_recorded_out_of_turn_and_adapts() {
    let rig = Rig::new(16);
    let clone = clone_that_read(&rig, "every=4");
    for _ in 0..3 {
        record(&rig, &clone).await;
    }
    let settled = recorded(&rig);
    drop(clone);
    new_base(&rig).await;
    let same = clone_that_read(&rig, "every=4");
    record(&rig, &same).await;
    assert_eq!(recorded(&rig), settled, "the fourth restore is none that is recorded");
    assert_eq!(rig.stats().await.bases[0].working_set_hits, 0, "nor looked at");
    drop(same);
    new_base(&rig).await;
    let other = clone_that_read(&rig, "every=3");
    record(&rig, &other).await;
    let adapted = recorded(&rig);
    assert!((0..256).step_by(3).all(|window| adapted.contains(&window)), "{adapted:?}");
}

#[tokio::test]
async fn everything_is_filled_ahead_if_that_is_wanted() {
    let rig = Rig::new(16);
    let (dir, bytes) = (rig.snapshot_dir(rig.snapshot), rig.bytes as u64);
    let client = rig.client().await;
    client.base(rig.snapshot, &dir, bytes, Prefetch::Full).await.unwrap();
    let until = Instant::now() + common::DEADLINE;
    while client.stats().await.unwrap().bases[0].resident_bytes < bytes {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut clone = rig.clone_with(&["hold=yes", "order=shuffled"]);
    clone.go();
    assert_eq!(clone.pass().wrong, 0);
    assert_eq!(client.stats().await.unwrap().clones[0].faults, 0);
}

#[tokio::test]
async fn damaged_set_is_ignored_and_replaced() {
    let rig = Rig::new(1);
    let path = rig.snapshot_dir(rig.snapshot).join("working-set");
    std::fs::write(&path, b"nonsense").unwrap();
    assert_eq!(new_base(&rig).await.working_set_units, 0);
    let clone = clone_that_read(&rig, "every=1");
    record(&rig, &clone).await;
    assert_eq!(recorded(&rig), (0..16).collect::<Vec<_>>());
}

#[tokio::test]
async fn dead_and_unknown_clones_are_not_recorded() {
    let rig = Rig::new(1);
    let mut clone = clone_that_read(&rig, "every=1");
    let pid = i32::try_from(clone.pid()).unwrap();
    clone.kill();
    let client = rig.client().await;
    for pid in [pid, i32::MAX, -1] {
        match client.record(pid).await.unwrap_err() {
            PagerError::Refused { code, .. } => assert_eq!(code, RefusalCode::NoSuchProcess),
            other => panic!("{other:?}"),
        }
    }
    assert!(!rig.snapshot_dir(rig.snapshot).join("working-set").exists());
}
