//! What is said when the settings are bad: everything at once, then exit 64.

use std::{fmt, path::PathBuf, process};

/// The exit status of a bad command line or config (`EX_USAGE` of sysexits.h).
pub const EX_USAGE: i32 = 64;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The declaration itself.
    Default,
    /// A key of this file.
    File(PathBuf),
    /// This environment variable.
    Env(String),
    /// This flag, dashes included.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One value, key or variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: `{given}` from {from}: expected {expected}")]
pub struct BadValue {
    /// The key's name.
    pub name: String,
    /// The text that was given, cut to 200 characters.
    pub given: String,
    /// Where it was given.
    pub from: Source,
    /// What would have been fine.
    pub expected: String,
}

/// Why a binary does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{binary}: {} bad setting{}{}", bad.len(), if bad.len() == 1 { "" } else { "s" }, Lines(bad))]
pub struct LoadError {
    /// The binary's name.
    pub binary: String,
    /// Every bad value, file first, flags last.
    pub bad: Vec<BadValue>,
}

struct Lines<'a>(&'a [BadValue]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|bad| write!(f, "\n  {bad}"))
    }
}

impl LoadError {
    /// Prints the report to standard error and ends the process with status 64.
    pub fn exit(&self) -> ! {
        eprintln!("{self}");
        process::exit(EX_USAGE)
    }
}
