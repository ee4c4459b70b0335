//! Names of functions: they become the first label of a host name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Most bytes of a DNS label.
const MAX_LABEL_BYTES: usize = 63;

/// A function's name: 1 to 63 of `a-z 0-9 -`, no dash at either end, no two dashes in a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(String);

/// A text that can't name a function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a function name: expected 1 to 63 of a-z, 0-9 and single dashes, \
     no dash first or last"
)]
pub struct BadFunctionName {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl FunctionName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FunctionName {
    type Err = BadFunctionName;
    fn from_str(text: &str) -> Result<Self, BadFunctionName> {
        let label = (1..=MAX_LABEL_BYTES).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--"); // reserved: `<name>--<tag>`
        if label {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadFunctionName { text: text.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for FunctionName {
    type Error = BadFunctionName;
    fn try_from(text: String) -> Result<Self, BadFunctionName> {
        text.parse()
    }
}

impl From<FunctionName> for String {
    fn from(name: FunctionName) -> Self {
        name.0
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_labels_without_double_dashes() {
        for good in ["a", "hello", "hello-2", "0", &"a".repeat(63)] {
            assert!(good.parse::<FunctionName>().is_ok(), "{good:?}");
        }
        for bad in ["", "-a", "a-", "a--b", "A", "a.b", "a_b", "ä", " a", &"a".repeat(64)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad:?}");
        }
    }
}
