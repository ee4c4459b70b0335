//! What can go wrong with a snapshot store, one enum per operation.

use std::{io, path::PathBuf};

use pool_model::SnapshotId;

use crate::{Digest, FormatError, LayerId, WriteError};

/// Whether `error` says that the disk or the quota is full.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why no draft could be begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The disk is full.
    #[error("no space left for a draft in {}", dir.display())]
    NoSpace {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The directory could not be made.
    #[error("cannot make a draft in {}", dir.display())]
    Io {
        /// The store's directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a draft did not become a snapshot. The draft is gone in every case.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The writer left one of the files out.
    #[error("the draft has no {}", path.display())]
    Missing {
        /// The file that should be there.
        path: PathBuf,
    },
    /// The map isn't of as much memory as the guest has.
    #[error("the memory's map is of {found} bytes, the guest has {expected}")]
    MemoryLength {
        /// The guest's memory in bytes.
        expected: u64,
        /// The map's.
        found: u64,
    },
    /// The map names a layer that this host knows nothing of.
    #[error("the memory's map names layer {layer}, which is not in the store")]
    MissingLayer {
        /// That layer.
        layer: LayerId,
    },
    /// The manifest is larger than any that is read: it names too many layers, or texts are long.
    #[error("the manifest would have {found} bytes, at most {max} are read")]
    ManifestLength {
        /// Most bytes.
        max: u64,
        /// What it would have.
        found: u64,
    },
    /// No new layer could be written.
    #[error("cannot compact the memory")]
    Compact(#[source] WriteError),
    /// No draft could be begun.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// The disk is full.
    #[error("no space left to {step} {}", path.display())]
    NoSpace {
        /// What was being done.
        step: &'static str,
        /// With what.
        path: PathBuf,
    },
    /// Something else the system refused.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl CommitError {
    /// Sorts a failed `step` on `path` into its variant.
    pub(crate) fn from_io(step: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_no_space(&source) {
            Self::NoSpace { step, path }
        } else if step == "open" && source.kind() == io::ErrorKind::NotFound {
            Self::Missing { path }
        } else {
            Self::Io { step, path, source }
        }
    }
}

/// Why a snapshot could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store has no such snapshot.
    #[error("snapshot {snapshot} is not in the store")]
    NotFound {
        /// The snapshot asked for.
        snapshot: SnapshotId,
    },
    /// Written by a version of the software that this one doesn't know.
    #[error("snapshot {snapshot} has manifest version {found}, this program reads {expected}")]
    Version {
        /// The snapshot asked for.
        snapshot: SnapshotId,
        /// The version found.
        found: u32,
        /// The version understood.
        expected: u32,
    },
    /// The manifest isn't what this store writes.
    #[error("the manifest of snapshot {snapshot} is malformed: {reason}")]
    Malformed {
        /// The snapshot asked for.
        snapshot: SnapshotId,
        /// What is wrong with it.
        reason: String,
    },
    /// The memory's map has the right digest and is none: a writer's mistake.
    #[error("the memory's map of snapshot {snapshot} is malformed")]
    Map {
        /// The snapshot asked for.
        snapshot: SnapshotId,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// A file of the snapshot is shorter or longer than its manifest says.
    #[error("snapshot {snapshot}: {file} has {found} bytes, its manifest says {expected}")]
    Length {
        /// The snapshot asked for.
        snapshot: SnapshotId,
        /// Which of its files.
        file: &'static str,
        /// Bytes by the manifest.
        expected: u64,
        /// Bytes on disk; 0 if it is missing.
        found: u64,
    },
    /// A file of the snapshot has another content than its manifest says.
    #[error("snapshot {snapshot}: {file} has digest {found}, its manifest says {expected}")]
    Digest {
        /// The snapshot asked for.
        snapshot: SnapshotId,
        /// Which of its files.
        file: &'static str,
        /// Digest by the manifest.
        expected: Digest,
        /// Digest of the file.
        found: Digest,
    },
    /// The system refused to read.
    #[error("cannot read {}", path.display())]
    Io {
        /// What was being read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Whether `error` says that the snapshot is damaged or of another version: trying again won't
/// help, as opposed to a snapshot that isn't there or a system that refuses.
#[must_use]
pub fn is_damage(error: &OpenError) -> bool {
    match error {
        OpenError::Version { .. }
        | OpenError::Malformed { .. }
        | OpenError::Map { .. }
        | OpenError::Length { .. }
        | OpenError::Digest { .. } => true,
        OpenError::NotFound { .. } | OpenError::Io { .. } => false,
    }
}

/// Why the store could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list {}", dir.display())]
pub struct ListError {
    /// The store's directory.
    pub dir: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Why a snapshot could not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// The store has no such snapshot.
    #[error("snapshot {snapshot} is not in the store")]
    NotFound {
        /// The snapshot asked for.
        snapshot: SnapshotId,
    },
    /// The system refused.
    #[error("cannot delete {}", path.display())]
    Io {
        /// What was being deleted.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
