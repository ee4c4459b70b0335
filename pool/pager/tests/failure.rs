//! What can't be served dies or is refused, and nothing is left of it.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod common;

use std::{fs::File, os::unix::process::ExitStatusExt as _};

use common::Rig;
use pool_model::Prefetch;
use pool_pager::{PagerClient, PagerError, RefusalCode};

async fn refusal(client: &PagerClient, attach: pool_pager::Attach) -> RefusalCode {
    match client.attach(attach).await.unwrap_err() {
        PagerError::Refused { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn fault_that_cannot_be_read_kills_its_guest_and_logs_the_cause() {
    let rig = Rig::new(8);
    let mut clone = rig.clone_with(&["hold=yes"]);
    // The pager has it open: it is cut, not replaced.
    let blocks = &rig.layer_files("blocks")[0];
    File::options().write(true).open(blocks).unwrap().set_len(1 << 20).unwrap();
    clone.go();
    assert_eq!(clone.ended().signal(), Some(9));
    rig.until_clones(0).await;
    let log = rig.log();
    assert!(log.contains("a fault can't be answered"), "{log}");
    let stats = rig.stats().await;
    let error = stats.bases[0].last_error.clone().unwrap();
    for part in ["cannot fill the page at offset", "cannot read block", "failed to fill whole"] {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert!(error.contains("cannot read block"), "{error}");
    assert_eq!((stats.totals.killed, stats.totals.faults_in_flight), (1, 0));
}

#[tokio::test]
async fn session_ends_when_its_guest_is_killed() {
    let rig = Rig::new(1);
    let mut clone = rig.clone_with(&["hold=yes"]);
    rig.until_clones(1).await;
    clone.kill();
    rig.until_clones(0).await;
}

#[tokio::test]
async fn detaching_a_living_guest_kills_it() {
    let rig = Rig::new(1);
    let mut clone = rig.clone_with(&["hold=yes"]);
    let client = rig.client().await;
    client.detach(i32::try_from(clone.pid()).unwrap()).await.unwrap();
    assert_eq!(clone.ended().signal(), Some(9));
    client.detach(i32::MAX).await.unwrap();
}

#[tokio::test]
async fn attach_may_be_repeated_but_not_contradicted() {
    let rig = Rig::new(1);
    let clone = rig.clone_with(&["hold=yes"]);
    let client = rig.client().await;
    let attach = rig.attach_of(&clone);
    client.attach(attach.clone()).await.unwrap();
    assert_eq!(client.stats().await.unwrap().clones.len(), 1);
    let mut other = attach;
    other.len -= 4096;
    assert_eq!(refusal(&client, other).await, RefusalCode::BadRequest);
}

#[tokio::test]
async fn wrong_descriptors_ranges_and_processes_are_refused() {
    let rig = Rig::new(1);
    let clone = rig.clone_with(&["hold=yes", "attach=no"]);
    let client = rig.client().await;
    let good = rig.attach_of(&clone);
    let with = |change: fn(&mut pool_pager::Attach)| {
        let mut attach = good.clone();
        change(&mut attach);
        attach
    };
    for (attach, code) in [
        (with(|a| a.uffd_fd = 0), RefusalCode::BadDescriptor),
        (with(|a| a.uffd_fd = 999), RefusalCode::BadDescriptor),
        (with(|a| a.base_fd = 0), RefusalCode::BadDescriptor),
        (with(|a| a.addr += 1), RefusalCode::BadRequest),
        (with(|a| a.len += 4096), RefusalCode::BadRequest),
        (with(|a| a.len = 0), RefusalCode::BadRequest),
        (with(|a| a.addr = !4095), RefusalCode::BadRequest),
        (with(|a| a.pid_start_ticks += 1), RefusalCode::NoSuchProcess),
        (with(|a| a.pid = -1), RefusalCode::NoSuchProcess),
    ] {
        assert_eq!(refusal(&client, attach.clone()).await, code, "{attach:?}");
    }
    client.attach(good).await.unwrap();
}

#[tokio::test]
async fn snapshot_of_another_length_or_none_at_all_is_refused() {
    let rig = Rig::new(1);
    let client = rig.client().await;
    for (dir, bytes) in [(rig.snapshot_dir(rig.snapshot), 8192), (rig.path().join("no"), 8192)] {
        match client.base(rig.snapshot, &dir, bytes, Prefetch::None).await.unwrap_err() {
            PagerError::Refused { code, .. } => assert_eq!(code, RefusalCode::Snapshot),
            other => panic!("{other:?}"),
        }
    }
    rig.base().await;
    let dir = rig.snapshot_dir(rig.snapshot);
    let other = client.base(rig.snapshot, &dir, 8192, Prefetch::None).await;
    assert!(other.is_err(), "it has another size");
}

#[tokio::test]
async fn one_clone_more_than_the_limit_is_refused() {
    let rig = Rig::with_args(1, &["--max-clones", "1"]);
    let _first = rig.clone_with(&["hold=yes"]);
    let second = rig.clone_with(&["hold=yes", "attach=no"]);
    let client = rig.client().await;
    assert_eq!(refusal(&client, rig.attach_of(&second)).await, RefusalCode::Limit);
}

#[tokio::test]
async fn second_pager_on_the_same_directory_gives_up_and_the_first_stays() {
    let rig = Rig::new(1);
    let client = rig.client().await;
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_pager"))
        .arg("--wrenn-dir")
        .arg(rig.path())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.contains("another pager holds"), "{words}");
    client.stats().await.unwrap();
}

#[tokio::test]
async fn pager_ends_well_on_sigterm_and_leaves_its_guests_alive() {
    let mut rig = Rig::new(1);
    let pid = std::fs::read_to_string(rig.path().join("run/pager.pid"));
    let mut clone = rig.clone_with(&["hold=yes"]);
    let pid = pid.or_else(|_| std::fs::read_to_string(rig.path().join("run/pager.pid"))).unwrap();
    assert!(std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
    assert_eq!(rig.terminate().code(), Some(0));
    rig.start();
    rig.client().await.attach(rig.attach_of(&clone)).await.unwrap();
    clone.go();
    assert_eq!(clone.pass().wrong, 0);
}
