//! What a running test shows.

use serde::{Deserialize, Serialize};

use crate::{Protocol, Summary};

/// What a part is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Deploying, creating, waiting for warm pools.
    #[default]
    Preparing,
    /// Sending what doesn't count.
    WarmUp,
    /// Measuring.
    Measuring,
    /// Waiting for the last answers.
    Draining,
}

/// A moment of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Number of the part, from 1.
    pub part: usize,
    /// Parts in all.
    pub parts: usize,
    /// The scenario's name.
    pub scenario: String,
    /// The protocol, if there is a choice.
    pub protocol: Option<Protocol>,
    /// What it is at.
    pub phase: Phase,
    /// Seconds since the phase began.
    pub elapsed_s: f64,
    /// How long the phase will take, seconds, if that is known.
    pub length_s: Option<f64>,
    /// Good answers per second since the last report.
    pub rate: f64,
    /// What the arrivals ask for per second at this moment, if they do.
    pub asked_rate: Option<f64>,
    /// Good answers so far.
    pub succeeded: u64,
    /// Failures so far.
    pub failed: u64,
    /// The commonest failure so far.
    pub worst_error: Option<String>,
    /// Requests under way.
    pub in_flight: u64,
    /// Latency of what ended since the last report.
    pub latency: Summary,
    /// The pool, if there is one to ask about.
    pub pool: Option<PoolLevel>,
    /// What was disturbed last and is not over.
    pub disturbance: Option<String>,
}

/// How full a pool is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolLevel {
    /// Ready to be leased.
    pub warm: u32,
    /// Being restored.
    pub restoring: u32,
    /// Serving.
    pub leased: u32,
}
