//! How is a result posted without being led astray: bounded in time, no redirects, no inside?

use std::{
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
    time::Duration,
};

use bytes::Bytes;
use edge_policy::is_private;
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use tower::util::{BoxCloneSyncService, service_fn};

use super::SIGNATURE_HEADER;

type Resolver = BoxCloneSyncService<Name, std::vec::IntoIter<SocketAddr>, std::io::Error>;
type WebClient = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// Why a result was not posted. `Display` is kept with the invocation, for its owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    #[error("the webhook's URL can't be read")]
    BadUrl,
    #[error("the webhook is not https, or is on a private address")]
    Forbidden,
    #[error("the function is gone, and with it what its results are signed with")]
    NoSecret,
    #[error("the webhook can't be reached")]
    Unreachable,
    #[error("the webhook did not answer within {0:?}")]
    Late(Duration),
    #[error("the webhook answered {0}, which is not 2xx")]
    Status(StatusCode),
    #[error("an internal error; the log has it")]
    Internal,
}

impl SendError {
    /// Whether trying again is no use.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::BadUrl | Self::Forbidden | Self::NoSecret)
    }
}

/// Posts. Keeps no connection.
#[derive(Debug)]
pub(super) struct Sender {
    allow_private: bool,
    timeout: Duration,
    client: OnceLock<WebClient>,
}

impl Sender {
    pub(super) const fn new(allow_private: bool, timeout: Duration) -> Self {
        Self { allow_private, timeout, client: OnceLock::new() }
    }

    /// Posts `body`; done is what was answered with 2xx. The answer's body is not read.
    pub(super) async fn post(
        &self,
        to: &str,
        signature: &str,
        body: Bytes,
    ) -> Result<(), SendError> {
        let uri: Uri = to.parse().map_err(|_| SendError::BadUrl)?;
        self.permit(&uri)?;
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "wrenn")
            .header(SIGNATURE_HEADER, signature)
            .body(Full::new(body))
            .map_err(|_| SendError::BadUrl)?;
        let sending = async { self.client().await?.request(request).await.map_err(|e| why(&e)) };
        let answer = tokio::time::timeout(self.timeout, sending).await;
        let answer = answer.unwrap_or(Err(SendError::Late(self.timeout)))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(SendError::Status(status)) }
    }

    /// Checks what can be seen of a URL; names are checked when they are resolved.
    fn permit(&self, uri: &Uri) -> Result<(), SendError> {
        let host = uri.host().ok_or(SendError::BadUrl)?;
        let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let private = literal.is_some_and(is_private);
        let loopback = literal.is_some_and(|ip| ip.is_loopback()) || host == "localhost";
        let good = if uri.scheme() == Some(&Scheme::HTTPS) {
            !private || self.allow_private
        } else {
            uri.scheme() == Some(&Scheme::HTTP) && loopback && self.allow_private
        };
        if good { Ok(()) } else { Err(SendError::Forbidden) }
    }

    /// The client; made by the first post, for it reads the system's roots.
    async fn client(&self) -> Result<&WebClient, SendError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let (allow_private, timeout) = (self.allow_private, self.timeout);
        let made = tokio::task::spawn_blocking(move || client(allow_private, timeout));
        let made = made.await.ok().and_then(Result::ok).ok_or(SendError::Internal)?;
        Ok(self.client.get_or_init(|| made))
    }
}

fn client(allow_private: bool, timeout: Duration) -> std::io::Result<WebClient> {
    let resolve = move |name: Name| async move {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
        let found: Vec<_> = found.filter(|at| allow_private || !is_private(at.ip())).collect();
        if found.is_empty() { Err(std::io::Error::other(Inside)) } else { Ok(found.into_iter()) }
    };
    let resolver = BoxCloneSyncService::new(service_fn(resolve));
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(timeout));
    let https = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())?
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https))
}

/// A name leads to private addresses only.
#[derive(Debug, thiserror::Error)]
#[error("the name has no public address")]
struct Inside;

fn why(error: &hyper_util::client::legacy::Error) -> SendError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(at) = cause {
        let io = at.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if at.is::<Inside>() || io.is_some_and(|inner| inner.is::<Inside>()) {
            return SendError::Forbidden;
        }
        cause = at.source();
    }
    SendError::Unreachable
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn post(allow_private: bool, to: &str) -> SendError {
        let sender = Sender::new(allow_private, Duration::from_secs(20));
        sender.post(to, "t=0,v1=", Bytes::new()).await.unwrap_err()
    }

    #[tokio::test]
    async fn what_is_inside_is_refused_by_address_and_by_name() {
        for to in [
            "https://127.0.0.1:1/",
            "https://[::1]:1/",
            "https://169.254.169.254/",
            "https://[::ffff:10.0.0.1]/",
            "http://127.0.0.1:1/",
            "http://example.org/",
            "https://localhost:1/",
            "ftp://example.org/",
        ] {
            assert_eq!(post(false, to).await, SendError::Forbidden, "{to}");
        }
        assert_eq!(post(true, "http://10.0.0.1/").await, SendError::Forbidden);
        for to in ["https://127.0.0.1:1/", "https://localhost:1/", "http://127.0.0.1:1/"] {
            assert_eq!(post(true, to).await, SendError::Unreachable, "{to}");
        }
        assert_eq!(post(true, "/path").await, SendError::BadUrl);
    }
}
