//! API keys: shown once, compared by hash.

use std::{fmt, str::FromStr};

use rand::RngCore;

const PREFIX: &str = "wrenn_";
const HEX_DIGITS: usize = 40;

/// An API key: `wrenn_` and 40 hex digits (160 random bits). Never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// A text that is no API key. Doesn't say which text: it might be nearly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key: expected `wrenn_` and 40 hex digits")]
pub struct BadApiKey;

impl ApiKey {
    /// Makes a new one from the operating system's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = [0; HEX_DIGITS / 2];
        rand::rng().fill_bytes(&mut bytes);
        let mut text = String::with_capacity(PREFIX.len() + HEX_DIGITS);
        text.push_str(PREFIX);
        for byte in bytes {
            text.push_str(&format!("{byte:02x}"));
        }
        Self(text)
    }

    /// The key itself: for its file and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored and compared. A fast hash is enough: there are 160 bits to guess.
    #[must_use]
    pub fn hash(&self) -> String {
        blake3::hash(self.0.as_bytes()).to_hex().to_string()
    }
}

impl FromStr for ApiKey {
    type Err = BadApiKey;
    fn from_str(text: &str) -> Result<Self, BadApiKey> {
        let digits = text.strip_prefix(PREFIX).ok_or(BadApiKey)?;
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() == HEX_DIGITS && digits.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadApiKey)
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_and_stays_out_of_debug() {
        let key = ApiKey::generate();
        assert_eq!(key.expose().parse(), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), "ApiKey(..)");
        assert_ne!(ApiKey::generate(), key);
    }

    #[test]
    fn near_keys_are_refused() {
        let good = ApiKey::generate();
        let good = good.expose();
        for bad in ["", "wrenn_", &good[..45], &format!("{good}0"), &good.replace("wrenn", "WRENN")]
        {
            assert_eq!(bad.parse::<ApiKey>(), Err(BadApiKey), "{bad}");
        }
    }
}
