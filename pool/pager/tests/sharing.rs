//! Clones share what they read, own what they write, and only ever see the snapshot.

mod common;

use std::{fs::File, io::Read as _};

use common::Rig;
use pool_model::Prefetch;

#[tokio::test]
async fn first_clone_faults_once_per_unit_and_the_second_not_at_all() {
    let rig = Rig::new(64);
    let mut first = rig.clone_with(&["hold=yes"]);
    first.go();
    let cold = first.pass();
    assert_eq!((cold.pages, cold.wrong), (16_384, 0));
    let after_first = rig.stats().await;
    let base = &after_first.bases[0];
    let units = base.units;
    // A window has one block, or zeroes, or both.
    assert!((rig.windows()..=2 * rig.windows()).contains(&units), "{units} units");
    assert_eq!(after_first.clones[0].faults, units, "one fault per unit");
    assert_eq!((base.units_present, base.memory_bytes), (units, rig.bytes as u64));
    assert_eq!((base.last_error.as_deref(), base.prefetched_units), (None, 0));
    let totals = &after_first.totals;
    assert_eq!((totals.faults, totals.latency.count()), (units, units));
    assert_eq!((totals.damaged, totals.killed, totals.faults_in_flight), (0, 0, 0));
    assert!(totals.bytes_local > 0 && totals.bytes_cache + totals.bytes_remote == 0);
    assert_eq!(after_first.bases[0].resident_bytes, rig.bytes as u64);

    let mut second = rig.clone_with(&["hold=yes"]);
    second.go();
    let warm = second.pass();
    assert_eq!(warm.wrong, 0);
    let both = rig.stats().await;
    let second_pid = i32::try_from(second.pid()).unwrap();
    let clone = both.clones.iter().find(|clone| clone.pid == second_pid).unwrap();
    assert_eq!(clone.faults, 0, "the kernel serves a resident base by itself");
    assert_eq!((both.bases[0].clones, both.bases[0].faults), (2, units));
    eprintln!(
        "first clone: {units} faults, {:.0} faults/s, {:.2} µs/page; second: 0 faults, {:.2} µs/page",
        units as f64 * 1e9 / cold.nanos as f64,
        cold.nanos as f64 / 1e3 / cold.pages as f64,
        warm.nanos as f64 / 1e3 / warm.pages as f64,
    );
}

#[tokio::test]
async fn racing_clones_fill_each_unit_once_and_see_no_wrong_byte() {
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
    assert_eq!(stats.bases[0].units_present, stats.bases[0].units);
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
    let (memory, mut base) = (rig.memory(), Vec::new());
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
    client.drop_base(rig.snapshot).await.unwrap();
    assert_eq!(client.stats().await.unwrap().bases.len(), 1, "a clone still uses it");

    let new = rig.clone_with(&["hold=yes"]);
    let stats = client.stats().await.unwrap();
    assert_eq!(stats.bases.len(), 2, "the new clone has a base of its own");
    old.go();
    assert_eq!(old.pass().wrong, 0, "the old one is served on");
    drop((old, new));
    rig.until_clones(0).await;
    client.drop_base(rig.snapshot).await.unwrap();
    assert_eq!(client.stats().await.unwrap().bases, []);
}

#[tokio::test]
async fn scattered_diff_layer_is_served_as_well_as_a_whole_one() {
    let mut rig = Rig::stopped(32, &[], &["diff=yes"]);
    assert_eq!(rig.layer_files("blocks").len(), 2);
    rig.start();
    let mut clone = rig.clone_with(&["hold=yes", "order=shuffled"]);
    clone.go();
    assert_eq!(clone.pass().wrong, 0);
    let stats = rig.stats().await;
    assert_eq!(stats.bases[0].units_present, stats.bases[0].units);
    let copy = rig.clone_with(&["population=copy"]);
    assert_eq!(copy.pass().wrong, 0);
}

