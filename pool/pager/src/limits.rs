//! What the pager takes on at most, and how it fills base memory.

use std::{str::FromStr, time::Duration};

/// Pages that base memory is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Pages of 4 KiB.
    #[default]
    Off,
    /// Reserved pages of 2 MiB (`/proc/sys/vm/nr_hugepages`).
    TwoMib,
}

/// A word that names no page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of off, 2m")]
pub struct UnknownHugePages;

impl FromStr for HugePages {
    type Err = UnknownHugePages;
    fn from_str(text: &str) -> Result<Self, UnknownHugePages> {
        match text {
            "off" => Ok(Self::Off),
            "2m" => Ok(Self::TwoMib),
            _ => Err(UnknownHugePages),
        }
    }
}

/// What the pager takes on at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Clones served at a time.
    pub clones: usize,
    /// Snapshots with base memory.
    pub bases: usize,
    /// Threads that fill base memory ahead of faults, for all bases together.
    pub prefetch_threads: usize,
    /// How long a fault may take; past it the guest is killed.
    pub fault_deadline: Duration,
    /// Most bytes asked of the object store for one fault, neighbours included.
    pub remote_read_bytes: usize,
    /// Pages that base memory is made of.
    pub huge_pages: HugePages,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clones: 1024,
            bases: 256,
            prefetch_threads: 2,
            fault_deadline: Duration::from_secs(10),
            remote_read_bytes: 512 << 10,
            huge_pages: HugePages::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_have_these_words_and_no_others() {
        assert_eq!("off".parse(), Ok(HugePages::Off));
        assert_eq!("2m".parse(), Ok(HugePages::TwoMib));
        for word in ["", "on", "1g", "2M"] {
            assert_eq!(word.parse::<HugePages>(), Err(UnknownHugePages), "{word}");
        }
    }
}
