//! How a function may be invoked and a sandbox's ports be reached: what their owners may set.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Port;

/// A token bucket: `burst` requests at once, refilled by `per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests per second in the long run, 1 to 1000000.
    pub per_second: u32,
    /// Requests at once, 1 to 1000000; `per_second` if absent or 0.
    #[serde(default)]
    pub burst: u32,
}

/// One way to show that one may invoke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Auth {
    /// An API key of the function's team, in `X-API-Key` or `Authorization: Bearer`.
    Key,
    /// A URL that the API signed (`POST /v1/functions/{name}/sign`).
    SignedUrl,
    /// A JSON Web Token in `Authorization: Bearer`.
    Jwt(JwtAuth),
}

/// Which JSON Web Tokens are good. Only asymmetric algorithms are accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtAuth {
    /// Where the key set is fetched from (https). One of this and `jwks`.
    pub jwks_url: Option<String>,
    /// The key set itself, as JSON text.
    pub jwks: Option<String>,
    /// What `iss` has to be; anything if absent.
    pub issuer: Option<String>,
    /// What `aud` has to contain one of; anything if empty.
    pub audience: Vec<String>,
    /// How far clocks may differ, seconds.
    pub leeway_s: u32,
}

/// What browsers of other origins may do (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins, `*` for every one.
    pub origins: Vec<String>,
    /// Methods beyond the simple ones.
    pub methods: Vec<String>,
    /// Request headers beyond the simple ones.
    pub headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// Whether cookies and authorization go along; not together with origin `*`.
    pub credentials: bool,
    /// How long a preflight's answer holds, seconds.
    pub max_age_s: u32,
}

/// Which protocol a guest's server speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppProtocol {
    /// HTTP/1.1, but HTTP/2 for gRPC (`content-type: application/grpc…`).
    #[default]
    Auto,
    /// HTTP/1.1 always.
    Http1,
    /// HTTP/2 without TLS, with prior knowledge, always.
    H2c,
}

/// Invocations that nobody waits for (`Prefer: respond-async`, RFC 7240, and `cron`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AsyncPolicy {
    /// Whether callers may ask for it.
    pub enabled: bool,
    /// Invocations that may wait, 1 to 100000.
    pub pending_max: u32,
    /// Attempts before one is a dead letter, 1 to 20.
    pub attempts_max: u32,
    /// Pause after the first attempt, milliseconds; doubles, at most 5 minutes.
    pub backoff_ms: u64,
    /// How long a result is kept, seconds, 60 to 2592000.
    pub result_ttl_s: u64,
    /// Where results are posted to, signed with the function's secret.
    pub webhook: Option<String>,
}

impl Default for AsyncPolicy {
    fn default() -> Self {
        Self {
            enabled: false,
            pending_max: 1000,
            attempts_max: 3,
            backoff_ms: 1000,
            result_ttl_s: 86_400,
            webhook: None,
        }
    }
}

/// A request that is made by the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    /// Its name, unique in its function.
    pub name: String,
    /// Five fields: minute, hour, day of month, month, day of week.
    pub schedule: String,
    /// The time zone (IANA); UTC if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The method; `POST` if absent.
    #[serde(default = "post")]
    pub method: String,
    /// The path and query; `/` if absent.
    #[serde(default = "root")]
    pub path: String,
    /// Header fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// How a function may be invoked. Everything is open by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InvocationPolicy {
    /// Invocations at a time, all hosts together; 0: no limit of its own.
    pub concurrency_max: u32,
    /// Invocations at a time on one host; 0: no limit of its own.
    pub host_concurrency_max: u32,
    /// Requests that may wait for a place, 0 to 100000.
    pub queue_max: u32,
    /// Longest wait for a place, milliseconds, 0 to 600000.
    pub queue_timeout_ms: u64,
    /// Most bytes of a request's body; 0: no limit.
    pub request_bytes_max: u64,
    /// Most bytes of an answer's body; 0: no limit.
    pub response_bytes_max: u64,
    /// Requests per second under its name.
    pub rate: Option<Rate>,
    /// Requests per second of one client address (of one /64 with IPv6).
    pub client_rate: Option<Rate>,
    /// Networks that may invoke; every one if empty.
    pub allow_ips: Vec<IpNet>,
    /// Networks that may not, even if allowed above.
    pub deny_ips: Vec<IpNet>,
    /// Ways to show that one may invoke: one is enough; anybody may if empty.
    pub auth: Vec<Auth>,
    /// What browsers of other origins may do; the edge leaves it to the guest if absent.
    pub cors: Option<Cors>,
    /// Which protocol its server speaks.
    pub app_protocol: AppProtocol,
    /// Invocations that nobody waits for.
    #[serde(rename = "async")]
    pub asynchronous: AsyncPolicy,
    /// Requests that are made by the clock, at most 32.
    pub cron: Vec<Cron>,
}

impl Default for InvocationPolicy {
    fn default() -> Self {
        Self {
            concurrency_max: 0,
            host_concurrency_max: 0,
            queue_max: 1000,
            queue_timeout_ms: 10_000,
            request_bytes_max: 0,
            response_bytes_max: 0,
            rate: None,
            client_rate: None,
            allow_ips: Vec::new(),
            deny_ips: Vec::new(),
            auth: Vec::new(),
            cors: None,
            app_protocol: AppProtocol::Auto,
            asynchronous: AsyncPolicy::default(),
            cron: Vec::new(),
        }
    }
}

/// How a sandbox's ports may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrafficPolicy {
    /// Whether every port asks for the sandbox's traffic token.
    pub private: bool,
    /// Ports that ask for it though `private` is false.
    pub private_ports: Vec<Port>,
    /// Requests per second, all ports together.
    pub rate: Option<Rate>,
    /// Networks that may come in; every one if empty.
    pub allow_ips: Vec<IpNet>,
    /// Networks that may not, even if allowed above.
    pub deny_ips: Vec<IpNet>,
    /// Ports whose servers speak HTTP/2 without TLS.
    pub h2c_ports: Vec<Port>,
}

/// A share of the requests to a function's plain name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagWeight {
    /// The tag.
    pub tag: String,
    /// Its share is this over the sum, 0 to 1000.
    pub weight: u32,
}
