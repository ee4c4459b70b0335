//! What names content: BLAKE3 digests, one key-derivation context per use.

use std::{fmt, str::FromStr, sync::LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// BLAKE3, 32 bytes. As text and in JSON: 64 hex digits, small letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Names a layer: the digest of its index's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(pub Digest);

impl LayerId {
    /// The id of the layer whose index has these bytes.
    #[must_use]
    pub fn of(index: &[u8]) -> Self {
        static HASHER: LazyLock<blake3::Hasher> =
            LazyLock::new(|| blake3::Hasher::new_derive_key("wrenn 2026 layer index v1"));
        Self(hash(&HASHER, index))
    }
}

/// The digest of a block's uncompressed pages. Allocates nothing.
pub(crate) fn of_block(pages: &[u8]) -> Digest {
    static HASHER: LazyLock<blake3::Hasher> =
        LazyLock::new(|| blake3::Hasher::new_derive_key("wrenn 2026 snapshot block v1"));
    hash(&HASHER, pages)
}

/// The checksum of a working set's bytes.
pub(crate) fn of_working_set(bytes: &[u8]) -> Digest {
    hash(&blake3::Hasher::new_derive_key("wrenn 2026 working set v1"), bytes)
}

/// Goes on from a hasher that holds only its context: deriving that anew costs as much as a page.
fn hash(context: &blake3::Hasher, bytes: &[u8]) -> Digest {
    Digest(*context.clone().update(bytes).finalize().as_bytes())
}

/// Not 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 64 hex digits, small letters")]
pub struct ParseDigestError;

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    /// One text per digest: capital letters are refused.
    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| ParseDigestError)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn digit(letter: u8) -> Result<u8, ParseDigestError> {
    match letter {
        b'0'..=b'9' => Ok(letter - b'0'),
        b'a'..=b'f' => Ok(letter - b'a' + 10),
        _ => Err(ParseDigestError),
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerId({})", self.0)
    }
}

impl FromStr for LayerId {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_text_is_a_digest() {
        let text = "00".repeat(31) + "af";
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.0[31], 0xaf);
        assert_eq!(digest.to_string(), text);
        let long = text.clone() + "0";
        for wrong in [&text.to_uppercase(), &text[1..], &long, &text.replace("af", "ag"), ""] {
            assert_eq!(wrong.parse::<Digest>(), Err(ParseDigestError), "{wrong}");
        }
        assert!(serde_json::from_str::<LayerId>("\"ab\"").is_err());
    }

    #[test]
    fn same_bytes_have_another_digest_in_another_use() {
        let bytes = [1; 4096];
        assert_ne!(of_block(&bytes), LayerId::of(&bytes).0);
        assert_ne!(of_block(&bytes), of_working_set(&bytes));
    }
}
