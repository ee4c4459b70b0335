//! `dev.json`: where tools and tests find a running stack.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// A running developer stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevFile {
    /// The API, e.g. `https://api.wrenn.localhost:8443`.
    pub(crate) api_url: String,
    /// What host names end with.
    pub(crate) domain: String,
    /// The certificate to trust.
    pub(crate) ca_file: PathBuf,
    /// The file that holds the API key.
    pub(crate) key_file: PathBuf,
    /// The edge's own metrics and health.
    pub(crate) admin_url: String,
    /// HTTP in the clear.
    pub(crate) http_port: u16,
    /// HTTPS and HTTP/3.
    pub(crate) https_port: u16,
    /// The agent's RPC.
    pub(crate) rpc_port: u16,
    /// The agent's proxy listener.
    pub(crate) proxy_port: u16,
    /// The installation.
    pub(crate) wrenn_dir: PathBuf,
    /// The processes, as they are now.
    pub(crate) pids: Pids,
}

/// The processes of a stack; none while one is being restarted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pids {
    pub(crate) supervisor: Option<i32>,
    pub(crate) agent: Option<i32>,
    pub(crate) edge: Option<i32>,
    pub(crate) pager: Option<i32>,
}

impl DevFile {
    /// Reads it.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = fs::read(path).map_err(Failure::file("read", path))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Failure::local(format!("understand {}", path.display()), e))
    }

    /// Writes it in one step: a reader sees the old one or the new one.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let draft = path.with_extension("json.tmp");
        let mut file = fs::File::create(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.write_all(b"\n")?;
        fs::rename(&draft, path)
    }
}
