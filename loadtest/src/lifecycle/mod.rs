//! A sandbox's life as one arrival, the same over every API for sandboxes.
//!
//! ```text
//! Lives::live --> create, exec | write, read | remember, pause, resume, exec_after, read_after | kill
//!                    |
//!                    v
//!                 Sandboxes: v1 (Wrenn), e2b
//! ```
//!
//! `interactive` is create and the first exec together. `remember` leaves a value in the memory of
//! a process, `exec_after` looks for it after the pause; `read_after` does so with the file.
//!
//! # Invariants
//!
//! - Whatever was created is killed: after a failed step, past the deadline, and when nobody waits
//!   for the outcome any more. What could not be killed is named by [`Lives::settle`], and ends by
//!   its own timeout: the life's and [`TTL_MARGIN`].
//! - One deadline for a life; its kill has one of its own, so that a late life is killed as well.
//! - Every call has a connection of its own, over either API: no step gains from the one before,
//!   and none fails for a connection that went stale in a pause.
//!
//! # Limits
//!
//! 64 MiB of output and of a file; a create goes on for at most 30 s after its life's deadline.

mod content;
mod doomed;
mod e2b;
mod lives;
mod steps;
mod v1;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub(crate) use e2b::{E2bAccess, Reach};
pub(crate) use lives::Lives;

use crate::outcome::Failure;

/// How much longer than its life a sandbox may exist, should nobody be left to kill it.
const TTL_MARGIN: Duration = Duration::from_secs(60);
/// Most bytes of a command's output, and of a file that is read.
const OUTPUT_MAX_BYTES: usize = 64 << 20;
/// The key of a sandbox's metadata that holds its life's nonce.
const NONCE_KEY: &str = "loadtest";

/// What a life consists of.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    /// The template; the target's default if none.
    pub(crate) template: Option<String>,
    /// The command of the first exec, by a shell.
    pub(crate) command: String,
    /// Bytes of the file; 0 leaves it out.
    pub(crate) file_bytes: usize,
    /// Whether to pause and resume.
    pub(crate) pause: bool,
    /// Longest for all of it but the kill.
    pub(crate) timeout: Duration,
}

/// A sandbox that was made, and what its API wants to see of it again.
#[derive(Clone)]
pub(crate) struct Created {
    /// Its id.
    pub(crate) id: String,
    /// How long it lives by itself, seconds.
    ttl_s: u64,
    /// The secret of its own daemon, if it has one.
    token: Option<String>,
    /// What its host names end with, if not what all others do.
    domain: Option<String>,
}

impl fmt::Debug for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Created").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub(crate) struct ExecEnd {
    /// Its exit code; -1 if a signal ended it.
    pub(crate) code: i32,
    /// What it wrote to its standard output.
    pub(crate) stdout: Bytes,
    /// The end of what it wrote to its standard error.
    pub(crate) stderr: String,
}

/// An API for sandboxes.
///
/// A failure's kind is `status_<code>` where the API refused, `timeout`, the kind of a broken
/// connection, or `<call>_failed`.
#[async_trait]
pub(crate) trait Sandboxes: Send + Sync + 'static {
    /// Makes a sandbox that ends by itself [`TTL_MARGIN`] after `within`. Commands work at once.
    async fn create(
        &self,
        template: Option<&str>,
        nonce: &str,
        within: Duration,
    ) -> Result<Created, Failure>;

    /// Runs a line of shell until it ends.
    async fn exec(
        &self,
        sandbox: &Created,
        command: &str,
        stdin: Option<Bytes>,
    ) -> Result<ExecEnd, Failure>;

    /// Writes a file.
    async fn write(&self, sandbox: &Created, path: &str, content: Bytes) -> Result<(), Failure>;

    /// Reads a file.
    async fn read(&self, sandbox: &Created, path: &str) -> Result<Bytes, Failure>;

    /// Writes the sandbox to disk and frees its memory.
    async fn pause(&self, sandbox: &Created) -> Result<(), Failure>;

    /// Brings a paused sandbox back.
    async fn resume(&self, sandbox: &Created) -> Result<(), Failure>;

    /// Ends the sandbox.
    async fn kill(&self, sandbox: &Created) -> Result<(), Failure>;

    /// Ends all sandboxes of a life whose create had no answer.
    async fn kill_lost(&self, nonce: &str) -> Result<(), Failure>;
}

/// Who to ask for sandboxes.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// Wrenn's `/v1`.
    V1(edge_api::Client),
    /// E2B's API.
    E2b(E2bAccess),
}

/// The API that an access is for.
pub(crate) fn dialect(access: Access) -> Arc<dyn Sandboxes> {
    match access {
        Access::V1(client) => Arc::new(v1::V1::new(client)),
        Access::E2b(access) => Arc::new(e2b::E2b::new(access)),
    }
}

/// Seconds until a sandbox may end by itself.
fn ttl_s(within: Duration) -> u64 {
    (within + TTL_MARGIN).as_secs() + 1
}

/// The end of a command's standard error, for people.
fn tail(stderr: &[u8]) -> String {
    const SHOWN_BYTES: usize = 400;
    let from = stderr.len().saturating_sub(SHOWN_BYTES);
    String::from_utf8_lossy(stderr.get(from..).unwrap_or_default()).trim().to_owned()
}

/// Adds a piece of output, within the limit.
fn collect(output: &mut Vec<u8>, piece: &[u8]) -> Result<(), Failure> {
    if output.len() + piece.len() > OUTPUT_MAX_BYTES {
        let text = format!("the output has more than {OUTPUT_MAX_BYTES} bytes");
        return Err(Failure::new("exec_failed", text));
    }
    output.extend_from_slice(piece);
    Ok(())
}
