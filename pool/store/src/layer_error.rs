//! What can go wrong with layers, one enum per operation.

use std::{io, path::PathBuf};

use crate::{BlockError, FormatError, LayerId, is_no_space};

/// Why a layer could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its index or its blocks are not here.
    #[error("layer {layer} is not in the store: there is no {}", path.display())]
    NotFound {
        /// The layer asked for.
        layer: LayerId,
        /// The file that is missing.
        path: PathBuf,
    },
    /// Its index is damaged.
    #[error("the index of layer {layer} is damaged")]
    Format {
        /// The layer asked for.
        layer: LayerId,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// Its blocks are cut short, or longer than the index says.
    #[error("the blocks of layer {layer} have {found} bytes, its index says {expected}")]
    Length {
        /// The layer asked for.
        layer: LayerId,
        /// Bytes by the index.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// The system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// What was being read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a map's pages could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A layer could not be opened.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The map names a block that its layer doesn't have.
    #[error("layer {layer} has {blocks} blocks, the map names block {block}")]
    Missing {
        /// The layer.
        layer: LayerId,
        /// The block by the map.
        block: u32,
        /// How many the layer has.
        blocks: usize,
    },
    /// The map names pages that their block doesn't have.
    #[error("block {block} of layer {layer} has {pages} pages, the map names more")]
    Pages {
        /// The layer.
        layer: LayerId,
        /// The block.
        block: u32,
        /// How many pages it has.
        pages: u8,
    },
    /// A block is damaged.
    #[error("block {block} of layer {layer} is damaged")]
    Damaged {
        /// The layer.
        layer: LayerId,
        /// The block.
        block: u32,
        /// What is wrong with it.
        #[source]
        source: BlockError,
    },
    /// The system refused.
    #[error("cannot read block {block} of layer {layer}")]
    Io {
        /// The layer.
        layer: LayerId,
        /// The block.
        block: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why an image could not be written. No layer got a name then.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Content that isn't whole pages.
    #[error("{bytes} bytes from guest page {page} on are not whole pages")]
    Partial {
        /// The first page.
        page: u64,
        /// How many bytes were given.
        bytes: usize,
    },
    /// Pages have to come in ascending order, each once.
    #[error("guest page {page} comes after page {next} was due")]
    Order {
        /// The page that was put.
        page: u64,
        /// The lowest that may still be put.
        next: u64,
    },
    /// Pages beyond the memory's end.
    #[error("{pages} pages from guest page {page} on lie beyond the memory's {bytes} bytes")]
    Range {
        /// The first page that was put.
        page: u64,
        /// How many.
        pages: u64,
        /// The guest's memory in bytes.
        bytes: u64,
    },
    /// The parent is of more or less memory, or memory is not whole pages.
    #[error("the parent's memory has {parent} bytes, the image's {bytes}")]
    MemoryLength {
        /// The parent's memory in bytes; the image's own, in whole pages, without a parent.
        parent: u64,
        /// The image's.
        bytes: u64,
    },
    /// A map can't name more layers, or a layer have more blocks.
    #[error("the image would have too many {what}")]
    TooMany {
        /// Layers, blocks or runs.
        what: &'static str,
    },
    /// What has to be read for compaction can't be.
    #[error("cannot read what is to be compacted")]
    Read(#[from] ReadError),
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

impl WriteError {
    /// Sorts a failed `step` on `path` into its variant.
    pub(crate) fn from_io(step: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_no_space(&source) {
            Self::NoSpace { step, path }
        } else {
            Self::Io { step, path, source }
        }
    }
}

/// Why layers could not be collected. What was deleted by then is gone, and nothing needed it.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// Which layers are needed is not known: nothing was deleted.
    #[error("cannot tell which layers are needed")]
    Live(#[source] io::Error),
    /// The system refused.
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
