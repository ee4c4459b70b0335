//! Versions of HTTP.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
    /// HTTP/3 over QUIC.
    H3,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::H1, Self::H2, Self::H3];

    /// As flags and plans write it.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H1 => "HTTP/1.1",
            Self::H2 => "HTTP/2",
            Self::H3 => "HTTP/3",
        })
    }
}

/// A word that names no protocol.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is no protocol; expected h1, h2 or h3")]
pub struct BadProtocol(String);

impl FromStr for Protocol {
    type Err = BadProtocol;

    fn from_str(text: &str) -> Result<Self, BadProtocol> {
        let found = Self::ALL.into_iter().find(|protocol| protocol.short() == text);
        found.ok_or_else(|| BadProtocol(text.to_owned()))
    }
}
