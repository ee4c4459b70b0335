//! Clones share what they read, own what they write, and only ever see the snapshot.

mod common;

use std::{fs::File, io::Read as _};

use common::{Rig, SNAPSHOT};
use pool_model::SnapshotId;

#[tokio::test]
async fn first_clone_faults_once_per_block_and_the_second_not_at_all() {
    let rig = Rig::new(64);
    let mut first = rig.clone_with(&["hold=yes"]);
    first.go();
    let cold = first.pass();
    assert_eq!((cold.pages, cold.wrong), (16_384, 0));
    let after_first = rig.stats().await;
    let blocks = rig.blocks();
    assert_eq!(after_first.clones[0].faults, blocks, "one fault per block of 16 pages");
    assert_eq!(after_first.bases[0].blocks_populated, blocks);
    assert_eq!(after_first.bases[0].resident_bytes, rig.bytes as u64);

    let mut second = rig.clone_with(&["hold=yes"]);
    second.go();
    let warm = second.pass();
    assert_eq!(warm.wrong, 0);
    let both = rig.stats().await;
    let second_pid = i32::try_from(second.pid()).unwrap();
    let clone = both.clones.iter().find(|clone| clone.pid == second_pid).unwrap();
    assert_eq!(clone.faults, 0, "the kernel serves a resident base by itself");
    assert_eq!((both.bases[0].clones, both.bases[0].faults), (2, blocks));
    eprintln!(
        "first clone: {blocks} faults, {:.0} faults/s, {:.2} µs/page; second: 0 faults, {:.2} µs/page",
        blocks as f64 * 1e9 / cold.nanos as f64,
        cold.nanos as f64 / 1e3 / cold.pages as f64,
        warm.nanos as f64 / 1e3 / warm.pages as f64,
    );
}

#[tokio::test]
async fn two_racing_clones_fill_each_block_once_and_see_no_wrong_byte() {
    let rig = Rig::new(32);
    let mut clones = [
        rig.clone_with(&["hold=yes", "order=shuffled"]),
        rig.clone_with(&["hold=yes", "order=shuffled"]),
        rig.clone_with(&["hold=yes"]),
    ];
    for clone in &mut clones {
        clone.go();
    }
    for clone in &clones {
        assert_eq!(clone.pass().wrong, 0);
    }
    let stats = rig.stats().await;
    assert_eq!(stats.bases.len(), 1);
    assert_eq!(stats.bases[0].blocks_populated, rig.blocks());
    assert_eq!(stats.bases[0].resident_bytes, rig.bytes as u64, "no page is there twice");
}

#[tokio::test]
async fn what_a_clone_writes_reaches_neither_the_base_nor_its_siblings() {
    let rig = Rig::new(8);
    let mut writer = rig.clone_with(&["hold=yes", "write=yes"]);
    writer.go();
    assert_eq!(writer.pass().wrong, 0);
    assert_eq!(writer.ended().code(), Some(0), "it scribbled over all its pages and ended");
    let reader = rig.clone_with(&[]);
    assert_eq!(reader.pass().wrong, 0);
    let (mut memory, mut base) = (Vec::new(), Vec::new());
    File::open(rig.memory_file()).unwrap().read_to_end(&mut memory).unwrap();
    File::from(rig.base().await).read_to_end(&mut base).unwrap();
    assert!(memory == base, "the resident base is the snapshot, byte for byte");
}

#[tokio::test]
async fn base_memory_that_is_handed_out_can_only_be_read() {
    let rig = Rig::new(1);
    let fd = rig.base().await;
    assert!(rustix::io::write(&fd, b"x").is_err());
    let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
    assert_eq!(flags & rustix::fs::OFlags::RWMODE, rustix::fs::OFlags::RDONLY);
    let stat = rustix::fs::fstat(&fd).unwrap();
    assert_eq!(stat.st_mode & 0o777, 0o400, "another user can't reopen it");
    let seals = rustix::fs::fcntl_get_seals(&fd).unwrap();
    assert!(seals.contains(rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW));
}

#[tokio::test]
async fn copying_clones_fault_per_page_and_leave_base_memory_empty() {
    let rig = Rig::new(8);
    let mut clone = rig.clone_with(&["hold=yes", "population=copy"]);
    clone.go();
    let pass = clone.pass();
    assert_eq!((pass.pages, pass.wrong), (2048, 0));
    let stats = rig.stats().await;
    assert_eq!(stats.clones[0].faults, 2048);
    assert_eq!(stats.bases[0].resident_bytes, 0);
    eprintln!("copying clone: {:.2} µs/page", pass.nanos as f64 / 1e3 / pass.pages as f64);
}

#[tokio::test]
async fn dropped_base_is_freed_with_its_last_clone_and_made_anew_on_demand() {
    let rig = Rig::new(8);
    let client = rig.client().await;
    let mut old = rig.clone_with(&["hold=yes", "passes=2"]);
    old.go();
    assert_eq!(old.pass().wrong, 0);
    client.drop_base(SNAPSHOT).await.unwrap();
    assert_eq!(client.stats().await.unwrap().bases.len(), 1, "a clone still uses it");

    let new = rig.clone_with(&["hold=yes"]);
    let stats = client.stats().await.unwrap();
    assert_eq!(stats.bases.len(), 2, "the new clone has a base of its own");
    old.go();
    assert_eq!(old.pass().wrong, 0, "the old one is served on");
    drop((old, new));
    rig.until_clones(0).await;
    client.drop_base(SNAPSHOT).await.unwrap();
    assert_eq!(client.stats().await.unwrap().bases, []);
}

#[tokio::test]
async fn last_block_may_be_shorter_than_the_others() {
    let rig = Rig::with_args(1, &["--block-kib", "96"]);
    let clone = rig.clone_with(&[]);
    assert_eq!(clone.pass().wrong, 0);
    assert_eq!(rig.stats().await.bases[0].blocks_populated, 11, "1024 KiB in 96 KiB blocks");
}

#[tokio::test]
async fn stats_of_more_bases_than_one_message_holds_are_complete() {
    let rig = Rig::with_args(1, &["--max-bases", "200"]);
    let client = rig.client().await;
    for number in 0..200 {
        let snapshot = SnapshotId::from_u128(number);
        client.base(snapshot, &rig.memory_file(), rig.bytes as u64).await.unwrap();
    }
    let stats = client.stats().await.unwrap();
    let found: Vec<_> = stats.bases.iter().map(|base| base.snapshot.as_u128()).collect();
    assert_eq!(found, (0..200).collect::<Vec<_>>());
    let full = client.base(SnapshotId::from_u128(200), &rig.memory_file(), 1 << 20).await;
    assert!(full.is_err(), "one more than max_bases");
}
