//! E2B's API: the control plane here, the daemon of a sandbox in [`envd`].
//!
//! ```text
//! api.<domain>          POST /v2/sandboxes, /{id}/pause, /v2/.../{id}/connect, DELETE /{id}
//! 49983-<id>.<domain>   process.Process/Start (Connect, JSON), /files
//! ```
//!
//! # Invariants
//!
//! - Exactly the statuses that E2B's own clients take as success are one.
//! - What an API answers goes into no path and no host name before it was checked.

mod connect;
mod envd;
mod http;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::http::{HeaderName, HeaderValue, Method};
use async_trait::async_trait;
use bytes::Bytes;
use loadtest_wire::{Answer, Guard, Origin, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use self::http::{call, encoded, expect, failed, parsed, refused};
use super::{Created, ExecEnd, NONCE_KEY, Sandboxes, ttl_s};
use crate::outcome::Failure;

/// The template that E2B's clients use when none is named.
const TEMPLATE: &str = "base";
/// The header of the API's key.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");
/// Longest id and domain that are taken from an answer; a host name has at most 253 bytes.
const NAME_MAX_BYTES: usize = 128;

/// How to reach an API like E2B's.
#[derive(Clone)]
pub(crate) struct E2bAccess {
    /// The control plane.
    pub(crate) api: Origin,
    /// Its key.
    pub(crate) key: String,
    /// The sandboxes.
    pub(crate) sandboxes: Reach,
}

impl fmt::Debug for E2bAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("E2bAccess").field("api", &self.api.authority()).finish_non_exhaustive()
    }
}

/// How sandboxes are reached.
#[derive(Clone)]
pub(crate) enum Reach {
    /// All at one address; headers say which is meant (`E2B_SANDBOX_URL`).
    Headers(Origin),
    /// Each has names of its own, `<port>-<id>.<domain>`.
    Names {
        /// What they end with, unless a sandbox's own answer says otherwise.
        domain: String,
        /// The port they are served at.
        port: u16,
        /// How to check the server; in the clear if absent.
        tls: Option<Arc<rustls::ClientConfig>>,
        /// Connect here, whatever the names resolve to.
        connect: Option<SocketAddr>,
        /// Which addresses may be dialled.
        guard: Guard,
    },
}

impl Reach {
    /// Where a port of a sandbox is served.
    fn origin(&self, sandbox: &Created, port: u16) -> Origin {
        match self {
            Self::Headers(origin) => origin.clone(),
            Self::Names { domain, port: served_at, tls, connect, guard } => {
                let domain = sandbox.domain.as_deref().unwrap_or(domain);
                let (domain, served_at) = split_port(domain).unwrap_or((domain, *served_at));
                let host = format!("{port}-{}.{domain}", sandbox.id);
                let origin = Origin::new(&host, served_at, tls.clone(), guard.clone());
                match connect {
                    Some(address) => origin.connect_to(*address),
                    None => origin,
                }
            }
        }
    }
}

/// E2B's API.
pub(super) struct E2b {
    access: E2bAccess,
    /// Whether the API is older than its second version of create and connect.
    old: AtomicBool,
}

impl E2b {
    pub(super) const fn new(access: E2bAccess) -> Self {
        Self { access, old: AtomicBool::new(false) }
    }

    fn request(&self, name: &str, method: Method, path: &str) -> Result<Request, Failure> {
        let mut key = HeaderValue::from_str(self.access.key.trim())
            .map_err(|_| failed(name, "the API key can't be the value of a header"))?;
        key.set_sensitive(true);
        Ok(Request::new(method, path).header(KEY_HEADER, key))
    }

    async fn ask(
        &self,
        name: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let mut request = self.request(name, method, path)?;
        if let Some(body) = body {
            request = http::json_body(request, body);
        }
        call(&self.access.api, &request).await
    }

    /// A call that has two versions: the newer, or the older where there is no newer.
    async fn newest(&self, name: &str, path: &str, body: &Value) -> Result<Answer, Failure> {
        if self.old.load(Ordering::Relaxed) {
            return self.ask(name, Method::POST, path, Some(body)).await;
        }
        let newer = self.ask(name, Method::POST, &format!("/v2{path}"), Some(body)).await?;
        if !matches!(newer.status.as_u16(), 404 | 405) {
            return Ok(newer);
        }
        let older = self.ask(name, Method::POST, path, Some(body)).await?;
        if older.status.is_success() {
            self.old.store(true, Ordering::Relaxed);
            return Ok(older);
        }
        // Neither did it. Of an unknown sandbox or template both say so, and a path that isn't
        // there has less to say than what is there.
        Ok(if matches!(older.status.as_u16(), 404 | 405) { newer } else { older })
    }
}

/// What create and connect answer. Unknown fields are none of our business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sandbox {
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    envd_access_token: Option<String>,
    domain: Option<String>,
}

