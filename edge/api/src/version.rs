//! Versions of a function, their tags, and how requests are split between them.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use pool_model::{Port, SnapshotId, TemplateId};
use serde::{Deserialize, Serialize};

use crate::FunctionName;

/// Most bytes of a tag.
const MAX_TAG_BYTES: usize = 30;
/// Most bytes of a DNS label (RFC 1035, 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// A tag of a version: 1 to 30 of `a-z 0-9 -`, no dash at either end, no two dashes in a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TagName(String);

/// A text that can't be a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a tag: expected 1 to 30 of a-z, 0-9 and single dashes, no dash first or last"
)]
pub struct BadTagName {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl TagName {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first label of a tagged version's host name, `<name>--<tag>`; none if that is too long.
    #[must_use]
    pub fn label(&self, name: &FunctionName) -> Option<String> {
        Some(format!("{name}--{self}")).filter(|label| label.len() <= MAX_LABEL_BYTES)
    }
}

impl FromStr for TagName {
    type Err = BadTagName;
    fn from_str(text: &str) -> Result<Self, BadTagName> {
        // The same alphabet: the two stand in one label.
        if text.len() <= MAX_TAG_BYTES && text.parse::<FunctionName>().is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadTagName { text: text.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for TagName {
    type Error = BadTagName;
    fn try_from(text: String) -> Result<Self, BadTagName> {
        text.parse()
    }
}

impl From<TagName> for String {
    fn from(tag: TagName) -> Self {
        tag.0
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionTag {
    /// The tag.
    pub tag: TagName,
    /// The version it stands for.
    pub version: u32,
    /// Its share of the requests to the plain name is this over the sum; 0: none.
    pub weight: u32,
    /// Where that version is called.
    pub url: String,
}

/// A version that can be reached: the current one, or one with a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionVersion {
    /// Its number.
    pub version: u32,
    /// Whether it is the current one.
    pub current: bool,
    /// Its tags.
    pub tags: Vec<TagName>,
    /// The template its virtual machine was booted from.
    pub template: TemplateId,
    /// The snapshot its sandboxes are restored from.
    pub snapshot: SnapshotId,
    /// The port its server listens on.
    pub port: Port,
    /// The command that started the server.
    pub start: String,
    /// The path that was asked until it answered 2xx.
    pub ready_path: String,
    /// Longest time one invocation may take, milliseconds.
    pub timeout_ms: u64,
    /// Whether invocations may reach the internet.
    pub internet: bool,
    /// When it was deployed.
    pub created_at: Timestamp,
}

/// The body of `PUT /v1/functions/{name}/tags/{tag}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetTag {
    /// The version that the tag is to stand for: the current one, or one that has a tag.
    pub version: u32,
}

/// The body of `POST /v1/functions/{name}/promote`: exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Promote {
    /// The version that becomes the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// A tag of that version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<TagName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_short_labels_that_fit_behind_a_name() {
        for good in ["a", "v2", "canary-1", &"a".repeat(30)] {
            assert!(good.parse::<TagName>().is_ok(), "{good:?}");
        }
        for bad in ["", "-a", "a-", "a--b", "A", "a.b", "ä", &"a".repeat(31)] {
            assert!(bad.parse::<TagName>().is_err(), "{bad:?}");
        }
        let tag: TagName = "a".repeat(30).parse().unwrap();
        let name = |bytes: usize| "n".repeat(bytes).parse::<FunctionName>().unwrap();
        assert_eq!(tag.label(&name(31)).unwrap().len(), 63);
        assert_eq!(tag.label(&name(32)), None);
    }
}
