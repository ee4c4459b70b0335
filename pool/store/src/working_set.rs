//! Which windows of guest memory a restored guest needs before it can answer: `working-set`.
//!
//! A window is 64 KiB. Each has a score that rises when a restore touches it and falls when one
//! does not: what a few restores in a row do without is no longer brought in ahead, and a single
//! unusual restore changes little.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use crate::{
    FormatError, digest,
    durable::replace,
    format::{BLOCK_BYTES, Reader},
};

const WHAT: &str = "working set";
const MAGIC: &[u8; 8] = b"wrennwks";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 28;
const ENTRY_BYTES: usize = 5;
const CHECKSUM_BYTES: usize = 32;

/// Most a window scores: so many restores without it that it is forgotten.
const SCORE_MAX: u8 = 7;

/// What a touch adds.
const SCORE_TOUCHED: u8 = 3;

/// Largest file that is read, in bytes: every window of 800 GB of memory.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Windows with their scores. See [`crate::format`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingSet {
    memory_bytes: u64,
    restores: u32,
    scores: BTreeMap<u32, u8>,
}

impl WorkingSet {
    /// Of a guest with this much memory, of which no restore was observed yet.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        Self { memory_bytes, restores: 0, scores: BTreeMap::new() }
    }

    /// Learns from one restore which windows (by number) it touched. Numbers beyond the memory are
    /// ignored.
    pub fn observe(&mut self, touched: &BTreeSet<u32>) {
        self.restores = self.restores.saturating_add(1);
        self.scores.retain(|window, score| {
            *score -= u8::from(!touched.contains(window));
            *score > 0
        });
        let end = window_count(self.memory_bytes);
        for window in touched.iter().copied().filter(|window| u64::from(*window) < end) {
            let score = self.scores.entry(window).or_default();
            *score = (*score + SCORE_TOUCHED).min(SCORE_MAX);
        }
    }

    /// The windows to bring in ahead, ascending.
    pub fn windows(&self) -> impl Iterator<Item = u32> {
        self.scores.keys().copied()
    }

    /// How many restores were observed.
    #[must_use]
    pub fn restores(&self) -> u32 {
        self.restores
    }

    /// Whether it misses over a quarter of what a restore touched.
    #[must_use]
    pub fn is_stale(&self, touched: &BTreeSet<u32>) -> bool {
        let missing = touched.iter().filter(|window| !self.scores.contains_key(window)).count();
        missing * 4 > touched.len()
    }

    /// The bytes of the file.
    ///
    /// # Panics
    ///
    /// Never: there are no more windows than a `u32` numbers.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = u32::try_from(self.scores.len()).expect("windows have 32-bit numbers");
        let entries = ENTRY_BYTES * self.scores.len();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + entries + CHECKSUM_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.restores.to_le_bytes());
        bytes.extend(self.memory_bytes.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        for (window, score) in &self.scores {
            bytes.extend(window.to_le_bytes());
            bytes.push(*score);
        }
        bytes.extend(digest::of_working_set(&bytes).0);
        bytes
    }

    /// Reads what [`WorkingSet::to_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// [`FormatError`] names what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::begin(WHAT, MAGIC, VERSION, bytes)?;
        let restores = reader.u32()?;
        let memory_bytes = reader.u64()?;
        let count = reader.u32()?;
        let rest = u64::from(count) * ENTRY_BYTES as u64 + CHECKSUM_BYTES as u64;
        reader.expect_left(rest)?;
        let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if digest::of_working_set(content).0 != *checksum {
            return Err(FormatError::Checksum { what: WHAT });
        }
        let mut scores = BTreeMap::new();
        let mut free = 0;
        for item in 0..count as usize {
            let (window, score) = (reader.u32()?, reader.u8()?);
            if u64::from(window) < free {
                return Err(reader.value(item, "window", window, "not above the last"));
            }
            if u64::from(window) >= window_count(memory_bytes) {
                return Err(reader.value(item, "window", window, "beyond the memory's end"));
            }
            if !(1..=SCORE_MAX).contains(&score) {
                return Err(reader.value(item, "score", score, "not from 1 to 7"));
            }
            free = u64::from(window) + 1;
            scores.insert(window, score);
        }
        Ok(Self { memory_bytes, restores, scores })
    }

    /// Reads the file at `path`; `None` if there is none.
    ///
    /// # Errors
    ///
    /// `InvalidData` if it is damaged, else what the system says.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Self::from_bytes(&bytes)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Writes the file at `path`: the old one or the new one is there, whatever happens.
    ///
    /// Not synced: after a crash of the host it may be the old one, missing or damaged, and a
    /// damaged one is known by its checksum.
    ///
    /// # Errors
    ///
    /// What the system says; the old file is still there then.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        replace(path, &self.to_bytes())
    }
}

