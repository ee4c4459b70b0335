//! Where a host's layers are, which there are, and when they may be deleted.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    ImageWriter, LayerError, LayerId, LayerIndex, LayerPin, PageMap, WriteError,
    image_writer::Reuse, known_blocks::KnownBlocks, pins::Pins,
};

/// What the name of a half-written file starts with.
pub(crate) const DRAFT_PREFIX: &str = ".tmp-";

/// Largest index that is read, in bytes: 6 million blocks, 400 GB of memory.
const INDEX_BYTES_MAX: u64 = 256 << 20;

/// All layers of one host: `{dir}/{id}.index` and `{dir}/{id}.blocks`. Cheap to clone.
///
/// Pins and the index of known blocks are shared by clones: make one store per directory and
/// process, and clone it. Other processes may read.
#[derive(Debug, Clone)]
pub struct LayerStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    pins: Pins,
    known: KnownBlocks,
}

/// One layer, ready to be read.
#[derive(Debug)]
pub struct Layer {
    index: LayerIndex,
    file: File,
}

impl Layer {
    /// Its blocks.
    #[must_use]
    pub fn index(&self) -> &LayerIndex {
        &self.index
    }

    /// The `.blocks` file, opened for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl LayerStore {
    /// A store over `dir`, which the first writer makes if it isn't there.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        let (pins, known) = (Pins::default(), KnownBlocks::default());
        Self { shared: Arc::new(Shared { dir, pins, known }) }
    }

    /// Where the layers are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Where the index of layer `id` is, if it is here.
    #[must_use]
    pub fn index_path(&self, id: LayerId) -> PathBuf {
        self.shared.dir.join(format!("{id}.index"))
    }

    /// Where the blocks of layer `id` are, if they are here.
    #[must_use]
    pub fn blocks_path(&self, id: LayerId) -> PathBuf {
        self.shared.dir.join(format!("{id}.blocks"))
    }

    /// Whether index and blocks of layer `id` are both here.
    #[must_use]
    pub fn contains(&self, id: LayerId) -> bool {
        self.index_path(id).is_file() && self.blocks_path(id).is_file()
    }

    /// Reads and verifies the index of layer `id`, whose blocks may be elsewhere.
    ///
    /// # Errors
    ///
    /// [`LayerError`] says what is missing or wrong.
    pub fn read_index(&self, id: LayerId) -> Result<LayerIndex, LayerError> {
        let path = self.index_path(id);
        let mut bytes = Vec::new();
        open_file(id, &path)?
            .take(INDEX_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|source| LayerError::Io { path, source })?;
        LayerIndex::from_bytes(id, &bytes)
            .map_err(|source| LayerError::Format { layer: id, source })
    }

    /// Opens layer `id`: its index is verified, its blocks have the right length. What is in the
    /// blocks is verified when they are decoded.
    ///
    /// # Errors
    ///
    /// [`LayerError`] says what is missing or wrong.
    pub fn open(&self, id: LayerId) -> Result<Layer, LayerError> {
        let index = self.read_index(id)?;
        let path = self.blocks_path(id);
        let file = open_file(id, &path)?;
        let meta = file.metadata().map_err(|source| LayerError::Io { path, source })?;
        let (expected, found) = (index.stored_bytes(), meta.len());
        if found != expected {
            return Err(LayerError::Length { layer: id, expected, found });
        }
        Ok(Layer { index, file })
    }

    /// Begins an image of `bytes` bytes of memory: changes to `parent`, or all that isn't zero.
    /// The writer holds a pin. Nothing is written before there is something to write.
    ///
    /// # Errors
    ///
    /// [`WriteError::MemoryLength`] if the parent's memory is larger or smaller.
    pub fn writer(&self, parent: Option<PageMap>, bytes: u64) -> Result<ImageWriter, WriteError> {
        ImageWriter::new(self.clone(), parent, bytes, Reuse::Local)
    }

    /// Keeps [`LayerStore::gc`] away for as long as it lives; waits for one that is under way.
    ///
    /// Whoever makes a snapshot holds one from before its first layer is written until its
    /// manifest is named: a layer that nothing names yet looks like one that nothing needs.
    pub fn pin(&self) -> LayerPin {
        self.shared.pins.pin()
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.shared.pins
    }

    pub(crate) fn known(&self) -> &KnownBlocks {
        &self.shared.known
    }

    /// A path for a half-written file that nobody else has.
    pub(crate) fn fresh_path(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.shared.dir.join(format!("{DRAFT_PREFIX}{}-{number}", std::process::id()))
    }
}

fn open_file(layer: LayerId, path: &Path) -> Result<File, LayerError> {
    File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => LayerError::NotFound { layer, path: path.to_owned() },
        _ => LayerError::Io { path: path.to_owned(), source },
    })
}
