//! How a snapshot gets into the bucket.
//!
//! ```text
//! memory.map ─► memory layers ─► disks ─► disks.json, state, working-set ─► manifest.json ─► look again
//! ```
//!
//! Everything before the manifest may be repeated, and what is there is not sent again. The map
//! comes first because it tells a collection which layers are about to be needed. After the
//! manifest one more look shows whether a collection was faster; then it starts over.

use std::path::Path as FsPath;

use object_store::path::Path;
use pool_model::SnapshotId;
use pool_store::{BLOCK_BYTES, LayerError, LayerId, LayerStore, Snapshot, decode_block};

use crate::{
    Remote, RemoteError,
    disk::{pack, parsed_index, seed, temporary_store},
    disks::{Base, DOCUMENT_BYTES_MAX, Disk, Disks, from_json, to_json},
    install::blocking,
    keys,
};

/// How often it is started over if objects vanish.
const ROUNDS: u32 = 3;

/// What publishing a snapshot moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// Bytes of objects that were sent.
    pub sent_bytes: u64,
    /// Bytes of objects that were there already.
    pub skipped_bytes: u64,
    /// Objects that were sent.
    pub objects: u64,
}

impl Published {
    pub(crate) fn send(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
        self.objects += 1;
    }

    pub(crate) fn skip(&mut self, bytes: u64) {
        self.skipped_bytes += bytes;
    }
}

impl Remote {
    /// Brings a snapshot of this host into the bucket, with everything that another host needs.
    /// Local files are verified first: a damaged original is not spread.
    ///
    /// Cancel-safe: half of it is no snapshot, and is completed by the next call.
    ///
    /// # Errors
    ///
    /// [`RemoteError`] names the file or the object.
    pub async fn publish(
        &self,
        snapshot: &Snapshot,
        layers: &LayerStore,
        base_disk: &FsPath,
    ) -> Result<Published, RemoteError> {
        let (pinned, files) = (layers.clone(), snapshot.clone());
        let pin = blocking("verify a snapshot", move || {
            let pin = pinned.pin();
            files.verify_files()?;
            Ok(pin)
        })
        .await?;
        let mut tally = Published::default();
        let mut missing = None;
        for _ in 0..ROUNDS {
            self.publish_once(snapshot, layers, base_disk, &mut tally).await?;
            missing = self.first_missing(snapshot).await?;
            if missing.is_none() {
                break;
            }
        }
        drop(pin);
        match missing {
            None => Ok(tally),
            Some(key) => Err(RemoteError::Unstable {
                snapshot: snapshot.manifest.snapshot,
                key: key.to_string(),
            }),
        }
    }