/// How many windows memory of this size has.
fn window_count(memory_bytes: u64) -> u64 {
    memory_bytes.div_ceil(BLOCK_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u64 = 100 << 16;

    fn set(windows: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
        windows.into_iter().collect()
    }

    #[test]
    fn windows_rise_when_touched_and_fade_when_not() {
        let mut working = WorkingSet::new(MEMORY);
        working.observe(&set([1, 2]));
        for _ in 0..5 {
            working.observe(&set([1]));
        }
        assert_eq!(working.windows().collect::<Vec<_>>(), [1], "2 faded after three restores");
        for left in (0..SCORE_MAX).rev() {
            working.observe(&set([]));
            assert_eq!(working.windows().count(), usize::from(left > 0), "{left}");
        }
        assert_eq!(working.restores(), 6 + 7);
    }

    #[test]
    fn windows_beyond_the_memory_are_ignored() {
        let mut working = WorkingSet::new(MEMORY - 1);
        working.observe(&set([99, 100, u32::MAX]));
        assert_eq!(working.windows().collect::<Vec<_>>(), [99]);
        assert_eq!(WorkingSet::from_bytes(&working.to_bytes()), Ok(working));
    }

    #[test]
    fn it_is_stale_when_over_a_quarter_is_missing() {
        let mut working = WorkingSet::new(MEMORY);
        working.observe(&set(0..12));
        assert!(!working.is_stale(&set(0..16)), "four of sixteen");
        assert!(working.is_stale(&set(0..17)), "five of seventeen");
        assert!(!working.is_stale(&set([])));
        assert!(WorkingSet::new(MEMORY).is_stale(&set([1])));
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_refused() {
        let mut working = WorkingSet::new(MEMORY);
        working.observe(&set([3, 50, 99]));
        let bytes = working.to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            WorkingSet::from_bytes(&damaged).unwrap_err();
            WorkingSet::from_bytes(&bytes[..at]).unwrap_err();
        }
    }

    #[test]
    fn well_sealed_nonsense_is_refused_by_name() {
        let sealed = |memory: u64, entries: &[(u32, u8)]| {
            let mut working = WorkingSet::new(memory);
            working.observe(&set(0..u32::try_from(entries.len()).unwrap()));
            let mut bytes = working.to_bytes();
            bytes.truncate(HEAD_BYTES);
            for (window, score) in entries {
                bytes.extend(window.to_le_bytes());
                bytes.push(*score);
            }
            bytes.extend(digest::of_working_set(&bytes).0);
            WorkingSet::from_bytes(&bytes).unwrap_err().to_string()
        };
        assert!(sealed(MEMORY, &[(5, 1), (5, 1)]).contains("not above the last"));
        assert!(sealed(MEMORY, &[(100, 1)]).contains("beyond"));
        assert!(sealed(MEMORY, &[(1, 0)]).contains("score"));
        assert!(sealed(MEMORY, &[(1, 8)]).contains("score"));
    }

    #[test]
    fn file_is_replaced_missing_is_none_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("working-set");
        assert_eq!(WorkingSet::load(&path).unwrap(), None);
        let mut working = WorkingSet::new(MEMORY);
        working.save(&path).unwrap();
        working.observe(&set([1]));
        working.save(&path).unwrap();
        assert_eq!(WorkingSet::load(&path).unwrap(), Some(working.clone()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary is left");
        std::fs::write(&path, b"wrennwks").unwrap();
        let error = WorkingSet::load(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        working.save(&dir.path().join("nowhere/working-set")).unwrap_err();
    }

    proptest::proptest! {
        #[test]
        fn whatever_was_observed_comes_back(
            restores in proptest::collection::vec(
                proptest::collection::btree_set(0..120_u32, 0..40), 0..10),
        ) {
            let mut working = WorkingSet::new(MEMORY);
            for touched in &restores {
                working.observe(touched);
            }
            assert_eq!(WorkingSet::from_bytes(&working.to_bytes()), Ok(working.clone()));
            assert!(working.windows().all(|window| window < 100));
            if let Some(last) = restores.last() {
                let known: BTreeSet<u32> = working.windows().collect();
                assert!(last.iter().filter(|window| **window < 100).all(|w| known.contains(w)));
            }
        }
    }
}
