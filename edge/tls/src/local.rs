//! How does a local authority make certificates?
//!
//! Files, all under one directory:
//!
//! ```text
//! ca.pem    to be trusted by clients      ca.key   0600, signs the leaves
//! cert.pem  the domain's leaf             key.pem  0600, its key
//! cert.json what the leaf was made for, so that it is renewed when that changes
//! ```
//!
//! Leaves for custom domains are not kept on disk: they are made again when they are asked for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::TlsError,
    files::{make_dir, read, write},
};

/// How long a leaf is valid, in days.
const LEAF_DAYS: i64 = 90;
/// A leaf is renewed when it has fewer days than this left.
pub(crate) const RENEW_DAYS: i64 = 30;
/// How long the authority is valid, in days.
const CA_DAYS: i64 = 3650;

/// What the leaf on disk was made for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct LeafRecord {
    domain: String,
    not_after: Timestamp,
    /// Length of the certificate's text, so that a record and a foreign leaf aren't taken for a pair.
    cert_bytes: usize,
}

/// The authority in a directory.
#[derive(Debug)]
pub(crate) struct Authority<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) domain: &'a str,
}

impl Authority<'_> {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes authority and leaf if they are missing, made for something else, or near their end.
    pub(crate) fn ensure_leaf(&self) -> Result<(), TlsError> {
        make_dir(self.dir)?;
        let (ca_key, made) = self.ensure_ca()?;
        if made || !self.is_leaf_good() { self.make_leaf(&ca_key) } else { Ok(()) }
    }

    /// A leaf for one more name, as PEM: certificate and key.
    pub(crate) fn leaf_for(&self, name: &str) -> Result<(String, String), TlsError> {
        let (ca_key, _) = self.ensure_ca()?;
        let (cert, key, _) = sign_leaf(&ca_key, name, vec![name.to_owned()])?;
        Ok((cert, key))
    }

    /// The authority's key, and whether it was made just now.
    fn ensure_ca(&self) -> Result<(KeyPair, bool), TlsError> {
        let made = make(self.domain);
        let key_path = self.path("ca.key");
        if self.path("ca.pem").exists() && key_path.exists() {
            return Ok((KeyPair::from_pem(&read(&key_path)?).map_err(made)?, false));
        }
        let key = KeyPair::generate().map_err(&made)?;
        let mut params = ca_params(&key);
        set_validity(&mut params, CA_DAYS);
        let ca = params.self_signed(&key).map_err(&made)?;
        write(&key_path, &key.serialize_pem(), 0o600)?;
        write(&self.path("ca.pem"), &ca.pem(), 0o644)?;
        tracing::info!(path = %self.path("ca.pem").display(), "made a local certificate authority");
        Ok((key, true))
    }

    fn is_leaf_good(&self) -> bool {
        let Ok(cert) = fs::read_to_string(self.path("cert.pem")) else { return false };
        let Ok(text) = fs::read_to_string(self.path("cert.json")) else { return false };
        let Ok(record) = serde_json::from_str::<LeafRecord>(&text) else { return false };
        self.path("key.pem").exists()
            && record.domain == self.domain
            && record.cert_bytes == cert.len()
            && record.not_after > Timestamp::now() + (RENEW_DAYS * 24).hours()
    }

    fn make_leaf(&self, ca_key: &KeyPair) -> Result<(), TlsError> {
        let domain = self.domain;
        let names = [domain, &format!("*.{domain}"), &format!("*.fn.{domain}"), "localhost"]
            .into_iter()
            .chain(["127.0.0.1", "::1"])
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let (leaf, key, not_after) = sign_leaf(ca_key, domain, names)?;
        let record = LeafRecord { domain: domain.to_owned(), not_after, cert_bytes: leaf.len() };
        // The record goes last: a half-written pair is made again.
        let _ = fs::remove_file(self.path("cert.json")); // it may not exist yet
        write(&self.path("key.pem"), &key, 0o600)?;
        write(&self.path("cert.pem"), &leaf, 0o644)?;
        write(&self.path("cert.json"), &serde_json::json!(record).to_string(), 0o644)?;
        tracing::info!(domain, not_after = %not_after, "made a certificate");
        Ok(())
    }
}

