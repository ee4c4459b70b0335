//! Which certificates are held, and how do handshakes get at them?

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use jiff::{Timestamp, ToSpan as _};
use rustls::{
    ServerConfig,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, kx_group},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    acme::{AlpnAnswers, Challenge, Http01, Store},
    config::{TlsConfig, TlsSource, is_host},
    entry::{Entry, uncovered},
    error::TlsError,
    files::Stamp,
    load,
    local::{Authority, RENEW_DAYS},
    status::{self, CertStatus, Progress},
    table::{Table, lower},
    tickets::{TicketSecret, Tickets},
    worker::Worker,
};

/// The protocol of RFC 8737: a connection that agreed on it is an authority's question, was
/// answered by the handshake alone, and must be closed.
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";
/// Unknown names that wait to be looked at; more are dropped and come back with the next client.
const QUEUE_MAX: usize = 256;

/// What changes hold on to while they build the next table.
#[derive(Debug, Default)]
struct Held {
    progress: BTreeMap<String, Progress>,
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
}

/// The certificates, and the TLS configurations over them. Handshakes take no lock.
pub struct Certs {
    config: TlsConfig,
    table: ArcSwap<Table>,
    held: Mutex<Held>,
    tickets: Arc<Tickets>,
    http01: Http01,
    alpn: AlpnAnswers,
    store: Option<Store>,
    asked: mpsc::Sender<String>,
    queue: Mutex<Option<mpsc::Receiver<String>>>,
}

