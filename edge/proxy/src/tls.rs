//! The certificate: made by a local authority at first start, or read from files.
//!
//! Files of the local authority, all under one directory:
//!
//! ```text
//! ca.pem    to be trusted by clients      ca.key   0600, signs the leaf
//! cert.pem  the leaf                      key.pem  0600, its key
//! cert.json what the leaf was made for, so that it is renewed when that changes
//! ```
//!
//! # Invariants
//!
//! - Keys are created with mode 0600, never widened, and never logged.
//! - Files are replaced by rename: a reader sees the old or the new one.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};

use crate::route::Domain;

/// How long a leaf is valid, in days.
const LEAF_DAYS: i64 = 90;
/// A leaf is renewed when it has fewer days than this left.
const RENEW_DAYS: i64 = 30;
/// How long the authority is valid, in days.
const CA_DAYS: i64 = 3650;

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSource {
    /// Made by a local authority that lives in this directory.
    LocalCa {
        /// The directory; made if missing.
        dir: PathBuf,
    },
    /// Read from PEM files.
    Files {
        /// The chain, leaf first.
        cert: PathBuf,
        /// The leaf's key.
        key: PathBuf,
    },
}

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file is not the PEM it should be.
    #[error("{} is not a usable PEM file", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {domain}")]
    Make {
        /// For which domain.
        domain: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// Certificate and key don't fit together, or the key is of an unknown kind.
    #[error("certificate and key cannot be used for TLS")]
    Unusable(#[source] rustls::Error),
}

/// The certificate in use; renewed in place, new handshakes see the new one.
#[derive(Debug)]
pub(crate) struct Identity {
    source: TlsSource,
    domain: Domain,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Identity {
    /// Reads or makes the certificate.
    pub(crate) fn load(source: &TlsSource, domain: &Domain) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(read_or_make(source, domain)?);
        Ok(Arc::new(Self { source: source.clone(), domain: domain.clone(), current }))
    }

    /// Reads it again, renewing it if it is near its end.
    pub(crate) fn refresh(&self) -> Result<(), TlsError> {
        let fresh = read_or_make(&self.source, &self.domain)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// TLS 1.2 and 1.3 over TCP.
    pub(crate) fn tcp_config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        self.config(&[&TLS13, &TLS12], &[b"h2", b"http/1.1"])
    }

    /// TLS 1.3 inside QUIC; no early data.
    pub(crate) fn quic_config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        self.config(&[&TLS13], &[b"h3"])
    }

    fn config(
        self: &Arc<Self>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Result<ServerConfig, TlsError> {
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(versions)
                .map_err(TlsError::Unusable)?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.max_early_data_size = 0;
        Ok(config)
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read_or_make(source: &TlsSource, domain: &Domain) -> Result<Arc<CertifiedKey>, TlsError> {
    let (cert, key) = match source {
        TlsSource::Files { cert, key } => (cert.clone(), key.clone()),
        TlsSource::LocalCa { dir } => {
            let authority = Authority { dir, domain };
            authority.ensure_leaf()?;
            (authority.path("cert.pem"), authority.path("key.pem"))
        }
    };
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&cert).and_then(Iterator::collect).map_err(pem(&cert))?;
    let key = PrivateKeyDer::from_pem_file(&key).map_err(pem(&key))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(TlsError::Unusable)
}

/// What the leaf on disk was made for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct LeafRecord {
    domain: String,
    not_after: Timestamp,
    /// Text of the certificate, so that a record and a foreign leaf aren't taken for a pair.
    cert_bytes: usize,
}

#[derive(Debug)]
struct Authority<'a> {
    dir: &'a Path,
    domain: &'a Domain,
}

