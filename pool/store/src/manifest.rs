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

use crate::OpenError;

/// The manifest version this program writes and reads.
pub const MANIFEST_VERSION: u32 = 1;

/// Largest manifest that is read, in bytes. A real one has about 1 KiB.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 10;

/// Length and content digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Logical length, holes included.
    pub bytes: u64,
    /// Hex of [`crate::digest_sparse`].
    pub blake3: String,
}

/// The digests of a snapshot's three files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Guest memory.
    pub memory: FileDigest,
    /// Device state.
    pub state: FileDigest,
    /// The writable disk layer.
    pub scratch: FileDigest,
}

/// What the maker of a snapshot knows; the store adds version, id and digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewManifest {
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
    /// VMM and version, e.g. `qemu-7.2.22`.
    pub vmm: String,
    /// How guest code was run, e.g. `tcg`.
    pub accel: String,
    /// The CPU model the guest saw.
    pub cpu: String,
    /// The guest daemon's version.
    pub envd_version: String,
    /// The sandbox's generation when it was taken.
    pub generation: Generation,
    /// When it was taken.
    pub created_at: Timestamp,
    /// Lengths and digests of the files.
    pub files: Files,
}

/// What the id is computed from: a manifest without its id.
#[derive(Serialize)]
struct Identity<'a> {
    version: u32,
    #[serde(flatten)]
    rest: &'a NewManifest,
    files: &'a Files,
}

impl Manifest {
    /// Completes what the maker knows with version, digests and the id that follows from them.
    #[must_use]
    pub(crate) fn new(new: NewManifest, files: Files) -> Self {
        let snapshot = identify(MANIFEST_VERSION, &new, &files);
        Self {
            version: MANIFEST_VERSION,
            snapshot,
            template: new.template,
            team: new.team,
            base_disk_digest: new.base_disk_digest,
            kernel: new.kernel,
            memory_bytes: new.memory_bytes,
            vcpus: new.vcpus,
            vmm: new.vmm,
            accel: new.accel,
            cpu: new.cpu,
            envd_version: new.envd_version,
            generation: new.generation,
            created_at: new.created_at,
            files,
        }
    }

    /// The bytes of `manifest.json`.
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
    /// [`OpenError::Version`] before all else, [`OpenError::Malformed`] if it isn't what
    /// [`Manifest::to_json`] writes or its id doesn't follow from its content.
    pub fn from_json(expected: SnapshotId, json: &[u8]) -> Result<Self, OpenError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let malformed = |reason: String| OpenError::Malformed { snapshot: expected, reason };
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
        let computed = identify(manifest.version, &manifest.maker_part(), &manifest.files);
        if computed != expected || manifest.snapshot != expected {
            return Err(malformed(format!("its content belongs to {computed}")));
        }
        Ok(manifest)
    }

    fn maker_part(&self) -> NewManifest {
        NewManifest {
            template: self.template,
            team: self.team,
            base_disk_digest: self.base_disk_digest.clone(),
            kernel: self.kernel.clone(),
            memory_bytes: self.memory_bytes,
            vcpus: self.vcpus,
            vmm: self.vmm.clone(),
            accel: self.accel.clone(),
            cpu: self.cpu.clone(),
            envd_version: self.envd_version.clone(),
            generation: self.generation,
            created_at: self.created_at,
        }
    }
}

fn identify(version: u32, new: &NewManifest, files: &Files) -> SnapshotId {
    let json = serde_json::to_vec(&Identity { version, rest: new, files })
        .expect("a manifest has only JSON types");
    let hash = blake3::hash(&json);
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    SnapshotId::from_u128(u128::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `manifest.json` as version 1 wrote it. It must stay readable for as long as version 1 is.
    const GOLDEN: &str = include_str!("../tests/manifest-v1.json");

    fn sample() -> Manifest {
        let file = |bytes, digit: &str| FileDigest { bytes, blake3: digit.repeat(64) };
        Manifest::new(
            NewManifest {
                template: TemplateId::DEFAULT,
                team: TeamId::PLATFORM,
                base_disk_digest: "d".repeat(64),
                kernel: "6.1.0-51".to_owned(),
                memory_bytes: 256 << 20,
                vcpus: 1,
                vmm: "qemu-7.2.22".to_owned(),
                accel: "tcg".to_owned(),
                cpu: "max".to_owned(),
                envd_version: "0.1.0".to_owned(),
                generation: Generation(3),
                created_at: "2026-11-22T10:00:00.123456789Z".parse().unwrap(),
            },
            Files {
                memory: file(256 << 20, "a"),
                state: file(53_000, "b"),
                scratch: file(1 << 30, "c"),
            },
        )
    }

    #[test]
    fn manifest_is_written_byte_for_byte_as_version_one() {
        assert_eq!(String::from_utf8(sample().to_json()).unwrap(), GOLDEN);
    }

    #[test]
    fn golden_manifest_is_read_back_whole() {
        let manifest = Manifest::from_json(sample().snapshot, GOLDEN.as_bytes()).unwrap();
        assert_eq!(manifest, sample());
    }

    #[test]
    fn id_changes_with_every_field_it_covers() {
        let before = sample();
        let mut new = before.maker_part();
        new.vcpus = 2;
        assert_ne!(Manifest::new(new, before.files.clone()).snapshot, before.snapshot);
        let mut files = before.files.clone();
        files.scratch.bytes += 1;
        assert_ne!(Manifest::new(before.maker_part(), files).snapshot, before.snapshot);
    }

    #[test]
    fn another_version_is_refused_even_if_the_rest_is_strange() {
        let id = sample().snapshot;
        let error = Manifest::from_json(id, br#"{"version":2,"colour":"red"}"#).unwrap_err();
        assert!(matches!(error, OpenError::Version { found: 2, expected: 1, .. }), "{error:?}");
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
