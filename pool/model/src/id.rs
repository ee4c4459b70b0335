//! Typed, prefixed ids. A template's id cannot be passed for a sandbox's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base36;

/// A text that is not the id it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected `{prefix}_` and 25 digits of 0-9a-z")]
pub struct BadId {
    /// What was expected, e.g. `SandboxId`.
    pub kind: &'static str,
    /// The prefix that was expected, without the underscore.
    pub prefix: &'static str,
    /// What was given, cut to 64 characters.
    pub text: String,
}

/// Longest prefix and its underscore.
const PREFIX_MAX: usize = 5;

/// An id's text: on the way into a header field or a log there is no need for a `String`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdText {
    bytes: [u8; PREFIX_MAX + base36::DIGITS],
    len: usize,
}

impl IdText {
    fn new(prefix: &'static str, value: u128) -> Self {
        let mut bytes = [0; PREFIX_MAX + base36::DIGITS];
        let len = prefix.len() + base36::DIGITS;
        bytes[..prefix.len()].copy_from_slice(prefix.as_bytes());
        bytes[prefix.len()..len].copy_from_slice(&base36::encode(value));
        Self { bytes, len }
    }

    /// The text as ASCII bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("digits and a prefix are ASCII")
    }
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u128);

        impl $name {
            /// The text before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Makes the id of this number. Numbers 0 to 1024 belong to the platform.
            #[must_use]
            pub const fn from_u128(value: u128) -> Self {
                Self(value)
            }

            /// The number behind the id.
            #[must_use]
            pub const fn as_u128(self) -> u128 {
                self.0
            }

            /// The 25 digits after the prefix: what host names and directories carry.
            #[must_use]
            pub fn label(self) -> String {
                self.text().as_str()[Self::PREFIX.len() + 1..].to_owned()
            }

            /// The whole id as text, without an allocation.
            #[must_use]
            pub fn text(self) -> IdText {
                IdText::new(concat!($prefix, "_"), self.0)
            }

            /// Parses the 25 digits without the prefix.
            ///
            /// # Errors
            ///
            /// [`BadId`] if `label` is not 25 lower-case base36 digits below 2^128.
            pub fn from_label(label: &str) -> Result<Self, BadId> {
                base36::decode(label).map(Self).ok_or_else(|| BadId {
                    kind: stringify!($name),
                    prefix: $prefix,
                    text: label.chars().take(64).collect(),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text().as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let label = text.strip_prefix(concat!($prefix, "_")).unwrap_or("");
                Self::from_label(label).map_err(|bad| BadId {
                    text: text.chars().take(64).collect(),
                    ..bad
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

typed_id!(
    /// One virtual machine with an identity, a TTL and an owner.
    SandboxId, "sb");
typed_id!(
    /// An immutable disk image and boot recipe that sandboxes start from.
    TemplateId, "tpl");
typed_id!(
    /// Memory, device state and disk of a paused sandbox, immutable.
    SnapshotId, "snap");
typed_id!(
    /// A named, versioned snapshot whose server is already listening.
    FunctionId, "fn");
typed_id!(
    /// Who owns functions, sandboxes and keys. All zeros is the platform's own team.
    TeamId, "team");
typed_id!(
    /// A machine that runs an agent.
    HostId, "host");
typed_id!(
    /// One request, from the edge to the guest daemon's log.
    RequestId, "req");

impl TeamId {
    /// The platform's own team, owner of the default template.
    pub const PLATFORM: Self = Self(0);
}

impl TemplateId {
    /// The template that ships with the product (`minimal-debian`).
    pub const DEFAULT: Self = Self(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_survives_its_text_and_its_json() {
        let id = SandboxId::from_u128(0xdead_beef);
        assert_eq!(id.to_string().parse::<SandboxId>(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<SandboxId>(&json).unwrap(), id);
    }

    #[test]
    fn an_ids_text_is_its_prefix_and_its_label() {
        for id in [SnapshotId::from_u128(0), SnapshotId::from_u128(u128::MAX)] {
            assert_eq!(id.text().as_str(), format!("snap_{}", id.label()));
            assert_eq!(id.to_string().as_bytes(), id.text().as_bytes());
        }
    }

    #[test]
    fn default_template_is_all_zeros() {
        assert_eq!(TemplateId::DEFAULT.label(), "0".repeat(25));
    }

    #[test]
    fn another_kind_is_refused_with_a_reason() {
        let wrong = TemplateId::DEFAULT.to_string().parse::<SandboxId>().unwrap_err();
        assert!(wrong.to_string().contains("is not a SandboxId"), "{wrong}");
    }
}
