//! The store on real file systems: crashes, full disks, holes.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use pool_model::{Generation, SnapshotId, TeamId, TemplateId};
use pool_store::{
    BeginError, CommitError, DeleteError, Draft, NewManifest, OpenError, SnapshotStore,
    copy_sparse, data_extents, digest_sparse, is_no_space,
};
use rustix::mount::{MountFlags, UnmountFlags};

const MEMORY_BYTES: u64 = 1 << 20;

fn new_manifest() -> NewManifest {
    NewManifest {
        template: TemplateId::DEFAULT,
        team: TeamId::PLATFORM,
        base_disk_digest: "0".repeat(64),
        kernel: "6.1.0".to_owned(),
        memory_bytes: MEMORY_BYTES,
        vcpus: 1,
        vmm: "qemu-7.2.22".to_owned(),
        accel: "tcg".to_owned(),
        cpu: "max".to_owned(),
        envd_version: "0.1.0".to_owned(),
        generation: Generation(1),
        created_at: "2026-11-22T10:00:00Z".parse().unwrap(),
    }
}

/// A sparse file with data at these offsets.
fn sparse_file(path: &Path, len: u64, data: &[(u64, &[u8])]) {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (at, bytes) in data {
        file.write_all_at(bytes, *at).unwrap();
    }
}

fn filled_draft(store: &SnapshotStore) -> Draft {
    let draft = store.begin().unwrap();
    sparse_file(&draft.memory(), MEMORY_BYTES, &[(8192, b"memory")]);
    fs::write(draft.state(), b"state").unwrap();
    sparse_file(&draft.scratch(), 8 << 20, &[(1 << 20, b"disk")]);
    draft
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn committed_snapshot_is_opened_listed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(dir.path().join("snapshots"));
    assert_eq!(store.list().unwrap(), []);
    let manifest = filled_draft(&store).commit(new_manifest()).unwrap();
    assert_eq!(store.list().unwrap(), [manifest.snapshot]);
    let snapshot = store.open(manifest.snapshot).unwrap();
    assert_eq!(snapshot.manifest, manifest);
    assert_eq!(fs::read(snapshot.state_path()).unwrap(), b"state");
    assert_eq!(fs::metadata(snapshot.memory_path()).unwrap().len(), MEMORY_BYTES);
    assert!(fs::metadata(snapshot.scratch_path()).unwrap().blocks() * 512 < 1 << 20, "sparse");

    let again = filled_draft(&store).commit(new_manifest()).unwrap();
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
    let store = SnapshotStore::new(dir.path().to_owned());
    drop(filled_draft(&store));
    assert!(names_in(dir.path()).is_empty());
    std::mem::forget(filled_draft(&store)); // as after a crash
    assert_eq!(store.list().unwrap(), [], "a draft is no snapshot");
    let kept = filled_draft(&store).commit(new_manifest()).unwrap();
    assert_eq!(store.sweep_drafts().unwrap(), 1);
    assert_eq!(names_in(dir.path()), [kept.snapshot.label()]);
}

#[test]
fn incomplete_draft_is_refused_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(dir.path().to_owned());
    let draft = filled_draft(&store);
    fs::remove_file(draft.state()).unwrap();
    assert!(matches!(draft.commit(new_manifest()), Err(CommitError::Missing { .. })));
    let draft = filled_draft(&store);
    File::options().write(true).open(draft.memory()).unwrap().set_len(4096).unwrap();
    let error = draft.commit(new_manifest()).unwrap_err();
    assert!(matches!(error, CommitError::MemoryLength { found: 4096, .. }), "{error:?}");
    assert!(names_in(dir.path()).is_empty());
}

#[test]
fn damaged_snapshots_are_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::new(dir.path().to_owned());
    let id = filled_draft(&store).commit(new_manifest()).unwrap().snapshot;
    let snapshot = store.open(id).unwrap();
    let state = File::options().write(true).open(snapshot.state_path()).unwrap();
    state.set_len(3).unwrap();
    let error = store.open(id).unwrap_err();
    assert!(
        matches!(error, OpenError::Length { file: "state", expected: 5, found: 3, .. }),
        "{error:?}"
    );
    let other = SnapshotId::from_u128(9);
    fs::rename(dir.path().join(id.label()), dir.path().join(other.label())).unwrap();
    assert!(matches!(store.open(other), Err(OpenError::Malformed { .. })), "under a wrong name");
    let manifest = dir.path().join(other.label()).join("manifest.json");
    fs::write(&manifest, vec![b' '; 65 << 10]).unwrap();
    assert!(matches!(store.open(other), Err(OpenError::Malformed { .. })), "over the limit");
}

