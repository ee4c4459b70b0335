//! What is one usable certificate, and what should an operator know about it?

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::{error::TlsError, x509::Facts};

/// A certificate with its key, ready for handshakes.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What it replaces and is replaced by: a name or a file.
    pub(crate) id: String,
    /// Where it came from, in a word.
    pub(crate) source: &'static str,
    /// The chain and the key.
    pub(crate) certified: Arc<CertifiedKey>,
    /// What the leaf says.
    pub(crate) facts: Facts,
    /// What was odd about it when it was loaded.
    pub(crate) warnings: Vec<String>,
}

impl Entry {
    /// Reads chain and key from PEM and checks that they belong together. `place` says where the
    /// text came from, for errors.
    pub(crate) fn from_pem(
        id: &str,
        source: &'static str,
        (chain, key): (&str, &str),
        place: &str,
    ) -> Result<Self, TlsError> {
        let pem = |source| TlsError::Pem { place: place.to_owned(), source };
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(pem)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(pem)?;
        let malformed = || TlsError::Malformed { place: place.to_owned() };
        let facts = chain.first().and_then(|leaf| Facts::of(leaf)).ok_or_else(malformed)?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|source| TlsError::Unusable { place: place.to_owned(), source })?;
        let id = id.to_owned();
        Ok(Self { id, source, certified: Arc::new(certified), facts, warnings: Vec::new() })
    }

    /// What is wrong with the dates now.
    pub(crate) fn date_warning(&self, now: Timestamp) -> Option<String> {
        let names = self.facts.names.join(", ");
        let Facts { not_before, not_after, .. } = self.facts;
        if now < not_before {
            Some(format!("the certificate for {names} is not valid before {not_before}"))
        } else if now > not_after {
            Some(format!("the certificate for {names} expired at {not_after}"))
        } else {
            None
        }
    }

    /// Notes and logs what is odd.
    pub(crate) fn warn(mut self, more: Option<String>) -> Self {
        self.warnings.extend(more);
        self.warnings.extend(self.date_warning(Timestamp::now()));
        for warning in &self.warnings {
            tracing::warn!(id = self.id, "{warning}");
        }
        self
    }
}

/// The names of the domain that no certificate covers.
pub(crate) fn uncovered<'a>(wanted: &'a [String], entries: &[Arc<Entry>]) -> Vec<&'a str> {
    let is_covered = |name: &str| entries.iter().any(|entry| entry.facts.covers(name));
    wanted.iter().map(String::as_str).filter(|name| !is_covered(name)).collect()
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    #[test]
    fn dates_are_warned_about_on_both_sides() {
        let (cert, key) = crate::local::placeholder("x").unwrap();
        let entry = Entry::from_pem("x", "test", (&cert, &key), "x").unwrap();
        let Facts { not_before, not_after, .. } = entry.facts;
        assert_eq!(entry.date_warning(not_before), None);
        assert_eq!(entry.date_warning(not_after), None);
        let early = entry.date_warning(not_before - 1.second()).unwrap();
        assert!(early.contains("not valid before") && early.contains("placeholder.invalid"));
        assert!(entry.date_warning(not_after + 1.second()).unwrap().contains("expired"));
    }

    #[test]
    fn key_of_another_certificate_is_refused() {
        let [(cert, _), (_, key)] = [(); 2].map(|()| crate::local::placeholder("x").unwrap());
        let error = Entry::from_pem("x", "test", (&cert, &key), "a.pem with a.key").unwrap_err();
        assert!(matches!(error, TlsError::Unusable { .. }) && error.to_string().contains("a.key"));
        let empty = Entry::from_pem("x", "test", ("", &key), "empty.pem").unwrap_err();
        assert!(matches!(empty, TlsError::Malformed { .. }), "{empty}");
    }
}