#[async_trait]
impl Sandboxes for E2b {
    async fn create(
        &self,
        template: Option<&str>,
        nonce: &str,
        within: Duration,
    ) -> Result<Created, Failure> {
        const NAME: &str = "create";
        let ttl_s = ttl_s(within);
        let mut metadata = serde_json::Map::new();
        metadata.insert(NONCE_KEY.to_owned(), nonce.into());
        let body = json!({
            "templateID": template.unwrap_or(TEMPLATE), "timeout": ttl_s, "metadata": metadata,
        });
        let answer = expect(NAME, self.newest(NAME, "/sandboxes", &body).await?, &[201])?;
        let Sandbox { sandbox_id: id, envd_access_token: token, domain } = parsed(NAME, &answer)?;
        if !is_name(&id, "-_") {
            return Err(failed(NAME, format!("expected the id of a sandbox, got {id:?}")));
        }
        let domain = domain.filter(|domain| !domain.is_empty());
        if let Some(bad) = domain.as_ref().filter(|domain| !is_name(domain, "-.:")) {
            return Err(failed(NAME, format!("expected the domain of {id}, got {bad:?}")));
        }
        Ok(Created { id, ttl_s, token: token.filter(|token| !token.is_empty()), domain })
    }

    async fn exec(
        &self,
        sandbox: &Created,
        command: &str,
        stdin: Option<Bytes>,
    ) -> Result<ExecEnd, Failure> {
        envd::exec(&self.access.sandboxes, sandbox, command, stdin).await
    }

    async fn write(&self, sandbox: &Created, path: &str, content: Bytes) -> Result<(), Failure> {
        envd::write(&self.access.sandboxes, sandbox, path, content).await
    }

    async fn read(&self, sandbox: &Created, path: &str) -> Result<Bytes, Failure> {
        envd::read(&self.access.sandboxes, sandbox, path).await
    }

    async fn pause(&self, sandbox: &Created) -> Result<(), Failure> {
        let path = format!("/sandboxes/{}/pause", sandbox.id);
        let answer = self.ask("pause", Method::POST, &path, Some(&json!({}))).await?;
        expect("pause", answer, &[204]).map(drop)
    }

    async fn resume(&self, sandbox: &Created) -> Result<(), Failure> {
        const NAME: &str = "resume";
        let path = format!("/sandboxes/{}/connect", sandbox.id);
        let answer = self.newest(NAME, &path, &json!({ "timeout": sandbox.ttl_s })).await?;
        // 200 would say that it ran all the time, so that nothing was paused.
        let answer = expect(NAME, answer, &[201])?;
        let resumed: Sandbox = parsed(NAME, &answer)?;
        if resumed.sandbox_id == sandbox.id {
            return Ok(());
        }
        Err(failed(NAME, format!("expected sandbox {}, got {:?}", sandbox.id, resumed.sandbox_id)))
    }

    async fn kill(&self, sandbox: &Created) -> Result<(), Failure> {
        let path = format!("/sandboxes/{}", sandbox.id);
        let answer = self.ask("kill", Method::DELETE, &path, None).await?;
        expect("kill", answer, &[204]).map(drop)
    }

    async fn kill_lost(&self, nonce: &str) -> Result<(), Failure> {
        const NAME: &str = "list";
        // A form in a query: key and value are encoded, and then the whole once more.
        let form = format!("{}={}", encoded(NONCE_KEY), encoded(nonce));
        let path = format!("/v2/sandboxes?state=running,paused&metadata={}", encoded(&form));
        let answer = self.ask(NAME, Method::GET, &path, None).await?;
        let listed: Vec<Sandbox> = parsed(NAME, &expect(NAME, answer, &[200])?)?;
        for Sandbox { sandbox_id, .. } in listed {
            if !is_name(&sandbox_id, "-_") {
                return Err(failed(NAME, format!("expected ids, got {sandbox_id:?}")));
            }
            let path = format!("/sandboxes/{sandbox_id}");
            let answer = self.ask("kill", Method::DELETE, &path, None).await?;
            if answer.status.as_u16() != 404 && !answer.status.is_success() {
                return Err(refused(&answer));
            }
        }
        Ok(())
    }
}

/// Whether it can stand in a path or a host name as it is.
fn is_name(text: &str, and: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || and.contains(c);
    (1..=NAME_MAX_BYTES).contains(&text.len()) && text.chars().all(allowed)
}

/// A domain may come with a port.
fn split_port(domain: &str) -> Option<(&str, u16)> {
    let (domain, port) = domain.split_once(':')?;
    Some((domain, port.parse().ok()?))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn names_that_could_lead_elsewhere_are_none() {
        assert!(is_name("ic0ffee", "-_") && is_name("e2b.example:8443", "-.:"));
        let long = "a".repeat(NAME_MAX_BYTES + 1);
        for bad in ["", "a/b", "a?b", "../x", "a b", "a@b", "gr\u{fc}n", long.as_str()] {
            assert!(!is_name(bad, "-_."), "{bad}");
        }
    }

    #[test]
    fn port_of_a_domain_is_found() {
        assert_eq!(split_port("e2b.example:8443"), Some(("e2b.example", 8443)));
        assert_eq!(split_port("e2b.example"), None);
        assert_eq!(split_port("e2b.example:x"), None);
    }
}
