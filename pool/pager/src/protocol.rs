//! What client and pager say to each other: one JSON object per message.
//!
//! Requests carry a number that the reply repeats, so that a reply to a call that was given up
//! is not taken for the reply to the next one.

use std::path::PathBuf;

use pool_model::SnapshotId;
use serde::{Deserialize, Serialize};

/// Largest message in bytes, both ways.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Most bases and clones in one reply to `stats`: at 200 bytes each they fit in a message.
pub(crate) const STATS_PAGE: usize = 128;

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
    /// The snapshot's memory file.
    pub memory_file: PathBuf,
}

/// Counters of one base memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseStats {
    /// Whose memory it is.
    pub snapshot: SnapshotId,
    /// Bytes of it that are in memory or swap.
    pub resident_bytes: u64,
    /// Blocks that are wholly there.
    pub blocks_populated: u64,
    /// Live clones.
    pub clones: u64,
    /// Faults of all clones since this pager took it up.
    pub faults: u64,
}

/// Counters of one clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneStats {
    /// The VMM's process.
    pub pid: i32,
    /// The snapshot it was restored from.
    pub snapshot: SnapshotId,
    /// Its faults since this pager took it up.
    pub faults: u64,
}

/// Counters of everything the pager serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Base memories.
    pub bases: Vec<BaseStats>,
    /// Clones.
    pub clones: Vec<CloneStats>,
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
    /// The snapshot's memory file can't be used.
    MemoryFile,
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
    Base { snapshot: SnapshotId, memory_file: PathBuf, memory_bytes: u64 },
    Attach(Attach),
    Detach { pid: i32 },
    DropBase { snapshot: SnapshotId },
    Stats { skip_bases: usize, skip_clones: usize },
}

impl Call {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Base { .. } => "base",
            Self::Attach(_) => "attach",
            Self::Detach { .. } => "detach",
            Self::DropBase { .. } => "drop_base",
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
        stats: Stats,
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
                memory_file: "/s/memory".into(),
            }),
        }
    }

    #[test]
    fn requests_and_replies_have_these_very_bytes() {
        let golden = concat!(
            r#"{"seq":7,"call":"attach","snapshot":"snap_0000000000000000000000005","pid":42,"#,
            r#""pid_start_ticks":9000000000,"uffd_fd":21,"base_fd":20,"addr":139637976727552,"#,
            r#""len":268435456,"population":"shared","memory_file":"/s/memory"}"#
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
        let base =
            BaseStats { snapshot, resident_bytes: n, blocks_populated: n, clones: n, faults: n };
        let stats = Stats {
            bases: vec![base; STATS_PAGE],
            clones: vec![CloneStats { pid, snapshot, faults: n }; STATS_PAGE],
        };
        let reply = Reply { seq: n, outcome: Outcome::Stats { stats, more: true } };
        assert!(serde_json::to_vec(&reply).unwrap().len() <= MESSAGE_BYTES_MAX);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            assert!(serde_json::from_slice::<Request>(&bytes).is_err());
        }
    }
}
