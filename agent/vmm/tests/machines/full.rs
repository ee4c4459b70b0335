//! A disk that is full while a sandbox is paused: told as such, nothing half left, and the
//! sandbox goes on.

use std::{
    error::Error,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_vmm::{CaptureError, VmmError};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use pool_model::Prefetch;
use pool_store::{CommitError, LayerStore, SnapshotStore, is_no_space};

use crate::{
    paged::Host,
    pattern::{self, Command},
};

/// A small file system of its own.
struct Small(tempfile::TempDir);

impl Small {
    fn new(mib: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let (tmpfs, flags) = (Some("tmpfs"), MsFlags::empty());
        mount(tmpfs, dir.path(), tmpfs, flags, Some(size.as_str())).expect("tests run as root");
        Self(dir)
    }

    fn store(&self) -> SnapshotStore {
        let layers = LayerStore::new(self.0.path().join("layers"));
        SnapshotStore::new(self.0.path().join("snapshots"), layers)
    }

    /// Leaves `kib` of it free.
    fn leave(&self, kib: u64) {
        let mut file = File::create(self.0.path().join("filler")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        let len = file.metadata().unwrap().len();
        file.set_len(len - (kib << 10)).unwrap();
    }

    /// What is in it besides the filler: files, wherever they are.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(self.0.path(), &mut found);
        found.retain(|path| !path.ends_with("filler"));
        found
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// Which step of a capture ran out of room.
fn step(error: &(dyn Error + Send + Sync + 'static)) -> &'static str {
    if let Some(VmmError::NoSpace { .. }) = error.downcast_ref() {
        return "state";
    }
    if let Some(CaptureError::NoSpace { .. }) = error.downcast_ref() {
        return "memory";
    }
    if let Some(CommitError::NoSpace { .. } | CommitError::Compact(_)) = error.downcast_ref() {
        return "commit";
    }
    match error.downcast_ref::<pool_store::WriteError>() {
        Some(pool_store::WriteError::NoSpace { .. }) => "layer",
        _ if error.downcast_ref().is_some_and(is_no_space) => "disk",
        _ => panic!("not told as a full disk: {error:?}"),
    }
}

#[tokio::test]
async fn disk_full_during_a_pause_leaves_nothing_and_the_sandbox_goes_on() {
    let (host, snapshot) = Host::with_snapshot().await;
    let host = Arc::new(host);
    let machine = host.clone_of(&snapshot, Prefetch::None).await;
    let small = Small::new(16);
    let store = small.store();
    let mut steps = Vec::new();
    // A third of 28 MiB has changed, two thirds of that noise: 6 MiB; state and disk are 250 KiB.
    for (generation, free_kib) in (1..).zip([0, 64, 1024, 5000]) {
        pattern::order(&*machine, Command::Write, 0).await.unwrap();
        machine.pause().await.unwrap();
        small.leave(free_kib);
        let failed = host.save(&*machine, Some(&snapshot), &store).await.unwrap_err();
        steps.push(step(&*failed));
        assert!(small.files().is_empty(), "{:?} after {failed}", small.files());
        machine.resume().await.unwrap();
        assert_eq!(pattern::verified(&*machine).await.unwrap().generation, generation);
    }
    assert_eq!(steps[0], "state");
    assert_eq!(steps[3], "memory", "{steps:?}");
    // With room it works, and what is saved is all there.
    machine.pause().await.unwrap();
    let saved = host.save(&*machine, Some(&snapshot), &host.store).await.unwrap();
    host.end(machine).await;
    let machine = host.clone_of(&saved, Prefetch::None).await;
    assert_eq!(pattern::verified(&*machine).await.unwrap().generation, 4);
    host.end(machine).await;
}
