//! From settings to a running agent.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::Ipv4Addr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use agent_api::Token;
use agent_slot::{MAX_INDEX, SlotConfig};
use agent_vmm::{Accel, Qemu, QemuConfig, probe_accel};
use anyhow::{Context as _, bail};
use pool_config::Layout;
use pool_pager::Population;
use pool_remote::{Credentials, Remote, RemoteConfig};
use pool_store::LayerStore;
use rand::TryRngCore as _;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    agent::Agent, blanks::Blanks, capacity::Capacity, config::AgentConfig, host::Host,
    pager::Pager, reaper::Reaper, slots::Slots,
};

/// Memory of a VMM besides its guest's: QEMU itself, page tables, and TCG's translation cache.
const VMM_OVERHEAD_BYTES: u64 = 192 << 20;

/// Makes the directories, takes the installation's lock and sets up the host.
///
/// # Errors
///
/// What is missing on this host, in words for whoever runs it.
pub async fn agent(layout: Layout, config: AgentConfig) -> anyhow::Result<Agent> {
    make_dirs(&layout)?;
    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    let slot_config = slot_config(&layout, &config);
    let slot_host = agent_slot::Host::setup(&slot_config).await.context("host set-up failed")?;
    let accel = accel(&config.accel).await?;
    tracing::info!(accel = %accel, "guests are executed by");
    let qemu = QemuConfig {
        accel,
        tb_size_mib: config.tb_size_mib,
        binary: config.qemu.clone(),
        preload: config.qemu_uffd.clone().map_or_else(|| beside("libqemu_uffd.so"), Ok)?,
        ..QemuConfig::default()
    };
    let vmm = Qemu::new(qemu).await.context("QEMU is not usable")?;
    let pager_binary = config.pager.clone().map_or_else(|| beside("pager"), Ok)?;
    let pager = Pager::start(
        layout.clone(),
        pager_binary,
        population(&config.population)?,
        pager_settings(&config),
        cancel.clone(),
        &tasks,
    )
    .await?;
    let starts = match config.starts_max {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        asked => asked as usize,
    };
    let (reaper, ends) = Reaper::new();
    let host = Host {
        vmm: Arc::new(vmm),
        slots: Slots::new(slot_host, Duration::from_millis(config.slot_idle_ttl_ms)),
        pager,
        capacity: Capacity::new(config.sandboxes_max, memory_budget(config.memory_budget_mib)?),
        starts: Semaphore::new(starts),
        starts_max: starts,
        blanks: Blanks::new(usize::try_from(config.blank_vmms)?),
        layers: LayerStore::new(layout.layers_dir()),
        remote: remote(&config)?,
        reaper,
        cancel,
        tasks,
        layout,
        config,
    };
    let agent = Agent::new(Arc::new(host));
    agent.host.tasks.spawn(ends.run(agent.clone()));
    agent.host.tasks.spawn(Blanks::keep(Arc::clone(&agent.host)));
    Ok(agent)
}

/// The object store, if there is one. It need not answer now.
fn remote(config: &AgentConfig) -> anyhow::Result<Option<Remote>> {
    let Some(url) = &config.object_store_url else { return Ok(None) };
    let endpoint = config.object_store_endpoint.as_deref();
    let (region, allow_http) = (&config.object_store_region, config.object_store_allow_http);
    let settings = RemoteConfig::parse(url, endpoint, region, allow_http)
        .context("object_store settings cannot be used")?;
    let credentials = Credentials::from_env().context("object_store credentials")?;
    Ok(Some(Remote::open(settings, credentials).context("object store")?))
}

/// What the page server is told of our settings, flag by flag.
fn pager_settings(config: &AgentConfig) -> Vec<(String, String)> {
    let mut settings = vec![
        ("cache-mib", config.cache_mib.to_string()),
        ("fault-deadline-ms", config.fault_deadline_ms.to_string()),
        ("huge-pages", config.huge_pages.clone()),
    ];
    if let Some(url) = &config.object_store_url {
        settings.push(("object-store-url", url.clone()));
        settings.push(("object-store-region", config.object_store_region.clone()));
        settings.push(("object-store-allow-http", config.object_store_allow_http.to_string()));
    }
    if let Some(endpoint) = &config.object_store_endpoint {
        settings.push(("object-store-endpoint", endpoint.clone()));
    }
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The lock and pid file of this installation's agent. Gone with the process.
///
/// # Errors
///
/// If another agent runs on the same directory.
pub fn lock(layout: &Layout) -> anyhow::Result<File> {
    Ok(layout.lock_pid_file("agent")?)
}

/// Reads the token that edges show, and makes it on the first start.
///
/// # Errors
///
/// What the disk says.
pub fn token(layout: &Layout) -> anyhow::Result<Token> {
    let path = layout.agent_token_file();
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(Token::new(&text)),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
    }
    let mut bytes = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let temporary = path.with_extension("new");
    let mut file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{text}")?;
    fs::rename(&temporary, &path)?;
    Ok(Token::new(&text))
}

fn make_dirs(layout: &Layout) -> anyhow::Result<()> {
    let dirs = [
        layout.sandboxes_dir(),
        layout.snapshots_dir(),
        layout.layers_dir(),
        layout.run_dir(),
        layout.log_dir(),
    ];
    for dir in dirs {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let secrets = layout.secrets_dir();
    fs::create_dir_all(&secrets)?;
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

async fn accel(asked: &str) -> anyhow::Result<Accel> {
    match asked {
        "auto" => Ok(probe_accel().await),
        "tcg" => Ok(Accel::Tcg),
        "kvm" => Ok(Accel::Kvm),
        other => bail!("accel: `{other}` is not auto, tcg or kvm"),
    }
}

fn population(asked: &str) -> anyhow::Result<Population> {
    match asked {
        "shared" => Ok(Population::Shared),
        "copy" => Ok(Population::Copy),
        other => bail!("population: `{other}` is not shared or copy"),
    }
}

/// A file beside this binary.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find this binary")?;
    Ok(this.parent().unwrap_or(Path::new("/")).join(name))
}

/// Installations on one host get ranges of their own, so that they never meet.
fn slot_config(layout: &Layout, config: &AgentConfig) -> SlotConfig {
    let tag = layout.instance_tag();
    let hash = tag.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31) + u32::from(byte));
    let range = u8::try_from(hash % 64).expect("below 64");
    let uid_range = u32::from(MAX_INDEX) + 1;
    SlotConfig {
        first_uid: config.first_uid.unwrap_or(700_000 + uid_range * (hash % 1024)),
        network: config.slot_network.unwrap_or(Ipv4Addr::new(10, 64 + range, 0, 0)),
        memory_overhead_bytes: VMM_OVERHEAD_BYTES + (u64::from(config.tb_size_mib) << 20),
        rate_bytes_per_s: config.egress_bytes_per_s,
        burst_bytes: config.egress_burst_bytes,
        dns: config.dns,
        ..SlotConfig::new(tag)
    }
}

fn memory_budget(asked_mib: u64) -> anyhow::Result<u64> {
    if asked_mib > 0 {
        return Ok(asked_mib << 20);
    }
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let kib = kib.context("/proc/meminfo has no MemTotal")?;
    Ok(kib * 1024 / 4 * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_agent_on_the_same_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        let held = lock(&layout).unwrap();
        let refused = lock(&layout).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(held);
        lock(&layout).unwrap();
    }

    #[test]
    fn token_is_made_once_and_private() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        make_dirs(&layout).unwrap();
        let token = super::token(&layout).unwrap();
        assert_eq!(super::token(&layout).unwrap(), token);
        let mode = fs::metadata(layout.agent_token_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
