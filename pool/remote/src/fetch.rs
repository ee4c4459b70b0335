//! How a snapshot comes out of the bucket onto this host.
//!
//! ```text
//! manifest ─► base disk, if it is not here ─► draft: map, indexes, state, disk ─► verified ─► named
//! ```
//!
//! The memory's blocks stay where they are until somebody touches their pages.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use pool_model::SnapshotId;
use pool_store::{
    AdoptError, LayerStore, MANIFEST_BYTES_MAX, Manifest, PageMap, SnapshotStore, WorkingSet,
};

use crate::{
    Remote, RemoteError,
    disk::unpack,
    disks::{DOCUMENT_BYTES_MAX, Disk, Disks},
    install::{self, blocking},
    keys,
    remote::INDEX_BYTES_MAX,
};

/// Bytes that are asked for with one request of a file.
const RANGE_BYTES: u64 = 4 << 20;

impl Remote {
    /// Brings a snapshot onto this host: after that it opens in `store`, its base disk lies where
    /// `base_disk_at` says for the digest, and its memory is read with a
    /// [`LayerSource`](crate::LayerSource). What is here already is left as it is.
    ///
    /// Cancel-safe: half of it is nothing, a draft's remains are swept at the next start.
    ///
    /// # Errors
    ///
    /// [`RemoteError::NotPublished`]; else [`RemoteError`] names the file or the object.
    pub async fn fetch(
        &self,
        id: SnapshotId,
        store: &SnapshotStore,
        base_disk_at: impl Fn(&str) -> PathBuf + Send,
    ) -> Result<Manifest, RemoteError> {
        let (manifest, json) = self.fetch_manifest(id).await?;
        let base_disk = base_disk_at(&manifest.base_disk_digest);
        drop(base_disk_at);
        let disks = self.fetch_disks(&manifest).await?;
        if !base_disk.exists() {
            self.fetch_base(&disks.base.disk, &base_disk).await?;
        }
        if store.open(id).is_ok() {
            return Ok(manifest);
        }
        let drafts = store.clone();
        let draft = blocking("begin a draft", move || Ok(drafts.begin()?)).await?;
        let dir = draft.dir().to_owned();
        self.fetch_memory(&manifest, store.layers(), &dir).await?;
        let key = self.keys().snapshot(id, keys::STATE);
        self.fetch_file(&key, manifest.state.bytes, &dir.join(keys::STATE)).await?;
        self.fetch_disk(&disks.scratch, &dir.join(keys::SCRATCH)).await?;
        self.fetch_working_set(id, &dir).await?;
        blocking("adopt a snapshot", move || {
            let path = dir.join(keys::MANIFEST);
            std::fs::write(&path, &json).map_err(RemoteError::io("write", &path))?;
            Ok(draft.adopt(id)?)
        })
        .await
    }

    async fn fetch_manifest(&self, id: SnapshotId) -> Result<(Manifest, Vec<u8>), RemoteError> {
        let key = self.keys().snapshot(id, keys::MANIFEST);
        let Some(json) = self.get_if_there(&key, MANIFEST_BYTES_MAX).await? else {
            return Err(RemoteError::NotPublished { snapshot: id, key: key.to_string() });
        };
        Ok((Manifest::from_json(id, &json)?, json.into()))
    }

    async fn fetch_disks(&self, manifest: &Manifest) -> Result<Disks, RemoteError> {
        let key = self.keys().snapshot(manifest.snapshot, keys::DISKS);
        let json = self.get(&key, DOCUMENT_BYTES_MAX).await?;
        let disks = Disks::from_json(key.as_ref(), &json)?;
        if disks.base.digest != manifest.base_disk_digest {
            return Err(RemoteError::Damaged {
                key: key.to_string(),
                reason: format!(
                    "it names base disk {}, the manifest {}",
                    disks.base.digest, manifest.base_disk_digest
                ),
            });
        }
        Ok(disks)
    }

    /// The memory's map, and the indexes of its layers that are not here.
    async fn fetch_memory(
        &self,
        manifest: &Manifest,
        layers: &LayerStore,
        dir: &FsPath,
    ) -> Result<(), RemoteError> {
        let key = self.keys().snapshot(manifest.snapshot, keys::MAP);
        self.fetch_file(&key, manifest.memory.map.bytes, &dir.join(keys::MAP)).await?;
        stream::iter(manifest.memory.layers.clone())
            .map(|id| async move {
                let here = layers.clone();
                let known =
                    blocking("read an index", move || Ok(install::read_index(&here, id).is_some()));
                if !known.await? {
                    install::fetch_index(self, layers, id).await?;
                }
                Ok(())
            })
            .buffer_unordered(self.config().parallel)
            .try_collect()
            .await
    }

