//! What a snapshot says about itself: `manifest.json`.
//!
//! # Invariants
//!
//! - The version is read before anything else; another version is refused, never guessed at.
//! - The id is computed, never chosen: BLAKE3 over the compact JSON of all other fields in the
//!   order they are declared here. Moving or renaming a field is a new version.

use jiff::Timestamp;
use pool_model::{Generation, SnapshotId, TeamId, TemplateId};
use serde::{Deserialize, Serialize};

use crate::{Digest, LayerId, OpenError, PageMap};

/// The manifest version this program writes and reads.
pub const MANIFEST_VERSION: u32 = 2;

/// Largest manifest that is read, in bytes. A real one has about 2 KiB.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 10;

/// Length and content digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Logical length, holes included.
    pub bytes: u64,
    /// What [`crate::digest_sparse`] says.
    pub blake3: Digest,
}

/// What a snapshot's memory consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Guest memory in bytes.
    pub bytes: u64,
    /// The file `memory.map`.
    pub map: FileDigest,
    /// The layers that the map names, in its order: known without reading it.
    pub layers: Vec<LayerId>,
}

/// The digests of a snapshot's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) map: FileDigest,
    pub(crate) state: FileDigest,
    pub(crate) scratch: FileDigest,
}

/// What the maker of a snapshot knows; the store adds version, id, layers and digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewManifest {
    /// The snapshot that the sandbox was restored from, if it was.
    pub parent: Option<SnapshotId>,
    /// The template the sandbox came from.
    pub template: TemplateId,
    /// Whose template and snapshot it is.
    pub team: TeamId,
    /// Digest of the base disk that the memory has cached blocks of.
    pub base_disk_digest: String,
    /// The guest's kernel version.
    pub kernel: String,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// VMM and version, e.g. `qemu-7.2.22`: device state is only loaded by the same one.
    pub vmm: String,
    /// How guest code was run, e.g. `tcg`.
    pub accel: String,
    /// The CPU model the guest saw.
    pub cpu: String,
    /// What that model amounts to on the host that took it, e.g. a digest of its features: two hosts
    /// may mean different things by one model's name.
    pub cpu_fingerprint: String,
    /// The guest daemon's version.
    pub envd_version: String,
    /// The sandbox's generation when it was taken.
    pub generation: Generation,
    /// When it was taken.
    pub created_at: Timestamp,
}

/// A committed snapshot's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// Content address of this snapshot.
    pub snapshot: SnapshotId,
    /// The snapshot that the sandbox was restored from. It may be deleted: nothing of it is needed.
    pub parent: Option<SnapshotId>,
    /// The template the sandbox came from.
    pub template: TemplateId,
    /// Whose template and snapshot it is.
    pub team: TeamId,
    /// Digest of the base disk that the memory has cached blocks of.
    pub base_disk_digest: String,
    /// The guest's kernel version.
    pub kernel: String,
    /// Guest memory.
    pub memory: Memory,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// VMM and version, e.g. `qemu-7.2.22`.
    pub vmm: String,
    /// How guest code was run, e.g. `tcg`.
    pub accel: String,
    /// The CPU model the guest saw.
    pub cpu: String,
    /// What that model amounts to on the host that took it.
    pub cpu_fingerprint: String,
    /// The guest daemon's version.
    pub envd_version: String,
    /// The sandbox's generation when it was taken.
    pub generation: Generation,
    /// When it was taken.
    pub created_at: Timestamp,
    /// Device state.
    pub state: FileDigest,
    /// The writable disk layer.
    pub scratch: FileDigest,
}

/// What the id is computed from: a manifest without its id.
#[derive(Serialize)]
struct Identity<'a> {
    version: u32,
    parent: Option<SnapshotId>,
    template: TemplateId,
    team: TeamId,
    base_disk_digest: &'a str,
    kernel: &'a str,
    memory: &'a Memory,
    vcpus: u8,
    vmm: &'a str,
    accel: &'a str,
    cpu: &'a str,
    cpu_fingerprint: &'a str,
    envd_version: &'a str,
    generation: Generation,
    created_at: Timestamp,
    state: &'a FileDigest,
    scratch: &'a FileDigest,
}

