//! The data plane's parts: certificates, telemetry, listeners.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc};

use agent_api::Token;
use anyhow::{Context as _, bail};
use async_trait::async_trait;
use edge_control::Control;
use edge_policy::{Authenticator, JwksConfig};
use edge_proxy::{
    AgentEndpoint, AgentToken, BoundEdge, Edge, EdgeListenConfig, Limits, Parts, TrustConfig,
    api_service,
};
use edge_quic::{QuicSecrets, handover::Parcel};
use edge_telemetry::{Background, LogConfig, OtlpConfig, Telemetry, TelemetryConfig};
use edge_tls::{
    AcmeConfig, Certs, DnsHook, ExternalAccount, OnDemand, TicketSecret, TlsConfig, TlsSource,
};
use pool_config::Layout;

use crate::{config::EdgeConfig, routes::DirectoryRoutes};

/// Bytes of the installation's QUIC secret.
const QUIC_SECRET_BYTES: usize = 32;

/// How many workers serve.
#[must_use]
pub fn workers(config: &EdgeConfig) -> usize {
    match config.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    }
}

/// Starts metrics, access log and traces.
///
/// # Errors
///
/// If the log can't be opened or the collector's URL is none.
pub fn telemetry(config: &EdgeConfig) -> anyhow::Result<(Arc<Telemetry>, Background)> {
    let otlp = config.otlp_endpoint.as_ref().map(|endpoint| OtlpConfig {
        endpoint: endpoint.clone(),
        ratio: config.otlp_ratio,
        service: "wrenn-edge".to_owned(),
    });
    let sample = (config.access_log_sample < 1.0).then_some(config.access_log_sample);
    let log = LogConfig { target: config.access_log.0.clone(), sample };
    let config =
        TelemetryConfig { workers: workers(config), log, otlp, ..TelemetryConfig::default() };
    Ok(Telemetry::start(config)?)
}

/// Reads, makes or orders certificates; none if nothing is served encrypted.
///
/// # Errors
///
/// What the files, the settings or the authority's directory say.
pub fn certs(
    layout: &Layout,
    config: &EdgeConfig,
    control: &Arc<Control>,
) -> anyhow::Result<Option<Arc<Certs>>> {
    if config.https_listen.is_none() && config.quic_listen.is_none() {
        return Ok(None);
    }
    let mut tls = TlsConfig::new(&config.domain, tls_source(layout, config)?);
    let tickets = layout.secrets_dir().join("tls-tickets");
    tls.tickets = Some(TicketSecret::load_or_create(&tickets)?);
    tls.on_demand = Some(Arc::new(VerifiedDomains(Arc::clone(control))));
    Ok(Some(Certs::open(tls)?))
}

/// Names of verified custom domains, and what lies below the installation's own.
struct VerifiedDomains(Arc<Control>);

#[async_trait]
impl OnDemand for VerifiedDomains {
    async fn allowed(&self, name: &str) -> bool {
        let domain = &self.0.public().domain;
        if let Some(below) = name.strip_suffix(domain.as_str()).and_then(|n| n.strip_suffix('.')) {
            let function = below.strip_suffix(".fn").unwrap_or_default();
            return matches!(self.0.directory().function(function).await, Ok(Some(_)));
        }
        matches!(self.0.directory().domain(name).await, Ok(Some(_)))
    }
}

fn tls_source(layout: &Layout, config: &EdgeConfig) -> anyhow::Result<TlsSource> {
    let (certs, keys) = (&config.tls_cert_file.0, &config.tls_key_file.0);
    if certs.len() != keys.len() {
        bail!("`tls_cert_file` and `tls_key_file` go together: as many of one as of the other");
    }
    match &config.acme_directory {
        Some(_) if !certs.is_empty() => {
            bail!("`tls_cert_file` and `acme_directory` exclude each other")
        }
        Some(directory) => Ok(TlsSource::Acme(Box::new(acme(layout, config, directory)?))),
        None if certs.is_empty() => Ok(TlsSource::LocalCa { dir: layout.tls_dir() }),
        None => {
            let pairs = certs.iter().cloned().zip(keys.iter().cloned()).collect();
            Ok(TlsSource::Files { pairs })
        }
    }
}

