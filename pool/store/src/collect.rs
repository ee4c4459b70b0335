//! Which layers nothing needs any more, and how maps stay short.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    GcError, ImageReader, ImageWriter, LayerId, LayerStore, PageMap, WriteError,
    format::LAYERS_MAX, image_writer::Reuse, layers::DRAFT_PREFIX,
};

/// What the name of an index begins with while it arrives from elsewhere. Another process may be
/// the one that writes it, whose pins are not seen here.
pub const ARRIVING_PREFIX: &str = ".new-";

/// After this nobody writes such a file any more.
const ARRIVING_MAX: Duration = Duration::from_secs(600);

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcReport {
    /// Layers, those of which only one file was there included.
    pub layers: usize,
    /// Bytes of all deleted files, those of half-written ones included.
    pub bytes: u64,
}

impl LayerStore {
    /// Deletes the layers that are not among `live`, and what crashes left half-written.
    ///
    /// Waits until no pin is held; then `live` is asked, and no pin is given until all is done. Who
    /// has a layer's files open may go on reading them.
    ///
    /// # Errors
    ///
    /// [`GcError::Live`] with what `live` said: nothing was deleted.
    pub fn gc(
        &self,
        live: impl FnOnce() -> io::Result<BTreeSet<LayerId>>,
    ) -> Result<GcReport, GcError> {
        let _collection = self.pins().collect();
        let live = live().map_err(GcError::Live)?;
        let mut dead = BTreeSet::new();
        let mut report = GcReport::default();
        for name in self.names()? {
            let id = name.rsplit_once('.').and_then(|(id, kind)| {
                let id: LayerId = id.parse().ok()?;
                ["index", "blocks"].contains(&kind).then_some(id)
            });
            match id {
                Some(id) if !live.contains(&id) => {
                    dead.insert(id);
                }
                None if name.starts_with(DRAFT_PREFIX) => {
                    report.bytes += remove(&self.dir().join(name))?;
                }
                None if name.starts_with(ARRIVING_PREFIX) => {
                    let path = self.dir().join(name);
                    if is_abandoned(&path) {
                        report.bytes += remove(&path)?;
                    }
                }
                Some(_) | None => {}
            }
        }
        if !dead.is_empty() {
            self.known().forget();
        }
        for id in dead {
            // The index first: without it, the blocks are plainly left-overs.
            report.bytes += remove(&self.index_path(id))? + remove(&self.blocks_path(id))?;
            report.layers += 1;
        }
        Ok(report)
    }

    /// A map of the same memory that names at most [`LAYERS_MAX`] layers; `None` if `map` does.
    ///
    /// Layers of which nothing is used are dropped; if that doesn't do, the layer with the most pages
    /// stays as it is, and what is used of all others becomes one new layer. Hold a pin until the new map is
    /// named by a snapshot.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; the old map is as good as before.
    pub fn compact(&self, map: &PageMap) -> Result<Option<PageMap>, WriteError> {
        if map.layers().len() <= LAYERS_MAX {
            return Ok(None);
        }
        let used = PageMap::assemble(map.bytes(), map.layers(), map.runs().to_vec());
        if used.layers().len() <= LAYERS_MAX {
            return Ok(Some(used));
        }
        let kept = largest(&used);
        let (stay, go): (Vec<_>, Vec<_>) = used.runs().iter().partition(|run| run.layer == kept);
        let base = PageMap::assemble(used.bytes(), used.layers(), stay);
        // Into no other layer: the blocks of those that go would be found again.
        let mut writer = ImageWriter::new(self.clone(), Some(base), used.bytes(), Reuse::Parent)?;
        let mut reader = ImageReader::new(self, &used);
        for run in go {
            writer.put(run.page, reader.content(&run)?)?;
        }
        writer.finish().map(|(map, _)| Some(map))
    }

    fn names(&self) -> Result<Vec<String>, GcError> {
        let failed = |source| GcError::Io { step: "list", path: self.dir().to_owned(), source };
        let entries = match fs::read_dir(self.dir()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let names: io::Result<Vec<_>> =
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
        names.map_err(failed)
    }
}

/// Whether nobody writes the file any more.
fn is_abandoned(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|meta| meta.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ARRIVING_MAX))
}

/// The layer with the most pages in use: to leave it alone saves the most writing, and most of what
/// snapshots share.
fn largest(map: &PageMap) -> u16 {
    let mut pages = vec![0_u64; map.layers().len()];
    for run in map.runs() {
        pages[usize::from(run.layer)] += u64::from(run.pages);
    }
    (0..).zip(pages).max_by_key(|(_, pages)| *pages).map_or(0, |(layer, _)| layer)
}

/// Deletes a file, and says how long it was; 0 if it isn't there.
fn remove(path: &Path) -> Result<u64, GcError> {
    let failed = |step| {
        let path: PathBuf = path.to_owned();
        move |source| GcError::Io { step, path, source }
    };
    let bytes = match fs::symlink_metadata(path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed("stat")(error)),
    };
    fs::remove_file(path).map_err(failed("delete"))?;
    Ok(bytes)
}