#[test]
fn full_disk_is_named_as_such_and_leaves_nothing_half_made() {
    let disk = Mounted::tmpfs("size=1M");
    let store = SnapshotStore::new(disk.path().join("snapshots"));
    // 4 KiB of data in the files, the rest of the disk taken: the manifest finds no room.
    let draft = filled_draft(&store);
    fill(&disk.path().join("filler"));
    let error = draft.commit(new_manifest()).unwrap_err();
    assert!(matches!(error, CommitError::NoSpace { .. }), "{error:?}");
    assert!(names_in(&disk.path().join("snapshots")).is_empty());
    assert_eq!(store.list().unwrap(), []);

    // A copy that doesn't fit is gone, too, and its error says why.
    let from = tempfile::NamedTempFile::new().unwrap();
    sparse_file(from.path(), 4 << 20, &[(0, &vec![1; 2 << 20])]);
    fs::remove_file(disk.path().join("filler")).unwrap();
    let error = copy_sparse(from.path(), &disk.path().join("copy")).unwrap_err();
    assert!(is_no_space(&error), "{error:?}");
    assert!(!disk.path().join("copy").exists());

    filled_draft(&store).commit(new_manifest()).unwrap();
}

#[test]
fn disk_without_room_for_a_directory_refuses_to_begin() {
    let disk = Mounted::tmpfs("size=1M,nr_inodes=3");
    let store = SnapshotStore::new(disk.path().join("snapshots"));
    let _one = store.begin().unwrap();
    let error = store.begin().unwrap_err();
    assert!(matches!(error, BeginError::NoSpace { .. }), "{error:?}");
}

#[test]
fn digest_tells_content_apart_but_not_how_it_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let digest = |name: &str, len: u64, data: &[(u64, &[u8])]| {
        let path = dir.path().join(name);
        sparse_file(&path, len, data);
        digest_sparse(&File::open(path).unwrap()).unwrap()
    };
    let zeroes = vec![0; 300 << 10];
    let holes = digest("holes", 1_000_001, &[(70_000, b"a"), (1_000_000, b"b")]);
    let mut dense = vec![0; 1_000_001];
    (dense[70_000], dense[1_000_000]) = (b'a', b'b');
    assert_eq!(holes, digest("dense", 1_000_001, &[(0, &dense)]));
    let partly = [(0, &zeroes[..]), (70_000, b"a".as_slice()), (1_000_000, b"b")];
    assert_eq!(holes, digest("partly", 1_000_001, &partly));
    assert_ne!(holes, digest("moved", 1_000_001, &[(70_001, b"a"), (1_000_000, b"b")]));
    assert_ne!(holes, digest("block", 1_000_001, &[(4464, b"a"), (1_000_000, b"b")]));
    assert_ne!(digest("empty", 0, &[]), digest("zeroes", 65_536, &[]));
    assert_ne!(digest("short", 65_536, &[]), digest("long", 131_072, &[]));
}

#[test]
fn copies_keep_content_and_holes_on_every_file_system_at_hand() {
    let home = tempfile::tempdir().unwrap(); // whatever the machine's disk has
    let memory = Mounted::tmpfs("size=32M");
    for (from, to) in [
        (home.path(), home.path()),
        (memory.path(), memory.path()),
        (memory.path(), home.path()), // between two: copied by hand
    ] {
        check_copy(from, to);
    }
}

fn check_copy(from: &Path, to: &Path) {
    let (from, to) = (from.join("from"), to.join("to"));
    let data = vec![7; 200_000];
    sparse_file(&from, 20 << 20, &[(0, b"start"), (5 << 20, &data), ((20 << 20) - 3, b"end")]);
    fs::write(&to, b"something older and longer than nothing").unwrap();
    let copied = copy_sparse(&from, &to).unwrap();
    assert!((200_000..1 << 20).contains(&copied), "{copied} bytes of data");
    assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap(), "same content");
    let meta = fs::metadata(&to).unwrap();
    assert!(meta.blocks() * 512 < 1 << 20, "{} bytes allocated", meta.blocks() * 512);
    let extents = |path: &Path| data_extents(&File::open(path).unwrap()).unwrap();
    assert_eq!(extents(&from).len(), extents(&to).len());
    assert!(copy_sparse(&from, &from).is_err(), "onto itself");
    assert_eq!(fs::metadata(&from).unwrap().len(), 20 << 20, "and unharmed by that");
}

fn fill(path: &Path) {
    let file = File::create(path).unwrap();
    let mut at = 0;
    while let Ok(written) = file.write_at(&[1; 4096], at) {
        at += written as u64;
    }
}

/// A file system of its own for one test.
struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    fn tmpfs(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), data.as_c_str())
            .expect("this test is run as root");
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}
