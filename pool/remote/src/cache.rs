//! Which stored blocks of remote layers this host still has: a bounded cache on its disk.
//!
//! One sparse file per layer, `{layer}.blocks`, as long as the layer's; what was fetched lies at
//! its own offset. Which bytes are there is known in memory. After a restart it is guessed from
//! the file's holes, in units of the file system's blocks: so what is read must be verified, as it
//! must be anyway, and a crash needs no repair. Nothing is ever synced.
//!
//! # Limits
//!
//! Room is made before it is taken, so the files never hold more than the bound (but for what the
//! file system itself needs to remember where they are). The layer least recently used is emptied
//! whole, even if it is in use: its readers then miss. A write larger than the bound is not kept.
//! One process per directory.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::UNIX_EPOCH,
};

use pool_store::{LayerId, data_extents};

use crate::ranges::Ranges;

/// What room is counted in: no usual file system allocates in smaller units.
const UNIT: u64 = 4096;
/// What `st_blocks` counts in. Source: stat(2).
const STAT_BLOCK: u64 = 512;
const SUFFIX: &str = ".blocks";

/// A bounded cache of layers' stored blocks in one directory. Everything blocks on the disk.
#[derive(Debug)]
pub struct BlockCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    max: u64,
    files: Mutex<HashMap<LayerId, Arc<CacheFile>>>,
    /// What the files hold and what writers have reserved.
    bytes: AtomicU64,
    /// Counts uses: the order of use.
    clock: AtomicU64,
}

/// The cached blocks of one layer.
#[derive(Debug)]
pub struct CacheFile {
    file: File,
    path: PathBuf,
    len: u64,
    cache: Weak<Shared>,
    used: AtomicU64,
    content: RwLock<Content>,
}

#[derive(Debug, Default)]
struct Content {
    ranges: Ranges,
    /// What the file occupies on the disk, as counted in [`Shared::bytes`].
    allocated: u64,
}

impl BlockCache {
    /// Takes over what is in `dir` (made if need be) and keeps at most `max_bytes` of it.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn new(dir: PathBuf, max_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if let Some(id) = layer_of(&entry.path()) {
                found.push((entry.metadata()?.modified().unwrap_or(UNIX_EPOCH), id, entry.path()));
            }
        }
        // The order of use as far as it is known: nobody reads what nobody filled.
        found.sort();
        let shared = Arc::new(Shared {
            dir,
            max: max_bytes,
            files: Mutex::default(),
            bytes: AtomicU64::new(0),
            clock: AtomicU64::new(0),
        });
        for (_, id, path) in found {
            let file = CacheFile::open(&shared, path, None)?;
            shared.files().insert(id, Arc::new(file));
        }
        let cache = Self { shared };
        cache.trim()?;
        Ok(cache)
    }

    /// The cached blocks of `layer`, whose `.blocks` file has `len` bytes. None of them may be
    /// here yet. A file of another length is begun anew.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn file(&self, layer: LayerId, len: u64) -> io::Result<Arc<CacheFile>> {
        let mut files = self.shared.files();
        if let Some(file) = files.get(&layer)
            && file.len == len
        {
            self.shared.touch(file);
            return Ok(Arc::clone(file));
        }
        if let Some(other) = files.remove(&layer) {
            self.shared.empty(&other)?;
        }
        let path = self.shared.dir.join(format!("{}{SUFFIX}", layer.0));
        let file = Arc::new(CacheFile::open(&self.shared, path, Some(len))?);
        files.insert(layer, Arc::clone(&file));
        Ok(file)
    }

    /// Bytes that the cache occupies on the disk, reservations of writers included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Empties layers, the least recently used first, until no more than the bound is occupied;
    /// returns how many bytes that freed. Those in use stay usable, what was in them is a miss.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn trim(&self) -> io::Result<u64> {
        let before = self.bytes();
        self.shared.make_room(&mut self.shared.files(), 0)?;
        Ok(before.saturating_sub(self.bytes()))
    }
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, HashMap<LayerId, Arc<CacheFile>>> {
        // Nothing in there is left half-done by a panic.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, file: &CacheFile) {
        file.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Empties files until `need` more bytes fit; false if they never will.
    fn make_room(
        &self,
        files: &mut HashMap<LayerId, Arc<CacheFile>>,
        need: u64,
    ) -> io::Result<bool> {
        while self.bytes.load(Ordering::Relaxed) + need > self.max {
            let oldest = files
                .iter()
                .filter(|(_, file)| file.allocated() > 0)
                .min_by_key(|(_, file)| file.used.load(Ordering::Relaxed))
                .map(|(id, _)| *id);
            let Some(id) = oldest else { return Ok(false) };
            self.empty(&files[&id])?;
            // Nobody else can get hold of the unused: that takes the lock on the files.
            for (_, unused) in
                files.extract_if(|_, file| Arc::strong_count(file) == 1 && file.allocated() == 0)
            {
                fs::remove_file(&unused.path)?;
            }
        }
        Ok(true)
    }

    /// Gives the room of a file back. Waits for its readers.
    fn empty(&self, file: &CacheFile) -> io::Result<()> {
        let mut content = file.content.write().unwrap_or_else(PoisonError::into_inner);
        content.ranges.clear();
        file.file.set_len(0)?;
        file.file.set_len(file.len)?;
        self.bytes.fetch_sub(content.allocated, Ordering::Relaxed);
        content.allocated = 0;
        Ok(())
    }
}

