//! What was measured: the document of one run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Disturbance, Histogram, Plan, Protocol, Verdict};

/// The version of this document; another one is not read.
pub const SCHEMA: u32 = 1;

/// The names of the timings that every part has, if it has them. Others are `server.<entry>` (of
/// `Server-Timing`) and `step.<name>` (of lifecycles, pools and streams).
pub mod names {
    /// From the moment a request was *to be* sent to the last byte of its answer: what a user
    /// waits who came at that moment. Waiting for a free connection is in it.
    pub const LATENCY: &str = "latency";
    /// From the moment it *was* sent to the last byte of its answer.
    pub const SERVICE: &str = "service";
    /// From the moment it was to be sent until the harness turned to it: the harness's own lag.
    pub const SEND_LAG: &str = "send_lag";
    /// Looking the name up, per connection.
    pub const DNS: &str = "dns";
    /// The TCP connect, per connection.
    pub const CONNECT: &str = "connect";
    /// The TLS or QUIC handshake, per connection.
    pub const HANDSHAKE: &str = "handshake";
    /// From the moment it was sent to the first byte of its answer.
    pub const FIRST_BYTE: &str = "first_byte";
    /// From the first to the last byte of an answer.
    pub const LAST_BYTE: &str = "last_byte";
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The harness's version.
    pub version: String,
    /// The commit of the tree it was started in, if that is a git tree.
    pub commit: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// How long all of it took, seconds.
    pub took_s: f64,
    /// Where the harness ran.
    pub machine: Machine,
    /// What was asked.
    pub plan: Plan,
    /// What came of it: one per scenario and protocol, in the plan's order.
    pub parts: Vec<Part>,
    /// What was disturbed on purpose.
    pub disturbances: Vec<Disturbance>,
    /// How the harness itself did.
    pub harness: Harness,
    /// What the budgets say; empty if there were none.
    pub verdicts: Vec<Verdict>,
}

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that may be used.
    pub cpus: u32,
    /// As `/proc/cpuinfo` names the first.
    pub cpu_model: String,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// As `/etc/os-release` names it.
    pub os: String,
}

/// One scenario over one protocol.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The scenario's name.
    pub scenario: String,
    /// What was used; none where the scenario has no choice (lifecycles).
    pub protocol: Option<Protocol>,
    /// How long was measured, seconds.
    pub duration_s: f64,
    /// Requests of the warm-up, which count nowhere else.
    pub warmup_requests: u64,
    /// Requests that were to be sent.
    pub planned: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Of them, those that were answered as they should be.
    pub succeeded: u64,
    /// Of them, those that weren't, by kind: `connect`, `timeout`, `reset`, `status_503`,
    /// `check_nonce` …
    pub errors: BTreeMap<String, u64>,
    /// The first error of each kind, in words.
    pub samples: BTreeMap<String, String>,
    /// Answers by status code.
    pub statuses: BTreeMap<String, u64>,
    /// What was checked of every answer.
    pub checks: BTreeMap<String, CheckOutcome>,
    /// Connections that were opened.
    pub connections: u64,
    /// Bytes of bodies that were sent.
    pub bytes_sent: u64,
    /// Bytes of bodies that came.
    pub bytes_received: u64,
    /// By name, see [`names`].
    pub timings: BTreeMap<String, Histogram>,
    /// [`names::LATENCY`] again, cut into pieces of equal length: how it moved, and how far a
    /// comparison can be trusted.
    pub segments: Vec<Histogram>,
    /// Second by second (or longer steps, if it was long).
    pub ticks: Vec<Tick>,
    /// The pool's levels meanwhile, if there is a pool to ask about.
    pub pool: Vec<PoolSample>,
    /// What only this kind of scenario has to say, e.g. `refill_ms`, `hit_rate`, `wall_clock_ms`.
    pub extra: BTreeMap<String, f64>,
}

impl Part {
    /// Scenario and protocol, as budgets and reports name a part: `invoke/h2`, `lifecycle`.
    #[must_use]
    pub fn id(&self) -> String {
        match self.protocol {
            Some(protocol) => format!("{}/{}", self.scenario, protocol.short()),
            None => self.scenario.clone(),
        }
    }

    /// Good answers per second.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn rate(&self) -> f64 {
        if self.duration_s > 0.0 { self.succeeded as f64 / self.duration_s } else { 0.0 }
    }

    /// Requests that were sent and not answered as they should be.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// What came of one kind of check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// Answers that passed.
    pub passed: u64,
    /// Answers that did not.
    pub failed: u64,
    /// The first that did not, in words.
    pub first: Option<String>,
}

/// A step of time in a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// When it began, seconds since the part did; a part's rounds count on.
    pub at_s: f64,
    /// How long it is, seconds.
    pub length_s: f64,
    /// Requests that were to be sent in it.
    pub planned: u64,
    /// Good answers that ended in it.
    pub succeeded: u64,
    /// Failures that ended in it.
    pub failed: u64,
    /// Median latency of what ended in it, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the same.
    pub p99_ms: f64,
    /// Requests under way at its end.
    pub in_flight: u64,
}

/// A pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolSample {
    /// When, seconds since the part began; a part's rounds count on.
    pub at_s: f64,
    /// Ready to be leased.
    pub warm: u32,
    /// Being restored.
    pub restoring: u32,
    /// Serving.
    pub leased: u32,
    /// Being taken down.
    pub reaping: u32,
}

/// How the harness did: whether the figures are the target's or its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Harness {
    /// Threads that sent requests.
    pub workers: u32,
    /// Its share of one processor, 0 to `workers`.
    pub cpus_used: f64,
    /// Its memory when the first part began to measure, MiB.
    pub rss_start_mib: f64,
    /// Its most, MiB.
    pub rss_max_mib: f64,
    /// Requests that it sent late by more than a millisecond, of all that had a time to be sent at.
    pub late_sends: u64,
    /// All that had a time to be sent at.
    pub timed_sends: u64,
    /// Requests that waited because as many were under way as were allowed.
    pub held_back: u64,
    /// Why the harness and not the target may have been the limit; empty if it wasn't.
    pub bottlenecks: Vec<String>,
}
