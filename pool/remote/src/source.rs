//! Where a layer's stored blocks are, and how a thread gets at them.
//!
//! ```text
//! local file ─ not there ─► cache ─ a hole, or damaged ─► object store ─ verified ─► cache
//! ```

use std::{
    fmt,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Instant,
};

use bytes::Bytes;
use pool_store::{
    BLOCK_BYTES, BlockEntry, BlockError, Layer, LayerId, LayerIndex, LayerStore, decode_block,
};
use tokio::runtime::Handle;

use crate::{
    BlockCache, CacheFile, Origin, Remote, RemoteError, SourceError, SourceStats, install,
};

/// Whether what is cached may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// As usual.
    Cached,
    /// What was read before turned out damaged: ask the object store.
    Refetch,
}

/// Stored bytes of blocks, wherever they are. Cheap to clone. Everything blocks.
#[derive(Debug, Clone)]
pub struct LayerSource {
    layers: LayerStore,
    far: Option<Far>,
    stats: Arc<SourceStats>,
}

/// What it takes to read from the object store.
#[derive(Clone)]
struct Far {
    remote: Remote,
    runtime: Handle,
    cache: Arc<BlockCache>,
}

impl LayerSource {
    /// A source over the layers of this host and, if given, an object store: with the runtime that
    /// runs its requests, and the cache for what comes from it.
    #[must_use]
    pub fn new(layers: LayerStore, remote: Option<(Remote, Handle, Arc<BlockCache>)>) -> Self {
        let far = remote.map(|(remote, runtime, cache)| Far { remote, runtime, cache });
        let stats = far.as_ref().map(|far| Arc::clone(far.remote.stats())).unwrap_or_default();
        Self { layers, far, stats }
    }

    /// Counters; those of the [`Remote`] if there is one.
    #[must_use]
    pub fn stats(&self) -> &Arc<SourceStats> {
        &self.stats
    }

    /// Opens a layer: on this host if it is here, else with its index from this host or, then kept
    /// here, from the object store. Must not be called on a thread of the runtime.
    ///
    /// # Errors
    ///
    /// [`SourceError::Layer`] if it is here and damaged, [`SourceError::NotHere`],
    /// [`SourceError::Remote`].
    pub fn open(&self, id: LayerId) -> Result<SourceLayer, SourceError> {
        let stats = Arc::clone(&self.stats);
        if self.layers.contains(id) {
            let failed = |error| SourceError::Layer { layer: id, error: Box::new(error) };
            let layer = self.layers.open(id).map_err(failed)?;
            let path = self.layers.blocks_path(id);
            return Ok(SourceLayer { place: Place::Local(layer, path), stats });
        }
        let far = self.far.clone().ok_or(SourceError::NotHere { layer: id })?;
        let index = match install::read_index(&self.layers, id) {
            Some(index) => index,
            None => self.fetch_index(&far, id)?,
        };
        let file = far.cache.file(id, index.stored_bytes()).map_err(|source| SourceError::Io {
            step: "make a cache file for",
            path: self.layers.blocks_path(id),
            source,
        })?;
        Ok(SourceLayer { place: Place::Far { index, far, file }, stats })
    }

    fn fetch_index(&self, far: &Far, id: LayerId) -> Result<LayerIndex, SourceError> {
        let (remote, layers) = (far.remote.clone(), self.layers.clone());
        let deadline = Instant::now() + remote.config().deadline;
        let what = format!("index of layer {}", id.0);
        far.wait(deadline, what, async move { install::fetch_index(&remote, &layers, id).await })
    }
}

/// One open layer.
#[derive(Debug)]
pub struct SourceLayer {
    place: Place,
    stats: Arc<SourceStats>,
}

#[derive(Debug)]
enum Place {
    Local(Layer, PathBuf),
    Far { index: LayerIndex, far: Far, file: Arc<CacheFile> },
}

impl SourceLayer {
    /// Its blocks.
    #[must_use]
    pub fn index(&self) -> &LayerIndex {
        match &self.place {
            Place::Local(layer, _) => layer.index(),
            Place::Far { index, .. } => index,
        }
    }

