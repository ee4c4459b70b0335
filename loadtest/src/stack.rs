//! A running stack, as its `dev.json` describes it.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
};

use edge_api::{Client, Endpoint};
use loadtest_model::Protocol;
use loadtest_wire::{CallError, Connection, Guard, Origin, trusting};
use pool_model::SandboxId;
use rustls::ClientConfig;
use serde::Deserialize;

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
        let tls = trusting(&dev.ca_file)?;
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

    /// Where a host name of the stack is: HTTPS and HTTP/3 on loopback.
    #[must_use]
    pub fn origin(&self, host: &str) -> Origin {
        let port = self.dev.https_port;
        let tls = Some(Arc::clone(&self.tls));
        Origin::new(host, port, tls, self.guard()).connect_to((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Connects to the stack, which must speak exactly `protocol` for `host`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn connect(&self, host: &str, protocol: Protocol) -> Result<Connection, CallError> {
        Ok(Connection::open(&self.origin(host), protocol).await?.connection)
    }

    /// Connects in the clear and says whatever `host` is, however malformed.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn connect_plainly(&self, host: &str) -> Result<Connection, CallError> {
        let port = self.dev.http_port;
        let origin = Origin::new("localhost", port, None, self.guard())
            .connect_to((Ipv4Addr::LOCALHOST, port).into())
            .with_authority(host);
        Ok(Connection::open(&origin, Protocol::H1).await?.connection)
    }

    /// A stack of one's own is on loopback.
    fn guard(&self) -> Guard {
        Guard::new([], false)
    }
}

fn client(dev: &DevFile, tls: &Arc<ClientConfig>, key: &str) -> Result<Client, CallError> {
    let url = dev.api_url.parse().map_err(CallError::at("use the API's address"))?;
    Ok(Client::new(Endpoint { url, connect: None, tls: Some(Arc::clone(tls)) }, key))
}
