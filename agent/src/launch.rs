//! Starts a machine in a slot: booted from a template's disk, or restored from a snapshot.
//!
//! ```text
//! restore: blank VMM at hand? ─yes─► claim it ─┐
//!             └─no─► slot, VMM process ────────┤ beside it: disk content, base memory
//!                                              └─► map memory ─► device state ─► stopped machine
//! ```
//!
//! # Invariants
//!
//! - The journal names the slot before it is made, and the machine before it runs.
//! - What fails leaves neither a machine nor a slot.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use agent_slot::{GATEWAY_IP, GUEST_IP, GUEST_MAC, GUEST_PREFIX, Slot};
use agent_vmm::{BaseMemory, Blank, Machine, MachineSpec, OnMemory, Restored, VmmError};
use pool_model::Prefetch;
use pool_store::Snapshot;
use tokio::time::{Instant, sleep};

use crate::{
    blanks::Shape,
    error::AgentError,
    host::{Host, blocking},
    journal::{self, Backing, Durability, Purpose, Record},
    template::Template,
};

/// Longest that a tap may be busy after its last user is gone: a start on a host without free
/// processors.
const TAP_BUSY_MAX: Duration = Duration::from_secs(2);
/// Pause between attempts to open it.
const TAP_RETRY: Duration = Duration::from_millis(5);

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
        /// What to put into base memory ahead of its first touch.
        prefetch: Prefetch,
    },
}

/// How long each step of a start took, by name.
pub type Steps = Vec<(&'static str, Duration)>;

/// A stopped machine in its slot.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) slot: Slot,
    pub(crate) machine: Box<dyn Machine>,
    pub(crate) steps: Steps,
}

/// Makes a stopped machine and journals it.
pub(crate) async fn launch(
    host: &Arc<Host>,
    record: &mut Record,
    origin: Origin,
) -> Result<Launched, AgentError> {
    let launched = match origin {
        Origin::Template(template) => boot(host, record, template).await?,
        Origin::Snapshot { snapshot, template, prefetch } => {
            restore(host, record, &snapshot, template, prefetch).await?
        }
    };
    record.machine = Some(launched.machine.record());
    if let Err(error) = write(host, record).await {
        let Launched { slot, machine, .. } = launched;
        if let Err(error) = machine.kill().await {
            tracing::error!("{}", crate::error::chain(&error));
        }
        host.pager.detach(machine.record().pid).await;
        host.slots.give(slot).await;
        return Err(error);
    }
    Ok(launched)
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

async fn boot(
    host: &Arc<Host>,
    record: &mut Record,
    template: Template,
) -> Result<Launched, AgentError> {
    let slot = reserve_slot(host, record).await?;
    record.backing = None;
    let booted = async {
        let scratch = journal::scratch_disk(&host.dir(record.sandbox));
        let empty = template.scratch_disk.clone();
        blocking(move || pool_store::copy_sparse(&empty, &scratch))
            .await
            .map_err(AgentError::io("copy the scratch disk"))?;
        let tap = open_tap(&slot).await?;
        let spec = machine_spec(host, record, &slot, (tap, template.base_disk))?;
        host.vmm.boot(spec).await.map_err(vmm_error(record, "boot"))
    };
    match booted.await {
        Ok(machine) => Ok(Launched { slot, machine, steps: Steps::new() }),
        Err(error) => {
            host.slots.give(slot).await;
            Err(error)
        }
    }
}

async fn restore(
    host: &Arc<Host>,
    record: &mut Record,
    snapshot: &Snapshot,
    template: Template,
    prefetch: Prefetch,
) -> Result<Launched, AgentError> {
    let began = Instant::now();
    record.backing = Some(Backing {
        snapshot: snapshot.manifest.snapshot,
        dir: snapshot.dir().to_owned(),
        memory_bytes: snapshot.manifest.memory.bytes,
    });
    let shape = Shape::of(record, snapshot, &template);
    let claimed = match host.blanks.take(&shape) {
        Some(ready) => Some(ready.claim(host, record).await?),
        None => None,
    };
    let (slot, blank) = match claimed {
        Some((slot, blank)) => (slot, Some(blank)),
        None => (reserve_slot(host, record).await?, None),
    };
    let slot_took = began.elapsed();
    match restore_in(host, record, &slot, (blank, &shape), snapshot, prefetch).await {
        Ok((restored, vmm_took)) => {
            let timings = restored.timings;
            let steps = vec![
                ("slot", slot_took),
                ("vmm", vmm_took),
                ("memory", timings.memory),
                ("state", timings.state_load),
            ];
            tracing::debug!(sandbox.id = %record.sandbox, ?steps, "restored");
            Ok(Launched { slot, machine: restored.machine, steps })
        }
        Err(error) => {
            host.slots.give(slot).await;
            Err(error)
        }
    }
}

/// Brings VMM, disk content and base memory together. Also says how long these took until all
/// were there.
async fn restore_in(
    host: &Arc<Host>,
    record: &mut Record,
    slot: &Slot,
    (blank, shape): (Option<Box<dyn Blank>>, &Shape),
    snapshot: &Snapshot,
    prefetch: Prefetch,
) -> Result<(Restored, Duration), AgentError> {
    let began = Instant::now();
    let sandbox = record.sandbox;
    let Some(backing) = record.backing.clone() else {
        return Err(AgentError::SandboxGone(sandbox));
    };
    let scratch = journal::scratch_disk(&host.dir(sandbox));
    let target = match &blank {
        Some(_) => File::options().read(true).write(true).open(&scratch),
        None => empty_disk(&scratch, shape.scratch_bytes),
    };
    let target = target.map_err(AgentError::io("make the scratch disk"))?;
    let content = snapshot.scratch_path();
    let copy = async {
        let copied = blocking(move || pool_store::copy_sparse_into(&content, &target)).await;
        copied.map_err(AgentError::io("copy the scratch disk"))
    };
    let prepare = async {
        match blank {
            Some(blank) => Ok(blank),
            None => prepare(host, record, slot, shape).await,
        }
    };
    let base = host.pager.base(&backing, prefetch);
    let (blank, _, base) = tokio::try_join!(prepare, copy, base)?;
    let ready_took = began.elapsed();
    let base = BaseMemory { fd: base, bytes: backing.memory_bytes };
    let state =
        File::open(snapshot.state_path()).map_err(AgentError::io("open the device state"))?;
    let pager = host.pager.clone();
    let on_memory: OnMemory = Box::new(move |report| {
        Box::pin(async move { pager.attach(&backing, report).await.map_err(Into::into) })
    });
    let pid = blank.record().pid;
    match blank.restore(base, state, on_memory).await {
        Ok(restored) => Ok((restored, ready_took)),
        Err(error) => {
            host.pager.detach(pid).await;
            Err(vmm_error(record, "restore")(error))
        }
    }
}

/// Starts a VMM that waits for a snapshot. The scratch disk has its length already.
pub(crate) async fn prepare(
    host: &Arc<Host>,
    record: &Record,
    slot: &Slot,
    shape: &Shape,
) -> Result<Box<dyn Blank>, AgentError> {
    let tap = open_tap(slot).await?;
    let spec = machine_spec(host, record, slot, (tap, shape.base_disk.clone()))?;
    host.vmm.prepare(spec).await.map_err(vmm_error(record, "prepare"))
}

/// A new file of so many zeroes that takes no space, in the place of what has its name: a pause
/// that was interrupted may have left the name of an image's own disk.
pub(crate) fn empty_disk(path: &Path, bytes: u64) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    file.set_len(bytes)?;
    Ok(file)
}

