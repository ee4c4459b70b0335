//! Finds the API: flags and environment, else a developer stack's `dev.json`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use edge_api::{Client, Endpoint};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{args::Connect, dev::DevFile, failure::Failure};

/// Directories searched upwards for `.wrenn/dev.json`.
const LEVELS_MAX: usize = 64;

/// How to reach the API and the functions.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Calls the API.
    pub(crate) client: Client,
    /// Certificates to trust; none means that only plain HTTP works.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The developer stack, if that is what was found.
    pub(crate) dev: Option<DevFile>,
}

impl Connection {
    /// Finds the API. An address given by flag or environment wins over any `dev.json`.
    pub(crate) fn find(given: &Connect) -> Result<Self, Failure> {
        let dev = match (&given.dev_json, &given.api_url) {
            (Some(path), _) => Some(DevFile::read(path)?),
            (None, Some(_)) => None,
            (None, None) => Some(DevFile::read(&find_dev_file()?)?),
        };
        if let (Some(dev), None) = (&dev, &given.api_url) {
            return Self::of_dev(dev.clone(), given);
        }
        let url = given.api_url.clone().ok_or_else(|| Failure::Usage(nowhere()))?;
        Self::new(url, given.ca_file.as_deref(), &key(given, None)?, dev)
    }

    /// The connection to a developer stack.
    pub(crate) fn of_dev(dev: DevFile, given: &Connect) -> Result<Self, Failure> {
        let bad = |e| Failure::local(format!("use the address `{}` of dev.json", dev.api_url), e);
        let url = dev.api_url.parse().map_err(bad)?;
        let key = key(given, Some(&dev.key_file))?;
        let ca_file = given.ca_file.clone().unwrap_or_else(|| dev.ca_file.clone());
        Self::new(url, Some(&ca_file), &key, Some(dev))
    }

    fn new(
        url: http::Uri,
        ca_file: Option<&Path>,
        key: &str,
        dev: Option<DevFile>,
    ) -> Result<Self, Failure> {
        let tls = ca_file.map(trusting).transpose()?.map(Arc::new);
        if url.scheme_str() == Some("https") && tls.is_none() {
            let reason = "an https address needs --ca-file (or WRENN_CA_FILE)";
            return Err(Failure::Usage(reason.to_owned()));
        }
        let endpoint = Endpoint { url, connect: None, tls: tls.clone() };
        Ok(Self { client: Client::new(endpoint, key), tls, dev })
    }
}

/// A TLS configuration that trusts the certificates in `path` and nothing else.
fn trusting(path: &Path) -> Result<ClientConfig, Failure> {
    let unusable = |e: Box<dyn std::error::Error + Send + Sync>| {
        Failure::local(format!("use the certificates in {}", path.display()), e)
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(e.into()))? {
        let certificate = certificate.map_err(|e| unusable(e.into()))?;
        roots.add(certificate).map_err(|e| unusable(e.into()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds none".into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(e.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The key: from the environment, else from the file given or found.
fn key(given: &Connect, found: Option<&Path>) -> Result<String, Failure> {
    if let Ok(key) = std::env::var("WRENN_API_KEY") {
        return Ok(key);
    }
    let Some(path) = given.api_key_file.as_deref().or(found) else {
        return Err(Failure::Usage(
            "no API key: set WRENN_API_KEY or give --api-key-file".to_owned(),
        ));
    };
    match fs::read_to_string(path) {
        Ok(key) => Ok(key.trim().to_owned()),
        Err(e) => Err(Failure::file("read the API key from", path)(e)),
    }
}

fn find_dev_file() -> Result<PathBuf, Failure> {
    if let Some(dir) = std::env::var_os("WRENN_DIR") {
        return Ok(Path::new(&dir).join("dev.json"));
    }
    let here = std::env::current_dir().map_err(|e| Failure::local("find this directory", e))?;
    let found = upwards(&here, Path::new(".wrenn/dev.json"));
    found.ok_or_else(|| Failure::Usage(nowhere()))
}

/// The nearest directory from `start` up that has `name`, as a path to it.
pub(crate) fn upwards(start: &Path, name: &Path) -> Option<PathBuf> {
    let mut candidates = start.ancestors().take(LEVELS_MAX).map(|dir| dir.join(name));
    candidates.find(|path| fs::metadata(path).map_err(|e: io::Error| e.kind()).is_ok())
}

fn nowhere() -> String {
    "no stack found: run `make dev`, or set WRENN_API_URL, WRENN_API_KEY and WRENN_CA_FILE"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_file_upwards_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(dir.path().join(".wrenn")).unwrap();
        fs::write(dir.path().join(".wrenn/dev.json"), "{}").unwrap();
        let name = Path::new(".wrenn/dev.json");
        assert_eq!(upwards(&deep, name), Some(dir.path().join(name)));
        assert_eq!(upwards(&deep, Path::new("surely/not/there")), None);
    }

    #[test]
    fn certificate_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let failure = trusting(file.path()).unwrap_err();
        assert!(failure.report().contains("it holds none"), "{}", failure.report());
    }
}
