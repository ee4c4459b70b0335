//! What a sandbox is doing, which restore it is on, which port is meant.

use std::{fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where a sandbox is in its life, the transient states included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Being created: no request is served yet.
    Starting,
    /// Serving.
    Running,
    /// Being written to disk.
    Pausing,
    /// On disk; holds no memory and no process.
    Paused,
    /// Being restored from disk.
    Resuming,
    /// Being destroyed; its id is not coming back.
    Stopping,
}

impl SandboxState {
    /// The word used in JSON, logs and errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for SandboxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens when a sandbox's timeout passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It is destroyed.
    #[default]
    Kill,
    /// It is paused to disk and resumes on its next request.
    Pause,
}

/// Counter raised at each restore or resume of a sandbox.
///
/// Connections are keyed by (sandbox, generation): nothing that was open before a snapshot is
/// reused after it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A TCP port in a sandbox: 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Port(NonZeroU16);

/// A text or number that is no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a port: expected 1 to 65535 in decimal without leading zeroes")]
pub struct BadPort {
    /// What was given, cut to 64 characters.
    pub text: String,
}

impl Port {
    /// The guest daemon's port (49983, as E2B's clients expect it).
    pub const ENVD: Self = Self(NonZeroU16::new(49983).expect("49983 is not zero"));

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.get()
    }
}

impl TryFrom<u16> for Port {
    type Error = BadPort;
    fn try_from(number: u16) -> Result<Self, BadPort> {
        NonZeroU16::new(number).map(Self).ok_or(BadPort { text: "0".to_owned() })
    }
}

impl FromStr for Port {
    type Err = BadPort;
    fn from_str(text: &str) -> Result<Self, BadPort> {
        let bad = || BadPort { text: text.chars().take(64).collect() };
        if text.starts_with(['0', '+']) {
            return Err(bad());
        }
        text.parse().map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_outside_the_range_and_other_spellings_are_refused() {
        for text in ["0", "65536", "http", "", "+80", "080", "-1", " 80"] {
            assert!(text.parse::<Port>().is_err(), "{text:?}");
        }
        assert_eq!("65535".parse::<Port>().map(Port::get), Ok(65535));
    }
}
