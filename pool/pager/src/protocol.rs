//! What client and pager say to each other: one JSON object per message.
//!
//! Requests carry a number that the reply repeats, so that a reply to a call that was given up
//! is not taken for the reply to the next one.

use std::path::PathBuf;

use pool_model::{Prefetch, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;

/// Largest message in bytes, both ways.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Most bases and clones in one reply to `stats`: with the largest numbers and errors there can be
/// they fit in a message.
pub(crate) const STATS_PAGE: usize = 32;

/// How a clone's missing pages come to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Population {
    /// In base memory, once for all clones.
    #[default]
    Shared,
    /// As the clone's own copy, page by page. Only there to be compared with: such clones want
    /// a base under an id of its own, since pages that a base has are shared in any case.
    Copy,
}

/// A clone whose faults are to be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The snapshot it was restored from.
    pub snapshot: SnapshotId,
    /// The VMM's process.
    pub pid: i32,
    /// Field 22 of its `/proc/{pid}/stat`: guards against a reused pid.
    pub pid_start_ticks: u64,
    /// Number of the userfaultfd in that process.
    pub uffd_fd: i32,
    /// Number of the base memory's descriptor in that process.
    pub base_fd: i32,
    /// Where guest memory is mapped in that process.
    pub addr: u64,
    /// Length of the mapping in bytes.
    pub len: u64,
    /// How its pages come to be.
    pub population: Population,
    /// The snapshot's directory.
    pub snapshot_dir: PathBuf,
}

/// Counters of one base memory, since this pager took it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseStats {
    /// Whose memory it is.
    pub snapshot: SnapshotId,
    /// Its length.
    pub memory_bytes: u64,
    /// Bytes of it that are in memory or swap.
    pub resident_bytes: u64,
    /// Units of filling: stored blocks and windows of zeroes, or huge pages.
    pub units: u64,
    /// Units that are wholly there.
    pub units_present: u64,
    /// Live clones.
    pub clones: u64,
    /// Faults of all clones.
    pub faults: u64,
    /// Faults that came before what was being filled ahead; the others were outside of it.
    pub faults_in_working_set: u64,
    /// Units that were filled ahead of faults.
    pub prefetched_units: u64,
    /// Bytes of guest memory that were filled ahead of faults.
    pub prefetched_bytes: u64,
    /// Microseconds from the beginning of filling ahead to the last unit so far.
    pub prefetch_us: u64,
    /// Units that are to be filled ahead.
    pub working_set_units: u64,
    /// 64 KiB windows of the working set that recorded restores touched.
    pub working_set_hits: u64,
    /// Windows outside of it that recorded restores touched.
    pub working_set_misses: u64,
    /// Windows of it that recorded restores did not touch.
    pub working_set_untouched: u64,
    /// What went wrong last, at most 600 bytes: of longer words the beginning and the end.
    pub last_error: Option<String>,
}

/// Counters of one clone, since this pager took it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneStats {
    /// The VMM's process.
    pub pid: i32,
    /// The snapshot it was restored from.
    pub snapshot: SnapshotId,
    /// Its faults.
    pub faults: u64,
    /// Bytes that its VMM discarded, as a balloon has it do. The VMM goes on when the event is read,
    /// before it is counted: the last event may be missing for a moment.
    pub removed_bytes: u64,
}

/// Counters of the whole process, since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Faults of all clones.
    pub faults: u64,
    /// From reading a fault to waking who waits.
    pub latency: Histogram,
    /// Stored bytes read from this host's layers.
    pub bytes_local: u64,
    /// Stored bytes read from the cache of remote layers.
    pub bytes_cache: u64,
    /// Stored bytes read from the object store.
    pub bytes_remote: u64,
    /// Blocks that were not what their index says, healed ones included.
    pub damaged: u64,
    /// Clones that were killed because a fault could not be answered.
    pub killed: u64,
    /// Faults that are being answered.
    pub faults_in_flight: u64,
}

/// Counters of everything the pager serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Base memories.
    pub bases: Vec<BaseStats>,
    /// Clones.
    pub clones: Vec<CloneStats>,
    /// The whole process.
    pub totals: Totals,
}

