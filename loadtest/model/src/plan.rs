//! What is to be done.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Protocol, Work};

/// A whole run, as a TOML file or flags describe it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What the report is called.
    pub name: String,
    /// Whom to test.
    pub target: TargetPlan,
    /// Each scenario is done over each of them, where it has a choice.
    #[serde(default = "h1")]
    pub protocols: Vec<Protocol>,
    /// Each part is done in this many rounds, which take turns with those of the other protocols:
    /// what drifts meanwhile then meets all of them.
    #[serde(default = "one")]
    pub rounds: u32,
    /// Where chance comes from: the same seed gives the same arrivals.
    #[serde(default = "seed")]
    pub seed: u64,
    /// Threads that send requests.
    #[serde(default = "one")]
    pub workers: u32,
    /// Sent before each part and not counted, milliseconds.
    #[serde(default)]
    pub warmup_ms: u64,
    /// What to do, one after the other.
    #[serde(rename = "scenario")]
    pub scenarios: Vec<Scenario>,
    /// What to disturb meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chaos: Vec<ChaosPlan>,
    /// Ways to something slow, for `slow` faults.
    #[serde(default, rename = "slow_proxy", skip_serializing_if = "Vec::is_empty")]
    pub slow_proxies: Vec<SlowProxy>,
}

/// Whom to test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetPlan {
    /// The directory of a running Wrenn stack, whose `dev.json` says the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrenn_dir: Option<PathBuf>,
    /// The address of any HTTP server, or of an API for sandboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Connect here, whatever the URL's name resolves to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<SocketAddr>,
    /// Certificates to trust beside nothing else; the system's are not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The file of an API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// What host names of sandboxes end with, if not the URL's host without its first label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Headers of every request. Not for secrets: they are in the report.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The user says that they own the target, public address or not.
    #[serde(default)]
    pub i_own_this_target: bool,
}

/// One kind of load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Unique in a plan; letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What one arrival does.
    pub work: Work,
    /// When arrivals come. Works that pace themselves (`pool`, `scale-from-zero`) have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Longest for one arrival, milliseconds.
    #[serde(default = "timeout")]
    pub timeout_ms: u64,
    /// Most requests at once on a connection of HTTP/2 or HTTP/3.
    #[serde(default = "streams")]
    pub streams_per_connection: u32,
}

impl Scenario {
    /// One with the usual bounds.
    #[must_use]
    pub fn new(name: impl Into<String>, work: Work, load: Option<Load>) -> Self {
        Self {
            name: name.into(),
            work,
            load,
            timeout_ms: timeout(),
            streams_per_connection: streams(),
        }
    }
}

/// When arrivals come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Load {
    /// At times that don't depend on the answers.
    Open {
        /// Which times.
        arrivals: Arrivals,
        /// For how long, milliseconds.
        duration_ms: u64,
        /// Most requests under way; what comes on top waits, and its wait counts.
        #[serde(default = "in_flight")]
        max_in_flight: u32,
    },
    /// The next as soon as the last has ended.
    Closed {
        /// How many at a time.
        concurrency: u32,
        /// For how long, milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
        /// How many in all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        requests: Option<u64>,
    },
    /// So many, each a fixed time after the one before; 0 is a burst.
    Staggered {
        /// How many.
        count: u32,
        /// The time between two, milliseconds.
        delay_ms: u64,
    },
}

/// The times of open-loop arrivals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Arrivals {
    /// Evenly spaced.
    Constant {
        /// How many per second.
        rate_per_s: f64,
    },
    /// Independent of each other, as those of many users.
    Poisson {
        /// How many per second on average.
        rate_per_s: f64,
    },
    /// Quiet and loud times in turn, each Poisson: a Markov-modulated process.
    Bursty {
        /// How many per second on average.
        rate_per_s: f64,
        /// How many times that rate the loud times have (above 1).
        factor: f64,
        /// Mean length of a loud time, milliseconds.
        burst_ms: u64,
        /// Share of time that is loud, between 0 and 1; `factor` times it is at most 1.
        share: f64,
    },
    /// One level after the other, evenly spaced in each; after the last it stays.
    Steps {
        /// The levels.
        levels: Vec<Level>,
    },
    /// Times from a file: one number per line, seconds since its begin.
    Replay {
        /// The file.
        file: PathBuf,
        /// How many times as fast.
        #[serde(default = "unit")]
        speed: f64,
    },
}

/// A rate for a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// How many per second; 0 is silence.
    pub rate_per_s: f64,
    /// For how long, milliseconds.
    pub for_ms: u64,
}

/// Something to disturb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChaosPlan {
    /// When, milliseconds after the first part began to measure.
    pub at_ms: u64,
    /// Again after so many milliseconds, until the run ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// What.
    pub fault: Fault,
}

/// A disturbance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// `kill -9` of the process whose id is in a file.
    Kill {
        /// The file.
        pid_file: PathBuf,
    },
    /// Stops the process whose id is in a file (SIGSTOP) and lets it go on.
    Pause {
        /// The file.
        pid_file: PathBuf,
        /// For how long, milliseconds.
        for_ms: u64,
    },
    /// Fills the file system of a directory that has one of its own.
    DiskFull {
        /// The directory: a mount point, at most [`Fault::DISK_MAX_MIB`] large.
        dir: PathBuf,
        /// What is left, KiB.
        #[serde(default)]
        leave_kib: u64,
        /// For how long, milliseconds.
        for_ms: u64,
    },
    /// Makes a slow proxy slow.
    Slow {
        /// Its name.
        proxy: String,
        /// Milliseconds that each piece of an answer waits.
        #[serde(default)]
        delay_ms: u64,
        /// Most bytes per second of each connection; no limit if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes_per_s: Option<u64>,
        /// Refuse new connections and cut those that there are.
        #[serde(default)]
        cut: bool,
        /// For how long, milliseconds.
        for_ms: u64,
    },
}

impl Fault {
    /// Largest file system that `disk-full` fills, MiB: nobody's system disk.
    pub const DISK_MAX_MIB: u64 = 65_536;
}

/// A TCP proxy that a target reaches something through, so that it can be made slow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowProxy {
    /// What faults call it.
    pub name: String,
    /// Where it listens; loopback only.
    pub listen: SocketAddr,
    /// Where to: an object store, a database.
    pub upstream: SocketAddr,
}

/// Why a plan can't be done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadPlan {
    /// It is no plan.
    #[error("{0}")]
    Syntax(String),
    /// A value can't be.
    #[error("{at}: {reason}")]
    Value {
        /// Where it stands.
        at: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
}

impl Plan {
    /// Reads a plan from TOML and checks it.
    ///
    /// # Errors
    ///
    /// [`BadPlan`] naming the first thing that is wrong.
    pub fn from_toml(text: &str) -> Result<Self, BadPlan> {
        let plan: Self = toml::from_str(text).map_err(|e| BadPlan::Syntax(e.to_string()))?;
        plan.check()?;
        Ok(plan)
    }
}

fn h1() -> Vec<Protocol> {
    vec![Protocol::H1]
}

const fn seed() -> u64 {
    1
}

const fn one() -> u32 {
    1
}

const fn unit() -> f64 {
    1.0
}

const fn in_flight() -> u32 {
    1024
}

const fn streams() -> u32 {
    100
}

const fn timeout() -> u64 {
    60_000
}
