//! What can go wrong with a host's set-up and with a slot.
//!
//! Every message names the slot and the step; the cause is the error's source, never repeated in
//! the message.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::config::{MAX_INDEX, SlotIndex};

/// A configuration that no host could be set up with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The tag would not fit into names.
    #[error("slot tag {tag:?} is not 1 to 8 characters of a-z0-9")]
    BadTag {
        /// As given.
        tag: String,
    },
    /// Not the first address of a private /16.
    #[error("slot network {network} is not the first address of a private /16")]
    BadNetwork {
        /// As given.
        network: Ipv4Addr,
    },
    /// Root, or so high that the last slot's uid would not exist.
    #[error("first slot uid {first_uid} leaves no room for {} uids above root", MAX_INDEX)]
    BadUid {
        /// As given.
        first_uid: u32,
    },
    /// Rate or burst that the kernel's limiter cannot hold.
    #[error(
        "rate {rate_bytes_per_s} B/s with burst {burst_bytes} B is outside 1 B/s..1 TiB/s, 128 KiB..4 GiB"
    )]
    BadRate {
        /// As given.
        rate_bytes_per_s: u64,
        /// As given.
        burst_bytes: u64,
    },
    /// More slots than the network has address pairs.
    #[error("slot index {index} is above {}", MAX_INDEX)]
    IndexTooLarge {
        /// As given.
        index: u16,
    },
    /// Not a number in its shortest form.
    #[error("{text:?} is not a slot index")]
    BadIndex {
        /// As given.
        text: String,
    },
}

/// Why the host could not be set up, listed, swept or torn down.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Refused before anything was touched.
    #[error("the slot configuration is not usable")]
    Config(#[from] ConfigError),
    /// Neither cgroup v2 nor v1's memory and pids controllers are mounted.
    #[error("no cgroup hierarchy with the memory and pids controllers under {root}")]
    NoCgroups {
        /// Where was looked.
        root: String,
    },
    /// One step failed.
    #[error("host set-up {tag}: failed to {step}")]
    Step {
        /// The installation.
        tag: String,
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Some slots could not be removed; the others were.
    #[error("{failed} of {found} slots could not be removed, the first is slot {index}")]
    Sweep {
        /// How many remain.
        failed: usize,
        /// How many should have gone.
        found: usize,
        /// One that remains.
        index: SlotIndex,
        /// Why it remains.
        #[source]
        source: Box<SlotError>,
    },
}

/// Why a slot could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The index is in use, by a slot or by the remains of one: adopt it or sweep it first.
    #[error("slot {index} exists already")]
    Exists {
        /// Which slot.
        index: SlotIndex,
    },
    /// There is no whole slot to adopt: it is absent, half-made, or of another configuration.
    #[error("slot {index} cannot be adopted: {reason}")]
    NotAdoptable {
        /// Which slot.
        index: SlotIndex,
        /// What is missing or different.
        reason: &'static str,
    },
    /// Processes of the slot are still there after they were killed.
    #[error("slot {index} still has {left} processes {waited:?} after SIGKILL")]
    Undead {
        /// Which slot.
        index: SlotIndex,
        /// How many.
        left: usize,
        /// How long was waited.
        waited: Duration,
    },
    /// One step failed.
    #[error("slot {index}: failed to {step}")]
    Step {
        /// Which slot.
        index: SlotIndex,
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl SlotError {
    /// For `map_err`: names the step of slot `index` that failed.
    pub(crate) fn step(index: SlotIndex, step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Step { index, step, source }
    }
}