/// Opens a slot's tap, which one process may hold at a time.
///
/// The slot's last VMM is gone, but a VMM that is being started elsewhere on the host has a copy of
/// every descriptor that was open here when it was forked, until it executes its program: then the
/// tap is busy for some milliseconds.
async fn open_tap(slot: &Slot) -> Result<OwnedFd, AgentError> {
    let until = Instant::now() + TAP_BUSY_MAX;
    loop {
        match slot.open_tap() {
            Err(error) if is_busy(&error) && Instant::now() < until => sleep(TAP_RETRY).await,
            opened => return opened.map_err(AgentError::Slot),
        }
    }
}

fn is_busy(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let io = error.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
    })
}

fn machine_spec(
    host: &Arc<Host>,
    record: &Record,
    slot: &Slot,
    (tap, base_disk): (OwnedFd, PathBuf),
) -> Result<MachineSpec, AgentError> {
    // A restored guest has its kernel in its memory: any file will do for the VMM.
    let restoring = record.backing.is_some() || record.purpose == Purpose::Blank;
    let kernel = match record.kernel.as_str() {
        "" => host.layout.latest_kernel(),
        version => match host.layout.kernel(version) {
            Err(_) if restoring => host.layout.latest_kernel(),
            found => found,
        },
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
        base_disk,
        scratch_disk: journal::scratch_disk(&host.dir(record.sandbox)),
        tap,
        mac: GUEST_MAC,
        dir: host.dir(record.sandbox),
        uid: slot.uid(),
        gid: slot.gid(),
        cgroup_procs: slot.cgroup_procs(),
        netns: None,
        huge_pages: restoring && host.config.huge_pages == "2m",
    })
}

fn vmm_error(record: &Record, step: &'static str) -> impl FnOnce(VmmError) -> AgentError + use<> {
    let sandbox = record.sandbox;
    move |source| AgentError::Vmm { sandbox, step, source: Box::new(source) }
}

/// Writes the journal; nothing of the host's own death needs to survive here.
pub(crate) async fn write(host: &Arc<Host>, record: &Record) -> Result<(), AgentError> {
    let (dir, record) = (host.dir(record.sandbox), record.clone());
    blocking(move || journal::write(&dir, &record, Durability::Process))
        .await
        .map_err(AgentError::io("write the journal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_tap_is_told_apart_from_one_that_cannot_be_opened() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open the tap")]
        struct Open(#[source] io::Error);
        let failed = |errno| Open(io::Error::from_raw_os_error(errno));
        assert!(is_busy(&failed(libc::EBUSY)));
        assert!(!is_busy(&failed(libc::EPERM)));
    }

    #[test]
    fn new_disk_leaves_the_image_alone_that_had_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (image, disk) = (dir.path().join("image"), dir.path().join("disk"));
        fs::write(&image, b"content").unwrap();
        fs::hard_link(&image, &disk).unwrap();
        let new = empty_disk(&disk, 8192).unwrap();
        assert_eq!(new.metadata().unwrap().len(), 8192);
        assert_eq!(fs::read(&image).unwrap(), b"content");
        assert!(empty_disk(&dir.path().join("no/disk"), 1).is_err());
    }
}
