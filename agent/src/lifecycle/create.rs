//! Creates a sandbox from a template or from a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use agent_vmm::Vmm;
use jiff::Timestamp;
use pool_config::Layout;
use pool_model::{
    Generation, OnTimeout, Prefetch, SandboxId, SandboxState, SnapshotId, TeamId, TemplateId,
};
use pool_store::{Manifest, Snapshot};
use rand::TryRngCore;

use crate::{
    agent::Agent,
    base_disk,
    error::AgentError,
    guest::Guest,
    host::blocking,
    journal::{self, Durability, Purpose, RECORD_VERSION, Record},
    launch::Origin,
    lifecycle::check_timeout,
    sandbox::Sandbox,
    template::{self, Template},
};

/// Smallest guest memory that boots the default template, MiB.
const MEMORY_MIB_MIN: u32 = 128;
/// Largest guest memory, MiB.
const MEMORY_MIB_MAX: u32 = 64 << 10;
/// Most processors of a guest.
const VCPUS_MAX: u8 = 32;

/// What a sandbox is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A template, booted.
    Template(TemplateId),
    /// A snapshot, restored.
    Snapshot(SnapshotId),
}

/// A sandbox to be made.
#[derive(Debug, Clone)]
pub struct CreateSandbox {
    /// Its id; chosen here when there is none.
    pub sandbox: Option<SandboxId>,
    /// What it is made from.
    pub source: Source,
    /// Its owner.
    pub team: TeamId,
    /// Why it exists.
    pub purpose: Purpose,
    /// Its lifetime, milliseconds; 0 is the default.
    pub timeout_ms: u64,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// Guest memory, MiB; 0 is the template's.
    pub memory_mib: u32,
    /// Processors; 0 is the template's.
    pub vcpus: u8,
    /// Environment of its processes.
    pub env: BTreeMap<String, String>,
    /// Whether it may reach the internet.
    pub internet: bool,
    /// What to put into base memory ahead of its first touch, if it is made from a snapshot.
    pub prefetch: Prefetch,
}

impl Agent {
    /// Creates a sandbox; returns when it serves requests.
    ///
    /// # Errors
    ///
    /// [`AgentError`]; nothing is left of the attempt.
    pub async fn create(&self, create: CreateSandbox) -> Result<Arc<Sandbox>, AgentError> {
        let agent = self.clone();
        self.detached(async move { agent.create_here(create).await }).await
    }

    async fn create_here(&self, create: CreateSandbox) -> Result<Arc<Sandbox>, AgentError> {
        let (mut record, origin) = self.plan(create).await?;
        let dir = self.host.dir(record.sandbox);
        let sandbox = Arc::new(Sandbox::new(dir, record.clone(), self.host.reaper.clone()));
        if !self.insert(Arc::clone(&sandbox)) {
            let reason = format!("{} exists already", record.sandbox);
            return Err(AgentError::InvalidArgument { field: "sandbox_id", reason });
        }
        let _turn = sandbox.turn().await;
        if let Err(error) = self.start_new(&sandbox, &mut record, origin).await {
            self.erase(&sandbox).await;
            return Err(error);
        }
        tracing::info!(sandbox.id = %sandbox.id, "sandbox created");
        Ok(sandbox)
    }

    async fn start_new(
        &self,
        sandbox: &Arc<Sandbox>,
        record: &mut Record,
        origin: Origin,
    ) -> Result<(), AgentError> {
        let dir = self.host.dir(sandbox.id);
        blocking(move || journal::create_dir(&dir))
            .await
            .map_err(AgentError::io("make the sandbox's directory"))?;
        let guest = Guest::start(&self.host, record, origin).await?;
        record.state = SandboxState::Running;
        record.expires_at = Some(Timestamp::now() + record.timeout());
        if let Err(error) = sandbox.store(record.clone(), Durability::Process).await {
            guest.stop().await;
            return Err(error);
        }
        self.serve(sandbox, guest);
        Ok(())
    }

    /// Checks a request against what is on this host.
    async fn plan(&self, create: CreateSandbox) -> Result<(Record, Origin), AgentError> {
        let config = &self.host.config;
        let timeout_ms = match create.timeout_ms {
            0 => config.timeout_default_ms,
            asked => asked,
        };
        check_timeout(timeout_ms, config.timeout_max_ms)?;
        let origin = self.origin(&create).await?;
        let (template, snapshot) = match &origin {
            Origin::Template(template) => (template, None),
            Origin::Snapshot { snapshot, template, .. } => (template, Some(snapshot)),
        };
        let (memory_bytes, vcpus, kernel, generation) = match snapshot {
            None => {
                let (memory_mib, vcpus) = check_size(&create, template)?;
                let memory_bytes = u64::from(memory_mib) << 20;
                (memory_bytes, vcpus, template.kernel.clone(), Generation(1))
            }
            Some(snapshot) => {
                refuse_size(&create)?;
                let manifest = &snapshot.manifest;
                let kernel = manifest.kernel.clone();
                (manifest.memory.bytes, manifest.vcpus, kernel, manifest.generation.next())
            }
        };
        let record = Record {
            version: RECORD_VERSION,
            sandbox: create.sandbox.map_or_else(random_id, Ok)?,
            purpose: create.purpose,
            team: create.team,
            template: template.id,
            snapshot: snapshot.map(|snapshot| snapshot.manifest.snapshot),
            memory_bytes,
            vcpus,
            kernel,
            base_disk: template.digest.clone(),
            env: create.env,
            internet: create.internet,
            access_token: random_token()?,
            state: SandboxState::Starting,
            generation,
            created_at: Timestamp::now(),
            expires_at: None,
            timeout_ms,
            on_timeout: create.on_timeout,
            slot: None,
            machine: None,
            backing: None,
            image: None,
        };
        Ok((record, origin))
    }

