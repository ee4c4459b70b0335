//! Connects to an agent's RPC listener.

use std::{fmt, time::Duration};

use connectrpc::client::{ClientConfig, HttpClient};
use http::Uri;

use crate::v1::AgentClient;

/// The longest a call may take unless it says otherwise: a deploy step waits for a guest's boot.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// The largest message either way: a function's code archive (64 MiB) and its frame.
pub const MESSAGE_BYTES_MAX: usize = 65 << 20;

/// The agent's bearer token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes the token as read from its file, white space trimmed.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself, for a header.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares without telling by its time how much of `other` was right.
    #[must_use]
    pub fn matches(&self, other: &str) -> bool {
        let same_length = self.0.len() == other.len();
        let difference =
            self.0.bytes().zip(other.bytes()).fold(0, |sum, (ours, theirs)| sum | (ours ^ theirs));
        same_length && difference == 0 && !self.0.is_empty()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A client of the agent at `rpc` (`http://host:port`). Connects on the first call.
#[must_use]
pub fn connect(rpc: Uri, token: &Token) -> AgentClient<HttpClient> {
    let config = ClientConfig::new(rpc)
        .with_default_timeout(CALL_TIMEOUT)
        .with_default_max_message_size(MESSAGE_BYTES_MAX)
        .with_default_header("authorization", format!("Bearer {}", token.expose()));
    AgentClient::new(HttpClient::plaintext_http2_only(), config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_matches() {
        let token = Token::new(" secret\n");
        assert!(token.matches("secret"));
        for other in ["", "secre", "secret2", "Secret"] {
            assert!(!token.matches(other), "{other}");
        }
        assert!(!Token::new("").matches(""), "an empty token opens nothing");
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
