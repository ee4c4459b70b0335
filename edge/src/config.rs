//! The edge's settings.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use edge_proxy::ProxyProtocol;
use ipnet::IpNet;

use crate::list::List;

pool_config::settings! {
    /// What the edge needs to start.
    pub struct EdgeConfig in "edge" {
        /// Where plain HTTP/1.1 is served; empty for nowhere.
        http_listen: Option<SocketAddr> = "127.0.0.1:8080",
        /// Where HTTP/1.1 and HTTP/2 are served over TLS; empty for nowhere.
        https_listen: Option<SocketAddr> = "127.0.0.1:8443",
        /// Where HTTP/3 is served; empty for nowhere.
        quic_listen: Option<SocketAddr> = "127.0.0.1:8443",
        /// Where health and metrics are served, without a key: keep it on loopback.
        admin_listen: SocketAddr = "127.0.0.1:7400",
        /// The domain under which the API, functions and capsules live.
        domain: String = "wrenn.localhost",
        /// The port in the URLs that the API hands out; empty for the one listened on.
        public_port: Option<u16> = "",
        /// The agent's RPC listener.
        agent_rpc: SocketAddr = "127.0.0.1:7401",
        /// The agent's proxy listener.
        agent_proxy: SocketAddr = "127.0.0.1:7402",
        /// The file with the agent's token; empty for the installation's own.
        agent_token_file: Option<PathBuf> = "",
        /// How long the agent may take to make its token at the first start, milliseconds.
        agent_token_wait_ms: u64 = "60000",
        /// The database; empty for the installation's own.
        database_file: Option<PathBuf> = "",
        /// Threads that serve; 0 for one per processor.
        workers: usize = "0",
        /// Certificate chains in PEM, with commas between; empty for one by the installation's own
        /// authority, or by ACME. Changed files are taken over within seconds.
        tls_cert_file: List<PathBuf> = "",
        /// The chains' keys in PEM, in the same order.
        tls_key_file: List<PathBuf> = "",
        /// The directory of a certificate authority that speaks ACME, e.g.
        /// `https://acme-v02.api.letsencrypt.org/directory`; empty for none.
        acme_directory: Option<String> = "",
        /// Whether the authority's terms of service are agreed to.
        acme_terms_agreed: bool = "false",
        /// Whom the authority may write to, e.g. `mailto:you@example.org`.
        acme_contact: List<String> = "",
        /// How names are proved that the DNS hook is not for: `http-01` or `tls-alpn-01`.
        acme_challenge: AcmeChallenge = "http-01",
        /// A program that sets and removes DNS records (`present|cleanup NAME VALUE`); it makes
        /// wildcard certificates possible.
        acme_dns_hook: Option<PathBuf> = "",
        /// The authority's own certificate authority in PEM; empty for the system's.
        acme_ca_file: Option<PathBuf> = "",
        /// The key id of an external account binding.
        acme_eab_key_id: Option<String> = "",
        /// The file with its HMAC key, base64url.
        acme_eab_key_file: Option<PathBuf> = "",
        /// `Strict-Transport-Security` on TLS answers, seconds; 0 for none.
        hsts_max_age_s: u64 = "0",
        /// The port that clients reach QUIC at, for `Alt-Svc`; empty for the one listened on.
        quic_public_port: Option<u16> = "",
        /// Sends plain HTTP to `https` at this port; empty to serve it.
        redirect_to_https: Option<u16> = "",
        /// Refuses requests for another host than their connection was made for (421).
        strict_sni: bool = "true",
        /// Networks of proxies whose `X-Forwarded-*` and PROXY headers are believed.
        trusted_proxies: List<IpNet> = "",
        /// Whether connections begin with a PROXY header: `off`, `trusted` (those of trusted
        /// proxies do) or `required`.
        proxy_protocol: ProxyProtocolSetting = "off",
        /// Client connections at a time.
        connections_max: usize = "16384",
        /// Client connections of one address (one /64 with IPv6) at a time.
        connections_per_address_max: usize = "4096",
        /// Requests of one team per second; 0 for any number.
        team_requests_per_second: u32 = "0",
        /// Requests of one team at a time; 0 for any number.
        team_concurrency_max: u32 = "0",
        /// Where the access log goes: `off`, `stdout` or a file. SIGHUP opens the file anew.
        access_log: AccessLog = "stdout",
        /// Share of answers below 400 that is logged, 0 to 1.
        access_log_sample: f64 = "1",
        /// Where traces go (OTLP over HTTP), e.g. `http://127.0.0.1:4318/v1/traces`; empty for
        /// nowhere.
        otlp_endpoint: Option<String> = "",
        /// Share of traces that begin here and are recorded, 0 to 1.
        otlp_ratio: f64 = "0.01",
        /// Name servers for the TXT records of custom domains; empty for the system's.
        dns_servers: List<SocketAddr> = "",
        /// Lets key sets (JWKS) and webhooks be on private addresses.
        allow_private_targets: bool = "false",
        /// Asynchronous invocations at a time.
        async_concurrency_max: usize = "32",
        /// Takes over from the edge that runs on this directory, without losing a request.
        takeover: bool = "false",
        /// Longest wait for a capsule's answer to begin, its resume included, milliseconds.
        capsule_timeout_ms: u64 = "300000",
        /// How often the agent is brought in line with the records, milliseconds.
        reconcile_interval_ms: u64 = "3000",
        /// How long requests may go on after SIGTERM, milliseconds.
        drain_ms: u64 = "8000",
    }
}

/// How ACME names are proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcmeChallenge(pub edge_tls::Challenge);

impl FromStr for AcmeChallenge {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "http-01" => Ok(Self(edge_tls::Challenge::Http01)),
            "tls-alpn-01" => Ok(Self(edge_tls::Challenge::TlsAlpn01)),
            _ => Err("expected `http-01` or `tls-alpn-01`"),
        }
    }
}

/// Whether connections begin with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyProtocolSetting(pub ProxyProtocol);

impl FromStr for ProxyProtocolSetting {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self(ProxyProtocol::Off)),
            "trusted" => Ok(Self(ProxyProtocol::Trusted)),
            "required" => Ok(Self(ProxyProtocol::Required)),
            _ => Err("expected `off`, `trusted` or `required`"),
        }
    }
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog(pub edge_telemetry::LogTarget);

impl FromStr for AccessLog {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("expected `off`, `stdout` or a file"),
            "off" => Ok(Self(edge_telemetry::LogTarget::Off)),
            "stdout" => Ok(Self(edge_telemetry::LogTarget::Stdout)),
            path => Ok(Self(edge_telemetry::LogTarget::File(path.into()))),
        }
    }
}
