//! How objects leave the bucket.
//!
//! A snapshot loses its manifest first, then the rest. What layers and disks no snapshot names is
//! found by a collection: it lists all objects *before* it reads the manifests, and spares what is
//! young, so a publisher's objects are never among the doomed; and old ones that a publisher counts
//! on are named by the map it sent first. What slips through is found by the publisher's last look.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use pool_model::SnapshotId;
use pool_store::{LayerId, MANIFEST_BYTES_MAX, Manifest, PageMap};

use crate::{
    Remote, RemoteError,
    disks::{Base, DOCUMENT_BYTES_MAX, Disk, Disks, from_json},
    keys::{self, Kind},
    remote::{INDEX_BYTES_MAX, Object},
};

/// What a collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is needed by somebody.
#[derive(Debug, Default)]
struct Live {
    snapshots: BTreeSet<SnapshotId>,
    layers: BTreeSet<LayerId>,
    disks: BTreeSet<String>,
    bases: BTreeSet<String>,
}

impl Live {
    fn add_disk(&mut self, disk: &Disk) {
        self.disks.insert(disk.map.clone());
        self.layers.extend(&disk.layers);
    }

    fn add_disks(&mut self, disks: &Disks) {
        self.bases.insert(disks.base.digest.clone());
        self.add_disk(&disks.scratch);
        self.add_disk(&disks.base.disk);
    }

    fn merge(mut self, other: Self) -> Self {
        self.snapshots.extend(other.snapshots);
        self.layers.extend(other.layers);
        self.disks.extend(other.disks);
        self.bases.extend(other.bases);
        self
    }

    fn needs(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Snapshot(id, _) => self.snapshots.contains(id),
            Kind::Layer(id) => self.layers.contains(id),
            Kind::Disk(map) => self.disks.contains(map),
            Kind::Base(digest) => self.bases.contains(digest),
        }
    }
}

impl Remote {
    /// Deletes a snapshot, whole or not. Its layers and disks stay for [`Remote::gc`]. Hosts that
    /// have fetched it can no longer read what they have not cached. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Request`]; it may be half gone then, and no snapshot any more.
    pub async fn delete(&self, id: SnapshotId) -> Result<(), RemoteError> {
        self.remove(&self.keys().snapshot(id, keys::MANIFEST)).await?;
        let rest = self.list(&self.keys().snapshot_dir(id)).await?;
        self.remove_all(rest).await
    }

    /// Deletes what no snapshot names and is older than `keep_younger_than`, which should be longer
    /// than publishing takes: half-published snapshots, layers, disks. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]; nothing is deleted unless every manifest could be read.
    pub async fn gc(&self, keep_younger_than: Duration) -> Result<Collected, RemoteError> {
        let objects = self.list(&self.keys().root()).await?;
        let live = self.live(keep_younger_than, &objects).await?;
        let mut doomed: Vec<(Kind, Object)> = objects
            .into_iter()
            .filter(|object| object.age >= keep_younger_than)
            .filter_map(|object| Some((self.keys().kind(&object.key)?, object)))
            .filter(|(kind, _)| !live.needs(kind))
            .collect();
        let mut collected = Collected::default();
        // What names others goes before what it names: a crash leaves nothing that lies.
        doomed.sort_by_key(|(kind, object)| (rank(kind, &object.key), object.key.clone()));
        for group in doomed.chunk_by(|(a, x), (b, y)| rank(a, &x.key) == rank(b, &y.key)) {
            let group: Vec<Object> = group.iter().map(|(_, object)| object.clone()).collect();
            collected.objects += group.len() as u64;
            collected.bytes += group.iter().map(|object| object.bytes).sum::<u64>();
            self.remove_all(group).await?;
        }
        Ok(collected)
    }

    async fn remove_all(&self, objects: Vec<Object>) -> Result<(), RemoteError> {
        stream::iter(objects)
            .map(|object| async move { self.remove(&object.key).await })
            .buffer_unordered(self.config().parallel)
            .try_collect()
            .await
    }