    /// Writes an object of `bytes` bytes into a new file. It is not synced.
    async fn fetch_file(&self, key: &Path, bytes: u64, path: &FsPath) -> Result<(), RemoteError> {
        if self.head(key).await? != Some(bytes) {
            return Err(RemoteError::Damaged {
                key: key.to_string(),
                reason: format!("it should have {bytes} bytes"),
            });
        }
        let file = File::create_new(path).map_err(RemoteError::io("create", path))?;
        let file = Arc::new(file);
        stream::iter((0..bytes).step_by(usize::try_from(RANGE_BYTES).expect("4 Mi fits")))
            .map(|start| {
                let (file, path) = (Arc::clone(&file), path.to_owned());
                async move {
                    let end = bytes.min(start + RANGE_BYTES);
                    let content = self.range(key, start..end).await?;
                    blocking("write a file", move || {
                        file.write_all_at(&content, start).map_err(RemoteError::io("write", path))
                    })
                    .await
                }
            })
            .buffer_unordered(self.config().parallel)
            .try_collect()
            .await
    }

    /// Makes the disk at `path`, a new file. It is not synced.
    async fn fetch_disk(&self, disk: &Disk, path: &FsPath) -> Result<(), RemoteError> {
        let file = File::create_new(path).map_err(RemoteError::io("create", path))?;
        let map = self.disk_map(disk).await?;
        unpack(self, &map, disk.bytes, Arc::new(file), path).await
    }

    async fn fetch_base(&self, disk: &Disk, path: &FsPath) -> Result<(), RemoteError> {
        let dir = path.parent().unwrap_or(FsPath::new(".")).to_owned();
        let failed = RemoteError::io("make a file in", dir.clone());

        let draft =
            blocking("make a file", move || install::draft_in(&dir).map_err(failed)).await?;
        let file = draft.reopen().map_err(RemoteError::io("open", draft.path()))?;
        let map = self.disk_map(disk).await?;
        unpack(self, &map, disk.bytes, Arc::new(file), path).await?;
        let path = path.to_owned();
        blocking("name a base disk", move || {
            install::name_draft(draft, &path).map_err(RemoteError::io("write", &path))
        })
        .await
    }

    /// The map of a disk, verified against its name.
    async fn disk_map(&self, disk: &Disk) -> Result<PageMap, RemoteError> {
        let key = self.keys().disk(&disk.map);
        let damaged = |reason| RemoteError::Damaged { key: key.to_string(), reason };
        let bytes = self.get(&key, INDEX_BYTES_MAX).await?;
        let found = blake3::hash(&bytes).to_hex();
        if *found.as_str() != *disk.map {
            return Err(damaged(format!("its digest is {found}, its name {}", disk.map)));
        }
        let map = PageMap::from_bytes(&bytes)
            .map_err(|error| RemoteError::Format { key: key.to_string(), error })?;
        if map.bytes() != PageMap::empty(disk.bytes).bytes() {
            let reason = format!("it maps {} bytes, the disk has {}", map.bytes(), disk.bytes);
            return Err(damaged(reason));
        }
        Ok(map)
    }

    /// The working set is a hint: without one, or with a damaged one, a restore is only slower.
    async fn fetch_working_set(&self, id: SnapshotId, dir: &FsPath) -> Result<(), RemoteError> {
        let key = self.keys().snapshot(id, keys::WORKING_SET);
        let Some(bytes) = self.get_if_there(&key, DOCUMENT_BYTES_MAX).await? else {
            return Ok(());
        };
        if let Err(error) = WorkingSet::from_bytes(&bytes) {
            tracing::warn!(%key, %error, "damaged working set left where it is");
            return Ok(());
        }
        let path = dir.join(keys::WORKING_SET);
        blocking("write a working set", move || {
            std::fs::write(&path, &bytes).map_err(RemoteError::io("write", &path))
        })
        .await
    }
}

impl From<AdoptError> for RemoteError {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::Open(error) => Self::Open(error),
            AdoptError::Commit(error) => Self::Commit(error),
        }
    }
}
