//! Starts QEMU's process: opens what it needs, gives up what it doesn't, executes it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pool_model::SandboxId;

use super::{
    QemuConfig,
    args::{self, Fds, Shape, Start},
    files::{self, Log},
    machine::{Control, QemuMachine},
    qmp::Qmp,
    socket, stub,
};
use crate::{
    error::VmmError,
    process::{Process, Unfinished},
    record::{MachineRecord, MemoryRecord},
    sys::{self, Confinement},
    vmm::MachineSpec,
};

/// Name of the control socket in a sandbox's directory.
const QMP_SOCKET: &str = "qmp.sock";

/// How the process begins.
#[derive(Debug)]
pub(crate) enum Plan {
    /// With its kernel.
    Boot { tsc_khz: u64 },
    /// Waiting for a snapshot, which the preloaded `library` takes from `socket`.
    Blank { library: OwnedFd, socket: OwnedFd },
}

/// A process that has been executed and not been talked to.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) control: Control,
    pub(crate) unfinished: Unfinished,
    pub(crate) qmp_socket: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) console: Log,
    pub(crate) memory_fd: RawFd,
}

impl Launched {
    /// Waits for the control socket to answer.
    pub(crate) async fn connect(&self, config: &QemuConfig) -> Result<Qmp, VmmError> {
        let connect = Qmp::connect(&self.qmp_socket, config.start_max);
        self.control.watch("answer on its control socket", connect).await
    }

    /// What to remember about the process, whose memory is `memory`.
    pub(crate) fn record(&self, memory: MemoryRecord) -> MachineRecord {
        MachineRecord {
            sandbox: self.control.sandbox,
            pid: self.control.process.pid(),
            start_ticks: self.control.process.start_ticks(),
            memory,
            qmp_socket: self.qmp_socket.clone(),
            dir: self.dir.clone(),
        }
    }

    /// Gives it to another sandbox, whose directory `dir` has the control socket now.
    pub(crate) fn rename(&mut self, sandbox: SandboxId, dir: PathBuf) {
        self.control.sandbox = sandbox;
        self.qmp_socket = dir.join(QMP_SOCKET);
        self.dir = dir;
    }

    /// Becomes a machine that lives on.
    pub(crate) fn finish(self, config: &QemuConfig, qmp: Qmp, memory: MemoryRecord) -> QemuMachine {
        let record = self.record(memory);
        self.unfinished.finish();
        QemuMachine::new(config, record, self.control, self.console, qmp)
    }
}

/// Starts a machine from its kernel.
pub(crate) async fn boot(
    config: &QemuConfig,
    tsc_khz: u64,
    spec: MachineSpec,
) -> Result<QemuMachine, VmmError> {
    let bytes = spec.memory_bytes;
    let launched = launch(config, spec, Plan::Boot { tsc_khz }).await?;
    let qmp = match launched.connect(config).await {
        Ok(qmp) => qmp,
        Err(error) => return Err(launched.control.abandon(config, error).await),
    };
    let memory = MemoryRecord::Owned { fd: launched.memory_fd, bytes };
    Ok(launched.finish(config, qmp, memory))
}

/// Executes QEMU. Cancelling this kills what it started.
pub(crate) async fn launch(
    config: &QemuConfig,
    spec: MachineSpec,
    plan: Plan,
) -> Result<Launched, VmmError> {
    let (config, sandbox) = (config.clone(), spec.sandbox);
    let launching = tokio::task::spawn_blocking(move || launch_blocking(&config, spec, plan));
    launching.await.unwrap_or_else(|panicked| {
        let step = "run its start".to_owned();
        Err(VmmError::Start { sandbox, step, source: io::Error::other(panicked) })
    })
}

fn launch_blocking(
    config: &QemuConfig,
    spec: MachineSpec,
    plan: Plan,
) -> Result<Launched, VmmError> {
    let opener = Opener { sandbox: spec.sandbox, inherited: Vec::with_capacity(16) };
    let MachineParts { fds, mut command, inherited, log, console } =
        opener.assemble(config, &spec, plan)?;
    let sandbox = spec.sandbox;
    let failed = |step: String| move |source| VmmError::Start { sandbox, step, source };

    let mut cgroups = Vec::with_capacity(spec.cgroup_procs.len());
    for path in &spec.cgroup_procs {
        let file = OpenOptions::new().write(true).open(path);
        cgroups.push(file.map_err(failed(format!("open cgroup {}", path.display())))?);
    }
    let confinement = Confinement {
        uid: spec.uid,
        gid: spec.gid,
        netns: spec.netns,
        cgroups,
        inherited,
        open_files_max: config.open_files_max,
    };
    sys::confine(&mut command, confinement);
    let execute = failed(format!("execute {}", config.binary.display()));
    let mut child = command.spawn().map_err(execute)?;
    let pid = i32::try_from(child.id()).unwrap_or(-1);
    let process = match Process::of_child(pid) {
        Ok(process) => process,
        Err(source) => {
            let _ = child.kill().and_then(|()| child.wait().map(drop));
            return Err(failed("watch its process".to_owned())(source));
        }
    };
    // From here on the process is reaped by its watcher, and killed if this is dropped.
    drop(command); // with it our copies of what the process inherited
    let unfinished = Unfinished::new(process.clone());
    Ok(Launched {
        control: Control { sandbox, process, log },
        unfinished,
        qmp_socket: spec.dir.join(QMP_SOCKET),
        dir: spec.dir,
        console,
        memory_fd: fds.memory,
    })
}

