//! From a request to what it is for: by host name, by custom domain, by header field, by path.
//!
//! ```text
//! hello.fn.<domain>          --> function         8000-<id>.<domain>  --> sandbox
//! shop.example.org           --> function (verified custom domain)
//! sandbox.<domain>, an IP    --> `Wrenn-Target: hello.fn`, or `E2b-Sandbox-Id` and `-Port`
//! <domain>/fn/hello/...      --> function         <domain>/sb/8000-<id>/... --> sandbox
//! <domain>/anything else     --> API              api.<domain>        --> API
//! ```

use std::sync::Arc;

use edge_telemetry::WorkerTelemetry;
use http::{HeaderMap, HeaderName, Uri, uri::PathAndQuery};
use pool_model::{Port, SandboxId};
use tokio::{runtime::Handle, time::timeout};

use crate::{
    config::Limits,
    error::EdgeError,
    route::{self, Domain, HostError, Target},
    routes::{FunctionRoute, RouteError, Routes, SandboxRoute},
};

/// Names the target on the shared host, in the words of a host name: `hello.fn`, `8000-<id>`.
const WRENN_TARGET: HeaderName = HeaderName::from_static("wrenn-target");
/// What E2B's clients send to a shared host.
const E2B_SANDBOX_ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
const E2B_SANDBOX_PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");

/// What a request is for.
#[derive(Debug)]
pub(crate) enum Destination {
    Api,
    Function { route: Arc<FunctionRoute>, tag: Option<String> },
    Sandbox { route: Arc<SandboxRoute>, sandbox: SandboxId, port: Port },
}

/// How the client named it; decides what is rewritten on the way back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Named {
    #[default]
    Host,
    Domain,
    Header,
    Path,
}

/// A destination, and what of the path the guest doesn't see.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) to: Destination,
    pub(crate) named: Named,
    pub(crate) prefix: Option<String>,
}

/// What resolving needs.
pub(crate) struct Resolver<'a> {
    pub(crate) domain: &'a Domain,
    pub(crate) routes: &'a Arc<dyn Routes>,
    pub(crate) limits: &'a Limits,
    /// Where lookups run that have to ask: a worker's thread must not wait for a disk.
    pub(crate) lookups: &'a Handle,
    pub(crate) telemetry: &'a WorkerTelemetry,
}

impl Resolver<'_> {
    /// Finds what the request is for. A path prefix and a target's field are taken off it.
    pub(crate) async fn resolve(
        &self,
        authority: &str,
        uri: &mut Uri,
        headers: &mut HeaderMap,
    ) -> Result<Resolved, EdgeError> {
        let target = self.domain.parse(authority)?;
        let (target, named, prefix) = match target {
            Target::ByHeader => (by_header(self.domain, headers)?, Named::Header, None),
            Target::ByPath => match by_path(uri)? {
                Some((target, prefix)) => (target, Named::Path, Some(prefix)),
                None => (Target::Api, Named::Path, None),
            },
            Target::Foreign { host } => {
                let name = self.custom_domain(host).await?;
                let target = Target::Function { name: name.to_string(), tag: None };
                (target, Named::Domain, None)
            }
            other => (other, Named::Host, None),
        };
        Ok(Resolved { to: self.destination(target).await?, named, prefix })
    }

    async fn destination(&self, target: Target) -> Result<Destination, EdgeError> {
        match target {
            Target::Api => Ok(Destination::Api),
            Target::Function { name, tag } => {
                let route = self.function(&name).await?;
                Ok(Destination::Function { route, tag })
            }
            Target::SandboxPort { sandbox, port } => {
                let route = self.sandbox(sandbox).await?;
                Ok(Destination::Sandbox { route, sandbox, port })
            }
            Target::ByHeader | Target::ByPath | Target::Foreign { .. } => {
                Err(HostError::UnknownHost.into())
            }
        }
    }

    /// The function of this name.
    pub(crate) async fn function(&self, name: &str) -> Result<Arc<FunctionRoute>, EdgeError> {
        let found = match self.routes.cached_function(name) {
            Some(found) => {
                self.telemetry.count_route(true);
                found
            }
            None => {
                let (routes, name) = (Arc::clone(self.routes), name.to_owned());
                self.ask(async move { routes.function(&name).await }).await?
            }
        };
        found.map_err(|error| match error {
            RouteError::NotFound => EdgeError::FunctionNotFound { name: name.to_owned() },
            RouteError::Unavailable => EdgeError::NoAgent,
        })
    }

    async fn sandbox(&self, sandbox: SandboxId) -> Result<Arc<SandboxRoute>, EdgeError> {
        let found = match self.routes.cached_sandbox(sandbox) {
            Some(found) => {
                self.telemetry.count_route(true);
                found
            }
            None => {
                let routes = Arc::clone(self.routes);
                self.ask(async move { routes.sandbox(sandbox).await }).await?
            }
        };
        found.map_err(|error| match error {
            RouteError::NotFound => EdgeError::SandboxNotFound { sandbox },
            RouteError::Unavailable => EdgeError::NoAgent,
        })
    }

    async fn custom_domain(&self, host: String) -> Result<Arc<str>, EdgeError> {
        let found = match self.routes.cached_domain(&host) {
            Some(found) => {
                self.telemetry.count_route(true);
                found
            }
            None => {
                let routes = Arc::clone(self.routes);
                self.ask(async move { routes.domain(&host).await }).await?
            }
        };
        found.map_err(|error| match error {
            RouteError::NotFound => HostError::UnknownHost.into(),
            RouteError::Unavailable => EdgeError::NoAgent,
        })
    }

    /// Runs a lookup elsewhere, for a bounded time. It goes on if the request does not: its answer
    /// will be cached.
    async fn ask<T: Send + 'static>(
        &self,
        lookup: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, EdgeError> {
        self.telemetry.count_route(false);
        let after = self.limits.route_timeout;
        let step = "finding the route";
        match timeout(after, self.lookups.spawn(lookup)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(_)) => Err(EdgeError::NoAgent), // it panicked, or the edge is going down
            Err(_) => Err(EdgeError::DeadlineExceeded { step, after }),
        }
    }
}

