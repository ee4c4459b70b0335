//! How is a key set fetched without being led astray: bounded in time, size, redirects and targets?

use std::{
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, builderstates::WantsSchemes};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use tower::util::{BoxCloneSyncService, service_fn};

use super::jwks::{JwksConfig, JwksError};
use crate::ip::is_private;

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 3;

type Resolver = BoxCloneSyncService<Name, std::vec::IntoIter<SocketAddr>, std::io::Error>;
type KeyClient = Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>>;

/// What a server answered.
pub(super) struct Fetched {
    pub(super) body: Bytes,
    /// `Cache-Control: max-age`, if it says so.
    pub(super) max_age: Option<Duration>,
}

/// Fetches key sets. Keeps no connection: there is a fetch in minutes at most.
#[derive(Debug)]
pub(super) struct Fetcher {
    config: JwksConfig,
    client: OnceLock<KeyClient>,
}

impl Fetcher {
    pub(super) fn new(config: JwksConfig) -> Self {
        Self { config, client: OnceLock::new() }
    }

    /// Fetches `url`. Cancel-safe: what was fetched is lost.
    pub(super) async fn fetch(&self, url: &str) -> Result<Fetched, JwksError> {
        let work = self.follow(url);
        tokio::time::timeout(self.config.timeout, work).await.unwrap_or(Err(JwksError::Unreachable))
    }

    async fn follow(&self, url: &str) -> Result<Fetched, JwksError> {
        let client = self.client().await?;
        let mut uri: Uri = url.parse().map_err(|_| JwksError::BadPolicy)?;
        for _ in 0..=REDIRECTS_MAX {
            self.permit(&uri)?;
            let request = Request::get(uri.clone())
                .header(header::ACCEPT, "application/jwk-set+json, application/json")
                .header(header::USER_AGENT, "wrenn")
                .body(Empty::<Bytes>::new())
                .map_err(|_| JwksError::BadPolicy)?;
            let answer = client.request(request).await.map_err(|error| refused(&error))?;
            if answer.status().is_redirection() {
                uri = target(&uri, answer.headers())?;
                continue;
            }
            if answer.status() != StatusCode::OK {
                return Err(JwksError::BadAnswer);
            }
            let max_age = max_age(answer.headers());
            let body = Limited::new(answer.into_body(), self.config.bytes_max).collect().await;
            let body = body.map_err(|error| {
                let too_large = error.is::<LengthLimitError>();
                if too_large { JwksError::TooLarge } else { JwksError::Unreachable }
            })?;
            return Ok(Fetched { body: body.to_bytes(), max_age });
        }
        Err(JwksError::BadAnswer)
    }

    /// Checks what can be seen of a URL; names are checked when they are resolved.
    fn permit(&self, uri: &Uri) -> Result<(), JwksError> {
        let host = uri.host().ok_or(JwksError::Forbidden)?;
        let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let private = literal.is_some_and(is_private);
        let loopback = literal.is_some_and(|ip| ip.is_loopback()) || host == "localhost";
        let good = if uri.scheme() == Some(&Scheme::HTTPS) {
            !private || self.config.allow_private
        } else {
            uri.scheme() == Some(&Scheme::HTTP) && loopback && self.config.allow_private
        };
        if good { Ok(()) } else { Err(JwksError::Forbidden) }
    }

    /// The client; made by the first fetch, for it reads the system's roots.
    async fn client(&self) -> Result<KeyClient, JwksError> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let roots = tokio::task::spawn_blocking(|| {
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            HttpsConnectorBuilder::new().with_provider_and_native_roots(provider)
        });
        let roots = roots.await.map_err(|_| JwksError::Unreachable)?;
        let builder = roots.map_err(|_| JwksError::Unreachable)?;
        Ok(self.client.get_or_init(|| client(self.config, builder)).clone())
    }

    /// Trusts what `tls` trusts, for tests.
    #[cfg(test)]
    pub(super) fn trust(&self, tls: rustls::ClientConfig) {
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        self.client.get_or_init(|| client(self.config, builder));
    }
}

fn client(config: JwksConfig, builder: HttpsConnectorBuilder<WantsSchemes>) -> KeyClient {
    let allow_private = config.allow_private;
    let resolve = move |name: Name| async move {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
        let found: Vec<_> = found.filter(|at| allow_private || !is_private(at.ip())).collect();
        if found.is_empty() {
            return Err(std::io::Error::other(PrivateOnly));
        }
        Ok(found.into_iter())
    };
    let resolver = BoxCloneSyncService::new(service_fn(resolve));
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(config.timeout));
    let https = builder.https_or_http().enable_http1().wrap_connector(tcp);
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https)
}

/// A name leads to private addresses only.
#[derive(Debug, thiserror::Error)]
#[error("the name has no public address")]
struct PrivateOnly;

fn refused(error: &hyper_util::client::legacy::Error) -> JwksError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(at) = cause {
        let io = at.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if at.is::<PrivateOnly>() || io.is_some_and(|inner| inner.is::<PrivateOnly>()) {
            return JwksError::Forbidden;
        }
        cause = at.source();
    }
    JwksError::Unreachable
}

fn target(from: &Uri, headers: &HeaderMap) -> Result<Uri, JwksError> {
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let to: Uri = location.and_then(|text| text.parse().ok()).ok_or(JwksError::BadAnswer)?;
    if to.scheme().is_some() {
        return Ok(to);
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = to.into_parts().path_and_query;
    Uri::from_parts(parts).map_err(|_| JwksError::BadAnswer)
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    let mut words = values.flat_map(|value| value.split(',')).map(str::trim);
    let seconds = words.find_map(|word| {
        let (name, value) = word.split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| value.trim_matches('"').parse().ok())?
    });
    seconds.map(Duration::from_secs)
}
