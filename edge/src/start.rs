//! The steps from settings to a running edge.

use std::{
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use agent_api::Token;
use anyhow::{Context as _, bail};
use edge_control::{Agent, AgentAddress, Control, Outside, Public, Resolver};
use edge_quic::handover::Parcel;
use edge_store::{ApiKey, Store};
use edge_telemetry::Telemetry;
use jiff::Timestamp;
use pool_config::Layout;
use pool_model::TeamId;
use tokio::{net::TcpListener, time::Instant};

use crate::{config::EdgeConfig, records::Records};

/// How often the agent's token is looked for.
const TOKEN_POLL: Duration = Duration::from_millis(100);

/// The lock and pid file of this installation's edge. Gone with the process. One that is taken over
/// from another edge stays locked all the while, and names that one until [`claim`].
///
/// # Errors
///
/// If another edge runs on the same directory.
pub fn lock(layout: &Layout, inherited: Option<&mut Parcel>) -> anyhow::Result<File> {
    for dir in [layout.root().to_owned(), layout.run_dir(), layout.secrets_dir()] {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::set_permissions(layout.secrets_dir(), fs::Permissions::from_mode(0o700))?;
    let Some(lock) = inherited.and_then(|parcel| parcel.pid_lock.take()) else {
        return Ok(layout.lock_pid_file("edge")?);
    };
    Ok(File::from(lock))
}

/// Writes our process into a lock that was taken over: from now on signals are ours.
///
/// # Errors
///
/// If the file can't be written.
pub fn claim(mut lock: &File) -> anyhow::Result<()> {
    lock.set_len(0).and_then(|()| lock.seek(SeekFrom::Start(0)))?;
    writeln!(lock, "{}", std::process::id()).context("cannot write the pid file")
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
pub fn control(
    config: &EdgeConfig,
    store: Store,
    token: &Token,
    telemetry: &Arc<Telemetry>,
) -> Arc<Control> {
    let EdgeConfig { agent_rpc, agent_proxy, .. } = *config;
    let rpc = http_uri(agent_rpc);
    let agent = Agent::new(AgentAddress { rpc, proxy: agent_proxy }, token);
    let txt = match &config.dns_servers.0 {
        servers if servers.is_empty() => Resolver::system(),
        servers => Resolver::new(servers.clone()),
    };
    let outside = Outside {
        txt: Arc::new(txt),
        schedules: Some(crate::jobs::check_schedule),
        records: Some(Arc::new(Records(Arc::clone(telemetry)))),
    };
    Control::new(store, agent, public(config), outside)
}

/// The admin listener's name in a parcel.
pub const ADMIN: &str = "admin";

/// Binds the admin listener, or takes that of the edge before.
///
/// # Errors
///
/// If the address can't be had.
pub async fn bind_admin(
    config: &EdgeConfig,
    inherited: Option<&mut Parcel>,
) -> anyhow::Result<TcpListener> {
    let taken = inherited.and_then(|parcel| {
        let at = parcel.tcp.iter().position(|named| named.name == ADMIN)?;
        Some(parcel.tcp.remove(at).socket)
    });
    if let Some(socket) = taken {
        socket.set_nonblocking(true)?;
        return Ok(TcpListener::from_std(socket)?);
    }
    let address = config.admin_listen;
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} (admin)"))
}

/// A copy of the admin listener for a successor.
///
/// # Errors
///
/// If there are no descriptors left.
pub fn admin_parcel(admin: &TcpListener) -> anyhow::Result<std::net::TcpListener> {
    let copy = admin.as_fd().try_clone_to_owned().context("no copy of the admin socket")?;
    Ok(copy.into())
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
