//! What is a connection told that comes to validate a challenge?

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{error::TlsError, table::lower};

/// Where HTTP-01 looks (RFC 8555 section 8.3).
const HTTP01_PREFIX: &str = "/.well-known/acme-challenge/";

/// Answers for HTTP-01 challenges; cheap to clone, lock-free to read. It holds no more than the
/// running orders put in.
#[derive(Debug, Clone, Default)]
pub struct Http01(Arc<ArcSwap<HashMap<String, Answer>>>);

#[derive(Debug, Clone)]
struct Answer {
    host: String,
    value: String,
}

impl Http01 {
    /// The body to answer a request with (as `text/plain` or `application/octet-stream`), or `None`
    /// if it isn't about a challenge that is pending for this host. `host` may have a port.
    #[must_use]
    pub fn answer(&self, host: &str, path: &str) -> Option<String> {
        let token = path.strip_prefix(HTTP01_PREFIX)?;
        let answers = self.0.load();
        let answer = answers.get(token)?;
        let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
        (lower(name) == answer.host).then(|| answer.value.clone())
    }

    pub(crate) fn put(&self, host: &str, token: &str, value: &str) {
        let answer = Answer { host: host.to_owned(), value: value.to_owned() };
        self.0.rcu(|old| {
            let mut new = HashMap::clone(old);
            new.insert(token.to_owned(), answer.clone());
            new
        });
    }

    pub(crate) fn remove(&self, token: &str) {
        self.0.rcu(|old| {
            let mut new = HashMap::clone(old);
            new.remove(token);
            new
        });
    }
}

/// Certificates for TLS-ALPN-01 challenges that are pending, by name.
#[derive(Debug, Default)]
pub(crate) struct AlpnAnswers(ArcSwap<HashMap<String, Arc<CertifiedKey>>>);

impl AlpnAnswers {
    /// The certificate that proves `name` (lower case).
    pub(crate) fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.0.load().get(name).cloned()
    }

    /// Puts one in that carries the digest of the key authorization (RFC 8737 section 3).
    pub(crate) fn put(&self, name: &str, digest: &[u8]) -> Result<(), TlsError> {
        let certified = Arc::new(challenge_certificate(name, digest)?);
        self.0.rcu(|old| {
            let mut new = HashMap::clone(old);
            new.insert(name.to_owned(), Arc::clone(&certified));
            new
        });
        Ok(())
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.rcu(|old| {
            let mut new = HashMap::clone(old);
            new.remove(name);
            new
        });
    }
}

fn challenge_certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, TlsError> {
    let made = |source| TlsError::Make { domain: name.to_owned(), source };
    let key = KeyPair::generate().map_err(made)?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(made)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let cert = params.self_signed(&key).map_err(made)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Not checked against the certificate: rustls can't read one with an extension that it doesn't
    // know and that is critical, and both were made for each other just now.
    let key = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|source| TlsError::Unusable { place: name.to_owned(), source })?;
    Ok(CertifiedKey::new(vec![cert.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_answered_for_its_host_while_it_is_pending() {
        let answers = Http01::default();
        answers.put("example.com", "token", "token.thumb");
        let path = format!("{HTTP01_PREFIX}token");
        for host in ["example.com", "Example.com:80", "example.com."] {
            assert_eq!(answers.answer(host, &path).as_deref(), Some("token.thumb"), "{host}");
        }
        for (host, path) in [
            ("example.org", path.as_str()),
            ("example.com", "/.well-known/acme-challenge/"),
            ("example.com", "/.well-known/acme-challenge/token/x"),
            ("example.com", "/token"),
            ("", &path),
        ] {
            assert_eq!(answers.answer(host, path), None, "{host} {path}");
        }
        answers.remove("token");
        assert_eq!(answers.answer("example.com", &path), None);
    }
}
