//! The steps from settings to a running edge.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use agent_api::Token;
use anyhow::{Context as _, bail};
use edge_control::{Agent, AgentAddress, Control, Public};
use edge_proxy::{
    AgentEndpoint, AgentToken, BoundEdge, Edge, EdgeListenConfig, Limits, TlsSource, api_service,
};
use edge_store::{ApiKey, Store};
use jiff::Timestamp;
use pool_config::Layout;
use pool_model::TeamId;
use tokio::{net::TcpListener, time::Instant};

use crate::{config::EdgeConfig, routes::DirectoryRoutes};

/// How often the agent's token is looked for.
const TOKEN_POLL: Duration = Duration::from_millis(100);

/// The lock and pid file of this installation's edge. Gone with the process.
///
/// # Errors
///
/// If another edge runs on the same directory.
pub fn lock(layout: &Layout) -> anyhow::Result<File> {
    for dir in [layout.root().to_owned(), layout.run_dir(), layout.secrets_dir()] {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::set_permissions(layout.secrets_dir(), fs::Permissions::from_mode(0o700))?;
    Ok(layout.lock_pid_file("edge")?)
}

/// Reads the token that the agent wants to see. At the first start the agent may still be making
/// it, so this waits for a while.
///
/// # Errors
///
/// If the file can't be read, or isn't there in time.
pub async fn agent_token(layout: &Layout, config: &EdgeConfig) -> anyhow::Result<Token> {
    let path = config.agent_token_file.clone().unwrap_or_else(|| layout.agent_token_file());
    let deadline = Instant::now() + Duration::from_millis(config.agent_token_wait_ms);
    let mut told = false;
    loop {
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(Token::new(&text)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
        }
        if Instant::now() >= deadline {
            bail!("{} is not there: start the agent first", path.display());
        }
        if !told {
            tracing::info!(path = %path.display(), "waiting for the agent's token");
            told = true;
        }
        tokio::time::sleep(TOKEN_POLL).await;
    }
}

/// Opens the database. On the first start it gets a team, whose API key goes into its file.
///
/// # Errors
///
/// What the database or the disk says.
pub async fn store(layout: &Layout, config: &EdgeConfig) -> anyhow::Result<Store> {
    let path = config.database_file.clone().unwrap_or_else(|| layout.database_file());
    let store = Store::open(&path).await?;
    let key_file = layout.api_key_file();
    match store.first_team().await? {
        None => {
            // The file comes first: a crash in between leaves a key that the next start takes up,
            // and never a team whose key nobody has.
            let key = read_key(&key_file)?.map_or_else(|| write_key(&key_file), Ok)?;
            let team = TeamId::from_u128(rand::random());
            store.create_team(team, "default", &key, Timestamp::now()).await?;
            tracing::info!(team.id = %team, key_file = %key_file.display(), "made the first team");
        }
        Some(_) => match read_key(&key_file)? {
            Some(key) if store.team_of_key(&key).await?.is_some() => {}
            _ => tracing::warn!(key_file = %key_file.display(), "the file has no valid API key"),
        },
    }
    Ok(store)
}

/// Puts the control plane together.
#[must_use]
pub fn control(config: &EdgeConfig, store: Store, token: &Token) -> Arc<Control> {
    let EdgeConfig { agent_rpc, agent_proxy, .. } = *config;
    let rpc = http_uri(agent_rpc);
    let agent = Agent::new(AgentAddress { rpc, proxy: agent_proxy }, token);
    Control::new(store, agent, public(config))
}

/// Binds the listeners of the data plane.
///
/// # Errors
///
/// [`edge_proxy::BindError`], and a token that can't be sent.
pub async fn bind(
    layout: &Layout,
    config: &EdgeConfig,
    control: &Arc<Control>,
    token: &Token,
) -> anyhow::Result<BoundEdge> {
    let token = AgentToken::new(token.expose()).context("the agent's token is no header value")?;
    let agent = AgentEndpoint { address: config.agent_proxy, token };
    let capsule_timeout = Duration::from_millis(config.capsule_timeout_ms);
    let routes = DirectoryRoutes::new(Arc::clone(control), agent, capsule_timeout);
    let api = api_service(edge_control::router(Arc::clone(control)));
    let listen = EdgeListenConfig {
        http: config.http_listen,
        https: config.https_listen,
        quic: config.quic_listen,
        domain: config.domain.clone(),
        tls: tls_source(layout, config)?,
        limits: Limits { max_connections: config.connections_max, ..Limits::default() },
    };
    Ok(Edge::bind(listen, Arc::new(routes), api).await?)
}

/// Binds the admin listener.
///
/// # Errors
///
/// If the address can't be had.
pub async fn bind_admin(config: &EdgeConfig) -> anyhow::Result<TcpListener> {
    let address = config.admin_listen;
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} (admin)"))
}

fn public(config: &EdgeConfig) -> Public {
    let (scheme, listen, own_port) = match (config.https_listen, config.http_listen) {
        (Some(https), _) => ("https", Some(https), 443),
        (None, http) => ("http", http, 80),
    };
    let port = config.public_port.or(listen.map(|address| address.port()));
    Public {
        scheme: scheme.to_owned(),
        domain: config.domain.clone(),
        port: port.filter(|port| *port != own_port),
    }
}

fn tls_source(layout: &Layout, config: &EdgeConfig) -> anyhow::Result<TlsSource> {
    match (&config.tls_cert_file, &config.tls_key_file) {
        (Some(cert), Some(key)) => Ok(TlsSource::Files { cert: cert.clone(), key: key.clone() }),
        (None, None) => Ok(TlsSource::LocalCa { dir: layout.tls_dir() }),
        _ => bail!("`tls_cert_file` and `tls_key_file` go together"),
    }
}

fn http_uri(address: std::net::SocketAddr) -> axum::http::Uri {
    let authority = address.to_string();
    axum::http::Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query("/")
        .build()
        .unwrap_or_default()
}

fn read_key(path: &Path) -> anyhow::Result<Option<ApiKey>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(format!("cannot read {}", path.display())),
    }
}

/// Makes a key and puts it on disk, whole or not at all.
fn write_key(path: &Path) -> anyhow::Result<ApiKey> {
    let key = ApiKey::generate();
    let temporary = path.with_extension("new");
    let mut options = File::options();
    options.create(true).truncate(true).write(true).mode(0o600);
    let written = options.open(&temporary).and_then(|mut file| {
        writeln!(file, "{}", key.expose())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(key)
}
