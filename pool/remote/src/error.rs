//! What can go wrong with the object store, and with what was brought from it.

use std::{io, path::PathBuf, time::Duration};

use pool_model::SnapshotId;
use pool_store::{
    BeginError, BlockError, CommitError, FormatError, LayerError, LayerId, OpenError, WriteError,
};

use crate::ConfigError;

/// Why one attempt at an object failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// No complete answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The object, or the bucket, is not there.
    #[error("not found: {0}")]
    Missing(#[source] Box<object_store::Error>),
    /// The credentials are wrong or do not suffice.
    #[error("access denied: {0}")]
    Denied(#[source] Box<object_store::Error>),
    /// The answer is shorter or longer than what was asked for.
    #[error("{found} bytes came, {expected} were expected")]
    Length {
        /// Bytes asked for, or the most that was acceptable.
        expected: u64,
        /// Bytes that came or were announced.
        found: u64,
    },
    /// Refused, broken off, an answer that says "server error".
    #[error("{0}")]
    Answer(#[source] Box<object_store::Error>),
}

impl Cause {
    /// Whether asking again cannot help.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Denied(_))
    }
}

impl From<object_store::Error> for Cause {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        let status = match &error {
            E::NotFound { .. } => Some(404),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Some(403),
            other => status_in(&other.to_string()),
        };
        match status {
            Some(404) => Self::Missing(Box::new(error)),
            Some(401 | 403) => Self::Denied(Box::new(error)),
            _ => Self::Answer(Box::new(error)),
        }
    }
}

/// The status in the message of a failed request: for listings the library gives it nowhere else.
fn status_in(message: &str) -> Option<u16> {
    let (_, rest) = message.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// Why something could not be done with the object store.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// A setting cannot be used.
    #[error("the object store's settings cannot be used: {0}")]
    Config(#[from] ConfigError),
    /// The client library refuses the settings.
    #[error("the object store's client cannot be made")]
    Client(#[source] Box<object_store::Error>),
    /// An object could not be read, written, listed or deleted.
    #[error("cannot {what} {key}, {attempts} attempts in {} ms: {cause}", elapsed.as_millis())]
    Request {
        /// What was tried.
        what: &'static str,
        /// With which object, or which prefix.
        key: String,
        /// How often.
        attempts: u32,
        /// How long it took altogether.
        elapsed: Duration,
        /// What happened the last time.
        #[source]
        cause: Cause,
    },
    /// The bucket has no such snapshot, or not all of it yet.
    #[error("snapshot {snapshot} is not in the object store ({key})")]
    NotPublished {
        /// The snapshot asked for.
        snapshot: SnapshotId,
        /// The object that would be there.
        key: String,
    },
    /// A block in the bucket is not what its index says.
    #[error("{key}, block {block}: {error}")]
    Block {
        /// The object.
        key: String,
        /// The block's number in its layer.
        block: u32,
        /// What is wrong, with the digest expected and the one found.
        #[source]
        error: BlockError,
    },
    /// An index or a map in the bucket is malformed or not what its name says.
    #[error("{key} is damaged: {error}")]
    Format {
        /// The object.
        key: String,
        /// What is wrong.
        #[source]
        error: FormatError,
    },
    /// Something else in the bucket is not what was written.
    #[error("{key} is damaged: {reason}")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong, with what was expected.
        reason: String,
    },
    /// A snapshot to publish names a layer that is neither on this host nor in the bucket.
    #[error("layer {} is neither on this host nor whole in the object store", layer.0)]
    LayerMissing {
        /// The layer.
        layer: LayerId,
    },
    /// Objects kept vanishing while they were published: another process deletes them.
    #[error("objects of snapshot {snapshot} are deleted while it is published, e.g. {key}")]
    Unstable {
        /// The snapshot.
        snapshot: SnapshotId,
        /// One of the objects.
        key: String,
    },
    /// The local disk refuses.
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
    /// A local snapshot, or one that was brought over, is damaged or unreadable.
    #[error("the snapshot's files cannot be used: {0}")]
    Open(#[from] OpenError),
    /// A draft for a snapshot that is brought over cannot be made.
    #[error("no place for a fetched snapshot: {0}")]
    Begin(#[from] BeginError),
    /// A snapshot that was brought over could not be made to last.
    #[error("a fetched snapshot cannot be kept: {0}")]
    Commit(#[from] CommitError),
    /// A local layer is damaged or unreadable.
    #[error("a layer of this host cannot be used: {0}")]
    Layer(#[from] LayerError),
    /// A disk could not be packed.
    #[error("a disk cannot be packed: {0}")]
    Write(#[from] WriteError),
    /// A task of ours was cancelled, or panicked: the runtime is shutting down.
    #[error("the task that would {what} ended early")]
    Task {
        /// What it was to do.
        what: &'static str,
    },
}

impl RemoteError {
    /// For `map_err`: a failed `step` on `path`.
    pub(crate) fn io(
        step: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { step, path, source }
    }

    /// Whether the object asked for is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NotPublished { .. } | Self::Request { cause: Cause::Missing(_), .. })
    }
}

/// Why blocks could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Neither this host nor, for want of one, an object store has the layer.
    #[error("layer {} is not on this host, and no object store is configured", layer.0)]
    NotHere {
        /// The layer.
        layer: LayerId,
    },
    /// The local layer is damaged or unreadable.
    #[error("layer {} on this host cannot be used: {error}", layer.0)]
    Layer {
        /// The layer.
        layer: LayerId,
        /// Why.
        #[source]
        error: Box<LayerError>,
    },
    /// The blocks asked for are not in the layer, not in order, not side by side, or longer than
    /// the buffer: the caller's mistake.
    #[error("layer {}: blocks {first} to {last} cannot be read into {buffer} bytes", layer.0)]
    Range {
        /// The layer.
        layer: LayerId,
        /// First block.
        first: u32,
        /// Last block, itself included.
        last: u32,
        /// Length of the buffer in bytes.
        buffer: usize,
    },
    /// A block is not what its index says, in a place that cannot be healed.
    #[error("{place}, block {block}: {error}")]
    Block {
        /// The local file's path or the object's key.
        place: String,
        /// The block's number in its layer.
        block: u32,
        /// What is wrong.
        #[source]
        error: BlockError,
    },
    /// The local original was read, and the caller found it damaged.
    #[error("{} is damaged in one of the blocks {first} to {last}", path.display())]
    LocalDamage {
        /// The local file.
        path: PathBuf,
        /// First block.
        first: u32,
        /// Last block, itself included.
        last: u32,
    },
    /// The local disk refuses.
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
    /// The object store did not answer before the caller's deadline.
    #[error("no answer to \"{what}\" before the deadline, {} ms", waited.as_millis())]
    Deadline {
        /// What was asked for.
        what: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The object store failed.
    #[error(transparent)]
    Remote(Box<RemoteError>),
}

impl From<RemoteError> for SourceError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(Box::new(error))
    }
}
