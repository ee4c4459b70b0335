//! Starts a machine in a slot: booted from a template's disk, or restored from a snapshot.
//!
//! # Invariants
//!
//! - The journal names the slot before it is made, and the machine before it runs.
//! - What fails leaves no machine; the slot is the caller's to give back.

use std::sync::Arc;

use agent_slot::{GATEWAY_IP, GUEST_IP, GUEST_MAC, GUEST_PREFIX, Slot};
use agent_vmm::{BaseMemory, Machine, MachineSpec};
use pool_store::Snapshot;

use crate::{
    error::AgentError,
    host::{Host, blocking},
    journal::{self, Backing, Durability, Record},
    template::Template,
};

/// Where a guest comes from.
#[derive(Debug)]
pub enum Origin {
    /// A template's disk, booted.
    Template(Template),
    /// A snapshot, or a sandbox's own pause image.
    Snapshot {
        /// What to restore.
        snapshot: Box<Snapshot>,
        /// The template whose disk is below it.
        template: Template,
    },
}

/// Names the slot in the journal, then makes it.
pub(crate) async fn reserve_slot(
    host: &Arc<Host>,
    record: &mut Record,
) -> Result<Slot, AgentError> {
    let reserved = host.slots.reserve()?;
    record.slot = Some(reserved.index());
    record.machine = None;
    if let Err(error) = write(host, record).await {
        host.slots.cancel(reserved).await;
        return Err(error);
    }
    host.slots.build(reserved, record.memory_bytes, record.internet).await
}

/// Starts the machine, stopped, and journals it.
pub(crate) async fn launch(
    host: &Arc<Host>,
    record: &mut Record,
    slot: &Slot,
    origin: Origin,
) -> Result<Box<dyn Machine>, AgentError> {
    let machine = match origin {
        Origin::Template(template) => boot(host, record, slot, template).await?,
        Origin::Snapshot { snapshot, template } => {
            restore(host, record, slot, &snapshot, template).await?
        }
    };
    record.machine = Some(machine.record());
    if let Err(error) = write(host, record).await {
        kill(host, machine.as_ref()).await;
        return Err(error);
    }
    Ok(machine)
}

async fn boot(
    host: &Arc<Host>,
    record: &mut Record,
    slot: &Slot,
    template: Template,
) -> Result<Box<dyn Machine>, AgentError> {
    record.backing = None;
    let scratch = journal::scratch_disk(&host.dir(record.sandbox));
    let empty = template.scratch_disk.clone();
    blocking(move || pool_store::copy_sparse(&empty, &scratch))
        .await
        .map_err(AgentError::io("copy the scratch disk"))?;
    let spec = machine_spec(host, record, slot, template)?;
    let sandbox = record.sandbox;
    let booted = host.vmm.boot(spec).await;
    booted.map_err(|error| AgentError::Vmm { sandbox, step: "boot", source: Box::new(error) })
}

async fn restore(
    host: &Arc<Host>,
    record: &mut Record,
    slot: &Slot,
    snapshot: &Snapshot,
    template: Template,
) -> Result<Box<dyn Machine>, AgentError> {
    let sandbox = record.sandbox;
    let backing = Backing {
        snapshot: snapshot.manifest.snapshot,
        memory_file: snapshot.memory_path(),
        memory_bytes: snapshot.manifest.memory_bytes,
    };
    record.backing = Some(backing.clone());
    let (from, to) = (snapshot.scratch_path(), journal::scratch_disk(&host.dir(sandbox)));
    let copy = blocking(move || pool_store::copy_sparse(&from, &to));
    let (copied, base) = tokio::join!(copy, host.pager.base(&backing));
    copied.map_err(AgentError::io("copy the scratch disk"))?;
    let base = BaseMemory { fd: base?, bytes: backing.memory_bytes };
    let state = std::fs::File::open(snapshot.state_path())
        .map_err(AgentError::io("open the device state"))?;
    let spec = machine_spec(host, record, slot, template)?;
    let pager = host.pager.clone();
    let on_memory = Box::new(move |report| {
        let attach = async move { pager.attach(&backing, report).await.map_err(Into::into) };
        Box::pin(attach) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>
    });
    let restored = host.vmm.restore(spec, base, state, on_memory).await;
    let restored = restored.map_err(|error| AgentError::Vmm {
        sandbox,
        step: "restore",
        source: Box::new(error),
    })?;
    tracing::debug!(sandbox.id = %sandbox, timings = ?restored.timings, "restored");
    Ok(restored.machine)
}

fn machine_spec(
    host: &Arc<Host>,
    record: &Record,
    slot: &Slot,
    template: Template,
) -> Result<MachineSpec, AgentError> {
    let kernel = if record.kernel.is_empty() {
        host.layout.latest_kernel()
    } else {
        host.layout.kernel(&record.kernel)
    };
    let kernel = kernel.map_err(AgentError::store("find the guest kernel"))?;
    let dns = host.config.dns;
    Ok(MachineSpec {
        sandbox: record.sandbox,
        memory_bytes: record.memory_bytes,
        vcpus: record.vcpus,
        kernel: kernel.vmlinux,
        initramfs: kernel.initramfs,
        cmdline: format!(
            "wrenn.ip={GUEST_IP}/{GUEST_PREFIX} wrenn.gw={GATEWAY_IP} wrenn.dns={dns}"
        ),
        base_disk: template.base_disk,
        scratch_disk: journal::scratch_disk(&host.dir(record.sandbox)),
        tap: slot.open_tap().map_err(AgentError::Slot)?,
        mac: GUEST_MAC,
        dir: host.dir(record.sandbox),
        uid: slot.uid(),
        gid: slot.gid(),
        cgroup_procs: slot.cgroup_procs(),
        netns: None,
    })
}

async fn kill(host: &Arc<Host>, machine: &dyn Machine) {
    if let Err(error) = machine.kill().await {
        tracing::error!("{}", crate::error::chain(&error));
    }
    host.pager.detach(machine.record().pid).await;
}

async fn write(host: &Arc<Host>, record: &Record) -> Result<(), AgentError> {
    let (dir, record) = (host.dir(record.sandbox), record.clone());
    blocking(move || journal::write(&dir, &record, Durability::Process))
        .await
        .map_err(AgentError::io("write the journal"))
}
