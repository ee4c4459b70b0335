//! Why base memory can't be had, or not be filled.

use std::io;

use pool_model::SnapshotId;
pub(crate) use pool_model::chain;
use pool_remote::SourceError;
use pool_store::{BlockError, OpenError};

use crate::plan::PlanError;

/// Longest text of an error in the stats, bytes.
pub(crate) const ERROR_BYTES: usize = 600;
/// How much of a longer one is its end: there the cause is, at the beginning the place.
const END_BYTES: usize = 300;
const GAP: &str = " … ";

/// An error for the stats: bounded, and without characters that grow in JSON.
pub(crate) fn shortened(text: &str) -> String {
    let plain = text.chars().filter(|char| !char.is_control()).map(|char| match char {
        '"' => '\'',
        '\\' => '/',
        other => other,
    });
    let text: String = plain.collect();
    if text.len() <= ERROR_BYTES {
        return text;
    }
    let begin = text.floor_char_boundary(ERROR_BYTES - END_BYTES - GAP.len());
    let end = text.ceil_char_boundary(text.len() - END_BYTES);
    [&text[..begin], GAP, &text[end..]].concat()
}

/// Why base memory can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaseError {
    #[error("snapshot {snapshot} in {dir} can't be used")]
    Snapshot {
        snapshot: SnapshotId,
        dir: String,
        #[source]
        source: Box<OpenError>,
    },
    #[error("a layer of snapshot {snapshot} can't be used")]
    Layer {
        snapshot: SnapshotId,
        #[source]
        source: Box<SourceError>,
    },
    #[error("the memory map of snapshot {snapshot} does not fit its layers")]
    Plan {
        snapshot: SnapshotId,
        #[source]
        source: PlanError,
    },
    #[error("the memory of snapshot {snapshot} has {found} bytes, expected {expected}")]
    Length { snapshot: SnapshotId, expected: u64, found: u64 },
    #[error("descriptor is not the base memory of {snapshot}: {reason}")]
    NotOurs { snapshot: SnapshotId, reason: String },
    #[error("{bytes} bytes are no whole number of pages of {page} bytes")]
    Pages { bytes: u64, page: usize },
    #[error(
        "base memory needs {needed} huge pages of 2 MiB, {free} are free: \
         raise /proc/sys/vm/nr_hugepages by at least {}", needed.saturating_sub(*free)
    )]
    HugePages {
        needed: usize,
        free: usize,
        #[source]
        source: io::Error,
    },
    #[error("cannot {step} for base memory")]
    Io {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

/// For `map_err`: a failed `step` of making base memory.
pub(crate) fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> BaseError {
    move |source| BaseError::Io { step, source: source.into() }
}

/// Why pages can't be put into base memory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FillError {
    #[error("cannot read block {block} of {place}")]
    Read {
        place: String,
        block: u32,
        #[source]
        source: Box<SourceError>,
    },
    #[error("{place} is damaged, block {block}")]
    Damaged {
        place: String,
        block: u32,
        #[source]
        source: BlockError,
    },
    #[error("cannot install pages")]
    Install {
        #[source]
        source: io::Error,
    },
}

impl From<io::Error> for FillError {
    fn from(source: io::Error) -> Self {
        Self::Install { source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_errors_keep_their_place_and_their_cause() {
        assert_eq!(shortened("a \"b\\c\"\n"), "a 'b/c'");
        let whole = "x".repeat(ERROR_BYTES);
        assert_eq!(shortened(&whole), whole);
        for filler in ["x", "\u{e9}", "\u{1F4A5}"] {
            let long = format!("place{}cause", filler.repeat(ERROR_BYTES));
            let short = shortened(&long);
            assert!(short.starts_with("place") && short.ends_with("cause"), "{short}");
            assert!((ERROR_BYTES - 10..=ERROR_BYTES).contains(&short.len()), "{}", short.len());
        }
    }
}