/// Why the pager said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The request is malformed or contradicts what is there.
    BadRequest,
    /// The process is gone or another one has its pid.
    NoSuchProcess,
    /// A descriptor of the process isn't what it was said to be.
    BadDescriptor,
    /// The snapshot can't be read, or has another length.
    Snapshot,
    /// The snapshot is damaged or of another version: it won't get better.
    Damaged,
    /// A limit is reached.
    Limit,
    /// The host refused something.
    Host,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) seq: u64,
    #[serde(flatten)]
    pub(crate) call: Call,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub(crate) enum Call {
    Base { snapshot: SnapshotId, snapshot_dir: PathBuf, memory_bytes: u64, prefetch: Prefetch },
    Attach(Attach),
    Detach { pid: i32 },
    DropBase { snapshot: SnapshotId },
    Record { pid: i32 },
    Stats { skip_bases: usize, skip_clones: usize },
}

impl Call {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Base { .. } => "base",
            Self::Attach(_) => "attach",
            Self::Detach { .. } => "detach",
            Self::DropBase { .. } => "drop_base",
            Self::Record { .. } => "record",
            Self::Stats { .. } => "stats",
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) seq: u64,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Done; `base` has a descriptor with it.
    Done,
    /// A page of `stats`; `more` if there is another.
    Stats {
        stats: Box<Stats>,
        more: bool,
    },
    Refused {
        code: RefusalCode,
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach() -> Request {
        Request {
            seq: 7,
            call: Call::Attach(Attach {
                snapshot: SnapshotId::from_u128(5),
                pid: 42,
                pid_start_ticks: 9_000_000_000,
                uffd_fd: 21,
                base_fd: 20,
                addr: 0x7f00_0000_0000,
                len: 1 << 28,
                population: Population::Shared,
                snapshot_dir: "/s".into(),
            }),
        }
    }

    #[test]
    fn requests_and_replies_have_these_very_bytes() {
        let golden = concat!(
            r#"{"seq":7,"call":"attach","snapshot":"snap_0000000000000000000000005","pid":42,"#,
            r#""pid_start_ticks":9000000000,"uffd_fd":21,"base_fd":20,"addr":139637976727552,"#,
            r#""len":268435456,"population":"shared","snapshot_dir":"/s"}"#
        );
        assert_eq!(serde_json::to_string(&attach()).unwrap(), golden);
        assert_eq!(serde_json::from_str::<Request>(golden).unwrap(), attach());
        let refused = Reply {
            seq: 7,
            outcome: Outcome::Refused { code: RefusalCode::Limit, message: "full".to_owned() },
        };
        let golden = r#"{"seq":7,"reply":"refused","code":"limit","message":"full"}"#;
        assert_eq!(serde_json::to_string(&refused).unwrap(), golden);
        assert_eq!(serde_json::from_str::<Reply>(golden).unwrap(), refused);
        let done = Reply { seq: 1, outcome: Outcome::Done };
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"seq":1,"reply":"done"}"#);
    }

    #[test]
    fn a_full_page_of_stats_fits_in_a_message() {
        let snapshot = SnapshotId::from_u128(u128::MAX);
        let (n, pid) = (u64::MAX, i32::MIN);
        let base = BaseStats {
            snapshot,
            memory_bytes: n,
            resident_bytes: n,
            units: n,
            units_present: n,
            clones: n,
            faults: n,
            faults_in_working_set: n,
            prefetched_units: n,
            prefetched_bytes: n,
            prefetch_us: n,
            working_set_units: n,
            working_set_hits: n,
            working_set_misses: n,
            working_set_untouched: n,
            // A character of four bytes; control characters never get in.
            last_error: Some("\u{1F4A5}".repeat(crate::error::ERROR_BYTES / 4)),
        };
        let totals = Totals {
            faults: n,
            latency: Histogram { buckets: [n; crate::LATENCY_BUCKETS], sum_us: n },
            bytes_local: n,
            bytes_cache: n,
            bytes_remote: n,
            damaged: n,
            killed: n,
            faults_in_flight: n,
        };
        let clone = CloneStats { pid, snapshot, faults: n, removed_bytes: n };
        let stats =
            Stats { bases: vec![base; STATS_PAGE], clones: vec![clone; STATS_PAGE], totals };
        let reply =
            Reply { seq: n, outcome: Outcome::Stats { stats: Box::new(stats), more: true } };
        assert!(serde_json::to_vec(&reply).unwrap().len() <= MESSAGE_BYTES_MAX);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            assert!(serde_json::from_slice::<Request>(&bytes).is_err());
        }
    }
}
