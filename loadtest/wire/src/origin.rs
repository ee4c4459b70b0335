//! Where requests go, and whom to trust there.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use loadtest_model::Protocol;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{CallError, Guard, quic};

/// Where requests go. Cheap to clone.
#[derive(Clone)]
pub struct Origin {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    host: String,
    port: u16,
    authority: String,
    connect: Option<SocketAddr>,
    guard: Guard,
    tls: Option<Tls>,
}

/// One configuration per protocol: the handshake offers exactly that one.
#[derive(Clone)]
struct Tls {
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
    /// None if the configuration has no TLS 1.3.
    h3: Option<quinn::ClientConfig>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { authority, port, connect, guard, tls, .. } = &*self.inner;
        f.debug_struct("Origin")
            .field("authority", authority)
            .field("port", port)
            .field("connect", connect)
            .field("guard", guard)
            .field("tls", &tls.is_some())
            .finish()
    }
}

impl Origin {
    /// A host by name or address, in the clear without `tls`.
    ///
    /// Sessions are not resumed: each handshake is that of a new user.
    #[must_use]
    pub fn new(host: &str, port: u16, tls: Option<Arc<ClientConfig>>, guard: Guard) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let default = if tls.is_some() { 443 } else { 80 };
        let name = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = if port == default { name } else { format!("{name}:{port}") };
        let tls = tls.map(|tls| Tls::of(&tls));
        let inner = Inner { host, port, authority, connect: None, guard, tls };
        Self { inner: Arc::new(inner) }
    }

    /// Connects here, whatever the name resolves to. The guard still has its say.
    #[must_use]
    pub fn connect_to(mut self, address: SocketAddr) -> Self {
        Arc::make_mut(&mut self.inner).connect = Some(address);
        self
    }

    /// Says this instead of its own name, however malformed. Only HTTP/1.1 can.
    #[must_use]
    pub fn with_authority(mut self, authority: &str) -> Self {
        authority.clone_into(&mut Arc::make_mut(&mut self.inner).authority);
        self
    }

    /// Name and port, without the port if it is the scheme's own.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.inner.authority
    }

    /// The name, or the address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.inner.host
    }

    pub(crate) fn scheme(&self) -> http::uri::Scheme {
        if self.inner.tls.is_some() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP }
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.inner.guard
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.inner.port
    }

    /// The first of its addresses, all of which may be called.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the name leads nowhere, or where no one may go.
    pub async fn resolve(&self) -> Result<SocketAddr, CallError> {
        let found = crate::dial::resolve(self, &mut crate::OpenTimes::default()).await?;
        found.first().copied().ok_or_else(|| CallError::at("look up the host")("it has no address"))
    }

    /// The address, if no one needs to be asked for it.
    pub(crate) fn known_address(&self) -> Option<SocketAddr> {
        if let Some(address) = self.inner.connect {
            return Some(address);
        }
        let name = self.host().trim_end_matches('.').to_ascii_lowercase();
        let ip = if name == "localhost" || name.ends_with(".localhost") {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            name.parse().ok()?
        };
        Some(SocketAddr::new(ip, self.port()))
    }

    /// How to secure a TCP connection; none in the clear.
    pub(crate) fn tls(&self, protocol: Protocol) -> Option<&Arc<ClientConfig>> {
        let tls = self.inner.tls.as_ref()?;
        Some(if protocol == Protocol::H2 { &tls.h2 } else { &tls.h1 })
    }

    pub(crate) fn quic(&self) -> Result<&quinn::ClientConfig, CallError> {
        let config = self.inner.tls.as_ref().and_then(|tls| tls.h3.as_ref());
        config.ok_or_else(|| CallError::at("use HTTP/3")("it needs TLS 1.3"))
    }
}

/// A protocol's name in a handshake.
pub(crate) const fn alpn(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::H1 => "http/1.1",
        Protocol::H2 => "h2",
        Protocol::H3 => "h3",
    }
}

impl Tls {
    fn of(tls: &ClientConfig) -> Self {
        let only = |protocol| {
            let mut config = tls.clone();
            config.alpn_protocols = vec![alpn(protocol).as_bytes().to_vec()];
            config.resumption = Resumption::disabled();
            config
        };
        let h3 = QuicClientConfig::try_from(only(Protocol::H3)).ok().map(quic::config);
        Self { h1: Arc::new(only(Protocol::H1)), h2: Arc::new(only(Protocol::H2)), h3 }
    }
}

/// A TLS configuration that trusts the certificates in `ca_file` and nothing else.
///
/// # Errors
///
/// [`CallError`] if the file is not there or holds something else.
pub fn trusting(ca_file: &Path) -> Result<Arc<ClientConfig>, CallError> {
    const STEP: &str = "use the target's certificate";
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(CallError::at(STEP))? {
        let certificate = certificate.map_err(CallError::at(STEP))?;
        roots.add(certificate).map_err(CallError::at(STEP))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(CallError::at(STEP))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(host: &str, port: u16) -> Origin {
        Origin::new(host, port, None, Guard::default())
    }

    #[test]
    fn the_schemes_own_port_is_not_said() {
        assert_eq!(origin("a.test", 80).authority(), "a.test");
        assert_eq!(origin("a.test", 443).authority(), "a.test:443");
        assert_eq!(origin("::1", 8080).authority(), "[::1]:8080");
        assert_eq!(origin("[::1]", 80).host(), "::1");
    }

    #[test]
    fn names_under_localhost_are_this_machine() {
        for host in ["localhost", "a.b.localhost", "A.LocalHost.", "127.0.0.1"] {
            let known = origin(host, 1).known_address();
            assert_eq!(known, Some(([127, 0, 0, 1], 1).into()), "{host}");
        }
        assert_eq!(origin("notlocalhost", 1).known_address(), None);
        let elsewhere = origin("a.test", 1).connect_to(([127, 0, 0, 2], 9).into());
        assert_eq!(elsewhere.known_address(), Some(([127, 0, 0, 2], 9).into()));
    }
}