impl CacheFile {
    /// Opens or makes the file at `path`. With `len`, one of another length is emptied.
    fn open(shared: &Arc<Shared>, path: PathBuf, len: Option<u64>) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        let found = file.metadata()?.len();
        let len = len.unwrap_or(found);
        if found != len {
            file.set_len(0)?;
            file.set_len(len)?;
        }
        let mut content = Content::default();
        for extent in data_extents(&file)? {
            content.ranges.insert(extent.start, extent.start + extent.len);
        }
        content.allocated = file.metadata()?.blocks() * STAT_BLOCK;
        shared.bytes.fetch_add(content.allocated, Ordering::Relaxed);
        let cache = Arc::downgrade(shared);
        let used = AtomicU64::new(shared.clock.fetch_add(1, Ordering::Relaxed));
        Ok(Self { file, path, len, cache, used, content: RwLock::new(content) })
    }

    fn allocated(&self) -> u64 {
        self.content.read().unwrap_or_else(PoisonError::into_inner).allocated
    }

    /// Fills `buf` from `offset` on if all of that is here; false if not. Allocates nothing. What
    /// was read must be verified.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        if !content.ranges.covers(offset, offset + buf.len() as u64) {
            return Ok(false);
        }
        self.file.read_exact_at(buf, offset)?;
        drop(content);
        if let Some(cache) = self.cache.upgrade() {
            cache.touch(self);
        }
        Ok(true)
    }

    /// Keeps `bytes` of the layer at `offset`, for which others may have to go; false if they are
    /// more than the cache may hold, or lie beyond the layer's end.
    ///
    /// # Errors
    ///
    /// What the disk says, `StorageFull` included; nothing is kept then.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        let end = offset + bytes.len() as u64;
        let Some(cache) = self.cache.upgrade().filter(|_| end <= self.len) else {
            return Ok(false);
        };
        let need = end.next_multiple_of(UNIT) - offset / UNIT * UNIT;
        cache.touch(self);
        {
            let mut files = cache.files();
            if need > cache.max || !cache.make_room(&mut files, need)? {
                return Ok(false);
            }
            cache.bytes.fetch_add(need, Ordering::Relaxed);
        }
        let written = self.write_reserved(&cache, offset, bytes);
        cache.bytes.fetch_sub(need, Ordering::Relaxed);
        written.map(|()| true)
    }

    /// Writes, and counts what the file occupies now.
    fn write_reserved(&self, cache: &Shared, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        let written = self.file.write_all_at(bytes, offset);
        if written.is_ok() {
            content.ranges.insert(offset, offset + bytes.len() as u64);
        }
        // Even a failed write may have taken room.
        let now = self.file.metadata()?.blocks() * STAT_BLOCK;
        cache.bytes.fetch_add(now, Ordering::Relaxed);
        cache.bytes.fetch_sub(content.allocated, Ordering::Relaxed);
        content.allocated = now;
        written
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn layer_of(path: &Path) -> Option<LayerId> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    Some(LayerId(name.parse().ok()?))
}
