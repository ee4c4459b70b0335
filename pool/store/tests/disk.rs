//! Snapshots on real file systems: crashes, full disks, holes.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use pool_model::SnapshotId;
use pool_store::{
    BeginError, CommitError, DeleteError, Draft, NewManifest, OpenError, PAGE_BYTES, PageMap,
    SnapshotStore, WorkingSet, WriteError, copy_sparse, is_damage, is_no_space,
};
use support::{
    disk::{Mounted, fill},
    names_in, new_layers, noise, read_all, sparse_file, write, write_all,
};

const MEMORY_BYTES: u64 = 1 << 20;

fn new_manifest() -> NewManifest {
    support::new_manifest(MEMORY_BYTES)
}

fn new_store(dir: &Path) -> SnapshotStore {
    SnapshotStore::new(dir.join("snapshots"), new_layers(dir))
}

fn filled_draft(store: &SnapshotStore) -> (Draft, PageMap) {
    let draft = store.begin().unwrap();
    let mut writer = store.layers().writer(None, MEMORY_BYTES).unwrap();
    writer.put(2, &noise(1, 2 * PAGE_BYTES)).unwrap();
    fs::write(draft.state(), b"state").unwrap();
    sparse_file(&draft.scratch(), 8 << 20, &[(1 << 20, b"disk")]);
    (draft, writer.finish().unwrap().0)
}

fn commit(store: &SnapshotStore) -> Result<pool_store::Manifest, CommitError> {
    let (draft, map) = filled_draft(store);
    draft.commit(new_manifest(), &map)
}

#[test]
fn committed_snapshot_is_opened_listed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(dir.path());
    assert_eq!(store.list().unwrap(), []);
    let manifest = commit(&store).unwrap();
    assert_eq!(store.list().unwrap(), [manifest.snapshot]);
    let snapshot = store.open(manifest.snapshot).unwrap();
    assert_eq!(snapshot.manifest, manifest);
    assert_eq!(fs::read(snapshot.state_path()).unwrap(), b"state");
    assert_eq!(snapshot.map().bytes(), MEMORY_BYTES);
    assert_eq!(snapshot.map().layers(), manifest.memory.layers);
    let memory = read_all(store.layers(), snapshot.map());
    assert!(memory[2 * PAGE_BYTES..4 * PAGE_BYTES] == noise(1, 2 * PAGE_BYTES));
    assert!(fs::metadata(snapshot.scratch_path()).unwrap().blocks() * 512 < 1 << 20, "sparse");
    snapshot.verify_files().unwrap();
    let stored = snapshot.stored_bytes(store.layers());
    assert!((8192..1 << 20).contains(&stored), "{stored}");

    let again = commit(&store).unwrap();
    assert_eq!(again.snapshot, manifest.snapshot, "same content, same id");
    assert_eq!(names_in(&dir.path().join("snapshots")), [manifest.snapshot.label()]);

    store.delete(manifest.snapshot).unwrap();
    assert!(matches!(store.open(manifest.snapshot), Err(OpenError::NotFound { .. })));
    assert!(matches!(store.delete(manifest.snapshot), Err(DeleteError::NotFound { .. })));
    assert!(names_in(&dir.path().join("snapshots")).is_empty());
}

#[test]
fn dropped_and_crashed_drafts_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(dir.path());
    let home = dir.path().join("snapshots");
    drop(filled_draft(&store));
    assert!(names_in(&home).is_empty());
    // As after a crash: with the files, and with everything but the name.
    std::mem::forget(filled_draft(&store));
    let kept = commit(&store).unwrap();
    let half = home.join(".tmp-0-0");
    fs::rename(home.join(kept.snapshot.label()), &half).unwrap();
    assert_eq!(store.list().unwrap(), [], "a draft is no snapshot");
    let store = new_store(dir.path()); // the next process: its pins are its own
    assert_eq!(store.sweep_drafts().unwrap(), 2);
    let kept = commit(&store).unwrap();
    assert_eq!(names_in(&home), [kept.snapshot.label()]);
    assert_eq!(store.layers().gc(|| store.live_layers()).unwrap().layers, 0);
}

#[test]
fn incomplete_draft_is_refused_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(dir.path());
    let (draft, map) = filled_draft(&store);
    fs::remove_file(draft.state()).unwrap();
    assert!(matches!(draft.commit(new_manifest(), &map), Err(CommitError::Missing { .. })));
    let (draft, _) = filled_draft(&store);
    let error = draft.commit(new_manifest(), &PageMap::empty(4096)).unwrap_err();
    assert!(matches!(error, CommitError::MemoryLength { found: 4096, .. }), "{error:?}");
    let (draft, map) = filled_draft(&store);
    fs::remove_file(store.layers().index_path(map.layers()[0])).unwrap();
    let error = draft.commit(new_manifest(), &map).unwrap_err();
    assert!(matches!(error, CommitError::MissingLayer { layer } if layer == map.layers()[0]));
    let (draft, map) = filled_draft(&store);
    let long = NewManifest { kernel: "x".repeat(64 << 10), ..new_manifest() };
    let error = draft.commit(long, &map).unwrap_err();
    assert!(matches!(error, CommitError::ManifestLength { .. }), "{error:?}");
    assert!(names_in(&dir.path().join("snapshots")).is_empty());
}