#[tokio::test]
async fn memory_that_is_all_zeroes_is_served_without_any_layer() {
    let rig = Rig::new(1);
    let layers = pool_store::LayerStore::new(rig.path().join("layers"));
    let store = pool_store::SnapshotStore::new(rig.path().join("snapshots"), layers);
    let of = store.open(rig.snapshot).unwrap().manifest;
    let draft = store.begin().unwrap();
    std::fs::write(draft.state(), b"").unwrap();
    std::fs::write(draft.scratch(), b"").unwrap();
    let new = pool_store::NewManifest {
        parent: None,
        template: of.template,
        team: of.team,
        base_disk_digest: of.base_disk_digest,
        kernel: of.kernel,
        memory_bytes: of.memory.bytes,
        vcpus: 1,
        vmm: of.vmm,
        accel: of.accel,
        cpu: of.cpu,
        cpu_fingerprint: of.cpu_fingerprint,
        envd_version: of.envd_version,
        generation: of.generation,
        created_at: of.created_at,
    };
    let map = pool_store::PageMap::empty(of.memory.bytes);
    let zeroes = draft.commit(new, &map).unwrap().snapshot;
    let mut clone = rig.clone_of(zeroes, &["hold=yes"]);
    clone.go();
    // Holes of the pattern are right, all other pages are zero and thus not the pattern.
    let holes = rig.memory().chunks(4096).filter(|page| page.iter().all(|b| *b == 0)).count();
    assert_eq!(clone.pass().wrong, 256 - u64::try_from(holes).unwrap());
    let mut base = Vec::new();
    let client = rig.client().await;
    let fd = client.base(zeroes, &rig.snapshot_dir(zeroes), 1 << 20, Prefetch::None).await;
    File::from(fd.unwrap()).read_to_end(&mut base).unwrap();
    assert!(base.iter().all(|byte| *byte == 0));
    assert_eq!(rig.stats().await.bases[0].units_present, 16);
}

#[tokio::test]
async fn stats_of_more_bases_than_one_message_holds_are_complete() {
    let rig = Rig::with_args(1, &["--max-bases", "70"]);
    let client = rig.client().await;
    let mut made = Vec::new();
    for number in 1..=71 {
        made.push(rig.make_snapshot(&[&format!("number={number}")]));
    }
    let base = |number: usize| {
        let dir = rig.snapshot_dir(made[number]);
        let (client, snapshot) = (&client, made[number]);
        async move { client.base(snapshot, &dir, 1 << 20, Prefetch::None).await }
    };
    for number in 0..70 {
        base(number).await.unwrap();
    }
    let stats = client.stats().await.unwrap();
    let found: Vec<_> = stats.bases.iter().map(|base| base.snapshot).collect();
    let mut expected = made[..70].to_vec();
    expected.sort();
    assert_eq!(found, expected);
    assert!(base(70).await.is_err(), "one more than max_bases");
}

#[tokio::test]
async fn discarded_pages_are_counted_and_have_the_snapshots_content_again() {
    let rig = Rig::new(8);
    for population in ["population=copy", "population=shared"] {
        let mut clone =
            rig.clone_with(&["hold=yes", "passes=2", "write=yes", "discard=yes", population]);
        for _ in 0..2 {
            clone.go();
            assert_eq!(clone.pass().wrong, 0, "{population}");
        }
        assert_eq!(clone.ended().code(), Some(0), "{population}");
        rig.until_clones(0).await;
    }
    let mut clone = rig.clone_with(&["hold=yes", "passes=2", "discard=yes"]);
    clone.go();
    assert_eq!(clone.pass().wrong, 0);
    let bytes = rig.bytes as u64;
    let until = std::time::Instant::now() + common::DEADLINE;
    while rig.stats().await.clones[0].removed_bytes != bytes {
        assert!(std::time::Instant::now() < until, "the discarded bytes are not counted");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}
