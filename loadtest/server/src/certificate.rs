//! A certificate for this machine's own names, made anew for each server.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::{
    SupportedProtocolVersion,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::ServeError;

/// A certificate that signs itself, and its key.
pub(crate) struct Certificate {
    chain: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    /// For those who are to trust it.
    pub(crate) pem: String,
}

impl Certificate {
    /// Makes one.
    pub(crate) fn new() -> Result<Self, ServeError> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).map_err(ServeError::Certificate)?;
        params.distinguished_name.push(DnType::CommonName, "Wrenn load test");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().map_err(ServeError::Certificate)?;
        let made = params.self_signed(&key).map_err(ServeError::Certificate)?;
        let (pem, chain) = (made.pem(), made.der().clone());
        Ok(Self { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()), pem })
    }

    /// For TLS over TCP.
    pub(crate) fn tcp(&self) -> Result<rustls::ServerConfig, ServeError> {
        self.config(&[&TLS13, &TLS12], &[b"h2", b"http/1.1"])
    }

    /// For QUIC.
    pub(crate) fn quic(&self) -> Result<rustls::ServerConfig, ServeError> {
        self.config(&[&TLS13], &[b"h3"])
    }

    fn config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Result<rustls::ServerConfig, ServeError> {
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![self.chain.clone()], key)
            })
            .map_err(ServeError::Tls)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}
