//! What a committed snapshot is to those who restore from it.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use pool_model::SnapshotId;

use crate::{
    FileDigest, LayerStore, MANIFEST_BYTES_MAX, Manifest, OpenError, PageMap, digest_sparse,
    sparse_digest::digest_bytes,
};

pub(crate) const MAP: &str = "memory.map";
pub(crate) const STATE: &str = "state";
pub(crate) const SCRATCH: &str = "scratch.ext4";
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const WORKING_SET: &str = "working-set";

/// A committed snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What it says about itself.
    pub manifest: Manifest,
    map: PageMap,
    dir: PathBuf,
}

impl Snapshot {
    /// Opens the snapshot in `dir`: version, id and lengths are checked, and the map's digest.
    ///
    /// Device state and disk are checked by [`Snapshot::verify_files`], memory block by block as it
    /// is read. Layers are not opened.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says which check failed.
    pub fn open_at(dir: &Path, id: SnapshotId) -> Result<Self, OpenError> {
        let manifest = read_manifest(dir, id)?;
        for (file, digest) in [(STATE, &manifest.state), (SCRATCH, &manifest.scratch)] {
            let found = fs::metadata(dir.join(file)).map_or(0, |meta| meta.len());
            check_length(id, file, digest, found)?;
        }
        let map = read_map(dir, id, &manifest)?;
        Ok(Self { manifest, map, dir: dir.to_owned() })
    }

    /// Where the pages of guest memory are.
    #[must_use]
    pub fn map(&self) -> &PageMap {
        &self.map
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The map as a file.
    #[must_use]
    pub fn map_path(&self) -> PathBuf {
        self.dir.join(MAP)
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

    /// Where its [`crate::WorkingSet`] is, once there is one. The only file that changes.
    #[must_use]
    pub fn working_set_path(&self) -> PathBuf {
        self.dir.join(WORKING_SET)
    }

    /// Verifies device state and disk by their digests: once per host, before the first restore.
    /// Reads all of their data.
    ///
    /// # Errors
    ///
    /// [`OpenError::Digest`] names the damaged file.
    pub fn verify_files(&self) -> Result<(), OpenError> {
        let id = self.manifest.snapshot;
        for (file, digest) in [(STATE, &self.manifest.state), (SCRATCH, &self.manifest.scratch)] {
            let path = self.dir.join(file);
            let found = File::open(&path)
                .and_then(|file| digest_sparse(&file))
                .map_err(|source| OpenError::Io { path, source })?;
            check_digest(id, file, digest, found)?;
        }
        Ok(())
    }

    /// Bytes it takes on this host's disk, layers that it shares with others included.
    #[must_use]
    pub fn stored_bytes(&self, layers: &LayerStore) -> u64 {
        // 512: what `st_blocks` counts, whatever the file system's block size.
        let allocated = |path: PathBuf| fs::metadata(path).map_or(0, |meta| meta.blocks() * 512);
        let own = [MANIFEST, MAP, STATE, SCRATCH, WORKING_SET];
        let own: u64 = own.iter().map(|file| allocated(self.dir.join(file))).sum();
        let shared = self.map.layers().iter().map(|layer| {
            allocated(layers.index_path(*layer)) + allocated(layers.blocks_path(*layer))
        });
        own + shared.sum::<u64>()
    }
}

/// Reads and checks `manifest.json` in `dir`.
pub(crate) fn read_manifest(dir: &Path, id: SnapshotId) -> Result<Manifest, OpenError> {
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
    Manifest::from_json(id, &json)
}

fn read_map(dir: &Path, id: SnapshotId, manifest: &Manifest) -> Result<PageMap, OpenError> {
    let path = dir.join(MAP);
    let expected = &manifest.memory.map;
    let mut bytes = Vec::new();
    match File::open(&path) {
        // One more than there should be, so that a longer file is noticed.
        Ok(file) => file.take(expected.bytes.saturating_add(1)).read_to_end(&mut bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
    .map_err(|source| OpenError::Io { path, source })?;
    check_length(id, MAP, expected, bytes.len() as u64)?;
    check_digest(id, MAP, expected, digest_bytes(&bytes))?;
    let map =
        PageMap::from_bytes(&bytes).map_err(|source| OpenError::Map { snapshot: id, source })?;
    if map.bytes() != manifest.memory.bytes || map.layers() != manifest.memory.layers {
        let reason = "its memory's size or layers are not those of the map".to_owned();
        return Err(OpenError::Malformed { snapshot: id, reason });
    }
    Ok(map)
}

fn check_length(
    snapshot: SnapshotId,
    file: &'static str,
    digest: &FileDigest,
    found: u64,
) -> Result<(), OpenError> {
    if found == digest.bytes {
        return Ok(());
    }
    Err(OpenError::Length { snapshot, file, expected: digest.bytes, found })
}

fn check_digest(
    snapshot: SnapshotId,
    file: &'static str,
    digest: &FileDigest,
    found: blake3::Hash,
) -> Result<(), OpenError> {
    let found = crate::Digest(*found.as_bytes());
    if found == digest.blake3 {
        return Ok(());
    }
    Err(OpenError::Digest { snapshot, file, expected: digest.blake3, found })
}
