//! The QEMU driver: `microvm` machines under TCG or KVM, controlled over QMP.
//!
//! ```text
//! spawn --> QMP greeting, capabilities --> blank
//! blank --base memory--> library --report--> on_memory (page server) --> migrate-incoming --> stopped
//! ```
//!
//! # Invariants
//!
//! - QEMU runs as the sandbox's own user, in its cgroups, in a network namespace that holds
//!   nothing, under its seccomp filter, with only the descriptors it needs.
//! - Guest memory is `share=on` in every machine, so that a device state never holds memory: in
//!   a clone the preloaded library maps it privately behind QEMU's back.
//! - A clone's memory is in the page server's care before its device state is loaded.
//!
//! # Limits
//!
//! See [`QemuConfig`]; 64 KiB each of log and console per process.

mod args;
mod blank;
mod cpu;
mod files;
mod launch;
mod library;
mod machine;
mod migrate;
mod qmp;
mod socket;
mod stub;
mod version;

use std::{fs::File, io, path::PathBuf, time::Duration};

use async_trait::async_trait;
use pool_model::SandboxId;

pub use stub::pvh_kernel;
pub use version::{ParseVersionError, QemuVersion};

use crate::{
    accel::Accel,
    error::{AdoptError, VmmError},
    process::Process,
    record::MachineRecord,
    sys,
    vmm::{Blank, Machine, MachineSpec, Vmm},
};

/// How QEMU is run, fixed at start.
#[derive(Debug, Clone)]
pub struct QemuConfig {
    /// QEMU's program.
    pub binary: PathBuf,
    /// The library that registers guest memory of clones with userfaultfd.
    pub preload: PathBuf,
    /// How guests are executed; see [`crate::probe_accel`].
    pub accel: Accel,
    /// TCG's cache of translated code per machine, MiB. Private memory of the VMM, filled as
    /// the guest runs.
    pub tb_size_mib: u32,
    /// Longest wait for a new process to answer on its control socket.
    pub start_max: Duration,
    /// Longest wait for a control command.
    pub command_max: Duration,
    /// Longest wait for saving or loading a device state.
    pub state_max: Duration,
    /// Longest wait for a killed process to be gone.
    pub kill_max: Duration,
    /// Descriptors that the VMM may have open.
    pub open_files_max: u64,
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            binary: "/usr/bin/qemu-system-x86_64".into(),
            preload: "/usr/lib/wrenn/libqemu_uffd.so".into(),
            accel: Accel::Tcg,
            tb_size_mib: 64,
            start_max: Duration::from_secs(20),
            command_max: Duration::from_secs(10),
            state_max: Duration::from_secs(30),
            kill_max: Duration::from_secs(10),
            open_files_max: 1024,
        }
    }
}

/// Why QEMU cannot be used on this host.
#[derive(Debug, thiserror::Error)]
pub enum QemuSetupError {
    /// The program cannot be run.
    #[error("cannot run `{} --version`", binary.display())]
    Run {
        /// The program.
        binary: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not QEMU, or it does not say which.
    #[error("`{} --version` says nothing that can be used", binary.display())]
    Version {
        /// The program.
        binary: PathBuf,
        /// What was wrong with it.
        #[source]
        source: ParseVersionError,
    },
    /// A file that restores need is missing.
    #[error("cannot use `{}`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Makes machines with QEMU.
#[derive(Debug)]
pub struct Qemu {
    config: QemuConfig,
    version: QemuVersion,
    cpu_fingerprint: String,
    tsc_khz: u64,
}

impl Qemu {
    /// Looks at the program and the library, and measures the host's time stamp counter.
    ///
    /// # Errors
    ///
    /// [`QemuSetupError`] if the program, the library or `/dev/userfaultfd` cannot be used, or,
    /// under KVM, if `/proc/cpuinfo` does not name the processor.
    pub async fn new(config: QemuConfig) -> Result<Self, QemuSetupError> {
        let version = version::ask(&config.binary).await?;
        for path in [&config.preload, &PathBuf::from(library::USERFAULTFD)] {
            File::open(path)
                .map_err(|source| QemuSetupError::Missing { path: path.clone(), source })?;
        }
        let cpu_fingerprint = cpu::fingerprint_of(config.accel)?;
        // 50 ms put the error of the two readings (under 1 µs) at 20 ppm.
        let measured =
            tokio::task::spawn_blocking(|| sys::measure_tsc_khz(Duration::from_millis(50)));
        let tsc_khz = measured.await.unwrap_or(0);
        tracing::info!(%version, accel = %config.accel, tsc.khz = tsc_khz, "qemu is usable");
        Ok(Self { config, version, cpu_fingerprint, tsc_khz })
    }
}

#[async_trait]
impl Vmm for Qemu {
    fn name(&self) -> String {
        format!("qemu-{}", self.version)
    }

    fn accel(&self) -> &'static str {
        match self.config.accel {
            Accel::Tcg => "tcg",
            Accel::Kvm => "kvm",
        }
    }

    fn cpu(&self) -> &'static str {
        match self.config.accel {
            Accel::Tcg => "max",
            Accel::Kvm => "host",
        }
    }

    fn cpu_fingerprint(&self) -> &str {
        &self.cpu_fingerprint
    }

    async fn boot(&self, spec: MachineSpec) -> Result<Box<dyn Machine>, VmmError> {
        let machine = launch::boot(&self.config, self.tsc_khz, spec).await?;
        Ok(Box::new(machine))
    }

    async fn prepare(&self, spec: MachineSpec) -> Result<Box<dyn Blank>, VmmError> {
        let blank = blank::prepare(&self.config, spec).await?;
        Ok(Box::new(blank))
    }

    async fn adopt(&self, record: &MachineRecord) -> Result<Box<dyn Machine>, AdoptError> {
        let machine = machine::QemuMachine::adopt(&self.config, record).await?;
        Ok(Box::new(machine))
    }

    async fn reap(&self, record: &MachineRecord) -> Result<bool, VmmError> {
        reap(&self.config, record).await
    }
}

async fn reap(config: &QemuConfig, record: &MachineRecord) -> Result<bool, VmmError> {
    let sandbox: SandboxId = record.sandbox;
    let step = "be killed";
    let start = |source| VmmError::Start { sandbox, step: step.to_owned(), source };
    let Some(process) = Process::find(record.pid, record.start_ticks).map_err(start)? else {
        return Ok(false);
    };
    if process.kill(config.kill_max).await.map_err(start)? {
        return Ok(true);
    }
    let log = crate::LogTail::default();
    Err(VmmError::Deadline { sandbox, step, waited: config.kill_max, log })
}
