//! Layers are deleted when nothing needs them, and never earlier.

mod support;

use std::{
    collections::BTreeSet,
    fs, io,
    sync::mpsc,
    time::{Duration, SystemTime},
};

use pool_store::{GcError, GcReport, PAGE_BYTES, SnapshotStore};
use support::{commit, names_in, new_layers, noise, read_all, write_all};

#[test]
fn layers_live_as_long_as_a_snapshot_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let store = SnapshotStore::new(dir.path().join("snapshots"), layers.clone());
    let memories = [1, 2].map(|seed| noise(seed, 32 * PAGE_BYTES));
    let [one, two] = [0, 1].map(|n| commit(&store, &write_all(&layers, &memories[n]).0));
    assert_eq!(layers.gc(|| store.live_layers()).unwrap(), GcReport::default());

    store.delete(one.snapshot).unwrap();
    fs::write(layers.dir().join(".tmp-1-1.blocks"), b"left by a crash").unwrap();
    let arriving = layers.dir().join(".new-1");
    fs::write(&arriving, b"another process writes it").unwrap();
    let abandoned = fs::File::create(layers.dir().join(".new-2")).unwrap();
    abandoned.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    fs::write(layers.dir().join("README"), b"not ours").unwrap();
    let report = layers.gc(|| store.live_layers()).unwrap();
    assert_eq!(report.layers, 1);
    assert!(report.bytes > 32 * PAGE_BYTES as u64 + 15, "{report:?}");
    assert_eq!(names_in(layers.dir()).len(), 4, "one layer, what arrives, and what isn't ours");
    let snapshot = store.open(two.snapshot).unwrap();
    assert!(read_all(&layers, snapshot.map()) == memories[1]);

    // What was deleted is not deduplicated into.
    let (map, written) = write_all(&layers, &memories[0]);
    assert_eq!(written.deduplicated_pages, 0);
    assert!(read_all(&layers, &map) == memories[0]);
}

#[test]
fn nothing_is_deleted_while_it_is_not_known_what_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let store = SnapshotStore::new(dir.path().join("snapshots"), layers.clone());
    let kept = commit(&store, &write_all(&layers, &noise(1, PAGE_BYTES)).0);
    write_all(&layers, &noise(2, PAGE_BYTES));
    let manifest = store.open(kept.snapshot).unwrap().dir().join("manifest.json");
    let whole = fs::read(&manifest).unwrap();
    for damaged in [&whole[..whole.len() - 10], b"{\"version\": 3}", b""] {
        fs::write(&manifest, damaged).unwrap();
        let error = layers.gc(|| store.live_layers()).unwrap_err();
        assert!(matches!(error, GcError::Live(_)), "{error:?}");
        assert_eq!(names_in(layers.dir()).len(), 4);
    }
    fs::remove_file(&manifest).unwrap();
    layers.gc(|| store.live_layers()).unwrap_err();
    fs::write(&manifest, whole).unwrap();
    assert_eq!(layers.gc(|| store.live_layers()).unwrap().layers, 1);
    store.open(kept.snapshot).unwrap();
}

#[test]
fn snapshots_from_before_there_were_layers_need_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(dir.path().join("snapshots"), new_layers(dir.path()));
    let old = dir.path().join("snapshots").join(pool_model::SnapshotId::from_u128(5).label());
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("manifest.json"), b"{\"version\": 1}").unwrap();
    assert_eq!(store.live_layers().unwrap(), BTreeSet::new());
}

/// How long a collection that ought to wait is watched. It can't be seen to wait for ever, but
/// one that doesn't wait is through by then.
const WATCH: Duration = Duration::from_millis(200);

#[test]
fn collection_waits_for_every_pin_and_drafts_and_writers_hold_one() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let store = SnapshotStore::new(dir.path().join("snapshots"), layers.clone());
    let draft = store.begin().unwrap();
    let mut writer = layers.writer(None, 1 << 20).unwrap();
    writer.put(0, &noise(1, PAGE_BYTES)).unwrap();
    let (report, done) = mpsc::channel();
    let collector = {
        let (layers, store) = (layers.clone(), store.clone());
        std::thread::spawn(move || {
            report.send(layers.gc(|| store.live_layers()).unwrap()).unwrap();
        })
    };
    done.recv_timeout(WATCH).unwrap_err();
    let (map, written) = writer.finish().unwrap(); // now it has a name, and nothing names it
    done.recv_timeout(WATCH).unwrap_err();
    // A waiting collection keeps nobody from pinning: this would never end otherwise.
    drop(layers.writer(None, 4096).unwrap());
    fs::write(draft.state(), b"state").unwrap();
    fs::write(draft.scratch(), b"disk").unwrap();
    draft.commit(support::new_manifest(1 << 20), &map).unwrap();
    assert_eq!(done.recv().unwrap(), GcReport::default());
    collector.join().unwrap();
    assert!(layers.contains(written.layer.unwrap()));
}

#[test]
fn nobody_begins_while_layers_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let (pinned, done) = mpsc::channel();
    let mut pinning = None;
    layers
        .gc(|| {
            let layers = layers.clone();
            pinning = Some(std::thread::spawn(move || {
                let _pin = layers.pin();
                pinned.send(()).unwrap();
            }));
            done.recv_timeout(WATCH).unwrap_err();
            Err(io::ErrorKind::Other.into())
        })
        .unwrap_err();
    done.recv().unwrap(); // a failed collection ends, too
    pinning.unwrap().join().unwrap();
}