    async fn origin(&self, create: &CreateSandbox) -> Result<Origin, AgentError> {
        match create.source {
            Source::Template(id) => {
                let (layout, team) = (self.host.layout.clone(), create.team);
                blocking(move || {
                    let mut template = template::open(&layout, team, id)?;
                    template.base_disk = base_disk::keep(&layout, &template)?;
                    Ok(Origin::Template(template))
                })
                .await
            }
            Source::Snapshot(id) => {
                let snapshot = self.obtain(id, create.team).await?;
                self.origin_of(snapshot, create.prefetch).await
            }
        }
    }

    /// Checks that a snapshot fits this host and is whole.
    pub(super) async fn origin_of(
        &self,
        snapshot: Snapshot,
        prefetch: Prefetch,
    ) -> Result<Origin, AgentError> {
        check_compatible(self.host.vmm.as_ref(), &snapshot.manifest)?;
        let layout = self.host.layout.clone();
        let verified = self.verified.clone();
        blocking(move || {
            verified.check(&snapshot)?;
            let template = template_below(&layout, &snapshot.manifest)?;
            Ok(Origin::Snapshot { snapshot: Box::new(snapshot), template, prefetch })
        })
        .await
    }

    /// Lets requests through to a started guest and watches over its life.
    pub(crate) fn serve(&self, sandbox: &Arc<Sandbox>, guest: Guest) {
        let guest = Arc::new(guest);
        sandbox.set_serving(Some(Arc::clone(&guest)));
        let agent = self.clone();
        let cancel = self.host.cancel.clone();
        self.record_working_set_later(&guest);
        self.host.tasks.spawn(async move {
            if let Some(exit) = cancel.run_until_cancelled(guest.exited()).await {
                agent.guest_died(&guest, exit).await;
            }
        });
    }
}

fn check_size(create: &CreateSandbox, template: &Template) -> Result<(u32, u8), AgentError> {
    let memory_mib = if create.memory_mib == 0 { template.memory_mib } else { create.memory_mib };
    let vcpus = if create.vcpus == 0 { template.vcpus } else { create.vcpus };
    if !(MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(&memory_mib) {
        let reason = format!("{memory_mib} is not {MEMORY_MIB_MIN} to {MEMORY_MIB_MAX}");
        return Err(AgentError::InvalidArgument { field: "memory_mib", reason });
    }
    if !(1..=VCPUS_MAX).contains(&vcpus) {
        let reason = format!("{vcpus} is not 1 to {VCPUS_MAX}");
        return Err(AgentError::InvalidArgument { field: "vcpus", reason });
    }
    Ok((memory_mib, vcpus))
}

/// A snapshot is of one size.
fn refuse_size(create: &CreateSandbox) -> Result<(), AgentError> {
    for (field, asked) in [("memory_mib", create.memory_mib), ("vcpus", u32::from(create.vcpus))] {
        if asked != 0 {
            let reason = "a snapshot keeps its own; leave this out".to_owned();
            return Err(AgentError::InvalidArgument { field, reason });
        }
    }
    Ok(())
}

/// The template that a snapshot stands on, with the disk that it had then.
pub(super) fn template_below(layout: &Layout, manifest: &Manifest) -> Result<Template, AgentError> {
    let mut template = template::open(layout, manifest.team, manifest.template)?;
    let digest = &manifest.base_disk_digest;
    template.base_disk = match base_disk::find(layout, digest) {
        Some(disk) => disk,
        None if template.digest == *digest => base_disk::keep(layout, &template)?,
        None => {
            let reason = format!("its base disk {digest} is gone");
            return Err(AgentError::Incompatible { snapshot: manifest.snapshot, reason });
        }
    };
    template.digest.clone_from(digest);
    Ok(template)
}

/// A device state is only good for the VMM, the way of executing and the processor it was made by.
pub(super) fn check_compatible(vmm: &dyn Vmm, manifest: &Manifest) -> Result<(), AgentError> {
    let made_by =
        [manifest.vmm.as_str(), &manifest.accel, &manifest.cpu, &manifest.cpu_fingerprint];
    let name = vmm.name();
    let here = [name.as_str(), vmm.accel(), vmm.cpu(), vmm.cpu_fingerprint()];
    if made_by == here {
        return Ok(());
    }
    let reason = format!("it was made by {}, this host runs {}", made_by.join(" "), here.join(" "));
    Err(AgentError::Incompatible { snapshot: manifest.snapshot, reason })
}

/// An id that nothing has.
pub(crate) fn random_id() -> Result<SandboxId, AgentError> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Ok(SandboxId::from_u128(u128::from_ne_bytes(bytes)))
}

/// 256 random bits in hexadecimal.
fn random_token() -> Result<String, AgentError> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn fill(bytes: &mut [u8]) -> Result<(), AgentError> {
    rand::rngs::OsRng
        .try_fill_bytes(bytes)
        .map_err(|error| AgentError::io("read the host's entropy")(std::io::Error::other(error)))
}
