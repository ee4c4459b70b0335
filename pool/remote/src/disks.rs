//! Which disks a snapshot needs, as objects: `disks.json` and `bases/….json`.

use pool_store::{LayerId, PageMap};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::RemoteError;

/// The version written and read.
const VERSION: u32 = 1;
/// The longest of these documents that is accepted.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// One packed disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disk {
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// BLAKE3 of its map's bytes, 64 hex digits: the map's name.
    pub(crate) map: String,
    /// The layers that the map names.
    pub(crate) layers: Vec<LayerId>,
}

impl Disk {
    pub(crate) fn new(map: &PageMap, bytes: u64) -> Self {
        let digest = blake3::hash(&map.to_bytes()).to_hex().to_string();
        Self { bytes, map: digest, layers: map.layers().to_vec() }
    }
}

/// A base disk, and by which name snapshots know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Base {
    /// What `base_disk_digest` of a manifest says.
    pub(crate) digest: String,
    pub(crate) disk: Disk,
}

/// `snapshots/{label}/disks.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disks {
    version: u32,
    pub(crate) scratch: Disk,
    pub(crate) base: Base,
}

impl Disks {
    pub(crate) fn new(scratch: Disk, base: Base) -> Self {
        Self { version: VERSION, scratch, base }
    }

    /// Reads the document at `key`.
    pub(crate) fn from_json(key: &str, json: &[u8]) -> Result<Self, RemoteError> {
        let disks: Self = from_json(key, json)?;
        if disks.version == VERSION {
            return Ok(disks);
        }
        let reason =
            format!("it has version {}, this program reads version {VERSION}", disks.version);
        Err(RemoteError::Damaged { key: key.to_owned(), reason })
    }
}

/// Writes one of these documents.
pub(crate) fn to_json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(document).expect("it has only JSON types")
}

/// Reads one of these documents, from the object `key`.
pub(crate) fn from_json<T: DeserializeOwned>(key: &str, json: &[u8]) -> Result<T, RemoteError> {
    serde_json::from_slice(json)
        .map_err(|error| RemoteError::Damaged { key: key.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use pool_store::Digest;

    use super::*;

    #[test]
    fn documents_are_read_back_and_others_refused() {
        let mut disk = Disk::new(&PageMap::empty(1 << 20), 1 << 20);
        disk.layers.push(LayerId(Digest([3; 32])));
        let base = Base { digest: "ab".to_owned(), disk: disk.clone() };
        let disks = Disks::new(disk, base);
        let json = to_json(&disks);
        assert_eq!(Disks::from_json("k", &json).unwrap(), disks);
        let text = String::from_utf8(json).unwrap();
        for (from, to) in [("\"version\": 1", "\"version\": 2"), ("\"map\"", "\"mop\"")] {
            let edited = text.replace(from, to);
            assert_ne!(edited, text);
            let error = Disks::from_json("a/key", edited.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("a/key"), "{error}");
        }
    }
}
