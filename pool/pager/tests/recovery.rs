//! The pager may die at any instruction: no wrong byte, and no guest that needs it less.

mod common;

use std::{
    fs::File,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    time::Duration,
};

use common::Rig;
use pool_model::Prefetch;
use pool_pager::{
    PagerError, RefusalCode,
    sys::{Event, Events, Uffd},
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

#[tokio::test]
async fn ten_killed_pagers_cost_no_wrong_byte_and_no_guest() {
    let mut rig = Rig::new(128);
    let mut clones = [
        rig.clone_with(&["hold=yes", "passes=2", "order=shuffled"]),
        rig.clone_with(&["hold=yes", "passes=2", "order=shuffled"]),
    ];
    clones.iter_mut().for_each(common::Clone::go);
    let mut killed_while_filling = 0;
    for round in 0..10 {
        tokio::time::sleep(Duration::from_millis(2 + round)).await;
        let stats = rig.stats().await;
        let base = &stats.bases[0];
        killed_while_filling += u32::from(base.units_present < base.units);
        rig.kill();
        rig.start();
        let client = rig.client().await;
        for clone in &clones {
            client.attach(rig.attach_of(clone)).await.unwrap();
        }
    }
    assert!(killed_while_filling >= 8, "only {killed_while_filling} kills came in time");
    for clone in &mut clones {
        assert_eq!(clone.pass().wrong, 0);
        clone.go();
        assert_eq!(clone.pass().wrong, 0);
        assert_eq!(clone.ended().code(), Some(0));
    }
    let stats = rig.stats().await;
    assert_eq!(stats.bases.len(), 1, "both clones are served from the one memfd");
    assert_eq!(stats.bases[0].resident_bytes, rig.bytes as u64);
}

#[tokio::test]
async fn twenty_kills_during_prefetch_and_faults_cost_no_wrong_byte() {
    let mut rig = Rig::stopped(64, &[], &["diff=yes"]);
    rig.start();
    let mut clone = rig.clone_with(&["hold=yes", "order=shuffled"]);
    clone.go();
    let dir = rig.snapshot_dir(rig.snapshot);
    for round in 0..20_u64 {
        let client = rig.client().await;
        client.attach(rig.attach_of(&clone)).await.unwrap();
        client.base(rig.snapshot, &dir, rig.bytes as u64, Prefetch::Full).await.unwrap();
        // 0 to 2 ms, different each time.
        tokio::time::sleep(Duration::from_micros(round * 7919 % 2000)).await;
        rig.kill();
        rig.start();
    }
    rig.client().await.attach(rig.attach_of(&clone)).await.unwrap();
    assert_eq!(clone.pass().wrong, 0);
    let mut second = rig.clone_with(&["hold=yes"]);
    second.go();
    assert_eq!(second.pass().wrong, 0);
    let stats = rig.stats().await;
    assert_eq!(stats.bases.len(), 1);
    assert_eq!(stats.bases[0].resident_bytes, rig.bytes as u64);
}

#[tokio::test]
async fn fault_that_a_pager_read_and_never_answered_is_raised_again() {
    let rig = Rig::new(4);
    let mut clone = rig.clone_with(&["hold=yes", "attach=no"]);
    clone.go();
    let attach = rig.attach_of(&clone);
    let pid = Pid::from_raw(attach.pid).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let uffd = rustix::process::pidfd_getfd(&pidfd, attach.uffd_fd, PidfdGetfdFlags::empty());
    let uffd = Uffd::from_fd(uffd.unwrap());
    let mut events = Events::default();
    while events.iter().next().is_none() {
        uffd.read(&mut events).unwrap();
    }
    assert_eq!(events.iter().next(), Some(Event::Fault(attach.addr)));
    drop(uffd); // as a pager that dies here would
    assert!(clone.is_silent_for(Duration::from_millis(50)), "nobody has answered it");

    rig.client().await.attach(attach).await.unwrap();
    assert_eq!(clone.pass().wrong, 0);
}

#[tokio::test]
async fn partly_filled_unit_keeps_its_pages_and_gets_only_the_missing_ones() {
    let mut rig = Rig::new(4);
    let mut clone = rig.clone_with(&["hold=yes", "attach=no"]);
    // Pages 17 and 20 of window 1 are there already. One has a mark to be known by.
    let base = rig.base().await;
    let writable = File::options().write(true).open(format!("/proc/self/fd/{}", base.as_raw_fd()));
    let writable = writable.unwrap();
    writable.write_all_at(&rig.memory()[20 * 4096..21 * 4096], 20 * 4096).unwrap();
    writable.write_all_at(&[7; 4096], 17 * 4096).unwrap();
    rig.kill();
    rig.start();
    rig.client().await.attach(rig.attach_of(&clone)).await.unwrap();
    let stats = rig.stats().await;
    assert_eq!(stats.bases[0].units_present, 0, "a partly filled unit doesn't count");
    assert_eq!(stats.bases[0].resident_bytes, 2 * 4096);
    clone.go();
    assert_eq!(clone.pass().wrong, 1, "the marked page stayed, all others are right");
    assert_eq!(writable.metadata().unwrap().blocks() * 512, rig.bytes as u64);
}

#[tokio::test]
async fn clones_with_resident_pages_live_on_without_a_pager() {
    let mut rig = Rig::new(16);
    let mut clone = rig.clone_with(&["hold=yes", "passes=2", "write=yes"]);
    clone.go();
    assert_eq!(clone.pass().wrong, 0);
    rig.kill();
    clone.go(); // its own pages now, scribbled over: only their first bytes differ
    assert_eq!(clone.pass().wrong, 16 << 8);
    assert_eq!(clone.ended().code(), Some(0));
}

#[tokio::test]
async fn client_sees_the_pager_die_and_waits_for_its_successor() {
    let mut rig = Rig::new(1);
    let client = rig.client().await;
    let alive = tokio::time::timeout(Duration::from_millis(50), client.closed()).await;
    assert!(alive.is_err(), "it lives");
    rig.kill();
    tokio::time::timeout(common::DEADLINE, client.closed()).await.expect("it died");
    assert!(matches!(client.stats().await, Err(PagerError::Gone { call: "stats" })));
    rig.start();
    assert_eq!(rig.stats().await.clones, [], "connecting waits until the new one listens");
}

#[tokio::test]
async fn memory_that_no_pager_made_is_not_taken_over() {
    let mut rig = Rig::new(1);
    let clone = rig.clone_with(&["hold=yes"]);
    let honest = rig.attach_of(&clone);
    rig.kill();
    rig.start();
    let client = rig.client().await;
    for (what, number) in [("stdin", 0), ("the userfaultfd", honest.uffd_fd), ("nothing", 999)] {
        let mut attach = honest.clone();
        attach.base_fd = number;
        let refused = client.attach(attach).await.unwrap_err();
        let PagerError::Refused { code, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(code, RefusalCode::BadDescriptor, "base is {what}");
    }
    let mut other = honest.clone();
    other.snapshot = pool_model::SnapshotId::from_u128(78);
    let refused = client.attach(other).await.unwrap_err();
    assert!(refused.to_string().contains("is not the base memory of snap_"), "{refused}");
    client.attach(honest).await.unwrap();
}
