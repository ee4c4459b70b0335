//! A directory of snapshots: which there are, and how they come and go.

use std::{
    collections::BTreeSet,
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use pool_model::SnapshotId;

use crate::{
    BeginError, CommitError, DeleteError, Draft, LayerId, LayerStore, ListError, Manifest,
    OpenError, Snapshot, is_no_space, snapshot::read_manifest,
};

/// What a draft's and a dying snapshot's directory name starts with.
const DRAFT_PREFIX: &str = ".tmp-";

/// The last manifest version without layers: its snapshots had a memory file of their own.
const VERSION_WITHOUT_LAYERS: u32 = 1;

/// Snapshots in one directory, and the layers that their memory is in.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    dir: PathBuf,
    layers: LayerStore,
}

impl SnapshotStore {
    /// A store over `dir`, which [`SnapshotStore::begin`] makes if it isn't there.
    #[must_use]
    pub fn new(dir: PathBuf, layers: LayerStore) -> Self {
        Self { dir, layers }
    }

    /// Where the memory of these snapshots is.
    #[must_use]
    pub fn layers(&self) -> &LayerStore {
        &self.layers
    }

    /// Makes an empty draft. Its files are written by the caller. It pins the layers, waiting for a
    /// collection that is under way.
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
        let pin = self.layers.pin();
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let dir = self.fresh_name();
        fs::create_dir(&dir).map_err(failed)?;
        Ok(Draft::new(self.dir.clone(), self.layers.clone(), dir, pin))
    }

    /// Opens a snapshot of this store. See [`Snapshot::open_at`].
    ///
    /// # Errors
    ///
    /// [`OpenError`] says which check failed.
    pub fn open(&self, id: SnapshotId) -> Result<Snapshot, OpenError> {
        Snapshot::open_at(&self.dir.join(id.label()), id)
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

    /// Makes a snapshot with the same content whose memory is in fewer layers; device state and
    /// disk are shared with the old one (hard links). `None` if it is in few enough.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; there is no new snapshot then.
    pub fn compacted(&self, snapshot: &Snapshot) -> Result<Option<Manifest>, CommitError> {
        let draft = self.begin()?; // first: its pin keeps the new layer
        let Some(map) = self.layers.compact(snapshot.map()).map_err(CommitError::Compact)? else {
            return Ok(None);
        };
        for (from, to) in
            [(snapshot.state_path(), draft.state()), (snapshot.scratch_path(), draft.scratch())]
        {
            fs::hard_link(&from, &to).map_err(|e| CommitError::from_io("link", &from, e))?;
        }
        let learnt = snapshot.working_set_path();
        match fs::copy(&learnt, draft.working_set()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CommitError::from_io("copy", &learnt, error));
            }
            Ok(_) | Err(_) => {}
        }
        let manifest = &snapshot.manifest;
        let (state, scratch) = (manifest.state.clone(), manifest.scratch.clone());
        draft.commit_sealed(manifest.maker_part(), &map, state, scratch).map(Some)
    }

    /// The layers that any committed snapshot here names. Drafts don't count: they pin.
    ///
    /// # Errors
    ///
    /// Any manifest that can't be read: as long as it is not known what it names, nothing may be
    /// deleted.
    pub fn live_layers(&self) -> io::Result<BTreeSet<LayerId>> {
        let mut live = BTreeSet::new();
        for id in self.list().map_err(|error| error.source)? {
            match read_manifest(&self.dir.join(id.label()), id) {
                Ok(manifest) => live.extend(manifest.memory.layers),
                Err(OpenError::Version { found: VERSION_WITHOUT_LAYERS, .. }) => {}
                // Deleted since it was listed, or a directory without a manifest: which of them?
                Err(OpenError::NotFound { .. }) if !self.dir.join(id.label()).exists() => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        Ok(live)
    }

    /// Deletes a snapshot. It is gone at once: first it loses its name, then its bytes. Its layers
    /// go with the next [`LayerStore::gc`] if no other needs them.
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
    pub(crate) fn fresh_name(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{DRAFT_PREFIX}{}-{number}", std::process::id()))
    }

    /// Where the snapshots are.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }
}
