//! A QEMU that waits for a snapshot, and what makes it a clone: memory, page server, device
//! state, in this order.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use pool_model::SandboxId;
use tokio::time::timeout;

use super::{
    QemuConfig,
    launch::{self, Launched, Plan},
    library::{Library, NoReport, Report, USERFAULTFD},
    migrate,
    qmp::Qmp,
};
use crate::{
    error::VmmError,
    record::{Exit, MachineRecord, MemoryRecord, MemoryReport, RestoreTimings},
    vmm::{BaseMemory, Blank, MachineSpec, OnMemory, Restored},
};

/// Pages of memory backed by huge pages, bytes.
const HUGE_PAGE: u64 = 2 << 20;

const WAIT: &str = "get ready for a device state";
const MAP: &str = "map its memory";
const TAKE: &str = "take its device state";
const LOAD: &str = "load its device state";

/// One QEMU process without a guest.
#[derive(Debug)]
pub(crate) struct QemuBlank {
    config: QemuConfig,
    launched: Launched,
    qmp: Qmp,
    library: Library,
    memory_bytes: u64,
    prepared_in: Duration,
}

/// Starts a process and waits until it waits.
pub(crate) async fn prepare(config: &QemuConfig, spec: MachineSpec) -> Result<QemuBlank, VmmError> {
    let begun = Instant::now();
    let (sandbox, memory_bytes) = (spec.sandbox, spec.memory_bytes);
    let failed = |step: &str| {
        let step = step.to_owned();
        move |source| VmmError::Start { sandbox, step, source }
    };
    if spec.huge_pages && !memory_bytes.is_multiple_of(HUGE_PAGE) {
        let source = io::Error::other(format!("{memory_bytes} bytes are no pages of 2 MiB"));
        return Err(failed("check its memory")(source));
    }
    let (library, socket) = Library::pair().map_err(failed("make a socket"))?;
    let plan = Plan::Blank { library: open(sandbox, &config.preload)?, socket };
    let launched = launch::launch(config, spec, plan).await?;
    let ready = async {
        let qmp = launched.connect(config).await?;
        launched.control.watch(WAIT, migrate::expect(&qmp, config)).await?;
        Ok(qmp)
    };
    match ready.await {
        Ok(qmp) => {
            let (config, prepared_in) = (config.clone(), begun.elapsed());
            Ok(QemuBlank { config, launched, qmp, library, memory_bytes, prepared_in })
        }
        Err(error) => Err(launched.control.abandon(config, error).await),
    }
}

#[async_trait]
impl Blank for QemuBlank {
    fn record(&self) -> MachineRecord {
        self.launched.record(MemoryRecord::Blank { bytes: self.memory_bytes })
    }

    async fn restore(
        self: Box<Self>,
        base: BaseMemory,
        state: File,
        on_memory: OnMemory,
    ) -> Result<Restored, VmmError> {
        let begun = Instant::now();
        let Self { config, launched, qmp, library, memory_bytes, .. } = *self;
        let mut timings = RestoreTimings::default();
        let restoring = async {
            let device = check(launched.control.sandbox, &base, memory_bytes)?;
            let memory = async {
                let report = map(&config, &launched, library, base, device).await?;
                let memory = hand_over(&config, &launched, report, on_memory).await?;
                Ok((memory, begun.elapsed()))
            };
            let given = launched.control.watch(TAKE, migrate::give(&qmp, state, &config));
            let ((memory, took), ()) = tokio::try_join!(memory, given)?;
            timings.memory = took;
            load(&config, &launched, &qmp).await?;
            timings.total = begun.elapsed();
            timings.state_load = timings.total - took;
            Ok(memory)
        };
        match restoring.await {
            Ok(memory) => {
                Ok(Restored { machine: Box::new(launched.finish(&config, qmp, memory)), timings })
            }
            Err(error) => Err(launched.control.abandon(&config, error).await),
        }
    }

    async fn kill(&self) -> Result<(), VmmError> {
        self.launched.control.kill(&self.config).await
    }