impl Authority<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn ensure_leaf(&self) -> Result<(), TlsError> {
        let io = |source| TlsError::Io { action: "create", path: self.dir.to_owned(), source };
        fs::create_dir_all(self.dir).map_err(io)?;
        let (ca_key, made) = self.ensure_ca()?;
        if made || !self.is_leaf_good() { self.make_leaf(&ca_key) } else { Ok(()) }
    }

    /// The authority's key, and whether it was made just now.
    fn ensure_ca(&self) -> Result<(KeyPair, bool), TlsError> {
        let key_path = self.path("ca.key");
        if self.path("ca.pem").exists() && key_path.exists() {
            let text = read(&key_path)?;
            return Ok((KeyPair::from_pem(&text).map_err(|error| self.make(error))?, false));
        }
        let key = KeyPair::generate().map_err(|error| self.make(error))?;
        let mut params = ca_params(&key);
        set_validity(&mut params, CA_DAYS);
        let ca = params.self_signed(&key).map_err(|error| self.make(error))?;
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
            && record.domain == self.domain.as_str()
            && record.cert_bytes == cert.len()
            && record.not_after > Timestamp::now() + (RENEW_DAYS * 24).hours()
    }

    fn make_leaf(&self, ca_key: &KeyPair) -> Result<(), TlsError> {
        let domain = self.domain.as_str();
        let names = [domain, &format!("*.{domain}"), &format!("*.fn.{domain}"), "localhost"]
            .map(str::to_owned)
            .into_iter()
            .chain(["127.0.0.1".to_owned(), "::1".to_owned()])
            .collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).map_err(|error| self.make(error))?;
        params.distinguished_name.push(DnType::CommonName, domain);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let not_after = set_validity(&mut params, LEAF_DAYS);
        let key = KeyPair::generate().map_err(|error| self.make(error))?;
        let issuer = Issuer::new(ca_params(ca_key), ca_key);
        let leaf = params.signed_by(&key, &issuer).map_err(|error| self.make(error))?.pem();
        let record = LeafRecord { domain: domain.to_owned(), not_after, cert_bytes: leaf.len() };
        // The record goes last: a half-written pair is made again.
        let _ = fs::remove_file(self.path("cert.json")); // it may not exist yet
        write(&self.path("key.pem"), &key.serialize_pem(), 0o600)?;
        write(&self.path("cert.pem"), &leaf, 0o644)?;
        let text = serde_json::json!(record).to_string();
        write(&self.path("cert.json"), &text, 0o644)?;
        tracing::info!(domain, not_after = %not_after, "made a certificate");
        Ok(())
    }

    fn make(&self, source: rcgen::Error) -> TlsError {
        TlsError::Make { domain: self.domain.to_string(), source }
    }
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

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// Writes by rename; the mode holds from the first byte on.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let io = |source| TlsError::Io { action: "write", path: path.to_owned(), source };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".new");
    let partial = PathBuf::from(partial);
    let _ = fs::remove_file(&partial); // left by a crash, with whatever mode it had
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&partial)
        .map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&partial, path).map_err(io)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn cert(dir: &Path) -> String {
        read(&dir.join("cert.pem")).unwrap()
    }

    #[test]
    fn certificate_is_made_once_and_again_when_the_domain_changes() {
        let dir = tempfile::tempdir().unwrap();
        let source = TlsSource::LocalCa { dir: dir.path().join("tls") };
        let tls = dir.path().join("tls");
        let first = Domain::new("a.localhost").unwrap();
        Identity::load(&source, &first).unwrap();
        let (ca, before) = (read(&tls.join("ca.pem")).unwrap(), cert(&tls));
        Identity::load(&source, &first).unwrap();
        assert_eq!(cert(&tls), before, "a good certificate is kept");
        Identity::load(&source, &Domain::new("b.localhost").unwrap()).unwrap();
        assert_ne!(cert(&tls), before, "another domain, another certificate");
        assert_eq!(read(&tls.join("ca.pem")).unwrap(), ca, "the authority stays");
    }

    #[test]
    fn certificate_near_its_end_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let source = TlsSource::LocalCa { dir: dir.path().to_owned() };
        let domain = Domain::new("a.localhost").unwrap();
        let identity = Identity::load(&source, &domain).unwrap();
        let before = cert(dir.path());
        let record = LeafRecord {
            domain: "a.localhost".to_owned(),
            not_after: Timestamp::now() + (29 * 24).hours(),
            cert_bytes: before.len(),
        };
        write(&dir.path().join("cert.json"), &serde_json::json!(record).to_string(), 0o644)
            .unwrap();
        identity.refresh().unwrap();
        assert_ne!(cert(dir.path()), before);
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let source = TlsSource::LocalCa { dir: dir.path().to_owned() };
        Identity::load(&source, &Domain::new("a.localhost").unwrap()).unwrap();
        for name in ["ca.key", "key.pem"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn missing_files_are_named() {
        let missing = PathBuf::from("/nonexistent/cert.pem");
        let source = TlsSource::Files { cert: missing.clone(), key: missing };
        let error = Identity::load(&source, &Domain::new("a.localhost").unwrap()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/cert.pem"), "{error}");
    }
}
