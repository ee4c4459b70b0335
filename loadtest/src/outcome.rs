//! What came of one arrival.

use std::time::Duration;

use loadtest_wire::CallError;
use tokio::time::Instant;

/// What came of one arrival.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Why it is no good; none if it is.
    pub(crate) failure: Option<Failure>,
    /// The answer's status, if there was an answer.
    pub(crate) status: Option<u16>,
    /// What took how long, by the name of the timing (see `loadtest_model::names`).
    pub(crate) timings: Vec<(Timing, Duration)>,
    /// Checks that were made: name and what was wrong, if something was.
    pub(crate) checks: Vec<(&'static str, Option<String>)>,
    /// Connections that were opened for it.
    pub(crate) connections: u64,
    /// Bytes of bodies that were sent.
    pub(crate) bytes_sent: u64,
    /// Bytes of bodies that came.
    pub(crate) bytes_received: u64,
    /// When it was over, if that was before it was checked.
    pub(crate) ended: Option<Instant>,
}

/// The name of a timing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timing {
    /// One that every part has, see `loadtest_model::names`.
    Own(&'static str),
    /// An entry of the answer's `Server-Timing`: `server.<name>`.
    Server(String),
    /// A step of a longer work: `step.<name>`.
    Step(&'static str),
}

/// Why an arrival came to no good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The kind, for counting: `connect`, `timeout`, `reset`, `status_503`, `check_nonce` …
    pub(crate) kind: String,
    /// The rest, in words.
    pub(crate) message: String,
}

impl Failure {
    /// A failure of a kind.
    pub(crate) fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }

    /// A call that had no answer, or not all of it.
    pub(crate) fn of_call(error: &CallError) -> Self {
        Self::new(error.kind(), error.in_full())
    }
}

impl Outcome {
    /// One that failed before anything could be measured.
    pub(crate) fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }
}
