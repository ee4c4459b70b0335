//! How is Pebble run, the test server of the people who wrote RFC 8555?
//!
//! It validates what it is told for real: over HTTP and TLS at the listeners, and by DNS.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use edge_tls::AcmeConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::{Ca, bind, client, dns::Dns, until};

/// What the authority is to be like.
#[derive(Default)]
pub(crate) struct Options {
    /// How long its certificates are valid, in seconds.
    pub(crate) valid_seconds: Option<u64>,
    /// Whether accounts have to be bound to the one with the key `kid-1`.
    pub(crate) external_account: bool,
}

/// The key of `kid-1`.
pub(crate) const EXTERNAL_KEY: &str =
    "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// A test authority with its resolver, and the listeners that it validates at.
pub(crate) struct Pebble {
    pub(crate) dns: Dns,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) http: Option<TcpListener>,
    pub(crate) tls: Option<TcpListener>,
    listen: SocketAddr,
    management: SocketAddr,
    ca: Ca,
    child: Option<Child>,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Pebble {
    pub(crate) async fn start(options: Options) -> Self {
        let mut pebble = Self::prepare(options).await;
        pebble.launch().await;
        pebble
    }

    /// All but the process itself.
    pub(crate) async fn prepare(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let dns = Dns::start(&dir.path().join("records")).await;
        let (http, tls) = (bind().await, bind().await);
        let port = |listener: &TcpListener| listener.local_addr().unwrap();
        // Pebble binds its ports itself, so they are looked for and let go of.
        let (listen, management) = (port(&bind().await), port(&bind().await));
        let ca = Ca::new();
        fs::write(dir.path().join("ca.pem"), &ca.pem).unwrap();
        let (cert, key) = ca.write(dir.path(), "server", &["127.0.0.1", "localhost"]);
        let mut config = serde_json::json!({
            "listenAddress": listen.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": cert, "privateKey": key,
            "httpPort": port(&http).port(), "tlsPort": port(&tls).port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": options.external_account,
            "externalAccountMACKeys": { "kid-1": EXTERNAL_KEY },
        });
        if let Some(seconds) = options.valid_seconds {
            config["certificateValidityPeriod"] = seconds.into();
        }
        let config = serde_json::json!({ "pebble": config }).to_string();
        fs::write(dir.path().join("pebble.json"), config).unwrap();
        let (http, tls) = (Some(http), Some(tls));
        Self { dns, dir, http, tls, listen, management, ca, child: None }
    }

    pub(crate) async fn launch(&mut self) {
        let log = fs::File::create(self.path("pebble.log")).unwrap();
        let child = Command::new("pebble")
            .arg("-config")
            .arg(self.path("pebble.json"))
            .args(["-dnsserver", &self.dns.address.to_string()])
            // One nonce in ten is refused, so that the client's second attempt is seen to work.
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "10")])
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let hint = "pebble is needed to test ACME: apt-get install pebble";
        self.child = Some(child.unwrap_or_else(|error| panic!("{hint} ({error})")));
        until("pebble", || async { TcpStream::connect(self.listen).await.ok() }).await;
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill(); // it may have ended by itself
            let _ = child.wait();
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("pebble.log")).unwrap_or_default()
    }

    /// A configuration that fails and retries fast.
    pub(crate) fn config(&self) -> AcmeConfig {
        let mut config =
            AcmeConfig::new(&format!("https://{}/dir", self.listen), self.path("acme"));
        config.contact = vec!["mailto:admin@example.com".to_owned()];
        config.terms_agreed = true;
        config.acme_ca_file = Some(self.path("ca.pem"));
        config.retry_min = Duration::from_millis(500);
        config.retry_max = Duration::from_secs(2);
        config.orders_per_hour = 1000;
        config
    }

    /// The directory of our account and certificates.
    pub(crate) fn store(&self) -> PathBuf {
        let first = fs::read_dir(self.path("acme")).unwrap().next().unwrap();
        first.unwrap().path()
    }

    /// The root of the certificates that it signs (a new one after each start).
    pub(crate) async fn root(&self) -> String {
        let text = self.get(self.management, "/roots/0").await;
        text[text.find("-----BEGIN").unwrap()..].to_owned()
    }

    /// Its directory.
    pub(crate) async fn directory(&self) -> serde_json::Value {
        let text = self.get(self.listen, "/dir").await;
        serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap()
    }

    async fn get(&self, address: SocketAddr, path: &str) -> String {
        let config = Arc::new(client(&self.ca.pem));
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await; // it may end without a notice
        text
    }
}

/// How many files a directory holds, at any depth.
pub(crate) fn count_files(dir: &Path) -> usize {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { count_files(&path) } else { 1 }
        })
        .sum()
}