    /// Brings what was learnt about a snapshot's restores into the bucket; nothing if nothing was.
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Io`], [`RemoteError::Request`].
    pub async fn publish_working_set(&self, snapshot: &Snapshot) -> Result<(), RemoteError> {
        let path = snapshot.working_set_path();
        let bytes = blocking("read a working set", move || match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RemoteError::io("read", path)(error)),
        });
        let key = self.keys().snapshot(snapshot.manifest.snapshot, keys::WORKING_SET);
        match bytes.await? {
            Some(bytes) => self.put(&key, bytes.into()).await,
            None => Ok(()),
        }
    }

    async fn publish_once(
        &self,
        snapshot: &Snapshot,
        layers: &LayerStore,
        base_disk: &FsPath,
        tally: &mut Published,
    ) -> Result<(), RemoteError> {
        let id = snapshot.manifest.snapshot;
        let key = |file| self.keys().snapshot(id, file);
        self.send_bytes(&key(keys::MAP), snapshot.map().to_bytes(), tally).await?;
        for layer in &snapshot.manifest.memory.layers {
            self.publish_layer(*layer, layers, tally).await?;
        }
        self.publish_disks(snapshot, base_disk, tally).await?;
        self.send_file(&key(keys::STATE), &snapshot.state_path(), tally).await?;
        self.publish_working_set(snapshot).await?;
        self.send_bytes(&key(keys::MANIFEST), snapshot.manifest.to_json(), tally).await
    }

    /// Sends a layer: its blocks, then the index that shows them to others.
    async fn publish_layer(
        &self,
        id: LayerId,
        layers: &LayerStore,
        tally: &mut Published,
    ) -> Result<(), RemoteError> {
        let keys = (self.keys().index(id), self.keys().blocks(id));
        let there = (self.head(&keys.0).await?, self.head(&keys.1).await?);
        let index = match layers.read_index(id) {
            Ok(index) => Some(index),
            Err(LayerError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let whole = match (&index, there) {
            (_, (None, _) | (_, None)) => false,
            (None, _) => true,
            (Some(index), (Some(index_len), Some(blocks_len))) => {
                index_len == index.to_bytes().len() as u64 && blocks_len == index.stored_bytes()
            }
        };
        if whole {
            tally.skip(there.0.unwrap_or(0) + there.1.unwrap_or(0));
            return Ok(());
        }
        if !layers.contains(id) {
            return Err(RemoteError::LayerMissing { layer: id });
        }
        let store = layers.clone();
        blocking("verify a layer", move || verify_layer(&store, id)).await?;
        self.send_file(&keys.1, &layers.blocks_path(id), tally).await?;
        self.send_file(&keys.0, &layers.index_path(id), tally).await
    }

    /// Packs and sends what of the two disks is not in the bucket.
    async fn publish_disks(
        &self,
        snapshot: &Snapshot,
        base_disk: &FsPath,
        tally: &mut Published,
    ) -> Result<(), RemoteError> {
        let manifest = &snapshot.manifest;
        let key = self.keys().snapshot(manifest.snapshot, keys::DISKS);
        if let Some(json) = self.get_if_there(&key, DOCUMENT_BYTES_MAX).await? {
            let disks = Disks::from_json(key.as_ref(), &json)?;
            if self.has_disk(&disks.scratch).await? && self.has_disk(&disks.base.disk).await? {
                tally.skip(json.len() as u64);
                return Ok(());
            }
        }
        let base =
            self.publish_base(&manifest.base_disk_digest, base_disk, snapshot, tally).await?;
        let similar = self.layers_of_parent(manifest.parent).await?;
        let scratch =
            self.publish_disk(&snapshot.scratch_path(), snapshot, &similar, tally).await?;
        let json = to_json(&Disks::new(scratch, base));
        let len = json.len() as u64;
        self.put(&key, json.into()).await?;
        tally.send(len);
        Ok(())
    }

    async fn publish_base(
        &self,
        digest: &str,
        path: &FsPath,
        snapshot: &Snapshot,
        tally: &mut Published,
    ) -> Result<Base, RemoteError> {
        let key = self.keys().base(digest);
        if let Some(json) = self.get_if_there(&key, DOCUMENT_BYTES_MAX).await? {
            let base: Base = from_json(key.as_ref(), &json)?;
            if self.has_disk(&base.disk).await? {
                tally.skip(json.len() as u64);
                return Ok(base);
            }
        }
        let disk = self.publish_disk(path, snapshot, &[], tally).await?;
        let base = Base { digest: digest.to_owned(), disk };
        let json = to_json(&base);
        let len = json.len() as u64;
        self.put(&key, json.into()).await?;
        tally.send(len);
        Ok(base)
    }

    /// The layers of the disk that a snapshot's own began as: most of it is in them.
    async fn layers_of_parent(
        &self,
        parent: Option<SnapshotId>,
    ) -> Result<Vec<LayerId>, RemoteError> {
        let Some(parent) = parent else { return Ok(Vec::new()) };
        let key = self.keys().snapshot(parent, keys::DISKS);
        let Some(json) = self.get_if_there(&key, DOCUMENT_BYTES_MAX).await? else {
            return Ok(Vec::new());
        };
        let scratch = Disks::from_json(key.as_ref(), &json)?.scratch;
        // Half of a parent that was deleted is of no use.
        Ok(if self.has_disk(&scratch).await? { scratch.layers } else { Vec::new() })
    }

    /// Packs a disk beside the snapshot and sends its layer and map. What is in the layers of
    /// `similar`, which are in the bucket, is not stored again.
    async fn publish_disk(
        &self,
        path: &FsPath,
        snapshot: &Snapshot,
        similar: &[LayerId],
        tally: &mut Published,
    ) -> Result<Disk, RemoteError> {
        let beside = snapshot.dir().parent().unwrap_or(snapshot.dir());
        let (dir, store) =
            temporary_store(beside).map_err(RemoteError::io("make a directory in", beside))?;
        for id in similar {
            let index = parsed_index(self, *id).await?;
            seed(&store, &index).map_err(RemoteError::io("write in", dir.path()))?;
        }
        let (packing, disk) = (store.clone(), path.to_owned());
        let (map, bytes) = blocking("pack a disk", move || pack(&disk, &packing)).await?;
        for id in map.layers().iter().filter(|id| !similar.contains(id)) {
            self.publish_layer(*id, &store, tally).await?;
        }
        let disk = Disk::new(&map, bytes);
        self.send_bytes(&self.keys().disk(&disk.map), map.to_bytes(), tally).await?;
        // Removing many megabytes takes a moment, and an error would only leave a draft.
        blocking("remove a packed disk", move || {
            drop(dir);
            Ok(())
        })
        .await?;
        Ok(disk)
    }

    /// Whether map and layers of a disk are in the bucket.
    async fn has_disk(&self, disk: &Disk) -> Result<bool, RemoteError> {
        let keys = self.keys();
        let maps = [keys.disk(&disk.map)];
        let objects = disk.layers.iter().flat_map(|id| [keys.index(*id), keys.blocks(*id)]);
        Ok(self.first_not_there(maps.into_iter().chain(objects)).await?.is_none())
    }

    /// An object that the published snapshot needs and that is not there.
    async fn first_missing(&self, snapshot: &Snapshot) -> Result<Option<Path>, RemoteError> {
        let (keys, id) = (self.keys(), snapshot.manifest.snapshot);
        let documents = [keys::MAP, keys::STATE, keys::DISKS, keys::MANIFEST];
        let documents = documents.map(|file| keys.snapshot(id, file));
        let layers = &snapshot.manifest.memory.layers;
        let layers = layers.iter().flat_map(|id| [keys.index(*id), keys.blocks(*id)]);
        if let Some(key) = self.first_not_there(documents.into_iter().chain(layers)).await? {
            return Ok(Some(key));
        }
        let key = keys.snapshot(id, keys::DISKS);
        let Some(json) = self.get_if_there(&key, DOCUMENT_BYTES_MAX).await? else {
            return Ok(Some(key));
        };
        let disks = Disks::from_json(key.as_ref(), &json)?;
        for disk in [&disks.scratch, &disks.base.disk] {
            if !self.has_disk(disk).await? {
                return Ok(Some(keys.disk(&disk.map)));
            }
        }
        Ok(None)
    }

    async fn first_not_there(
        &self,
        objects: impl Iterator<Item = Path>,
    ) -> Result<Option<Path>, RemoteError> {
        for key in objects {
            if self.head(&key).await?.is_none() {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}

/// Reads all of a local layer and checks every block. Blocks.
fn verify_layer(layers: &LayerStore, id: LayerId) -> Result<(), RemoteError> {
    use std::os::unix::fs::FileExt as _;
    let layer = layers.open(id)?;
    let path = layers.blocks_path(id);
    let (mut stored, mut out) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    for (number, block) in (0..).zip(layer.index().blocks()) {
        let stored = &mut stored[..block.stored as usize];
        layer.file().read_exact_at(stored, block.offset).map_err(RemoteError::io("read", &path))?;
        decode_block(block, stored, &mut out).map_err(|error| RemoteError::Block {
            key: path.display().to_string(),
            block: number,
            error,
        })?;
    }
    Ok(())
}
