//! What one arrival does.

use serde::{Deserialize, Serialize};

/// What one arrival does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Work {
    /// A request to the target's own address: any HTTP server.
    Http {
        /// Path and query.
        #[serde(default = "root")]
        path: String,
        /// The method.
        #[serde(default = "get")]
        method: String,
        /// Bytes of the request's body.
        #[serde(default)]
        body_bytes: usize,
        /// Keep connections for the next request.
        #[serde(default = "yes")]
        keep_alive: bool,
        /// The status that is right; any of 2xx if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect_status: Option<u16>,
        /// SHA-256 of the answer's body, hexadecimal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect_sha256: Option<String>,
        /// What the answer's body has to contain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect_text: Option<String>,
        /// Send a nonce that the answer has to repeat, and no other.
        #[serde(default)]
        nonce: bool,
    },
    /// A request to a function. Each has to be answered by a sandbox of its own, and with its own
    /// nonce if the function repeats nonces.
    Invoke {
        /// Which.
        function: String,
        /// Path and query.
        #[serde(default = "root")]
        path: String,
        /// The method.
        #[serde(default = "get")]
        method: String,
        /// Bytes of the request's body.
        #[serde(default)]
        body_bytes: usize,
        /// Whether the function repeats the nonce (`hello` and `echo` do).
        #[serde(default = "yes")]
        nonce: bool,
        /// Whether no two answers may come from one sandbox.
        #[serde(default = "yes")]
        distinct: bool,
    },
    /// A request to a port of a sandbox, which is made for it and removed after it.
    Proxy {
        /// Bytes of the answer: the sandbox serves a pattern that is checked.
        #[serde(default = "kibibyte")]
        response_bytes: usize,
        /// Bytes of the request's body.
        #[serde(default)]
        request_bytes: usize,
        /// Keep connections for the next request.
        #[serde(default = "yes")]
        keep_alive: bool,
        /// Sandboxes to spread the requests over; each answers only what was sent to it.
        #[serde(default = "one")]
        sandboxes: u32,
    },
    /// A WebSocket to an echoing function: opens, sends messages, checks each echo, closes.
    Ws(Stream),
    /// Server-sent events of an echoing function: opens, takes events, checks number and order.
    Sse(Stream),
    /// A sandbox's life: create, exec, files, pause, resume, kill; each step timed.
    Lifecycle {
        /// What the target speaks.
        #[serde(default)]
        dialect: Dialect,
        /// The template; the target's default if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template: Option<String>,
        /// The command of the exec step, by a shell.
        #[serde(default = "command")]
        command: String,
        /// Bytes written to a file, read back and compared; 0 leaves the step out.
        #[serde(default = "kibibyte")]
        file_bytes: usize,
        /// Whether to pause and resume.
        #[serde(default = "yes")]
        pause: bool,
    },
    /// One of several, by weight.
    Mix {
        /// What, and how often.
        of: Vec<Share>,
    },
    /// Drains a warm pool by as many simultaneous invocations as `burst`, waits until it is full
    /// again, and once more.
    Pool {
        /// Whose.
        function: String,
        /// Warm sandboxes to begin with.
        warm: u32,
        /// Simultaneous invocations.
        burst: u32,
        /// How often.
        #[serde(default = "one")]
        rounds: u32,
    },
    /// Lets pools run empty, then sends one request to each at once.
    ScaleFromZero {
        /// Whose pools.
        functions: Vec<String>,
        /// How often.
        #[serde(default = "one")]
        rounds: u32,
    },
}

impl Work {
    /// A GET of a path at the target's own address, right if it is answered by any of 2xx.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::Http {
            path: path.into(),
            method: get(),
            body_bytes: 0,
            keep_alive: true,
            expect_status: None,
            expect_sha256: None,
            expect_text: None,
            nonce: false,
        }
    }

    /// A request to a function that repeats nonces, each answered by a sandbox of its own.
    #[must_use]
    pub fn invoke(function: impl Into<String>) -> Self {
        Self::Invoke {
            function: function.into(),
            path: root(),
            method: get(),
            body_bytes: 0,
            nonce: true,
            distinct: true,
        }
    }

    /// As plans and commands name it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Invoke { .. } => "invoke",
            Self::Proxy { .. } => "proxy",
            Self::Ws(_) => "ws",
            Self::Sse(_) => "sse",
            Self::Lifecycle { .. } => "lifecycle",
            Self::Mix { .. } => "mix",
            Self::Pool { .. } => "pool",
            Self::ScaleFromZero { .. } => "scale-from-zero",
        }
    }

    /// Whether it can be done over each protocol of HTTP.
    #[must_use]
    pub fn has_protocol(&self) -> bool {
        match self {
            Self::Http { .. }
            | Self::Invoke { .. }
            | Self::Proxy { .. }
            | Self::Sse(_)
            | Self::Pool { .. }
            | Self::ScaleFromZero { .. } => true,
            // RFC 6455 needs HTTP/1.1; the API's clients choose for themselves.
            Self::Ws(_) | Self::Lifecycle { .. } => false,
            Self::Mix { of } => of.iter().any(|share| share.work.has_protocol()),
        }
    }
}

/// A part of a mix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// How often, in proportion to the others.
    pub weight: f64,
    /// What.
    pub work: Work,
}

/// A stream of messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// The echoing function; the target's own address if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The path; `{n}` and `{delay_ms}` stand for the two below.
    pub path: String,
    /// Messages.
    #[serde(default = "ten")]
    pub messages: u32,
    /// Milliseconds between two.
    #[serde(default)]
    pub delay_ms: u64,
    /// Bytes of each (WebSocket).
    #[serde(default = "kibibyte")]
    pub message_bytes: usize,
}

/// An API for sandboxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Wrenn's `/v1`.
    #[default]
    V1,
    /// E2B's.
    E2b,
}

fn root() -> String {
    "/".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

fn command() -> String {
    "echo ready".to_owned()
}

const fn yes() -> bool {
    true
}

const fn one() -> u32 {
    1
}

const fn ten() -> u32 {
    10
}

const fn kibibyte() -> usize {
    1024
}