/// A certificate that stands in until a real one is there: nobody trusts it.
pub(crate) fn placeholder(domain: &str) -> Result<(String, String), TlsError> {
    let made = make(domain);
    let key = KeyPair::generate().map_err(&made)?;
    let mut params =
        CertificateParams::new(vec!["placeholder.invalid".to_owned()]).map_err(&made)?;
    params.distinguished_name.push(DnType::CommonName, "Wrenn placeholder");
    set_validity(&mut params, CA_DAYS);
    let cert = params.self_signed(&key).map_err(&made)?;
    Ok((cert.pem(), key.serialize_pem()))
}

fn sign_leaf(
    ca_key: &KeyPair,
    subject: &str,
    names: Vec<String>,
) -> Result<(String, String, Timestamp), TlsError> {
    let made = make(subject);
    let mut params = CertificateParams::new(names).map_err(&made)?;
    if subject.len() <= 64 {
        // The longest that RFC 5280 allows; clients look at the alternative names anyway.
        params.distinguished_name.push(DnType::CommonName, subject);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let not_after = set_validity(&mut params, LEAF_DAYS);
    let key = KeyPair::generate().map_err(&made)?;
    let issuer = Issuer::new(ca_params(ca_key), ca_key);
    let leaf = params.signed_by(&key, &issuer).map_err(&made)?.pem();
    Ok((leaf, key.serialize_pem(), not_after))
}

fn make(domain: &str) -> impl Fn(rcgen::Error) -> TlsError {
    let domain = domain.to_owned();
    move |source| TlsError::Make { domain: domain.clone(), source }
}

/// The authority's parameters follow from its key alone, so the certificate needn't be parsed.
fn ca_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let tail: String =
        key.public_key_raw().iter().rev().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Wrenn local CA {tail}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Valid from yesterday (clocks differ) for `days` days; returns the end.
fn set_validity(params: &mut CertificateParams, days: i64) -> Timestamp {
    let now = Timestamp::now();
    let day = |at: Timestamp| {
        let date = at.to_zoned(TimeZone::UTC).date();
        let [month, day] = [date.month(), date.day()].map(i8::unsigned_abs);
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    let end = now + (days * 24).hours();
    params.not_before = day(now - 24.hours());
    params.not_after = day(end);
    end
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn ensure(dir: &Path, domain: &str) -> String {
        Authority { dir, domain }.ensure_leaf().unwrap();
        read(&dir.join("cert.pem")).unwrap()
    }

    #[test]
    fn certificate_is_made_once_and_again_when_the_domain_changes() {
        let dir = tempfile::tempdir().unwrap();
        let tls = dir.path().join("tls");
        let before = ensure(&tls, "a.localhost");
        let ca = read(&tls.join("ca.pem")).unwrap();
        assert_eq!(ensure(&tls, "a.localhost"), before, "a good certificate is kept");
        assert_ne!(ensure(&tls, "b.localhost"), before, "another domain, another certificate");
        assert_eq!(read(&tls.join("ca.pem")).unwrap(), ca, "the authority stays");
    }

    #[test]
    fn certificate_near_its_end_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let before = ensure(dir.path(), "a.localhost");
        let record = |days: i64| LeafRecord {
            domain: "a.localhost".to_owned(),
            not_after: Timestamp::now() + (days * 24).hours(),
            cert_bytes: before.len(),
        };
        let write = |days| {
            let text = serde_json::json!(record(days)).to_string();
            super::write(&dir.path().join("cert.json"), &text, 0o644).unwrap();
        };
        write(31);
        assert_eq!(ensure(dir.path(), "a.localhost"), before);
        write(29);
        assert_ne!(ensure(dir.path(), "a.localhost"), before);
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path(), "a.localhost");
        for name in ["ca.key", "key.pem"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn leaf_for_a_long_name_can_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("{}.{}.example.com", "a".repeat(63), "b".repeat(63));
        let authority = Authority { dir: dir.path(), domain: "a.localhost" };
        authority.ensure_leaf().unwrap();
        let (cert, _) = authority.leaf_for(&name).unwrap();
        assert!(cert.contains("BEGIN CERTIFICATE"));
    }
}