impl fmt::Debug for Certs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certs").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Certs {
    /// Reads or makes the certificates. With ACME and none on disk, a placeholder that nobody
    /// trusts answers until [`run`](Self::run) has got the first.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: what is configured can't be used; nothing of it is then.
    pub fn open(config: TlsConfig) -> Result<Arc<Self>, TlsError> {
        config.check()?;
        let store = match &config.source {
            TlsSource::Acme(acme) => Some(Store::open(acme)?),
            _ => None,
        };
        let stamps = load::stamps(&config.source, store.as_ref());
        let entries = load::all(&config, store.as_ref())?;
        if store.is_none() {
            for name in uncovered(&config.wanted(), &entries) {
                tracing::warn!(name, "no certificate covers a name of the domain");
            }
        }
        let secret = config.tickets.clone().map_or_else(TicketSecret::random, Ok)?;
        let (asked, queue) = mpsc::channel(QUEUE_MAX);
        Ok(Arc::new(Self {
            table: ArcSwap::from_pointee(Table::new(entries)),
            held: Mutex::new(Held { stamps, ..Held::default() }),
            tickets: Tickets::new(secret),
            http01: Http01::default(),
            alpn: AlpnAnswers::default(),
            store,
            asked,
            queue: Mutex::new(Some(queue)),
            config,
        }))
    }

    /// TLS 1.2 and 1.3 over TCP. A connection that agrees on [`ACME_TLS_ALPN`] must be closed.
    ///
    /// # Errors
    ///
    /// [`TlsError::Setup`] if the provider lacks what the versions need.
    pub fn tcp_config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let mut config = self.server_config(&[&TLS13, &TLS12], &[b"h2", b"http/1.1"])?;
        if matches!(&self.config.source, TlsSource::Acme(a) if a.challenge == Challenge::TlsAlpn01)
        {
            config.alpn_protocols.push(ACME_TLS_ALPN.to_vec());
        }
        Ok(config)
    }

    /// TLS 1.3 inside QUIC; no early data.
    ///
    /// # Errors
    ///
    /// [`TlsError::Setup`] if the provider lacks what the version needs.
    pub fn quic_config(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        self.server_config(&[&TLS13], &[b"h3"])
    }

    fn server_config(
        self: &Arc<Self>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions)
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.max_early_data_size = 0;
        config.ticketer = Arc::clone(&self.tickets) as _;
        Ok(config)
    }

    /// What the plain-HTTP listener asks for paths below `/.well-known/acme-challenge/`.
    #[must_use]
    pub fn http01(&self) -> Http01 {
        self.http01.clone()
    }

    /// Watches files, renews, and orders what is asked for, until `cancel`. To be run once; another
    /// call returns at once. Ends within seconds of `cancel`; dropping it is safe, but leaves DNS
    /// records of running orders behind.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        match queue {
            Some(queue) => Worker::new(self, queue, cancel).run().await,
            None => tracing::warn!("certificates are already taken care of"),
        }
    }

    /// Reads all files again, and renews the local authority's leaf if it is near its end. What
    /// can't be used is refused and the old one stays; everything else is taken. Blocks on files.
    ///
    /// # Errors
    ///
    /// [`TlsError`] of the first that can't be used.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamps = load::stamps(&self.config.source, self.store.as_ref());
        self.held().stamps = stamps;
        let mut first = None;
        for (id, loaded) in load::each(&self.config, self.store.as_ref()) {
            let error = match loaded {
                Ok(entry) => {
                    self.put_if_new(entry);
                    None
                }
                Err(error) => {
                    tracing::warn!(id, error = error.chain(), "kept the old certificate");
                    let text = error.chain();
                    first.get_or_insert(error);
                    Some(text)
                }
            };
            if self.store.is_none() {
                self.held().progress.entry(id).or_default().last_error = error;
            }
        }
        self.follow_authority();
        first.map_or(Ok(()), Err)
    }

    /// If the local authority has another key now, so must whatever it signed.
    fn follow_authority(&self) {
        let table = self.table.load_full();
        let signer = &table.default().facts.authority_key;
        for entry in table.entries().iter().filter(|e| &e.facts.authority_key != signer) {
            self.make_local(&entry.id);
        }
    }

    /// Reads again if a file changed since the last look. The outcome is in the log and the status.
    pub(crate) fn reload_changed(&self) {
        let now = load::stamps(&self.config.source, self.store.as_ref());
        if self.held().stamps != now
            && let Err(error) = self.reload()
        {
            tracing::debug!(error = error.chain(), "not all files could be loaded");
        }
    }

    /// Makes again what of the local authority's is near its end.
    pub(crate) fn renew_local(&self) {
        if let Err(error) = self.reload() {
            tracing::warn!(error = error.chain(), "the certificate could not be renewed");
        }
        let soon = Timestamp::now() + (RENEW_DAYS * 24).hours();
        let table = self.table.load_full();
        for entry in table.entries().iter().skip(1).filter(|e| e.facts.not_after < soon) {
            self.make_local(&entry.id);
        }
    }

    /// Makes a certificate of the local authority for one more name.
    pub(crate) fn make_local(&self, name: &str) {
        let TlsSource::LocalCa { dir } = &self.config.source else { return };
        let authority = Authority { dir, domain: &self.config.domain };
        let made = authority.leaf_for(name).and_then(|(cert, key)| {
            Entry::from_pem(name, self.config.source.word(), (&cert, &key), name)
        });
        match made {
            Ok(entry) => self.put(entry),
            Err(error) => tracing::warn!(name, error = error.chain(), "no certificate was made"),
        }
    }

    /// What is known of each certificate, held or wanted; the one for unknown names first.
    #[must_use]
    pub fn status(&self) -> Vec<CertStatus> {
        let progress = self.held().progress.clone();
        status::describe_all(&self.config, &self.table.load(), progress)
    }

    /// Takes a certificate in, in place of the one with its id.
    pub(crate) fn put(&self, entry: Entry) {
        let _one_at_a_time = self.held();
        let entry = Arc::new(entry);
        let mut entries = self.table.load().entries().to_vec();
        entries.retain(|old| old.source != load::PLACEHOLDER);
        match entries.iter_mut().find(|old| old.id == entry.id) {
            Some(old) => *old = entry,
            None if entry.id == self.config.domain => entries.insert(0, entry),
            None => entries.push(entry),
        }
        if entries.len() > self.config.certificates_max.max(1) {
            entries.remove(1.min(entries.len() - 1)); // the oldest but the default
        }
        self.table.store(Arc::new(Table::new(entries)));
    }

    fn put_if_new(&self, entry: Entry) {
        let table = self.table.load();
        let old = table.entries().iter().find(|old| old.id == entry.id);
        if old.is_none_or(|old| old.certified.cert != entry.certified.cert) {
            tracing::info!(id = entry.id, not_after = %entry.facts.not_after, "new certificate");
            self.put(entry);
        }
    }

    /// Drops a certificate that nobody may have any more.
    pub(crate) fn remove(&self, id: &str) {
        let mut held = self.held();
        held.progress.remove(id);
        let mut entries = self.table.load().entries().to_vec();
        entries.retain(|entry| entry.id != id);
        if !entries.is_empty() {
            self.table.store(Arc::new(Table::new(entries)));
        }
    }

    pub(crate) fn set_progress(&self, id: &str, progress: Progress) {
        self.held().progress.insert(id.to_owned(), progress);
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    pub(crate) fn config(&self) -> &TlsConfig {
        &self.config
    }

    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    pub(crate) fn alpn(&self) -> &AlpnAnswers {
        &self.alpn
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, name: &str) {
        if self.config.on_demand.is_some() && is_host(name) {
            let _ = self.asked.try_send(name.to_owned()); // full: the next client asks again
        }
    }
}

/// Prefers the hybrid key exchange that recorded traffic is safe with from quantum computers.
fn provider() -> CryptoProvider {
    let kx_groups =
        vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() }
}

/// Whether the client wants to validate a challenge: then it offers nothing that we speak.
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    let Some(mut offered) = hello.alpn() else { return false };
    let (mut acme, mut ours) = (false, false);
    for protocol in offered.by_ref() {
        acme |= protocol == ACME_TLS_ALPN;
        ours |= [&b"h2"[..], b"http/1.1", b"h3"].contains(&protocol);
    }
    acme && !ours
}

impl ResolvesServerCert for Certs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(lower);
        if is_challenge(&hello) {
            return self.alpn.find(name.as_deref()?);
        }
        let table = self.table.load();
        let Some(name) = name else { return Some(Arc::clone(&table.default().certified)) };
        match table.find(&name) {
            Some(entry) => Some(Arc::clone(&entry.certified)),
            None => {
                self.ask(&name);
                Some(Arc::clone(&table.default().certified))
            }
        }
    }
}
