//! Which object holds what: the names below the prefix.
//!
//! ```text
//! snapshots/{label}/manifest.json   written last: there is the snapshot, whole
//!                  /memory.map, state, disks.json, working-set (may be missing, may change)
//! layers/{id}.blocks, {id}.index    the index is written last: there is the layer, whole
//! disks/{blake3 of the map}.map     a disk: which page has which block's content
//! bases/{base disk digest}.json     a base disk that was packed once
//! ```

use object_store::path::Path;
use pool_model::SnapshotId;
use pool_store::LayerId;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const MAP: &str = "memory.map";
pub(crate) const STATE: &str = "state";
pub(crate) const SCRATCH: &str = "scratch.ext4";
pub(crate) const WORKING_SET: &str = "working-set";
pub(crate) const DISKS: &str = "disks.json";

const SNAPSHOT_DIR: &str = "snapshots";
const LAYER_DIR: &str = "layers";
const DISK_DIR: &str = "disks";
const BASE_DIR: &str = "bases";

/// Names of objects under one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// Empty, or without slashes around it.
    prefix: String,
}

/// What an object is, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A snapshot's object, and which one of its objects it is.
    Snapshot(SnapshotId, String),
    /// Index or blocks of a layer.
    Layer(LayerId),
    /// A disk's map, by its digest.
    Disk(String),
    /// A packed base disk, by the digest of the base disk.
    Base(String),
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    fn under(&self, rest: &str) -> Path {
        let separator = if self.prefix.is_empty() { "" } else { "/" };
        Path::from(format!("{}{separator}{rest}", self.prefix))
    }

    pub(crate) fn root(&self) -> Path {
        Path::from(self.prefix.as_str())
    }

    pub(crate) fn snapshots(&self) -> Path {
        self.under(SNAPSHOT_DIR)
    }

    pub(crate) fn snapshot_dir(&self, id: SnapshotId) -> Path {
        self.under(&format!("{SNAPSHOT_DIR}/{}", id.label()))
    }

    pub(crate) fn snapshot(&self, id: SnapshotId, file: &str) -> Path {
        self.under(&format!("{SNAPSHOT_DIR}/{}/{file}", id.label()))
    }

    pub(crate) fn index(&self, id: LayerId) -> Path {
        self.under(&format!("{LAYER_DIR}/{}.index", id.0))
    }

    pub(crate) fn blocks(&self, id: LayerId) -> Path {
        self.under(&format!("{LAYER_DIR}/{}.blocks", id.0))
    }

    pub(crate) fn disk(&self, map: &str) -> Path {
        self.under(&format!("{DISK_DIR}/{map}.map"))
    }

    pub(crate) fn base(&self, digest: &str) -> Path {
        self.under(&format!("{BASE_DIR}/{digest}.json"))
    }

    /// What `key` is; `None` for names that are not ours, which are left alone.
    pub(crate) fn kind(&self, key: &Path) -> Option<Kind> {
        let rest = key.as_ref().strip_prefix(&self.prefix)?;
        let rest = if self.prefix.is_empty() { rest } else { rest.strip_prefix('/')? };
        let (dir, name) = rest.split_once('/')?;
        match dir {
            SNAPSHOT_DIR => {
                let (label, file) = name.split_once('/')?;
                let id = SnapshotId::from_label(label).ok()?;
                Some(Kind::Snapshot(id, file.to_owned()))
            }
            LAYER_DIR => {
                let id = name.strip_suffix(".index").or_else(|| name.strip_suffix(".blocks"))?;
                Some(Kind::Layer(LayerId(id.parse().ok()?)))
            }
            DISK_DIR => Some(Kind::Disk(name.strip_suffix(".map")?.to_owned())),
            BASE_DIR => Some(Kind::Base(name.strip_suffix(".json")?.to_owned())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use pool_store::Digest;

    use super::*;

    #[test]
    fn every_name_is_understood_again() {
        let layer = LayerId(Digest([7; 32]));
        let snapshot = SnapshotId::from_u128(5000);
        for prefix in ["", "eu/prod"] {
            let keys = Keys::new(prefix);
            for (key, kind) in [
                (keys.index(layer), Kind::Layer(layer)),
                (keys.blocks(layer), Kind::Layer(layer)),
                (keys.disk("ab"), Kind::Disk("ab".to_owned())),
                (keys.base("cd"), Kind::Base("cd".to_owned())),
                (keys.snapshot(snapshot, STATE), Kind::Snapshot(snapshot, STATE.to_owned())),
            ] {
                assert_eq!(keys.kind(&key), Some(kind), "{key}");
                assert!(key.as_ref().starts_with(prefix));
            }
        }
    }

    #[test]
    fn names_of_others_are_nobody() {
        let keys = Keys::new("eu");
        for key in
            ["eu/layers/zz.index", "eu/snapshots/short/state", "eu/notes.txt", "eux/bases/a.json"]
        {
            assert_eq!(keys.kind(&Path::from(key)), None, "{key}");
        }
    }
}
