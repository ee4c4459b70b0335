//! Header contract of the agent's proxy listener (HTTP/1.1, or HTTP/2 with prior knowledge).
//!
//! The edge sends the client's request as it came, original `Host` included, with the request
//! headers below. The agent strips them before the guest sees the request, and the edge refuses
//! to pass them on from a client.

use std::{fmt, str::FromStr};

use pool_model::{FunctionId, Port, SandboxId};

/// Every header of ours starts with this; none from outside is passed on.
pub const PREFIX: &str = "x-wrenn-";
/// Request: the agent's token.
pub const TOKEN: &str = "x-wrenn-token";
/// Request: a [`Target`].
pub const TARGET: &str = "x-wrenn-target";
/// Request: the id under which edge, agent and guest log this request.
pub const REQUEST_ID: &str = "x-wrenn-request-id";
/// Request: the protocol to speak with the guest; [`H2C`], or HTTP/1.1 where it is absent.
pub const PROTOCOL: &str = "x-wrenn-protocol";
/// Value of [`PROTOCOL`]: HTTP/2 without TLS, by prior knowledge (RFC 9113, 3.3).
pub const H2C: &str = "h2c";
/// Response: the sandbox that answered.
pub const SANDBOX: &str = "x-wrenn-sandbox";
/// Response to a function's request: `never`, or `sequential; request=2; max=10`: which request of
/// its sandbox this one was.
pub const REUSE: &str = "x-wrenn-reuse";
/// Response: the agent, not the guest, made this answer; its [`pool_model::ErrorCode`].
pub const ERROR: &str = "x-wrenn-error";

/// Where a proxied request is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A fresh sandbox of this function's pool.
    Function(FunctionId),
    /// A port of one sandbox.
    Sandbox(SandboxId, Port),
}

/// A target header that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{TARGET}` is not `function/<id>` or `sandbox/<id>/<port>`")]
pub struct BadTarget;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(id) => write!(f, "function/{id}"),
            Self::Sandbox(id, port) => write!(f, "sandbox/{id}/{port}"),
        }
    }
}

impl FromStr for Target {
    type Err = BadTarget;
    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let mut parts = text.split('/');
        let target = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("function"), Some(id), None, None) => {
                Self::Function(id.parse().map_err(|_| BadTarget)?)
            }
            (Some("sandbox"), Some(id), Some(port), None) => Self::Sandbox(
                id.parse().map_err(|_| BadTarget)?,
                port.parse().map_err(|_| BadTarget)?,
            ),
            _ => return Err(BadTarget),
        };
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_survive_a_round_trip() {
        let port = Port::ENVD;
        for target in [
            Target::Function(FunctionId::from_u128(7)),
            Target::Sandbox(SandboxId::from_u128(9), port),
        ] {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let sandbox = SandboxId::from_u128(9);
        for text in ["", "function", "function/x", "sandbox//80", "function/fn_1/80"] {
            assert_eq!(text.parse::<Target>(), Err(BadTarget), "{text}");
        }
        assert_eq!(format!("sandbox/{sandbox}/0").parse::<Target>(), Err(BadTarget));
    }
}