fn acme(layout: &Layout, config: &EdgeConfig, directory: &str) -> anyhow::Result<AcmeConfig> {
    let mut acme = AcmeConfig::new(directory, layout.tls_dir().join("acme"));
    acme.contact.clone_from(&config.acme_contact.0);
    acme.terms_agreed = config.acme_terms_agreed;
    acme.challenge = config.acme_challenge.0;
    acme.dns_hook = config.acme_dns_hook.clone().map(DnsHook::new);
    acme.acme_ca_file.clone_from(&config.acme_ca_file);
    acme.external_account = match (&config.acme_eab_key_id, &config.acme_eab_key_file) {
        (Some(key_id), Some(file)) => {
            let hmac_key = fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let hmac_key = hmac_key.trim().to_owned();
            Some(ExternalAccount { key_id: key_id.clone(), hmac_key })
        }
        (None, None) => None,
        _ => bail!("`acme_eab_key_id` and `acme_eab_key_file` go together"),
    };
    Ok(acme)
}

/// Opens the listeners, or takes those of the edge before.
///
/// # Errors
///
/// [`edge_proxy::BindError`], and a token that can't be sent.
pub fn bind(
    layout: &Layout,
    config: &EdgeConfig,
    control: &Arc<Control>,
    token: &Token,
    (telemetry, certs): (Arc<Telemetry>, Option<Arc<Certs>>),
    inherited: Option<Parcel>,
    jobs: &crate::jobs::Queue,
) -> anyhow::Result<BoundEdge> {
    let token = AgentToken::new(token.expose()).context("the agent's token is no header value")?;
    let agent = AgentEndpoint { address: config.agent_proxy, token };
    let timeout = std::time::Duration::from_millis(config.capsule_timeout_ms);
    let routes = DirectoryRoutes::new(Arc::clone(control), agent, timeout, jobs.clone());
    let secret = quic_secret(&layout.secrets_dir().join("quic-secret"))?;
    let parts = Parts {
        routes: Arc::new(routes),
        api: api_service(edge_control::router(Arc::clone(control))),
        telemetry,
        challenges: certs.as_ref().map(|certs| Arc::new(certs.http01())),
        certs,
        authenticator: Authenticator::new(JwksConfig {
            allow_private: config.allow_private_targets,
            ..JwksConfig::default()
        }),
        quic_secrets: QuicSecrets::derive(&secret)?,
        inherited,
    };
    Ok(Edge::bind(listen_config(config), parts)?)
}

fn listen_config(config: &EdgeConfig) -> EdgeListenConfig {
    EdgeListenConfig {
        http: config.http_listen,
        https: config.https_listen,
        quic: config.quic_listen,
        domain: config.domain.clone(),
        workers: workers(config),
        trust: TrustConfig {
            trusted_proxies: config.trusted_proxies.0.clone(),
            proxy_protocol: config.proxy_protocol.0,
            strict_sni: config.strict_sni,
            hsts_max_age_s: config.hsts_max_age_s,
            quic_public_port: config.quic_public_port,
            redirect_to_https: config.redirect_to_https,
        },
        limits: Limits {
            max_connections: config.connections_max,
            max_connections_per_address: config.connections_per_address_max,
            team_requests_per_second: config.team_requests_per_second,
            team_concurrency_max: config.team_concurrency_max,
            ..Limits::default()
        },
    }
}

/// The secret that connection ids, resets and tokens are made with: the same over restarts.
fn quic_secret(path: &Path) -> anyhow::Result<Vec<u8>> {
    let named = || format!("cannot keep {}", path.display());
    match fs::read(path) {
        Ok(secret) if secret.len() == QUIC_SECRET_BYTES => return Ok(secret),
        Ok(_) => bail!("{} is not {QUIC_SECRET_BYTES} bytes long", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(named),
    }
    let secret: [u8; QUIC_SECRET_BYTES] = rand::random();
    let temporary = path.with_extension("new");
    let mut options = fs::File::options();
    options.create(true).truncate(true).write(true).mode(0o600);
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(&secret)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.with_context(named)?;
    Ok(secret.to_vec())
}
