//! What a VMM driver can do, whatever the VMM.

use std::{
    fmt::Debug,
    fs::File,
    future::Future,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use async_trait::async_trait;
use pool_model::SandboxId;

use crate::{
    error::{AdoptError, BoxError, VmmError},
    record::{Exit, MachineRecord, MemoryReport, RestoreTimings},
};

/// A machine to be made: its parts, its user and its place.
#[derive(Debug)]
pub struct MachineSpec {
    /// Whose machine it is.
    pub sandbox: SandboxId,
    /// Guest memory; a multiple of 4096. A clone has exactly its base's size.
    pub memory_bytes: u64,
    /// Virtual processors.
    pub vcpus: u8,
    /// The kernel: ELF with a PVH note, or a bzImage. Readable by everyone.
    pub kernel: PathBuf,
    /// The initial file system. Readable by everyone.
    pub initramfs: PathBuf,
    /// What to add to the driver's own kernel command line.
    pub cmdline: String,
    /// The template's disk, opened read-only.
    pub base_disk: PathBuf,
    /// The sandbox's writable disk.
    pub scratch_disk: PathBuf,
    /// The queue of the sandbox's tap device, opened with `IFF_VNET_HDR`.
    pub tap: OwnedFd,
    /// The guest's hardware address.
    pub mac: [u8; 6],
    /// The sandbox's directory, which must exist; the control socket is made in it.
    pub dir: PathBuf,
    /// The VMM's user.
    pub uid: u32,
    /// The VMM's group.
    pub gid: u32,
    /// `cgroup.procs` files of the cgroups that the VMM joins before it is executed.
    pub cgroup_procs: Vec<PathBuf>,
    /// The VMM's network namespace; without one it gets a new, empty one.
    pub netns: Option<OwnedFd>,
    /// Whether a clone's base memory is in pages of 2 MiB. `memory_bytes` is a multiple of 2 MiB
    /// then. Says nothing to a machine that is booted.
    pub huge_pages: bool,
}

/// A snapshot's memory on this host, as the page server hands it out.
#[derive(Debug)]
pub struct BaseMemory {
    /// The memfd, read-only.
    pub fd: OwnedFd,
    /// Its size.
    pub bytes: u64,
}

/// Called once in a restore, when guest memory is mapped and before it is touched.
///
/// The page server is attached here. An error ends the restore and the VMM.
pub type OnMemory = Box<
    dyn FnOnce(MemoryReport) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send,
>;

/// A machine made from a snapshot, stopped, and how long that took.
#[derive(Debug)]
pub struct Restored {
    /// The machine. It runs from the first [`Machine::resume`] on.
    pub machine: Box<dyn Machine>,
    /// Where the time went.
    pub timings: RestoreTimings,
}

/// Makes machines.
#[async_trait]
pub trait Vmm: Send + Sync + Debug {
    /// The VMM and its version, e.g. `qemu-7.2.22`: what a snapshot's device state is bound to.
    fn name(&self) -> String;

    /// How guests are executed: `tcg` or `kvm`.
    fn accel(&self) -> &str;

    /// The processor model that guests see.
    fn cpu(&self) -> &str;

    /// What of the host's processor a device state is bound to: two hosts with the same text can
    /// restore each other's snapshots. At most 32 characters, letters, digits and `-`.
    fn cpu_fingerprint(&self) -> &str;

    /// Starts a machine from its kernel. It runs when this returns.
    ///
    /// # Errors
    ///
    /// [`VmmError`]; no process is left then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the VMM.
    async fn boot(&self, spec: MachineSpec) -> Result<Box<dyn Machine>, VmmError>;

    /// Starts a VMM process that waits for a snapshot: its machine is made, its memory reserved
    /// but not mapped, its disks are opened.
    ///
    /// `spec.scratch_disk` must exist with its final length. Its content may be written, in place,
    /// until the restore begins.
    ///
    /// # Errors
    ///
    /// [`VmmError`]; no process is left then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the VMM.
    async fn prepare(&self, spec: MachineSpec) -> Result<Box<dyn Blank>, VmmError>;

    /// Takes over a machine that another process (an agent that died) had started. A blank is
    /// refused: what it waits on was lost with that agent.
    ///
    /// # Errors
    ///
    /// [`AdoptError`]: the process is left alone; [`Vmm::reap`] ends it.
    async fn adopt(&self, record: &MachineRecord) -> Result<Box<dyn Machine>, AdoptError>;

    /// Kills a recorded machine without taking it over. `false` if it was gone already.
    ///
    /// # Errors
    ///
    /// [`VmmError::Deadline`] if the process does not die.
    async fn reap(&self, record: &MachineRecord) -> Result<bool, VmmError>;
}

/// A VMM process that waits for a snapshot. Dropping it kills the process, and so does the end of
/// the agent.
#[async_trait]
pub trait Blank: Send + Sync + Debug {
    /// What to remember about it; its memory is [`crate::MemoryRecord::Blank`].
    fn record(&self) -> MachineRecord;

    /// Makes it a clone of a snapshot: memory mapped, device state loaded, stopped.
    ///
    /// `state` is read from its position on.
    ///
    /// # Errors
    ///
    /// [`VmmError`]; no process is left then. [`VmmError::Died`] if it had ended before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the VMM.
    async fn restore(
        self: Box<Self>,
        base: BaseMemory,
        state: File,
        on_memory: OnMemory,
    ) -> Result<Restored, VmmError>;

    /// Kills the process and waits until it is gone. Does nothing if it is gone.
    ///
    /// # Errors
    ///
    /// [`VmmError::Deadline`] if the process does not die.
    async fn kill(&self) -> Result<(), VmmError>;

    /// Resolves when the process is gone, for whatever reason. Cancel-safe.
    async fn exited(&self) -> Exit;

    /// From the spawn until the VMM answered on its control socket.
    fn prepared_in(&self) -> Duration;

    /// Gives it to another sandbox, whose directory is `dir` from now on.
    ///
    /// The caller has renamed the directory, with the control socket in it, before.
    fn rename(&mut self, sandbox: SandboxId, dir: PathBuf);
}

/// One VMM process. Dropping it leaves the process running.
#[async_trait]
pub trait Machine: Send + Sync + Debug {
    /// What to remember about it.
    fn record(&self) -> MachineRecord;

    /// Stops the processors and drains the disks. Does nothing if stopped.
    async fn pause(&self) -> Result<(), VmmError>;

    /// Lets the processors run, also after [`Machine::save_state`].
    async fn resume(&self) -> Result<(), VmmError>;

    /// Writes the device state (no guest memory) into `to`, from its position on.
    ///
    /// The machine must be paused. Capture the memory after this, not before it.
    ///
    /// # Errors
    ///
    /// [`VmmError::NoSpace`] if the file system is full; the machine is still good then.
    async fn save_state(&self, to: File) -> Result<(), VmmError>;

    /// Kills the process and waits until it is gone. Does nothing if it is gone.
    async fn kill(&self) -> Result<(), VmmError>;

    /// Resolves when the process is gone, for whatever reason.
    async fn exited(&self) -> Exit;

    /// The first 64 KiB that the guest wrote to its console in this process's life.
    fn console(&self) -> String;

    /// The end of what the VMM itself had to say.
    fn log(&self) -> String;

    /// The sandbox's directory.
    fn dir(&self) -> &Path;
}
