//! The JSON bodies of the guest daemon's plain HTTP endpoints.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a sandbox is told after every boot and every restore.
///
/// It is made unique by it: clock, entropy, name, identity, environment and access token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Init {
    /// The host's wall clock, taken right before sending.
    pub timestamp: Timestamp,
    /// Fresh random bytes, [`Init::ENTROPY_MIN`] to [`Init::ENTROPY_MAX`] of them.
    #[serde(with = "base64_bytes")]
    pub entropy: Vec<u8>,
    /// The sandbox's host name.
    pub hostname: String,
    /// The sandbox's id, as its processes see it.
    pub sandbox_id: String,
    /// The id of the template it came from.
    #[serde(default)]
    pub template_id: String,
    /// Counts this sandbox's restores; the guest refuses to go back.
    #[serde(default)]
    pub generation: u64,
    /// Environment of every process; replaces what an earlier init gave.
    #[serde(default)]
    pub env_vars: BTreeMap<String, String>,
    /// Token that every later call must carry; absent leaves things as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// User that acts when a call names none; `user` when never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// Directory of calls that name none; the user's home when never set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_workdir: Option<String>,
}

/// What is wrong with an [`Init`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadInit {
    /// Too little would not reseed the kernel, too much is no entropy but a mistake.
    #[error("entropy has {bytes} bytes: expected {} to {}", Init::ENTROPY_MIN, Init::ENTROPY_MAX)]
    Entropy {
        /// How many came.
        bytes: usize,
    },
    /// Not a host name.
    #[error("hostname `{name}` is not made of 1 to 63 of a-z, 0-9 and inner hyphens")]
    Hostname {
        /// What came, cut to 64 characters.
        name: String,
    },
    /// A variable that no environment can hold.
    #[error(
        "environment variable name `{name}` is empty or holds `=` or a zero byte, or its value does"
    )]
    EnvVar {
        /// Its name, cut to 64 characters.
        name: String,
    },
    /// An empty token would let everyone in.
    #[error("access token is empty or not printable ASCII")]
    AccessToken,
}

impl Init {
    /// Fewest bytes of entropy: what the kernel's generator needs to be seeded.
    pub const ENTROPY_MIN: usize = 32;
    /// Most bytes of entropy.
    pub const ENTROPY_MAX: usize = 4096;

    /// Checks what a type can't say.
    ///
    /// # Errors
    ///
    /// [`BadInit`] names the first field that is wrong.
    pub fn check(&self) -> Result<(), BadInit> {
        let bytes = self.entropy.len();
        if !(Self::ENTROPY_MIN..=Self::ENTROPY_MAX).contains(&bytes) {
            return Err(BadInit::Entropy { bytes });
        }
        if !is_host_name(&self.hostname) {
            return Err(BadInit::Hostname { name: cut(&self.hostname) });
        }
        for (name, value) in &self.env_vars {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(BadInit::EnvVar { name: cut(name) });
            }
        }
        let usable =
            |token: &String| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        if !self.access_token.as_ref().is_none_or(usable) {
            return Err(BadInit::AccessToken);
        }
        Ok(())
    }
}

/// One label of a host name.
fn is_host_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

impl fmt::Debug for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Init")
            .field("timestamp", &self.timestamp)
            .field("hostname", &self.hostname)
            .field("sandbox_id", &self.sandbox_id)
            .field("template_id", &self.template_id)
            .field("generation", &self.generation)
            .field("env_vars", &self.env_vars.keys().collect::<Vec<_>>())
            .field("access_token", &self.access_token.is_some())
            .field("default_user", &self.default_user)
            .field("default_workdir", &self.default_workdir)
            .finish_non_exhaustive()
    }
}

/// The guest daemon is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Its version, when it says so.
    pub version: Option<String>,
}

/// What a sandbox uses, as E2B's clients read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Seconds since 1970, by the guest's clock.
    pub ts: i64,
    /// Processors.
    pub cpu_count: u32,
    /// Share of them in use since the last call, 0 to 100.
    pub cpu_used_pct: f32,
    /// Bytes of memory.
    pub mem_total: u64,
    /// Bytes in use, without caches.
    pub mem_used: u64,
    /// Bytes in caches.
    pub mem_cache: u64,
    /// `mem_total` in MiB.
    pub mem_total_mib: u64,
    /// `mem_used` in MiB.
    pub mem_used_mib: u64,
    /// Bytes used on the root disk.
    pub disk_used: u64,
    /// Bytes of the root disk.
    pub disk_total: u64,
}

/// Bytes as standard base64 text.
mod base64_bytes {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(|_| serde::de::Error::custom("not standard base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init() -> Init {
        Init {
            timestamp: "2026-01-02T03:04:05.678901234Z".parse().unwrap(),
            entropy: vec![7; 32],
            hostname: "sandbox-1".to_owned(),
            sandbox_id: "abc".to_owned(),
            template_id: "base".to_owned(),
            generation: 3,
            env_vars: BTreeMap::from([("KEY".to_owned(), "hidden-value".to_owned())]),
            access_token: Some("hidden-token".to_owned()),
            default_user: None,
            default_workdir: None,
        }
    }

    #[test]
    fn wire_form_is_camel_case_with_nanoseconds_and_base64() {
        let json = serde_json::to_value(init()).unwrap();
        assert_eq!(json["timestamp"], "2026-01-02T03:04:05.678901234Z");
        assert_eq!(json["entropy"], "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
        assert_eq!(json["sandboxId"], "abc");
        assert_eq!(json["envVars"]["KEY"], "hidden-value");
        assert!(json.get("defaultUser").is_none());
        let back: Init = serde_json::from_value(json).unwrap();
        assert_eq!(back.timestamp, init().timestamp);
        assert_eq!(back.entropy, init().entropy);
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let text = format!("{:?}", init());
        assert!(text.contains("sandbox-1") && text.contains("KEY"));
        assert!(!text.contains("hidden"), "{text}");
    }

    #[test]
    fn bad_fields_are_named() {
        assert_eq!(init().check(), Ok(()));
        let short = Init { entropy: vec![0; 31], ..init() };
        assert_eq!(short.check(), Err(BadInit::Entropy { bytes: 31 }));
        for name in ["", "-a", "a-", "a.b", "A", "a\nb"] {
            let bad = Init { hostname: name.to_owned(), ..init() };
            assert_eq!(bad.check(), Err(BadInit::Hostname { name: name.to_owned() }));
        }
        let bad = Init { env_vars: BTreeMap::from([("A=B".into(), String::new())]), ..init() };
        assert!(matches!(bad.check(), Err(BadInit::EnvVar { .. })));
        let open = Init { access_token: Some(String::new()), ..init() };
        assert_eq!(open.check(), Err(BadInit::AccessToken));
    }
}
