//! A directory of snapshots and the drafts that become snapshots.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use pool_model::SnapshotId;

use crate::{
    BeginError, CommitError, DeleteError, FileDigest, Files, ListError, MANIFEST_BYTES_MAX,
    Manifest, NewManifest, OpenError, digest_sparse, is_no_space,
};

/// What a draft's and a dying snapshot's directory name starts with.
const DRAFT_PREFIX: &str = ".tmp-";
const MEMORY: &str = "memory";
const STATE: &str = "state";
const SCRATCH: &str = "scratch.ext4";
const MANIFEST: &str = "manifest.json";

/// The snapshots of one host, in one directory.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    dir: PathBuf,
}

impl SnapshotStore {
    /// A store over `dir`, which [`SnapshotStore::begin`] makes if it isn't there.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Makes an empty draft. Its files are written by the caller.
    ///
    /// # Errors
    ///
    /// [`BeginError`]: the disk is full or refuses.
    pub fn begin(&self) -> Result<Draft, BeginError> {
        let failed = |source: io::Error| {
            if is_no_space(&source) {
                BeginError::NoSpace { dir: self.dir.clone() }
            } else {
                BeginError::Io { dir: self.dir.clone(), source }
            }
        };
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let dir = self.fresh_name();
        fs::create_dir(&dir).map_err(failed)?;
        Ok(Draft { store: self.dir.clone(), dir, keep: false })
    }

    /// Opens a snapshot: version, id and lengths are checked, digests are not.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says which check failed.
    pub fn open(&self, id: SnapshotId) -> Result<Snapshot, OpenError> {
        let dir = self.dir.join(id.label());
        let path = dir.join(MANIFEST);
        let mut json = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut json),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::NotFound { snapshot: id });
            }
            Err(error) => Err(error),
        }
        .map_err(|source| OpenError::Io { path, source })?;
        if json.len() as u64 > MANIFEST_BYTES_MAX {
            let reason = format!("over {MANIFEST_BYTES_MAX} bytes");
            return Err(OpenError::Malformed { snapshot: id, reason });
        }
        let manifest = Manifest::from_json(id, &json)?;
        let Files { memory, state, scratch } = &manifest.files;
        if memory.bytes != manifest.memory_bytes {
            let reason = "its memory file isn't as long as its memory".to_owned();
            return Err(OpenError::Malformed { snapshot: id, reason });
        }
        for (file, digest) in [(MEMORY, memory), (STATE, state), (SCRATCH, scratch)] {
            let found = fs::metadata(dir.join(file)).map_or(0, |meta| meta.len());
            if found != digest.bytes {
                return Err(OpenError::Length {
                    snapshot: id,
                    file,
                    expected: digest.bytes,
                    found,
                });
            }
        }
        Ok(Snapshot { manifest, dir })
    }

    /// The ids of all committed snapshots, sorted.
    ///
    /// # Errors
    ///
    /// [`ListError`] if the directory can't be read; one that isn't there is empty.
    pub fn list(&self) -> Result<Vec<SnapshotId>, ListError> {
        let names = self.names().map_err(|source| ListError { dir: self.dir.clone(), source })?;
        let mut ids: Vec<_> =
            names.iter().filter_map(|name| SnapshotId::from_label(name).ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Deletes a snapshot. It is gone at once: first it loses its name, then its bytes.
    ///
    /// # Errors
    ///
    /// [`DeleteError`]: not there, or the system refuses.
    pub fn delete(&self, id: SnapshotId) -> Result<(), DeleteError> {
        let path = self.dir.join(id.label());
        let dying = self.fresh_name();
        match fs::rename(&path, &dying) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DeleteError::NotFound { snapshot: id });
            }
            Err(source) => return Err(DeleteError::Io { path, source }),
        }
        fs::remove_dir_all(&dying).map_err(|source| DeleteError::Io { path: dying, source })
    }

    /// Removes what a crash left half-made. Only at start, before the first draft.
    ///
    /// Returns how many were removed; one that can't be is logged and left for the next start.
    ///
    /// # Errors
    ///
    /// [`ListError`] if the directory can't be read.
    pub fn sweep_drafts(&self) -> Result<usize, ListError> {
        let names = self.names().map_err(|source| ListError { dir: self.dir.clone(), source })?;
        let mut removed = 0;
        for name in names.iter().filter(|name| name.starts_with(DRAFT_PREFIX)) {
            let path = self.dir.join(name);
            match fs::remove_dir_all(&path) {
                Ok(()) => removed += 1,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove a draft");
                }
            }
        }
        Ok(removed)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// A name that no other draft of this process has; other processes left none (swept).
    fn fresh_name(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{DRAFT_PREFIX}{}-{number}", std::process::id()))
    }
}

/// A snapshot in the making. Dropping it removes it.
#[derive(Debug)]
pub struct Draft {
    store: PathBuf,
    dir: PathBuf,
    keep: bool,
}

impl Draft {
    /// Where the draft's files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where guest memory goes.
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.dir.join(MEMORY)
    }

    /// Where device state goes.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    /// Where the writable disk layer goes.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.dir.join(SCRATCH)
    }

    /// Makes it a snapshot: digests, syncs, names it. After a crash it is there whole or not.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; the draft is removed then.
    pub fn commit(mut self, new: NewManifest) -> Result<Manifest, CommitError> {
        let files = Files {
            memory: seal(&self.memory())?,
            state: seal(&self.state())?,
            scratch: seal(&self.scratch())?,
        };
        if files.memory.bytes != new.memory_bytes {
            return Err(CommitError::MemoryLength {
                expected: new.memory_bytes,
                found: files.memory.bytes,
            });
        }
        let manifest = Manifest::new(new, files);
        let path = self.dir.join(MANIFEST);
        write_synced(&path, &manifest.to_json())
            .map_err(|source| CommitError::from_io("write", &path, source))?;
        sync_dir(&self.dir)?;
        let target = self.store.join(manifest.snapshot.label());
        match fs::rename(&self.dir, &target) {
            Ok(()) => self.keep = true,
            // Same id, same bytes: it is already here, and the draft goes.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(source) => return Err(CommitError::from_io("name", &target, source)),
        }
        sync_dir(&self.store)?;
        Ok(manifest)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.dir.display(), %error, "cannot remove a draft");
        }
    }
}

/// A committed snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What it says about itself.
    pub manifest: Manifest,
    dir: PathBuf,
}

impl Snapshot {
    /// Guest memory: sparse, as long as the guest's memory.
    #[must_use]
    pub fn memory_path(&self) -> PathBuf {
        self.dir.join(MEMORY)
    }

    /// Device state, as the VMM wrote it.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.dir.join(STATE)
    }

    /// The writable disk layer; copied per sandbox with [`crate::copy_sparse`].
    #[must_use]
    pub fn scratch_path(&self) -> PathBuf {
        self.dir.join(SCRATCH)
    }
}

/// Syncs and digests one finished file.
fn seal(path: &Path) -> Result<FileDigest, CommitError> {
    let failed = |step| move |source| CommitError::from_io(step, path, source);
    let file = File::open(path).map_err(failed("open"))?;
    // Before the digest: delayed allocation may find only now that the disk is full.
    file.sync_all().map_err(failed("sync"))?;
    let bytes = file.metadata().map_err(failed("stat"))?.len();
    let hash = digest_sparse(&file).map_err(failed("digest"))?;
    Ok(FileDigest { bytes, blake3: hash.to_hex().to_string() })
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir(dir: &Path) -> Result<(), CommitError> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(|source| CommitError::from_io("sync", dir, source))
}