    /// Whether it lies on this host, whole and for good.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.place, Place::Local(..))
    }

    /// The local file's path or the object's key, for errors.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.place {
            Place::Local(_, path) => path.display().to_string(),
            Place::Far { far, index, .. } => far.remote.keys().blocks(index.id()).to_string(),
        }
    }

    /// How many bytes blocks `first..=last` are stored in, if they are blocks of this layer.
    #[must_use]
    pub fn stored_len(&self, first: u32, last: u32) -> Option<usize> {
        let blocks = self.index().blocks().get(first as usize..=last as usize)?;
        Some(blocks.iter().map(|block| block.stored as usize).sum())
    }

    /// Reads the stored bytes of blocks `first..=last` into the beginning of `buf`.
    ///
    /// Local and cached reads allocate nothing and are not verified: the caller does that with
    /// [`decode_block`], and if a block is damaged calls again with [`Trust::Refetch`]. What comes
    /// from the object store has been verified. Must not be called on a thread of the runtime.
    ///
    /// # Errors
    ///
    /// [`SourceError::Range`] before anything is read; [`SourceError::LocalDamage`] for
    /// [`Trust::Refetch`] of a local layer: there is no other original; [`SourceError::Block`] if
    /// the bucket's is damaged; [`SourceError::Deadline`]; what disk and object store say. `buf`
    /// then holds anything.
    pub fn read(
        &self,
        first: u32,
        last: u32,
        buf: &mut [u8],
        trust: Trust,
        deadline: Instant,
    ) -> Result<Origin, SourceError> {
        let start = Instant::now();
        let read = self.read_uncounted(first, last, buf, trust, deadline);
        match &read {
            // The object store's own requests are counted where they are made.
            Ok((Origin::Remote, _)) => {}
            Ok((origin, bytes)) => self.stats.origin(*origin).record(*bytes, start.elapsed()),
            Err(SourceError::Remote(_)) => {}
            Err(_) => self.stats.count_failure(),
        }
        read.map(|(origin, _)| origin)
    }

    fn read_uncounted(
        &self,
        first: u32,
        last: u32,
        buf: &mut [u8],
        trust: Trust,
        deadline: Instant,
    ) -> Result<(Origin, u64), SourceError> {
        let index = self.index();
        let len = self.stored_len(first, last).filter(|len| (1..=buf.len()).contains(len));
        let Some(len) = len else {
            return Err(SourceError::Range { layer: index.id(), first, last, buffer: buf.len() });
        };
        let buf = &mut buf[..len];
        let blocks = &index.blocks()[first as usize..=last as usize];
        let offset = blocks[0].offset;
        match &self.place {
            Place::Local(_, path) if trust == Trust::Refetch => {
                Err(SourceError::LocalDamage { path: path.clone(), first, last })
            }
            Place::Local(layer, path) => match layer.file().read_exact_at(buf, offset) {
                Ok(()) => Ok((Origin::Local, len as u64)),
                Err(source) => Err(SourceError::Io { step: "read", path: path.clone(), source }),
            },
            Place::Far { far, file, .. } => {
                if trust == Trust::Cached && hit(file, offset, buf) {
                    return Ok((Origin::Cache, len as u64));
                }
                if trust == Trust::Refetch {
                    self.stats.count_healed();
                }
                let wanted = Wanted { layer: index.id(), first, blocks };
                let bytes = far.read(&wanted, deadline)?;
                buf.copy_from_slice(&bytes);
                keep(file, offset, &bytes);
                Ok((Origin::Remote, len as u64))
            }
        }
    }
}

/// Blocks side by side.
struct Wanted<'a> {
    layer: LayerId,
    first: u32,
    blocks: &'a [BlockEntry],
}

impl Far {
    /// Reads and verifies. A damaged answer is asked for once more: it may be the way that did it.
    fn read(&self, wanted: &Wanted<'_>, deadline: Instant) -> Result<Bytes, SourceError> {
        let once = || {
            let bytes = self.read_unverified(wanted, deadline)?;
            verify(wanted, &bytes).map(|()| bytes).map_err(|(block, error)| SourceError::Block {
                place: self.remote.keys().blocks(wanted.layer).to_string(),
                block,
                error,
            })
        };
        match once() {
            Err(SourceError::Block { place, block, error }) => {
                tracing::warn!(key = place, block, %error, "damaged block, asking again");
                self.remote.stats().count_retry();
                once()
            }
            other => other,
        }
    }

    fn read_unverified(
        &self,
        wanted: &Wanted<'_>,
        deadline: Instant,
    ) -> Result<Bytes, SourceError> {
        let Wanted { layer, first, blocks } = *wanted;
        let (start, last) = (blocks[0].offset, blocks[blocks.len() - 1]);
        let range = start..last.offset + u64::from(last.stored);
        let what = format!("layer {}, blocks from {first} on, bytes {range:?}", layer.0);
        let remote = self.remote.clone();
        self.wait(deadline, what, async move { remote.read(layer, range).await })
    }

    /// Runs a request on the runtime while this thread waits, until the deadline and no longer.
    fn wait<T: Send + 'static>(
        &self,
        deadline: Instant,
        what: String,
        request: impl Future<Output = Result<T, RemoteError>> + Send + 'static,
    ) -> Result<T, SourceError> {
        let begin = Instant::now();
        let (answer, answered) = mpsc::sync_channel(1);
        let task = self.runtime.spawn(async move {
            // Nobody listens any more after the deadline.
            let _ = answer.send(request.await);
        });
        match answered.recv_timeout(deadline.saturating_duration_since(begin)) {
            Ok(result) => Ok(result?),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                task.abort();
                Err(SourceError::Deadline { what, waited: begin.elapsed() })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(RemoteError::Task { what: "read from the object store" }.into())
            }
        }
    }
}

impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Far").field("remote", &self.remote).finish_non_exhaustive()
    }
}

fn verify(wanted: &Wanted<'_>, bytes: &[u8]) -> Result<(), (u32, BlockError)> {
    let mut out = vec![0; BLOCK_BYTES];
    let mut rest = bytes;
    for (number, block) in (wanted.first..).zip(wanted.blocks) {
        let (stored, after) = rest.split_at(rest.len().min(block.stored as usize));
        decode_block(block, stored, &mut out).map_err(|error| (number, error))?;
        rest = after;
    }
    Ok(())
}

/// Whether the cache has it. A cache that cannot be read is one that has nothing.
fn hit(file: &CacheFile, offset: u64, buf: &mut [u8]) -> bool {
    file.read_at(offset, buf).unwrap_or_else(|error| {
        tracing::warn!(path = %file.path().display(), %error, "cannot read the block cache");
        false
    })
}

/// Keeps it for the next time; a cache that cannot be written costs time, nothing else.
fn keep(file: &CacheFile, offset: u64, bytes: &[u8]) {
    if let Err(error) = file.write_at(offset, bytes) {
        tracing::warn!(path = %file.path().display(), %error, "cannot fill the block cache");
    }
}