/// Opens files for the process, at numbers that are free in ours and so in the process's too.
struct Opener {
    sandbox: SandboxId,
    inherited: Vec<OwnedFd>,
}

struct MachineParts {
    fds: Fds,
    command: Command,
    inherited: Vec<OwnedFd>,
    log: Log,
    console: Log,
}

impl Opener {
    fn assemble(
        mut self,
        config: &QemuConfig,
        spec: &MachineSpec,
        plan: Plan,
    ) -> Result<MachineParts, VmmError> {
        let (log, log_writer) = self.named("make a log", Log::create(c"wrenn-vmm-log"))?;
        let (console, console_writer) =
            self.named("make a console", Log::create(c"wrenn-console"))?;
        let socket = spec.dir.join(QMP_SOCKET);
        let listener =
            self.named(format!("listen on {}", socket.display()), socket::listen(&socket))?;
        let tap = self.named("duplicate the tap", spec.tap.try_clone())?;
        let scratch = OpenOptions::new().read(true).write(true).open(&spec.scratch_disk);
        let scratch = self.named(open_step(&spec.scratch_disk), scratch)?;
        let base_disk = self.open(&spec.base_disk)?;

        let mut command = Command::new(&config.binary);
        command.env_clear().current_dir("/").stdin(Stdio::null());
        let memory = files::guest_memory(spec.memory_bytes, spec.uid, spec.gid);
        let memory = self.named("make guest memory", memory)?;
        let memory = self.keep(memory);
        let (kernel, initramfs, start) = match plan {
            Plan::Boot { tsc_khz } => {
                let initramfs = self.open(&spec.initramfs)?;
                let initramfs = Some(self.keep(initramfs));
                let start = Start::Boot { cmdline: &spec.cmdline, tsc_khz };
                (self.open(&spec.kernel)?.into(), initramfs, start)
            }
            Plan::Blank { library, socket } => {
                command.env("LD_PRELOAD", args::fd_path(self.keep(library)));
                command.env("WRENN_UFFD_MEMORY_FD", memory.to_string());
                command.env("WRENN_UFFD_SOCKET_FD", self.keep(socket).to_string());
                (self.kernel_of_clone(&spec.kernel)?, None, Start::Blank)
            }
        };
        let fds = Fds {
            qmp: self.keep(listener),
            kernel: self.keep(kernel),
            initramfs,
            base_disk: self.keep(base_disk),
            scratch_disk: self.keep(scratch),
            tap: self.keep(tap),
            memory,
        };
        let shape = Shape {
            sandbox: spec.sandbox,
            memory_bytes: spec.memory_bytes,
            vcpus: spec.vcpus,
            mac: spec.mac,
            huge_pages: spec.huge_pages,
            start,
        };
        command.args(args::arguments(config, &shape, &fds));
        command.stdout(console_writer).stderr(log_writer);
        Ok(MachineParts { fds, command, inherited: self.inherited, log, console })
    }

    /// The stub where it can stand for the kernel, else the kernel.
    fn kernel_of_clone(&self, path: &Path) -> Result<OwnedFd, VmmError> {
        let mut kernel = self.open(path)?;
        let mut magic = [0_u8; 4];
        let read = io::Read::read_exact(&mut kernel, &mut magic);
        self.named(format!("read {}", path.display()), read)?;
        if stub::is_elf(&magic) {
            let stub = files::with_content(c"wrenn-stub-kernel", &stub::stub_kernel());
            return self.named("make a stub kernel", stub);
        }
        Ok(kernel.into())
    }

    fn keep(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        let fd = fd.into();
        let number = fd.as_raw_fd();
        self.inherited.push(fd);
        number
    }

    fn open(&self, path: &Path) -> Result<File, VmmError> {
        self.named(open_step(path), File::open(path))
    }

    fn named<T>(&self, step: impl Into<String>, result: io::Result<T>) -> Result<T, VmmError> {
        let sandbox = self.sandbox;
        result.map_err(|source| VmmError::Start { sandbox, step: step.into(), source })
    }
}

fn open_step(path: &Path) -> String {
    format!("open {}", path.display())
}
