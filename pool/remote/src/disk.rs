//! How a disk becomes a page map over layers, and a map a sparse file again.

use std::{
    collections::BTreeMap,
    fs::{File, Permissions},
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use pool_store::{
    BLOCK_BYTES, LayerId, LayerIndex, LayerStore, PAGE_BYTES, PageMap, Run, data_extents,
    decode_block,
};

use crate::{Remote, RemoteError, install::blocking};

/// Most stored bytes of blocks that are fetched with one request.
const FETCH_BYTES: u64 = 4 << 20;
/// What a snapshot store's sweep looks for.
const DRAFT_PREFIX: &str = ".tmp-";
const PAGE: u64 = PAGE_BYTES as u64;

/// A layer store that is gone when it is dropped. It lies beside what is packed, and is named so
/// that the sweep at the next start finds it after a crash.
pub(crate) fn temporary_store(beside: &Path) -> io::Result<(tempfile::TempDir, LayerStore)> {
    let dir = tempfile::Builder::new()
        .prefix(DRAFT_PREFIX)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(beside)?;
    let store = LayerStore::new(dir.path().to_owned());
    Ok((dir, store))
}

/// Lets `store` deduplicate against a layer of which only the index is at hand.
pub(crate) fn seed(store: &LayerStore, index: &LayerIndex) -> io::Result<()> {
    // As long as the real one, so that the layer looks whole; its content is never asked for.
    File::create(store.blocks_path(index.id()))?.set_len(index.stored_bytes())?;
    std::fs::write(store.index_path(index.id()), index.to_bytes())
}

/// Packs the sparse file at `path`; returns its map and its exact length in bytes. Blocks.
pub(crate) fn pack(path: &Path, store: &LayerStore) -> Result<(PageMap, u64), RemoteError> {
    let file = File::open(path).map_err(RemoteError::io("open", path))?;
    let len = file.metadata().map_err(RemoteError::io("stat", path))?.len();
    let mut writer = store.writer(None, len)?;
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut next = 0;
    for extent in data_extents(&file).map_err(RemoteError::io("seek in", path))? {
        // Extents may be finer than pages: start at a page's edge, and take no page twice.
        let mut at = next.max(extent.start / PAGE * PAGE);
        let end = (extent.start + extent.len).min(len);
        while at < end {
            // Up to the next window's edge, in whole pages.
            let window = BLOCK_BYTES as u64 - at % BLOCK_BYTES as u64;
            let pages = window.min((end - at).next_multiple_of(PAGE));
            let content = &mut buffer[..usize::try_from(pages).expect("at most a block")];
            let inside = usize::try_from(pages.min(len - at)).expect("at most a block");
            content[inside..].fill(0);
            file.read_exact_at(&mut content[..inside], at)
                .map_err(RemoteError::io("read", path))?;
            writer.put(at / PAGE, content)?;
            at += pages;
        }
        next = next.max(at);
    }
    let (map, _) = writer.finish()?;
    Ok((map, len))
}

/// Blocks of one layer side by side, and where their pages go.
struct Piece {
    layer: LayerId,
    index: Arc<LayerIndex>,
    /// Bytes of the layer's stored blocks.
    range: Range<u64>,
    blocks: Vec<(u32, Vec<Run>)>,
}

/// Writes the disk that `map` describes into `file`, an empty one; holes are made of zeroes.
///
/// If it is cancelled, pieces that are being written are written to their end.
pub(crate) async fn unpack(
    remote: &Remote,
    map: &PageMap,
    len: u64,
    file: Arc<File>,
    path: &Path,
) -> Result<(), RemoteError> {
    file.set_len(len).map_err(RemoteError::io("set the length of", path))?;
    let indexes: Vec<Arc<LayerIndex>> = stream::iter(map.layers().to_vec())
        .map(|id| async move { parsed_index(remote, id).await.map(Arc::new) })
        .buffered(remote.config().parallel)
        .try_collect()
        .await?;
    let pieces = plan(remote, map, &indexes)?;
    stream::iter(pieces)
        .map(|piece| {
            let (file, path) = (Arc::clone(&file), path.to_owned());
            async move {
                let stored = remote.read(piece.layer, piece.range.clone()).await?;
                let key = remote.keys().blocks(piece.layer).to_string();
                blocking("write a disk", move || write(&piece, &key, &stored, len, &file, &path))
                    .await
            }
        })
        .buffer_unordered(remote.config().parallel)
        .try_collect()
        .await
}

/// The index of a layer in the bucket.
pub(crate) async fn parsed_index(remote: &Remote, id: LayerId) -> Result<LayerIndex, RemoteError> {
    let bytes = remote.layer_index(id).await?;
    LayerIndex::from_bytes(id, &bytes)
        .map_err(|error| RemoteError::Format { key: remote.keys().index(id).to_string(), error })
}

/// Which blocks to fetch together: each block once, neighbours with one request.
fn plan(
    remote: &Remote,
    map: &PageMap,
    indexes: &[Arc<LayerIndex>],
) -> Result<Vec<Piece>, RemoteError> {
    let mut uses: BTreeMap<(u16, u32), Vec<Run>> = BTreeMap::new();
    for run in map.runs() {
        uses.entry((run.layer, run.block)).or_default().push(*run);
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for ((layer, block), runs) in uses {
        let index = &indexes[usize::from(layer)];
        let id = index.id();
        let Some(entry) = index.blocks().get(block as usize) else {
            return Err(RemoteError::Damaged {
                key: remote.keys().index(id).to_string(),
                reason: format!("a disk's map names its block {block}"),
            });
        };
        let end = entry.offset + u64::from(entry.stored);
        match pieces.last_mut() {
            Some(last)
                if last.layer == id
                    && last.range.end == entry.offset
                    && end - last.range.start <= FETCH_BYTES =>
            {
                last.range.end = end;
                last.blocks.push((block, runs));
            }
            _ => pieces.push(Piece {
                layer: id,
                index: Arc::clone(index),
                range: entry.offset..end,
                blocks: vec![(block, runs)],
            }),
        }
    }
    Ok(pieces)
}

/// Verifies the blocks of a piece and writes their pages. Blocks.
fn write(
    piece: &Piece,
    key: &str,
    stored: &[u8],
    len: u64,
    file: &File,
    path: &Path,
) -> Result<(), RemoteError> {
    let mut out = vec![0; BLOCK_BYTES];
    for (block, runs) in &piece.blocks {
        let entry = &piece.index.blocks()[*block as usize];
        let start = usize::try_from(entry.offset - piece.range.start).expect("at most a request");
        let damaged = |error| RemoteError::Block { key: key.to_owned(), block: *block, error };
        let stored = &stored[start..start + entry.stored as usize];
        decode_block(entry, stored, &mut out).map_err(damaged)?;
        let content = &out[..usize::from(entry.pages) * PAGE_BYTES];
        for run in runs {
            let from = usize::from(run.first) * PAGE_BYTES;
            let want = run.pages as usize * PAGE_BYTES;
            let at = run.page * PAGE;
            let inside = want.min(usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX));
            let Some(pages) = content.get(from..from + inside) else {
                return Err(RemoteError::Damaged {
                    key: key.to_owned(),
                    reason: format!("block {block} has too few pages for a disk's map"),
                });
            };
            file.write_all_at(pages, at).map_err(RemoteError::io("write", path))?;
        }
    }
    Ok(())
}
