//! How a snapshot comes to be: a directory that gets its name last.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    CommitError, Digest, FileDigest, LayerPin, LayerStore, MANIFEST_BYTES_MAX, Manifest,
    NewManifest, PageMap, digest_sparse,
    durable::{sync_dir, write_synced},
    manifest::Sealed,
    snapshot::{MANIFEST, MAP, SCRATCH, STATE, WORKING_SET},
    sparse_digest::digest_bytes,
};

/// A snapshot in the making. Dropping it removes it. It pins the store's layers.
#[derive(Debug)]
pub struct Draft {
    store: PathBuf,
    layers: LayerStore,
    dir: PathBuf,
    keep: bool,
    _pin: LayerPin,
}

impl Draft {
    /// A draft in the empty directory `dir`, to be named in the directory `store`.
    pub(crate) fn new(store: PathBuf, layers: LayerStore, dir: PathBuf, pin: LayerPin) -> Self {
        Self { store, layers, dir, keep: false, _pin: pin }
    }

    /// Where the draft's files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
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

    /// Where a working set goes that is known already.
    pub(crate) fn working_set(&self) -> PathBuf {
        self.dir.join(WORKING_SET)
    }

    /// Makes it a snapshot with this memory, whose layers were written while the draft was there:
    /// digests, syncs, names it. After a crash it is there whole or not.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; the draft is removed then.
    pub fn commit(self, new: NewManifest, memory: &PageMap) -> Result<Manifest, CommitError> {
        let (state, scratch) = (seal(&self.state())?, seal(&self.scratch())?);
        self.commit_sealed(new, memory, state, scratch)
    }

    /// [`Draft::commit`] of files that are known to be synced and to have these digests.
    pub(crate) fn commit_sealed(
        mut self,
        new: NewManifest,
        memory: &PageMap,
        state: FileDigest,
        scratch: FileDigest,
    ) -> Result<Manifest, CommitError> {
        self.check_memory(&new, memory)?;
        let map = self.write_map(memory)?;
        let manifest = Manifest::new(new, memory, Sealed { map, state, scratch });
        let json = manifest.to_json();
        if json.len() as u64 > MANIFEST_BYTES_MAX {
            let found = json.len() as u64;
            return Err(CommitError::ManifestLength { max: MANIFEST_BYTES_MAX, found });
        }
        let path = self.dir.join(MANIFEST);
        write_synced(&path, &json)
            .map_err(|source| CommitError::from_io("write", &path, source))?;
        synced_dir(&self.dir)?;
        let target = self.store.join(manifest.snapshot.label());
        match fs::rename(&self.dir, &target) {
            Ok(()) => self.keep = true,
            // Same id, same bytes: it is already here, and the draft goes.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(source) => return Err(CommitError::from_io("name", &target, source)),
        }
        synced_dir(&self.store)?;
        Ok(manifest)
    }

    /// The map is of the guest's memory, and each of its layers is at least known here.
    fn check_memory(&self, new: &NewManifest, memory: &PageMap) -> Result<(), CommitError> {
        let (expected, found) = (new.memory_bytes, memory.bytes());
        if found != expected {
            return Err(CommitError::MemoryLength { expected, found });
        }
        let missing = |layer: &&_| !self.layers.index_path(**layer).is_file();
        match memory.layers().iter().find(missing) {
            Some(layer) => Err(CommitError::MissingLayer { layer: *layer }),
            None => Ok(()),
        }
    }

    fn write_map(&self, memory: &PageMap) -> Result<FileDigest, CommitError> {
        let (path, bytes) = (self.dir.join(MAP), memory.to_bytes());
        write_synced(&path, &bytes)
            .map_err(|source| CommitError::from_io("write", &path, source))?;
        let blake3 = Digest(*digest_bytes(&bytes).as_bytes());
        Ok(FileDigest { bytes: bytes.len() as u64, blake3 })
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

/// Syncs and digests one finished file.
fn seal(path: &Path) -> Result<FileDigest, CommitError> {
    let failed = |step| move |source| CommitError::from_io(step, path, source);
    let file = File::open(path).map_err(failed("open"))?;
    // Before the digest: delayed allocation may find only now that the disk is full.
    file.sync_all().map_err(failed("sync"))?;
    let bytes = file.metadata().map_err(failed("stat"))?.len();
    let hash = digest_sparse(&file).map_err(failed("digest"))?;
    Ok(FileDigest { bytes, blake3: Digest(*hash.as_bytes()) })
}

fn synced_dir(dir: &Path) -> Result<(), CommitError> {
    sync_dir(dir).map_err(|source| CommitError::from_io("sync", dir, source))
}
