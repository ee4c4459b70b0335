//! Which keys does one installation secret give the QUIC endpoints?
//!
//! All workers, all generations of a process and all edges of a fleet derive the same keys, so that any of them can
//! steer a packet, reset a connection that nobody has any more, and check an address token another one gave out.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::hmac;

use crate::cid::CidKey;

/// The salt of the extraction; changing it makes every outstanding token and reset worthless.
const SALT: &[u8] = b"wrenn quic v1";

/// Shortest installation secret that is accepted, in bytes.
pub const SECRET_MIN: usize = 16;

/// The installation secret is shorter than [`SECRET_MIN`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the installation secret has {0} bytes, at least {SECRET_MIN} are needed")]
pub struct SecretTooShort(pub usize);

/// The keys of the QUIC endpoints.
#[derive(Clone)]
pub struct QuicSecrets {
    pub(crate) cid: CidKey,
    pub(crate) reset: Arc<hmac::Key>,
    pub(crate) token: Arc<Prk>,
}

impl QuicSecrets {
    /// Derives all keys from `secret` (HKDF-SHA256, RFC 5869).
    ///
    /// # Errors
    ///
    /// [`SecretTooShort`] below [`SECRET_MIN`] bytes.
    pub fn derive(secret: &[u8]) -> Result<Self, SecretTooShort> {
        if secret.len() < SECRET_MIN {
            return Err(SecretTooShort(secret.len()));
        }
        let root = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let token = expand(&root, b"address token");
        Ok(Self {
            cid: CidKey::new(&expand(&root, b"connection id")),
            reset: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &expand(&root, b"stateless reset"))),
            token: Arc::new(Salt::new(HKDF_SHA256, SALT).extract(&token)),
        })
    }

    /// The key that seals connection ids.
    #[must_use]
    pub fn cid_key(&self) -> &CidKey {
        &self.cid
    }
}

impl fmt::Debug for QuicSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuicSecrets(..)")
    }
}

fn expand(root: &Prk, label: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    root.expand(&[label], HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .expect("one hash length is always within what HKDF can give");
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cid::Owner;

    #[test]
    fn the_same_secret_gives_the_same_keys_and_another_secret_others() {
        let owner = Owner { generation: 7, worker: 3 };
        let first = QuicSecrets::derive(b"an installation secret").unwrap();
        let again = QuicSecrets::derive(b"an installation secret").unwrap();
        let other = QuicSecrets::derive(b"another installation secret").unwrap();
        let id = first.cid.seal(owner);
        assert_eq!(again.cid.decode(&id), Some(owner));
        assert_eq!(other.cid.decode(&id), None);
        let tag = hmac::sign(&first.reset, b"x");
        assert!(hmac::verify(&again.reset, b"x", tag.as_ref()).is_ok());
        assert!(hmac::verify(&other.reset, b"x", tag.as_ref()).is_err());
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert_eq!(QuicSecrets::derive(b"short").unwrap_err(), SecretTooShort(5));
    }

    #[test]
    fn keys_are_not_printed() {
        let secrets = QuicSecrets::derive(&[0x41; 32]).unwrap();
        assert_eq!(format!("{secrets:?}"), "QuicSecrets(..)");
    }
}
