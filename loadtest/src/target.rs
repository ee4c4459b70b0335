//! Whom to test: a Wrenn stack, or any address.

use std::{net::IpAddr, path::Path, sync::Arc};

use edge_api::{Client, Endpoint};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use loadtest_model::TargetPlan;
use loadtest_wire::{Guard, Origin, trusting};
use rustls::ClientConfig;

use crate::{Stack, error::RunError};

/// Where Debian and its kin keep the certificates that the system trusts.
const SYSTEM_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whom to test, reachable.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The stack, if it is one whose directory was given.
    pub(crate) stack: Option<Stack>,
    /// The address that was given.
    pub(crate) url: Option<Address>,
    /// Headers of every request.
    pub(crate) headers: HeaderMap,
    /// The key of an API that was given by its address.
    pub(crate) key: Option<String>,
    /// What host names of sandboxes end with, of an API that was given by its address.
    pub(crate) domain: Option<String>,
}

/// An address that was given.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) uri: Uri,
    pub(crate) origin: Origin,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) guard: Guard,
}

impl Target {
    /// Reads what the plan names.
    pub(crate) fn open(plan: &TargetPlan) -> Result<Self, RunError> {
        let stack = plan.wrenn_dir.as_deref().map(open_stack).transpose()?;
        let url = plan.url.as_deref().map(|url| Address::new(url, plan)).transpose()?;
        let key = plan.key_file.as_deref().map(read_key).transpose()?;
        let domain = plan.domain.clone().or_else(|| {
            let host = url.as_ref()?.uri.host()?;
            let is_name = host.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
            let domain = host.split_once('.').filter(|_| is_name);
            domain.map(|(_, domain)| domain.to_owned())
        });
        Ok(Self { stack, url, headers: headers(plan)?, key, domain })
    }

    /// Looks where the address leads, so that one which may not be called is refused at once.
    pub(crate) async fn check(&self) -> Result<(), RunError> {
        let Some(address) = &self.url else { return Ok(()) };
        match address.origin.resolve().await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == "refused_address" => Err(RunError::Target(format!(
                "{} (--i-own-this-target, or i_own_this_target in the plan's target)",
                error.in_full()
            ))),
            Err(error) => Err(RunError::Target(error.in_full())),
        }
    }

    /// The stack, or a clear word that one is needed.
    pub(crate) fn stack(&self, wanted: &str) -> Result<&Stack, RunError> {
        self.stack.as_ref().ok_or_else(|| {
            RunError::Target(format!("{wanted} needs a Wrenn stack; expected target.wrenn_dir"))
        })
    }

    /// The key that was given, or a clear word that one is needed.
    pub(crate) fn key(&self) -> Result<&str, String> {
        let key = self.key.as_deref();
        key.ok_or_else(|| "an API needs a key; expected target.key_file".to_owned())
    }

    /// The given address, or a clear word that one is needed.
    pub(crate) fn address(&self, wanted: &str) -> Result<&Address, RunError> {
        self.url.as_ref().ok_or_else(|| {
            RunError::Target(format!("{wanted} needs an address; expected target.url"))
        })
    }
}

impl Address {
    fn new(url: &str, plan: &TargetPlan) -> Result<Self, RunError> {
        let bad = |reason: &str| RunError::Target(format!("target.url `{url}`: {reason}"));
        let uri: Uri = url.parse().map_err(|error| bad(&format!("{error}")))?;
        let host = uri.host().ok_or_else(|| bad("it names no host"))?.to_owned();
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("expected http:// or https://")),
        };
        let tls = if secure {
            let cas = plan.ca_file.as_deref().unwrap_or(Path::new(SYSTEM_CAS));
            Some(trusting(cas).map_err(|error| RunError::Target(error.in_full()))?)
        } else {
            None
        };
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let explicit = literal.into_iter().chain(plan.connect.map(|address| address.ip()));
        let guard = Guard::new(explicit, plan.i_own_this_target);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut origin = Origin::new(&host, port, tls.clone(), guard.clone());
        if let Some(connect) = plan.connect {
            origin = origin.connect_to(connect);
        }
        Ok(Self { uri, origin, tls, guard })
    }

    /// A client of `/v1` at this address. Its name is looked up once, and guarded.
    pub(crate) async fn api(&self, key: &str) -> Result<Client, RunError> {
        let connect = self.origin.resolve().await.map_err(|e| RunError::Target(e.in_full()))?;
        let endpoint =
            Endpoint { url: self.uri.clone(), connect: Some(connect), tls: self.tls.clone() };
        Ok(Client::new(endpoint, key))
    }
}

fn open_stack(dir: &Path) -> Result<Stack, RunError> {
    let dev_json = dir.join("dev.json");
    Stack::open(&dev_json).map_err(|error| {
        RunError::Target(format!(
            "no stack at {} (run `make dev`): {}",
            dev_json.display(),
            error.in_full()
        ))
    })
}

fn read_key(file: &Path) -> Result<String, RunError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        RunError::Target(format!("target.key_file {}: {error}", file.display()))
    })?;
    Ok(text.trim().to_owned())
}

fn headers(plan: &TargetPlan) -> Result<HeaderMap, RunError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &plan.headers {
        let bad = |reason: String| RunError::Target(format!("target.headers.{name}: {reason}"));
        let header = HeaderName::try_from(name).map_err(|error| bad(error.to_string()))?;
        let value = HeaderValue::try_from(value).map_err(|error| bad(error.to_string()))?;
        headers.append(header, value);
    }
    Ok(headers)
}