    /// What snapshots name that are there now, or may be about to be.
    async fn live(&self, young: Duration, before: &[Object]) -> Result<Live, RemoteError> {
        let now = self.list(&self.keys().snapshots()).await?;
        let mut whole = BTreeSet::new();
        let mut begun = BTreeSet::new();
        for object in &now {
            match self.keys().kind(&object.key) {
                Some(Kind::Snapshot(id, file)) if file == keys::MANIFEST => {
                    whole.insert(id);
                }
                Some(Kind::Snapshot(id, _)) if object.age < young => {
                    begun.insert(id);
                }
                _ => {}
            }
        }
        let young_bases = before
            .iter()
            .filter(|object| object.age < young)
            .filter(|object| matches!(self.keys().kind(&object.key), Some(Kind::Base(_))));
        let bases = stream::iter(young_bases.map(|object| object.key.clone()).collect::<Vec<_>>())
            .map(|key| self.live_of_base(key))
            .buffer_unordered(self.config().parallel);
        let begun: Vec<_> = begun.difference(&whole).copied().collect();
        let snapshots = stream::iter(whole.into_iter().collect::<Vec<_>>())
            .map(|id| self.live_of_snapshot(id))
            .buffer_unordered(self.config().parallel);
        let begun = stream::iter(begun)
            .map(|id| self.live_of_begun(id))
            .buffer_unordered(self.config().parallel);
        let all = |live: Live, more| async { Ok(live.merge(more)) };
        let live = bases.try_fold(Live::default(), all).await?;
        let live = begun.try_fold(live, all).await?;
        snapshots.try_fold(live, all).await
    }

    async fn live_of_snapshot(&self, id: SnapshotId) -> Result<Live, RemoteError> {
        let mut live = Live::default();
        let key = self.keys().snapshot(id, keys::MANIFEST);
        let Some(json) = self.get_if_there(&key, MANIFEST_BYTES_MAX).await? else {
            return Ok(live); // deleted meanwhile
        };
        live.snapshots.insert(id);
        live.layers.extend(Manifest::from_json(id, &json)?.memory.layers);
        let key = self.keys().snapshot(id, keys::DISKS);
        let json = self.get(&key, DOCUMENT_BYTES_MAX).await?;
        live.add_disks(&Disks::from_json(key.as_ref(), &json)?);
        Ok(live)
    }

    /// A snapshot that is being published, or whose publisher died not long ago.
    async fn live_of_begun(&self, id: SnapshotId) -> Result<Live, RemoteError> {
        let mut live = Live { snapshots: BTreeSet::from([id]), ..Live::default() };
        let key = self.keys().snapshot(id, keys::MAP);
        if let Some(bytes) = self.get_if_there(&key, INDEX_BYTES_MAX).await? {
            let map = PageMap::from_bytes(&bytes)
                .map_err(|error| RemoteError::Format { key: key.to_string(), error })?;
            live.layers.extend(map.layers());
        }
        let key = self.keys().snapshot(id, keys::DISKS);
        if let Some(json) = self.get_if_there(&key, DOCUMENT_BYTES_MAX).await? {
            live.add_disks(&Disks::from_json(key.as_ref(), &json)?);
        }
        Ok(live)
    }

    async fn live_of_base(&self, key: Path) -> Result<Live, RemoteError> {
        let mut live = Live::default();
        if let Some(json) = self.get_if_there(&key, DOCUMENT_BYTES_MAX).await? {
            let base: Base = from_json(key.as_ref(), &json)?;
            live.add_disk(&base.disk);
            live.bases.insert(base.digest);
        }
        Ok(live)
    }
}

/// The order of deletion.
fn rank(kind: &Kind, key: &Path) -> u8 {
    match kind {
        Kind::Snapshot(..) => 0,
        Kind::Base(_) => 1,
        Kind::Disk(_) => 2,
        Kind::Layer(_) if key.as_ref().ends_with(".index") => 3,
        Kind::Layer(_) => 4,
    }
}
