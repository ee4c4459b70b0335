//! Secrets that the edge makes for others: what they look like, and that no log shows them.

use std::{fmt, sync::Arc};

use rand::{Rng, distr::Alphanumeric};

/// Letters and digits of a secret: 190 random bits.
const SECRET_CHARS: usize = 32;

/// A secret of 32 random letters and digits. Never printed by `Debug`. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Makes a new one from a generator that the operating system seeds.
    #[must_use]
    pub fn generate() -> Self {
        let chars = rand::rng().sample_iter(Alphanumeric).take(SECRET_CHARS);
        Self(chars.map(char::from).collect::<String>().into())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &Arc<str> {
        &self.0
    }

    pub(crate) fn stored(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_never_the_same_and_stays_out_of_debug() {
        let secret = Secret::generate();
        assert_eq!(secret.expose().len(), 32);
        assert!(secret.expose().bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(secret, Secret::generate());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