fn by_header(domain: &Domain, headers: &mut HeaderMap) -> Result<Target, EdgeError> {
    let text = |headers: &HeaderMap, name: &HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    if let Some(named) = text(headers, &WRENN_TARGET) {
        headers.remove(WRENN_TARGET);
        return match domain.parse(&format!("{named}.{domain}"))? {
            Target::ByHeader | Target::ByPath | Target::Foreign { .. } => {
                Err(HostError::UnknownHost.into())
            }
            target => Ok(target),
        };
    }
    let Some(id) = text(headers, &E2B_SANDBOX_ID) else {
        return Err(HostError::UnknownHost.into());
    };
    let port = text(headers, &E2B_SANDBOX_PORT).unwrap_or_else(|| Port::ENVD.to_string());
    let label = id.strip_prefix("sb_").unwrap_or(&id);
    Ok(route::sandbox_port(&format!("{port}-{label}"))?)
}

/// `/fn/<name>/rest` and `/sb/<port>-<id>/rest`; the URI keeps the rest. `None`: the API's.
fn by_path(uri: &mut Uri) -> Result<Option<(Target, String)>, EdgeError> {
    let path = uri.path();
    let kinds = ["/fn/", "/sb/"];
    let Some(kind) = kinds.into_iter().find(|kind| path.starts_with(kind)) else {
        return Ok(None);
    };
    let rest = &path[kind.len()..];
    let label = rest.split('/').next().unwrap_or_default();
    let lower = label.to_ascii_lowercase();
    let target =
        if kind == "/fn/" { route::function(&lower) } else { route::sandbox_port(&lower) }?;
    let prefix = format!("{kind}{label}");
    let rest = &path[prefix.len()..];
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let inner = if rest.is_empty() { format!("/{query}") } else { format!("{rest}{query}") };
    let malformed = EdgeError::Malformed { reason: "the path is not a path" };
    let inner: PathAndQuery = inner.parse().map_err(|_| malformed)?;
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(inner);
    *uri = Uri::from_parts(parts)
        .map_err(|_| EdgeError::Malformed { reason: "the path is not a path" })?;
    Ok(Some((target, prefix)))
}

/// The token of an ACME challenge (RFC 8555 8.3), if that is what the path asks for.
pub(crate) fn is_acme_challenge(uri: &Uri) -> Option<&str> {
    uri.path().strip_prefix("/.well-known/acme-challenge/").filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const ID: &str = "0000000000000000000000abc";

    fn domain() -> Domain {
        Domain::new("d.test").unwrap()
    }

    #[test]
    fn a_path_prefix_names_the_target_and_is_taken_off() {
        let named = |text: &str| {
            let mut uri: Uri = text.parse().unwrap();
            by_path(&mut uri).map(|found| found.map(|(target, prefix)| (target, prefix, uri)))
        };
        let (target, prefix, uri) = named("https://d.test/fn/hello/a/b?c=d").unwrap().unwrap();
        assert_eq!(target, Target::Function { name: "hello".to_owned(), tag: None });
        assert_eq!(
            (prefix.as_str(), uri.path_and_query().unwrap().as_str()),
            ("/fn/hello", "/a/b?c=d")
        );
        let (target, _, uri) = named("/fn/hello--canary?x").unwrap().unwrap();
        let tag = Some("canary".to_owned());
        assert_eq!(target, Target::Function { name: "hello".to_owned(), tag });
        assert_eq!(uri.to_string(), "/?x");
        let (target, prefix, uri) = named(&format!("/sb/8000-{ID}/")).unwrap().unwrap();
        assert!(matches!(target, Target::SandboxPort { .. }));
        assert_eq!((prefix, uri.path()), (format!("/sb/8000-{ID}"), "/"));
        assert!(named("/v1/functions").unwrap().is_none());
        assert!(named("/fn/").is_err() && named("/sb/x/").is_err() && named("/fn/a_b/").is_err());
    }

    #[test]
    fn fields_name_the_target_on_the_shared_host() {
        let named = |fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let value = HeaderValue::from_str(value).unwrap();
                headers.insert(HeaderName::from_static(name), value);
            }
            by_header(&domain(), &mut headers).map(|target| (target, headers.len()))
        };
        let (target, left) = named(&[("wrenn-target", "hello--v2.fn")]).unwrap();
        let tag = Some("v2".to_owned());
        assert_eq!((target, left), (Target::Function { name: "hello".to_owned(), tag }, 0));
        let port = |port: u16| Target::SandboxPort {
            sandbox: SandboxId::from_label(ID).unwrap(),
            port: Port::try_from(port).unwrap(),
        };
        let e2b = [("e2b-sandbox-id", ID), ("e2b-sandbox-port", "3000")];
        assert_eq!(named(&e2b).unwrap().0, port(3000));
        assert_eq!(named(&e2b[..1]).unwrap().0, port(Port::ENVD.get()));
        assert!(named(&[]).is_err() && named(&[("wrenn-target", "nonsense")]).is_err());
        assert!(named(&[("wrenn-target", "sandbox")]).is_err(), "no way in circles");
    }
}
