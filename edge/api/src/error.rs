//! The one error shape and its stable codes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The body of every answer that isn't a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, for programs: one of [`ErrorCode`]'s texts.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
    /// The request's id, as in the `x-request-id` header and the logs.
    pub request_id: String,
}

/// A text that is no known error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an error code of this version")]
pub struct UnknownCode(pub String);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal;)*) => {
        /// What went wrong. Texts and statuses are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it is written in JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }

        impl FromStr for ErrorCode {
            type Err = UnknownCode;
            fn from_str(text: &str) -> Result<Self, UnknownCode> {
                match text {
                    $($text => Ok(Self::$name),)*
                    other => Err(UnknownCode(other.chars().take(64).collect())),
                }
            }
        }
    };
}

codes! {
    /// The `Host` is missing or is no host name of this installation's form.
    BadHost = "bad_host", 400;
    /// The port in the host name is no port.
    BadPort = "bad_port", 400;
    /// A label of the host name is over 63 bytes.
    LabelTooLong = "label_too_long", 400;
    /// The request is wrong; the message names the field.
    InvalidArgument = "invalid_argument", 400;
    /// The code archive is no tar.gz, or holds what may not be in one.
    MalformedArchive = "malformed_archive", 400;
    /// The API key is missing or not known.
    Unauthorized = "unauthorized", 401;
    /// The API key may not do this.
    Forbidden = "forbidden", 403;
    /// No such path in the API.
    RouteNotFound = "route_not_found", 404;
    /// The host name leads nowhere.
    UnknownHost = "unknown_host", 404;
    /// No function of that name.
    FunctionNotFound = "function_not_found", 404;
    /// No sandbox of that id.
    SandboxNotFound = "sandbox_not_found", 404;
    /// No template of that id or name.
    TemplateNotFound = "template_not_found", 404;
    /// No snapshot of that id.
    SnapshotNotFound = "snapshot_not_found", 404;
    /// The path exists, the method on it doesn't.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The name belongs to another team's function.
    NameTaken = "name_taken", 409;
    /// It can't be done in the state things are in (say, a pause of what is paused).
    Conflict = "conflict", 409;
    /// The body is over its limit.
    PayloadTooLarge = "payload_too_large", 413;
    /// A deploy's start command ended before its server was ready.
    StartCommandExited = "start_command_exited", 422;
    /// A deploy's server wasn't ready within its deadline.
    NotReady = "not_ready", 422;
    /// The server failed; its log has the request id.
    Internal = "internal", 500;
    /// Nothing listens on that port of the sandbox.
    PortClosed = "port_closed", 502;
    /// The sandbox died under the request.
    SandboxGone = "sandbox_gone", 502;
    /// The upstream closed the connection mid-answer.
    UpstreamReset = "upstream_reset", 502;
    /// No room for another sandbox right now.
    NoCapacity = "no_capacity", 503;
    /// No warm sandbox right now.
    PoolEmpty = "pool_empty", 503;
    /// The agent doesn't answer.
    AgentUnavailable = "agent_unavailable", 503;
    /// It took longer than allowed.
    DeadlineExceeded = "deadline_exceeded", 504;
    /// The guest's daemon doesn't answer.
    GuestUnresponsive = "guest_unresponsive", 504;
    /// The disk is full.
    NoSpace = "no_space", 507;
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
    fn every_code_survives_its_text_and_no_two_share_one() {
        let mut seen = std::collections::HashSet::new();
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse::<ErrorCode>(), Ok(*code));
            assert!(seen.insert(code.as_str()), "{code} twice");
            assert!((400..=599).contains(&code.status()), "{code}");
        }
    }
}
