//! The flags of each scenario.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::ScenarioArgs;
use crate::cli::target::duration;

#[derive(Debug, Args)]
pub(crate) struct HttpArgs {
    /// Path and query
    #[arg(long, default_value = "/")]
    pub(super) path: String,
    /// The method
    #[arg(long, default_value = "GET")]
    pub(super) method: String,
    /// Bytes of the request's body
    #[arg(long, default_value_t = 0)]
    pub(super) body_bytes: usize,
    /// A new connection for each request
    #[arg(long)]
    pub(super) no_keep_alive: bool,
    /// The right status; any of 2xx if absent
    #[arg(long)]
    pub(super) expect_status: Option<u16>,
    /// The right SHA-256 of the answer's body
    #[arg(long, value_name = "HEX")]
    pub(super) expect_sha256: Option<String>,
    /// What the answer's body contains
    #[arg(long, value_name = "TEXT")]
    pub(super) expect_text: Option<String>,
    /// Send a nonce (header x-loadtest-nonce) that the answer's body repeats, and no other
    #[arg(long)]
    pub(super) nonce: bool,
    #[command(flatten)]
    pub(super) scenario: ScenarioArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InvokeArgs {
    /// The function
    #[arg(default_value = "hello")]
    pub(super) function: String,
    /// Path and query
    #[arg(long, default_value = "/")]
    pub(super) path: String,
    /// The method
    #[arg(long, default_value = "GET")]
    pub(super) method: String,
    /// Bytes of the request's body
    #[arg(long, default_value_t = 0)]
    pub(super) body_bytes: usize,
    /// The function does not repeat nonces
    #[arg(long)]
    pub(super) no_nonce: bool,
    /// One sandbox may answer several requests
    #[arg(long)]
    pub(super) reuse: bool,
    #[command(flatten)]
    pub(super) scenario: ScenarioArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    /// Bytes of an answer
    #[arg(long, default_value_t = 1024)]
    pub(super) response_bytes: usize,
    /// Bytes of a request's body
    #[arg(long, default_value_t = 0)]
    pub(super) request_bytes: usize,
    /// A new connection for each request
    #[arg(long)]
    pub(super) no_keep_alive: bool,
    /// Sandboxes to make and to spread the requests over
    #[arg(long, default_value_t = 1)]
    pub(super) sandboxes: u32,
    #[command(flatten)]
    pub(super) scenario: ScenarioArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    /// The echoing function; none with --url
    #[arg(default_value = "echo")]
    pub(super) function: String,
    /// The path; {n} and {delay_ms} stand for the two flags
    #[arg(long)]
    pub(super) path: Option<String>,
    /// Messages of a stream
    #[arg(long, default_value_t = 10)]
    pub(super) messages: u32,
    /// Between two messages
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = duration)]
    pub(super) delay: Duration,
    /// Bytes of a message (WebSocket)
    #[arg(long, default_value_t = 1024)]
    pub(super) message_bytes: usize,
    #[command(flatten)]
    pub(super) scenario: ScenarioArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LifecycleArgs {
    /// What the target speaks
    #[arg(long, value_enum, default_value_t = Speaks::V1)]
    pub(super) dialect: Speaks,
    /// The template; the target's default if absent
    #[arg(long)]
    pub(super) template: Option<String>,
    /// The command of the exec step
    #[arg(long, default_value = "echo ready")]
    pub(super) command: String,
    /// Bytes written to a file and read back; 0 leaves that out
    #[arg(long, default_value_t = 1024)]
    pub(super) file_bytes: usize,
    /// Leave pause and resume out
    #[arg(long)]
    pub(super) no_pause: bool,
    #[command(flatten)]
    pub(super) scenario: ScenarioArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Speaks {
    /// Wrenn's /v1
    V1,
    /// E2B's API
    E2b,
}

#[derive(Debug, Args)]
pub(crate) struct PoolArgs {
    /// The function
    #[arg(default_value = "hello")]
    pub(super) function: String,
    /// Warm sandboxes to begin with
    #[arg(long, default_value_t = 4)]
    pub(super) warm: u32,
    /// Simultaneous invocations
    #[arg(long, default_value_t = 8)]
    pub(super) burst: u32,
    /// Bursts
    #[arg(long, default_value_t = 3)]
    pub(super) bursts: u32,
    #[command(flatten)]
    pub(super) scenario: ScenarioArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ZeroArgs {
    /// The functions
    #[arg(default_value = "hello")]
    pub(super) functions: Vec<String>,
    /// How often
    #[arg(long, default_value_t = 3)]
    pub(super) times: u32,
    #[command(flatten)]
    pub(super) scenario: ScenarioArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// The function; with --url the target's own address
    #[arg(default_value = "hello")]
    pub(super) function: String,
    /// Requests per second of the last step
    #[arg(long, value_name = "PER_SECOND")]
    pub(super) to: f64,
    /// Steps
    #[arg(long, default_value_t = 3)]
    pub(super) steps: u32,
    /// How long each is
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration)]
    pub(super) step_length: Duration,
    #[command(flatten)]
    pub(super) scenario: ScenarioArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// The function; with --url the target's own address
    #[arg(default_value = "hello")]
    pub(super) function: String,
    #[command(flatten)]
    pub(super) scenario: ScenarioArgs,
}