    async fn exited(&self) -> Exit {
        self.launched.control.process.exited().await
    }

    fn prepared_in(&self) -> Duration {
        self.prepared_in
    }

    fn rename(&mut self, sandbox: SandboxId, dir: PathBuf) {
        self.launched.rename(sandbox, dir);
    }
}

/// Refuses memory of another size before anything is sent; opens what userfaultfds are made from.
fn check(sandbox: SandboxId, base: &BaseMemory, memory_bytes: u64) -> Result<OwnedFd, VmmError> {
    if base.bytes != memory_bytes {
        let sizes = format!("{} bytes of base for {memory_bytes} of guest", base.bytes);
        let (step, source) = ("check its memory".to_owned(), io::Error::other(sizes));
        return Err(VmmError::Start { sandbox, step, source });
    }
    open(sandbox, USERFAULTFD.as_ref())
}

fn open(sandbox: SandboxId, path: &Path) -> Result<OwnedFd, VmmError> {
    let file = File::open(path).map_err(|source| {
        let step = format!("open {}", path.display());
        VmmError::Start { sandbox, step, source }
    })?;
    Ok(file.into())
}

/// Has the library map base memory, and checks what it says.
async fn map(
    config: &QemuConfig,
    launched: &Launched,
    library: Library,
    base: BaseMemory,
    device: OwnedFd,
) -> Result<MemoryReport, VmmError> {
    let (control, bytes) = (&launched.control, base.bytes);
    let late = |_| control.deadline(MAP, config.start_max);
    let said = tokio::select! {
        biased; // a report that came before the end says more than the end
        said = timeout(config.start_max, library.map(base, device)) => said.map_err(late)?,
        exit = control.process.exited() => return Err(control.died(MAP, exit)),
    };
    let refused =
        |reason| VmmError::Paging { sandbox: control.sandbox, reason, log: control.tail() };
    match said {
        Ok(Report::Mapped { uffd, addr, len, base }) => {
            if len != bytes || addr % 4096 != 0 || uffd < 3 || base < 3 {
                return Err(refused("its report does not fit the snapshot".to_owned()));
            }
            let (pid, start_ticks) = (control.process.pid(), control.process.start_ticks());
            Ok(MemoryReport { pid, start_ticks, uffd_fd: uffd, base_fd: base, addr, len })
        }
        Ok(Report::Failed { error }) => Err(refused(error.chars().take(500).collect())),
        Err(NoReport::Unreadable(error)) => {
            Err(refused(format!("its report cannot be read: {error}")))
        }
        Err(NoReport::Io(source)) => {
            let (sandbox, step) = (control.sandbox, "send it its memory".to_owned());
            Err(VmmError::Start { sandbox, step, source })
        }
        Err(NoReport::Closed) => {
            let exit = timeout(config.kill_max, control.process.exited()).await.map_err(late)?;
            Err(control.died(MAP, exit))
        }
    }
}

/// Gives mapped memory into the caller's care.
async fn hand_over(
    config: &QemuConfig,
    launched: &Launched,
    report: MemoryReport,
    on_memory: OnMemory,
) -> Result<MemoryRecord, VmmError> {
    const ATTACH: &str = "have its memory taken by the page server";
    let control = &launched.control;
    let attached = timeout(config.start_max, on_memory(report)).await;
    attached
        .map_err(|_| control.deadline(ATTACH, config.start_max))?
        .map_err(|source| VmmError::Attach { sandbox: control.sandbox, source })?;
    let MemoryReport { uffd_fd, base_fd, addr, len, .. } = report;
    Ok(MemoryRecord::Clone { uffd_fd, base_fd, addr, len })
}

async fn load(config: &QemuConfig, launched: &Launched, qmp: &Qmp) -> Result<(), VmmError> {
    match launched.control.watch(LOAD, migrate::load(qmp, config)).await? {
        None => Ok(()),
        Some(reason) => Err(launched.control.refused(LOAD, reason)),
    }
}