#[test]
fn damaged_snapshots_are_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(dir.path());
    let id = commit(&store).unwrap().snapshot;
    let snapshot = store.open(id).unwrap();
    for path in [snapshot.map_path(), snapshot.dir().join("manifest.json")] {
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            let error = store.open(id).unwrap_err();
            assert!(is_damage(&error) && error.to_string().contains(&id.to_string()), "{error:?}");
        }
        fs::write(&path, [&whole[..], b" "].concat()).unwrap();
        let longer = store.open(id);
        let spaced = path.ends_with("manifest.json"); // JSON may end in blanks
        assert_eq!(longer.is_ok(), spaced, "{longer:?}");
        fs::write(&path, whole).unwrap();
    }
    store.open(id).unwrap();

    fs::write(snapshot.state_path(), b"stAte").unwrap();
    let error = store.open(id).unwrap().verify_files().unwrap_err();
    assert!(matches!(error, OpenError::Digest { file: "state", .. }), "{error:?}");
    fs::write(snapshot.state_path(), b"sta").unwrap();
    let error = store.open(id).unwrap_err();
    assert!(
        matches!(error, OpenError::Length { file: "state", expected: 5, found: 3, .. }),
        "{error:?}"
    );
    let (other, home) = (SnapshotId::from_u128(9), dir.path().join("snapshots"));
    fs::rename(home.join(id.label()), home.join(other.label())).unwrap();
    assert!(matches!(store.open(other), Err(OpenError::Malformed { .. })), "under a wrong name");
    let manifest = home.join(other.label()).join("manifest.json");
    fs::write(&manifest, vec![b' '; 65 << 10]).unwrap();
    assert!(matches!(store.open(other), Err(OpenError::Malformed { .. })), "over the limit");
    let gone = store.open(SnapshotId::from_u128(10)).unwrap_err();
    assert!(!is_damage(&gone), "{gone:?}");
}

#[test]
fn compacted_snapshot_has_the_same_content_and_shares_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(dir.path());
    let mut memory = noise(1, usize::try_from(MEMORY_BYTES).unwrap());
    let (mut map, _) = write_all(store.layers(), &memory);
    for page in 0..8 {
        let few = support::commit(&store, &map);
        assert_eq!(store.compacted(&store.open(few.snapshot).unwrap()).unwrap(), None);
        support::fill_page(&mut memory, page, &noise(page + 2, PAGE_BYTES));
        map = write(store.layers(), Some(&map), &memory, [page]).0;
    }
    let many = store.open(support::commit(&store, &map).snapshot).unwrap();
    assert_eq!(many.map().layers().len(), 9);
    let mut learnt = WorkingSet::new(MEMORY_BYTES);
    learnt.observe(&[3].into());
    learnt.save(&many.working_set_path()).unwrap();
    let manifest = store.compacted(&many).unwrap().unwrap();
    assert_ne!(manifest.snapshot, many.manifest.snapshot);
    assert_eq!(manifest.maker_part(), many.manifest.maker_part());
    assert_eq!(manifest.memory.layers.len(), 2);
    let few = store.open(manifest.snapshot).unwrap();
    few.verify_files().unwrap();
    assert!(read_all(store.layers(), few.map()) == memory);
    let inode = |path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(few.scratch_path()), inode(many.scratch_path()));
    assert_eq!(WorkingSet::load(&few.working_set_path()).unwrap(), Some(learnt));
    for id in store.list().unwrap().into_iter().filter(|id| *id != manifest.snapshot) {
        store.delete(id).unwrap();
    }
    assert!(store.layers().gc(|| store.live_layers()).unwrap().layers >= 8);
    assert!(read_all(store.layers(), few.map()) == memory);
}

#[test]
fn full_disk_is_named_as_such_and_leaves_nothing_half_made() {
    let disk = Mounted::tmpfs("size=1M");
    let store = new_store(disk.path());
    // A few KiB of data in the files, the rest of the disk taken: map and manifest find no room.
    let (draft, map) = filled_draft(&store);
    fill(&disk.path().join("filler"));
    let error = draft.commit(new_manifest(), &map).unwrap_err();
    assert!(matches!(error, CommitError::NoSpace { .. }), "{error:?}");
    assert!(names_in(&disk.path().join("snapshots")).is_empty());
    assert_eq!(store.list().unwrap(), []);

    // Neither does a layer, wherever it runs out of room: nothing of it is left.
    fs::remove_file(disk.path().join("filler")).unwrap();
    let before = names_in(store.layers().dir());
    for (bytes, room) in [(2 << 20, 0), (256 << 10, 0), (256 << 10, 256 << 10)] {
        let mut writer = store.layers().writer(None, 2 << 20).unwrap();
        fill(&disk.path().join("filler"));
        let filler = File::options().write(true).open(disk.path().join("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - room).unwrap();
        let written = writer.put(0, &noise(7, bytes)).and_then(|()| writer.finish());
        let error = written.unwrap_err();
        assert!(matches!(error, WriteError::NoSpace { .. }), "{error:?}");
        fs::remove_file(disk.path().join("filler")).unwrap();
        assert_eq!(names_in(store.layers().dir()), before);
    }

    // A copy that doesn't fit is gone, too, and its error says why.
    let from = tempfile::NamedTempFile::new().unwrap();
    sparse_file(from.path(), 4 << 20, &[(0, &vec![1; 2 << 20])]);
    let error = copy_sparse(from.path(), &disk.path().join("copy")).unwrap_err();
    assert!(is_no_space(&error), "{error:?}");
    assert!(!disk.path().join("copy").exists());

    commit(&store).unwrap();
}

#[test]
fn disk_without_room_for_a_directory_refuses_to_begin() {
    let disk = Mounted::tmpfs("size=1M,nr_inodes=3");
    let store = new_store(disk.path());
    let _one = store.begin().unwrap();
    let error = store.begin().unwrap_err();
    assert!(matches!(error, BeginError::NoSpace { .. }), "{error:?}");
}
