//! How do requests get to the ACME authority?
//!
//! Over HTTPS/1.1, each within a time, and no answer is read beyond a size: the authority is
//! trusted with certificates, but not with our memory.

use std::{future::Future, io, path::Path, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::time::timeout;

use crate::{error::TlsError, files::read};

/// The time of one request with its answer.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Idle connections are closed after this time.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// Largest answer in bytes; chains have a few KiB.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// A client for [`instant_acme`].
pub(crate) struct Client(Pool<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl Client {
    /// Trusts the certificates of `ca_file`, or the system's.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let builder = match ca_file {
            Some(path) => {
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(TlsError::Setup)?
                    .with_root_certificates(roots(path)?)
                    .with_no_client_auth();
                builder.with_tls_config(config)
            }
            None => builder.with_provider_and_native_roots(provider).map_err(|source| {
                let path = "the system's trusted certificates".into();
                TlsError::Io { action: "read", path, source }
            })?,
        };
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(2)
            .build(builder.https_only().enable_http1().build());
        Ok(Self(pool))
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let place = path.display().to_string();
    let text = read(path)?;
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let cert = cert.map_err(|source| TlsError::Pem { place: place.clone(), source })?;
        roots.add(cert).map_err(|source| TlsError::Unusable { place: place.clone(), source })?;
    }
    if roots.is_empty() {
        return Err(TlsError::Config(format!("{place} holds no certificate")));
    }
    Ok(roots)
}

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Client {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let answer = self.0.request(request);
        Box::pin(async move {
            let whole = async {
                let (parts, body) = answer.await.map_err(other)?.into_parts();
                let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
                let body = body.map_err(Error::Other)?.to_bytes();
                Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body))))
            };
            let late = |_| other(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            timeout(REQUEST_TIME, whole).await.map_err(late)?
        })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}
