//! The stable error codes that clients see, each with its HTTP status.

use std::{fmt, str::FromStr};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal;)*) => {
        /// What went wrong, as a word that clients may rely on.
        ///
        /// A status is chosen by who must act: 4xx the caller, 502 and 504 the guest, 503 and
        /// 507 whoever runs the host, 500 us.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code, for documentation and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word in `code` of an error body.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }

        impl FromStr for ErrorCode {
            type Err = UnknownCode;
            fn from_str(text: &str) -> Result<Self, UnknownCode> {
                match text {
                    $($text => Ok(Self::$name),)*
                    _ => Err(UnknownCode),
                }
            }
        }
    };
}

/// A text that is no code of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an error code of this version")]
pub struct UnknownCode;

codes! {
    /// The host name cannot be parsed.
    BadHost = "bad_host", 400;
    /// The port in the host name is not 1 to 65535.
    BadPort = "bad_port", 400;
    /// A label of the host name is longer than 63 bytes (RFC 1035, 2.3.4).
    LabelTooLong = "label_too_long", 400;
    /// No route has this host name.
    UnknownHost = "unknown_host", 404;
    /// No function has this name.
    FunctionNotFound = "function_not_found", 404;
    /// No sandbox has this id.
    SandboxNotFound = "sandbox_not_found", 404;
    /// No template has this id or name.
    TemplateNotFound = "template_not_found", 404;
    /// No snapshot has this id.
    SnapshotNotFound = "snapshot_not_found", 404;
    /// The function has no such tag.
    TagNotFound = "tag_not_found", 404;
    /// No custom domain has this name.
    DomainNotFound = "domain_not_found", 404;
    /// No asynchronous invocation has this id, or its result is no longer kept.
    InvocationNotFound = "invocation_not_found", 404;
    /// No request with this id is remembered.
    RequestNotFound = "request_not_found", 404;
    /// No resource of the API is at this path.
    NotFound = "not_found", 404;
    /// The resource does not answer to this method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// No key, or one that is not valid.
    Unauthorized = "unauthorized", 401;
    /// A valid key that may not do this.
    Forbidden = "forbidden", 403;
    /// The client was too slow with its request.
    RequestTimeout = "request_timeout", 408;
    /// `Expect` asks for something else than `100-continue`.
    ExpectationFailed = "expectation_failed", 417;
    /// The connection was made for another host.
    MisdirectedRequest = "misdirected_request", 421;
    /// More requests per second than this target or client may have.
    RateLimited = "rate_limited", 429;
    /// As many requests wait for this target as may wait.
    QueueFull = "queue_full", 429;
    /// The head is over its limit.
    HeadersTooLarge = "headers_too_large", 431;
    /// A field is missing, unknown or out of range; the message names it.
    InvalidArgument = "invalid_argument", 400;
    /// The code archive is not a safe tar.gz.
    MalformedArchive = "malformed_archive", 400;
    /// The body is over its limit.
    PayloadTooLarge = "payload_too_large", 413;
    /// The sandbox runs, but nothing listens on that port.
    PortClosed = "port_closed", 502;
    /// The sandbox ended.
    SandboxGone = "sandbox_gone", 502;
    /// The sandbox's virtual machine ended by itself.
    SandboxCrashed = "sandbox_crashed", 502;
    /// The answer is larger than its function's limit.
    ResponseTooLarge = "response_too_large", 502;
    /// The guest broke off before its response was complete.
    UpstreamReset = "upstream_reset", 502;
    /// A function's start command ended before its server was ready.
    StartCommandExited = "start_command_exited", 422;
    /// A function's server was not ready in time.
    NotReady = "not_ready", 422;
    /// What was asked for needs more memory than the host may promise; the message has the sum.
    OverBudget = "over_budget", 422;
    /// The name belongs to somebody else.
    NameTaken = "name_taken", 409;
    /// The TXT record that proves the domain's owner was not found.
    DomainUnverified = "domain_unverified", 409;
    /// The resource is in a state that does not allow this.
    Conflict = "conflict", 409;
    /// The host's disk is full.
    NoSpace = "no_space", 507;
    /// The host has no slot or memory left.
    NoCapacity = "no_capacity", 503;
    /// No warm sandbox became free in time.
    PoolEmpty = "pool_empty", 503;
    /// No place became free while the request waited.
    QueueTimeout = "queue_timeout", 503;
    /// The sandbox is paused and being resumed.
    SandboxResuming = "sandbox_resuming", 503;
    /// The sandbox is being created.
    SandboxStarting = "sandbox_starting", 503;
    /// Its hosts failed too often just now; it is tried again soon.
    CircuitOpen = "circuit_open", 503;
    /// The object store that has the snapshot cannot be read.
    SnapshotUnavailable = "snapshot_unavailable", 503;
    /// No agent can be reached.
    AgentUnavailable = "agent_unavailable", 503;
    /// The request's time is over.
    DeadlineExceeded = "deadline_exceeded", 504;
    /// The guest does not answer.
    GuestUnresponsive = "guest_unresponsive", 504;
    /// What the method or protocol asks for is not served here.
    NotImplemented = "not_implemented", 501;
    /// The request has come through this edge before.
    LoopDetected = "loop_detected", 508;
    /// Our own fault; the log has the cause under the request id.
    Internal = "internal", 500;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_back_from_its_word() {
        for &code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
            assert!((400..600).contains(&code.http_status()), "{code}");
        }
    }
}