impl Manifest {
    /// Completes what the maker knows with version, layers, digests and the id that follows.
    #[must_use]
    pub(crate) fn new(new: NewManifest, map: &PageMap, sealed: Sealed) -> Self {
        let mut manifest = Self {
            version: MANIFEST_VERSION,
            snapshot: SnapshotId::from_u128(0),
            parent: new.parent,
            template: new.template,
            team: new.team,
            base_disk_digest: new.base_disk_digest,
            kernel: new.kernel,
            memory: Memory {
                bytes: new.memory_bytes,
                map: sealed.map,
                layers: map.layers().to_vec(),
            },
            vcpus: new.vcpus,
            vmm: new.vmm,
            accel: new.accel,
            cpu: new.cpu,
            cpu_fingerprint: new.cpu_fingerprint,
            envd_version: new.envd_version,
            generation: new.generation,
            created_at: new.created_at,
            state: sealed.state,
            scratch: sealed.scratch,
        };
        manifest.snapshot = manifest.identify();
        manifest
    }

    /// The bytes of `manifest.json`.
    ///
    /// # Panics
    ///
    /// Never: a manifest has only what JSON can say.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a manifest has only JSON types");
        json.push(b'\n');
        json
    }

    /// Reads `manifest.json` of snapshot `expected`.
    ///
    /// # Errors
    ///
    /// [`OpenError::Version`] before all else, [`OpenError::Malformed`] if it is over
    /// [`MANIFEST_BYTES_MAX`], isn't what [`Manifest::to_json`] writes or its id doesn't follow from
    /// its content.
    pub fn from_json(expected: SnapshotId, json: &[u8]) -> Result<Self, OpenError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let malformed = |reason: String| OpenError::Malformed { snapshot: expected, reason };
        if json.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(malformed(format!("over {MANIFEST_BYTES_MAX} bytes")));
        }
        let Versioned { version } =
            serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        if version != MANIFEST_VERSION {
            return Err(OpenError::Version {
                snapshot: expected,
                found: version,
                expected: MANIFEST_VERSION,
            });
        }
        let manifest: Self =
            serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        let computed = manifest.identify();
        if computed != expected || manifest.snapshot != expected {
            return Err(malformed(format!("its content belongs to {computed}")));
        }
        Ok(manifest)
    }

    /// What its maker knew: to make another snapshot that differs in part.
    #[must_use]
    pub fn maker_part(&self) -> NewManifest {
        NewManifest {
            parent: self.parent,
            template: self.template,
            team: self.team,
            base_disk_digest: self.base_disk_digest.clone(),
            kernel: self.kernel.clone(),
            memory_bytes: self.memory.bytes,
            vcpus: self.vcpus,
            vmm: self.vmm.clone(),
            accel: self.accel.clone(),
            cpu: self.cpu.clone(),
            cpu_fingerprint: self.cpu_fingerprint.clone(),
            envd_version: self.envd_version.clone(),
            generation: self.generation,
            created_at: self.created_at,
        }
    }

    /// The id that follows from all other fields.
    fn identify(&self) -> SnapshotId {
        let identity = Identity {
            version: self.version,
            parent: self.parent,
            template: self.template,
            team: self.team,
            base_disk_digest: &self.base_disk_digest,
            kernel: &self.kernel,
            memory: &self.memory,
            vcpus: self.vcpus,
            vmm: &self.vmm,
            accel: &self.accel,
            cpu: &self.cpu,
            cpu_fingerprint: &self.cpu_fingerprint,
            envd_version: &self.envd_version,
            generation: self.generation,
            created_at: self.created_at,
            state: &self.state,
            scratch: &self.scratch,
        };
        let json = serde_json::to_vec(&identity).expect("a manifest has only JSON types");
        let hash = blake3::hash(&json);
        let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        SnapshotId::from_u128(u128::from_be_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Run;

    /// `manifest.json` as version 2 wrote it. It must stay readable for as long as version 2 is.
    const GOLDEN: &str = include_str!("../tests/manifest-v2.json");

    fn file(bytes: u64, byte: u8) -> FileDigest {
        FileDigest { bytes, blake3: Digest([byte; 32]) }
    }

    fn sealed() -> Sealed {
        Sealed { map: file(1234, 0xaa), state: file(53_000, 0xbb), scratch: file(1 << 30, 0xcc) }
    }

    fn sample_map() -> PageMap {
        let run = |page, layer| Run { page, pages: 16, layer, block: 0, first: 0 };
        let layers = [LayerId(Digest([1; 32])), LayerId(Digest([2; 32]))];
        PageMap::assemble(256 << 20, &layers, vec![run(0, 0), run(16, 1)])
    }

    fn sample() -> Manifest {
        let new = NewManifest {
            parent: Some(SnapshotId::from_u128(7)),
            template: TemplateId::DEFAULT,
            team: TeamId::PLATFORM,
            base_disk_digest: "d".repeat(64),
            kernel: "6.1.0-51".to_owned(),
            memory_bytes: 256 << 20,
            vcpus: 1,
            vmm: "qemu-7.2.22".to_owned(),
            accel: "tcg".to_owned(),
            cpu: "max".to_owned(),
            cpu_fingerprint: "e".repeat(64),
            envd_version: "0.1.0".to_owned(),
            generation: Generation(3),
            created_at: "2026-11-22T10:00:00.123456789Z".parse().unwrap(),
        };
        Manifest::new(new, &sample_map(), sealed())
    }

    #[test]
    fn manifest_is_written_byte_for_byte_as_version_two() {
        assert_eq!(String::from_utf8(sample().to_json()).unwrap(), GOLDEN);
    }

    #[test]
    fn golden_manifest_is_read_back_whole() {
        let manifest = Manifest::from_json(sample().snapshot, GOLDEN.as_bytes()).unwrap();
        assert_eq!(manifest, sample());
    }

    #[test]
    fn id_changes_with_every_field_it_covers() {
        let before = serde_json::to_value(sample()).unwrap();
        let fields = before.as_object().unwrap();
        assert_eq!(fields.len(), 18);
        for (field, value) in fields {
            let changed = match (field.as_str(), value) {
                ("snapshot", _) => continue,
                ("parent", _) => serde_json::Value::Null,
                ("template", _) => serde_json::to_value(TemplateId::from_u128(5)).unwrap(),
                ("team", _) => serde_json::to_value(TeamId::from_u128(5)).unwrap(),
                ("created_at", _) => "2026-11-22T10:00:01Z".into(),
                ("memory", _) => {
                    let mut memory = value.clone();
                    memory["layers"] = serde_json::json!([]);
                    memory
                }
                ("state" | "scratch", _) => serde_json::to_value(file(1, 1)).unwrap(),
                (_, serde_json::Value::String(text)) => format!("{text}x").into(),
                (_, number) => (number.as_u64().unwrap() + 1).into(),
            };
            let mut other = before.clone();
            other[field] = changed;
            let other: Manifest = serde_json::from_value(other).unwrap();
            assert_ne!(other.identify(), sample().snapshot, "{field}");
        }
    }

    #[test]
    fn another_version_is_refused_even_if_the_rest_is_strange() {
        let id = sample().snapshot;
        let error = Manifest::from_json(id, br#"{"version":1,"colour":"red"}"#).unwrap_err();
        assert!(matches!(error, OpenError::Version { found: 1, expected: 2, .. }), "{error:?}");
    }

    #[test]
    fn edited_and_unknown_fields_are_refused() {
        let id = sample().snapshot;
        for (from, to) in [
            ("\"vcpus\": 1", "\"vcpus\": 2"),
            ("\"vcpus\": 1", "\"vcpus\": 1, \"extra\": 1"),
            ("\"vcpus\": 1", "\"vcpus\": \"1\""),
        ] {
            let edited = GOLDEN.replace(from, to);
            assert_ne!(edited, GOLDEN);
            let error = Manifest::from_json(id, edited.as_bytes()).unwrap_err();
            assert!(matches!(error, OpenError::Malformed { .. }), "{error:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_are_an_error_and_never_a_panic(json: Vec<u8>) {
            assert!(Manifest::from_json(SnapshotId::from_u128(1), &json).is_err());
        }
    }
}
