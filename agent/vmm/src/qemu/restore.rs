//! Makes a clone: process, memory, page server, device state, in this order.

use std::{fs::File, io, os::fd::OwnedFd, time::Instant};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    time::timeout,
};

use super::{
    QemuConfig,
    launch::{self, Launched, Paging, Plan},
    machine::QemuMachine,
    migrate,
    qmp::Qmp,
};
use crate::{
    error::VmmError,
    record::{MemoryRecord, MemoryReport, RestoreTimings},
    vmm::{BaseMemory, MachineSpec, OnMemory},
};

/// The device that makes userfaultfds which handle the kernel's own faults too.
pub(super) const USERFAULTFD: &str = "/dev/userfaultfd";

/// Longest report of the preloaded library, bytes.
const REPORT_MAX: u64 = 4096;

const MAP: &str = "map its memory";
const LOAD: &str = "load its device state";

/// The one line that the preloaded library writes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Report {
    Mapped { uffd: i32, addr: u64, len: u64, base: i32 },
    Failed { error: String },
}

/// Makes a stopped clone.
pub(crate) async fn restore(
    config: &QemuConfig,
    spec: MachineSpec,
    base: BaseMemory,
    state: File,
    on_memory: OnMemory,
) -> Result<(QemuMachine, RestoreTimings), VmmError> {
    let begun = Instant::now();
    let (plan, report_rx) = plan(config, &spec, base)?;
    let bytes = spec.memory_bytes;
    let launched = launch::launch(config, spec, plan).await?;
    let mut timings = RestoreTimings { spawn: begun.elapsed(), ..RestoreTimings::default() };
    match prepare(config, &launched, (report_rx, bytes), state, on_memory, &mut timings).await {
        Ok((qmp, memory)) => {
            timings.total = begun.elapsed();
            Ok((launched.finish(config, qmp, memory), timings))
        }
        Err(error) => Err(launched.control.abandon(config, error).await),
    }
}

/// Opens what paging needs.
fn plan(
    config: &QemuConfig,
    spec: &MachineSpec,
    base: BaseMemory,
) -> Result<(Plan, pipe::Receiver), VmmError> {
    let sandbox = spec.sandbox;
    let failed = |step: String| move |source| VmmError::Start { sandbox, step, source };
    if base.bytes != spec.memory_bytes {
        let sizes = format!("{} bytes of base for {} of guest", base.bytes, spec.memory_bytes);
        return Err(failed("check its memory".to_owned())(io::Error::other(sizes)));
    }
    let (report_tx, report_rx) = pipe::pipe().map_err(failed("make a pipe".to_owned()))?;
    let open = |path: &std::path::Path| -> Result<OwnedFd, VmmError> {
        let file = File::options().read(true).open(path);
        Ok(file.map_err(failed(format!("open {}", path.display())))?.into())
    };
    let paging = Paging {
        base: base.fd,
        userfaultfd: open(USERFAULTFD.as_ref())?,
        library: open(&config.preload)?,
        report: report_tx.into_blocking_fd().map_err(failed("make a pipe".to_owned()))?,
    };
    Ok((Plan::Restore(paging), report_rx))
}

/// All that happens between the process's start and a stopped machine.
async fn prepare(
    config: &QemuConfig,
    launched: &Launched,
    (report_rx, bytes): (pipe::Receiver, u64),
    state: File,
    on_memory: OnMemory,
    timings: &mut RestoreTimings,
) -> Result<(Qmp, MemoryRecord), VmmError> {
    let started = Instant::now();
    let connect = async {
        let qmp = launched.connect(config).await?;
        Ok((qmp, started.elapsed()))
    };
    let page = async {
        let memory = hand_over(config, launched, report_rx, bytes, on_memory).await?;
        Ok((memory, started.elapsed()))
    };
    let ((qmp, qmp_ready), (memory, memory_report)) = tokio::try_join!(connect, page)?;
    (timings.qmp_ready, timings.memory_report) = (qmp_ready, memory_report);

    let loading = Instant::now();
    let loaded = launched.control.watch(LOAD, migrate::load(&qmp, state, config)).await?;
    if let Some(reason) = loaded {
        return Err(launched.control.refused(LOAD, reason));
    }
    timings.state_load = loading.elapsed();
    Ok((qmp, memory))
}

/// Waits for the library's report and gives the memory into the caller's care.
async fn hand_over(
    config: &QemuConfig,
    launched: &Launched,
    report_rx: pipe::Receiver,
    bytes: u64,
    on_memory: OnMemory,
) -> Result<MemoryRecord, VmmError> {
    let control = &launched.control;
    let late = |step| move |_| control.deadline(step, config.start_max);
    let line = tokio::select! {
        biased; // a report that came before the end says more than the end
        line = timeout(config.start_max, read_line(report_rx)) => line.map_err(late(MAP))?,
        exit = control.process.exited() => return Err(control.died(MAP, exit)),
    };
    let refused =
        |reason| VmmError::Paging { sandbox: control.sandbox, reason, log: control.tail() };
    let Some(line) = line else {
        // Closed without a word: QEMU is ending, and its log says why.
        let exit = timeout(config.kill_max, control.process.exited()).await.map_err(late(MAP))?;
        return Err(control.died(MAP, exit));
    };
    let (uffd_fd, base_fd, addr, len) = match serde_json::from_slice(&line) {
        Ok(Report::Mapped { uffd, addr, len, base }) => (uffd, base, addr, len),
        Ok(Report::Failed { error }) => return Err(refused(error.chars().take(500).collect())),
        Err(error) => return Err(refused(format!("its report cannot be read: {error}"))),
    };
    if len != bytes || addr % 4096 != 0 || uffd_fd < 3 || base_fd < 3 {
        return Err(refused("its report does not fit the snapshot".to_owned()));
    }
    let report = MemoryReport {
        pid: control.process.pid(),
        start_ticks: control.process.start_ticks(),
        uffd_fd,
        base_fd,
        addr,
        len,
    };
    let attached = timeout(config.start_max, on_memory(report)).await;
    attached
        .map_err(late("have its memory taken by the page server"))?
        .map_err(|source| VmmError::Attach { sandbox: control.sandbox, source })?;
    Ok(MemoryRecord::Clone { uffd_fd, base_fd, addr, len })
}

/// The report's line, or nothing if it was closed first or is too long.
async fn read_line(report_rx: pipe::Receiver) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = BufReader::new(report_rx).take(REPORT_MAX).read_until(b'\n', &mut line).await;
    (read.is_ok() && line.ends_with(b"\n")).then_some(line)
}
