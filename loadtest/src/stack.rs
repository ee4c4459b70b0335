//! A running stack, as its `dev.json` describes it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use edge_api::{Client, Endpoint};
use pool_model::SandboxId;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;

use crate::CallError;

/// What `make dev` leaves for tools and tests.
#[derive(Debug, Clone, Deserialize)]
pub struct DevFile {
    /// The API.
    pub api_url: String,
    /// What host names end with.
    pub domain: String,
    /// The certificate to trust.
    pub ca_file: PathBuf,
    /// The file that holds the API key.
    pub key_file: PathBuf,
    /// The edge's own metrics and health.
    pub admin_url: String,
    /// HTTP in the clear.
    pub http_port: u16,
    /// HTTPS and HTTP/3.
    pub https_port: u16,
    /// The processes, as they are now.
    pub pids: Pids,
}

/// The processes of a stack; none while one is being restarted.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Pids {
    /// Restarts the others.
    pub supervisor: Option<i32>,
    /// The agent.
    pub agent: Option<i32>,
    /// The edge.
    pub edge: Option<i32>,
    /// The page server.
    pub pager: Option<i32>,
}

impl DevFile {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`CallError`] if it is not there or not understood.
    pub fn read(path: &Path) -> Result<Self, CallError> {
        let bytes = fs::read(path).map_err(CallError::at("read dev.json"))?;
        serde_json::from_slice(&bytes).map_err(CallError::at("understand dev.json"))
    }
}

/// How to reach a running stack. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stack {
    dev: Arc<DevFile>,
    tls: Arc<ClientConfig>,
    api: Client,
}

impl Stack {
    /// Takes what is needed from a `dev.json` and the files it names.
    ///
    /// # Errors
    ///
    /// [`CallError`] naming what could not be read.
    pub fn open(dev_json: &Path) -> Result<Self, CallError> {
        let dev = DevFile::read(dev_json)?;
        let tls = Arc::new(trusting(&dev.ca_file)?);
        let key = fs::read_to_string(&dev.key_file).map_err(CallError::at("read the API key"))?;
        let api = client(&dev, &tls, key.trim())?;
        Ok(Self { dev: Arc::new(dev), tls, api })
    }

    /// What `dev.json` said when it was read.
    #[must_use]
    pub fn dev(&self) -> &DevFile {
        &self.dev
    }

    /// Calls the API with the stack's own key.
    #[must_use]
    pub fn api(&self) -> &Client {
        &self.api
    }

    /// Calls the API with another key.
    ///
    /// # Errors
    ///
    /// [`CallError`] if `dev.json` has no usable address.
    pub fn api_with_key(&self, key: &str) -> Result<Client, CallError> {
        client(&self.dev, &self.tls, key)
    }

    /// The host name of a function.
    #[must_use]
    pub fn function_host(&self, name: &str) -> String {
        format!("{name}.fn.{}", self.dev.domain)
    }

    /// The host name of a port in a sandbox.
    #[must_use]
    pub fn port_host(&self, sandbox: SandboxId, port: u16) -> String {
        format!("{port}-{}.{}", sandbox.label(), self.dev.domain)
    }

    /// The host name of the API.
    #[must_use]
    pub fn api_host(&self) -> String {
        format!("api.{}", self.dev.domain)
    }

    /// A TLS configuration that trusts the stack, with one protocol to negotiate.
    pub(crate) fn tls(&self, alpn: &[u8]) -> ClientConfig {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls
    }

    /// Where HTTPS and HTTP/3 are served.
    pub(crate) fn secure_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.dev.https_port).into()
    }

    /// Where HTTP is served in the clear.
    pub(crate) fn plain_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.dev.http_port).into()
    }
}

fn client(dev: &DevFile, tls: &Arc<ClientConfig>, key: &str) -> Result<Client, CallError> {
    let url = dev.api_url.parse().map_err(CallError::at("use the API's address"))?;
    Ok(Client::new(Endpoint { url, connect: None, tls: Some(Arc::clone(tls)) }, key))
}

/// A TLS configuration that trusts the certificates in `ca_file` and nothing else.
fn trusting(ca_file: &Path) -> Result<ClientConfig, CallError> {
    const STEP: &str = "use the stack's certificate";
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(CallError::at(STEP))? {
        let certificate = certificate.map_err(CallError::at(STEP))?;
        roots.add(certificate).map_err(CallError::at(STEP))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(CallError::at(STEP))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
