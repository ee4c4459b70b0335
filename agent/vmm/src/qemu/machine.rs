//! A running QEMU as the agent drives it.

use std::{fs::File, future::Future, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use pool_model::SandboxId;
use serde_json::json;
use tokio::sync::Mutex;

use super::{
    QemuConfig,
    files::Log,
    migrate,
    qmp::{Qmp, QmpError},
};
use crate::{
    error::{AdoptError, LogTail, VmmError},
    process::Process,
    record::{Exit, MachineRecord, MemoryRecord},
    vmm::Machine,
};

/// After its socket closed, how long a VMM has to be gone before it counts as merely deaf.
const DYING_MAX: Duration = Duration::from_secs(2);

/// Whose process it is and what it says: the context of every error.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) sandbox: SandboxId,
    pub(crate) process: Process,
    pub(crate) log: Log,
}

impl Control {
    /// Runs one step of talking to the VMM; ends early, and says so, if the VMM dies.
    pub(crate) async fn watch<T>(
        &self,
        step: &'static str,
        talk: impl Future<Output = Result<T, QmpError>>,
    ) -> Result<T, VmmError> {
        let result = tokio::select! {
            biased; // an answer that came before the end counts
            result = talk => result,
            exit = self.process.exited() => return Err(self.died(step, exit)),
        };
        match result {
            Ok(value) => Ok(value),
            Err(QmpError::Closed | QmpError::Io(_)) => {
                match tokio::time::timeout(DYING_MAX, self.process.exited()).await {
                    Ok(exit) => Err(self.died(step, exit)),
                    Err(_) => Err(self.control(step, QmpError::Closed)),
                }
            }
            Err(QmpError::Refused { reason, .. }) => Err(self.refused(step, reason)),
            Err(QmpError::Deadline { waited, .. }) => Err(self.deadline(step, waited)),
            Err(error @ QmpError::Protocol(_)) => Err(self.control(step, error)),
        }
    }

    /// Ends a start that failed with `error`, and waits until nothing of it is left.
    pub(crate) async fn abandon(&self, config: &QemuConfig, error: VmmError) -> VmmError {
        match self.process.kill(config.kill_max).await {
            Ok(true) => {}
            Ok(false) => tracing::error!(pid = self.process.pid(), "a killed vmm is still there"),
            Err(kill) => {
                tracing::error!(pid = self.process.pid(), error = %kill, "cannot kill a vmm")
            }
        }
        error
    }

    /// Kills the process and waits until it is gone.
    pub(crate) async fn kill(&self, config: &QemuConfig) -> Result<(), VmmError> {
        const STEP: &str = "be killed";
        match self.process.kill(config.kill_max).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.deadline(STEP, config.kill_max)),
            Err(source) => {
                let sandbox = self.sandbox;
                Err(VmmError::Start { sandbox, step: STEP.to_owned(), source })
            }
        }
    }

    pub(crate) fn died(&self, step: &'static str, exit: Exit) -> VmmError {
        VmmError::Died { sandbox: self.sandbox, step, exit, log: self.tail() }
    }

    pub(crate) fn refused(&self, step: &'static str, reason: String) -> VmmError {
        VmmError::Refused { sandbox: self.sandbox, step, reason, log: self.tail() }
    }

    pub(crate) fn deadline(&self, step: &'static str, waited: Duration) -> VmmError {
        VmmError::Deadline { sandbox: self.sandbox, step, waited, log: self.tail() }
    }

    pub(crate) fn control(&self, step: &'static str, source: QmpError) -> VmmError {
        VmmError::Control { sandbox: self.sandbox, step, source: source.into() }
    }

    pub(crate) fn tail(&self) -> LogTail {
        LogTail(self.log.tail())
    }
}

/// One QEMU process.
#[derive(Debug)]
pub(crate) struct QemuMachine {
    config: QemuConfig,
    record: MachineRecord,
    control: Control,
    console: Log,
    /// Replaced if the socket was closed under it; held only to look and to replace.
    qmp: Mutex<Arc<Qmp>>,
}

impl QemuMachine {
    pub(crate) fn new(
        config: &QemuConfig,
        record: MachineRecord,
        control: Control,
        console: Log,
        qmp: Qmp,
    ) -> Self {
        Self { config: config.clone(), record, control, console, qmp: Mutex::new(Arc::new(qmp)) }
    }

    /// Takes over a process that another agent had started.
    pub(crate) async fn adopt(
        config: &QemuConfig,
        record: &MachineRecord,
    ) -> Result<Self, AdoptError> {
        let (sandbox, pid) = (record.sandbox, record.pid);
        if matches!(record.memory, MemoryRecord::Blank { .. }) {
            return Err(AdoptError::Blank { sandbox, pid });
        }
        let inspect = |source| AdoptError::Inspect { sandbox, pid, source };
        let process = Process::find(pid, record.start_ticks)
            .map_err(inspect)?
            .ok_or(AdoptError::Gone { sandbox, pid })?;
        let expected = std::fs::canonicalize(&config.binary).map_err(inspect)?;
        let found = process.program().map_err(inspect)?.to_string_lossy().into_owned();
        let expected = expected.to_string_lossy().into_owned();
        // A program that was upgraded under a running machine is still ours.
        if found.strip_suffix(" (deleted)").unwrap_or(&found) != expected {
            return Err(AdoptError::NotOurs { sandbox, pid, found, expected });
        }
        let log = Log::of_process(pid, libc::STDERR_FILENO).map_err(inspect)?;
        let console = Log::of_process(pid, libc::STDOUT_FILENO).map_err(inspect)?;
        let control = Control { sandbox, process, log };
        let connect = Qmp::connect(&record.qmp_socket, config.command_max);
        let qmp =
            control.watch("answer on its control socket", connect).await.map_err(|error| {
                match error {
                    VmmError::Died { .. } => AdoptError::Gone { sandbox, pid },
                    error => AdoptError::Unresponsive { sandbox, pid, source: error.into() },
                }
            })?;
        Ok(Self::new(config, record.clone(), control, console, qmp))
    }

    /// The connection, made anew if the old one is closed.
    async fn qmp(&self) -> Result<Arc<Qmp>, QmpError> {
        let mut qmp = self.qmp.lock().await;
        if qmp.is_closed() {
            *qmp = Arc::new(Qmp::connect(&self.record.qmp_socket, self.config.command_max).await?);
        }
        Ok(Arc::clone(&qmp))
    }

    async fn command(&self, step: &'static str, command: &'static str) -> Result<(), VmmError> {
        let talk = async {
            let qmp = self.qmp().await?;
            qmp.execute(command, json!({}), self.config.command_max).await
        };
        self.control.watch(step, talk).await.map(drop)
    }
}

#[async_trait]
impl Machine for QemuMachine {
    fn record(&self) -> MachineRecord {
        self.record.clone()
    }

    async fn pause(&self) -> Result<(), VmmError> {
        self.command("pause", "stop").await
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.command("resume", "cont").await
    }

    async fn save_state(&self, to: File) -> Result<(), VmmError> {
        const STEP: &str = "save its device state";
        let talk = async {
            let qmp = self.qmp().await?;
            migrate::save(&qmp, to, &self.config).await
        };
        match self.control.watch(STEP, talk).await? {
            migrate::Saved::Complete => Ok(()),
            migrate::Saved::NoSpace => Err(VmmError::NoSpace { sandbox: self.record.sandbox }),
            migrate::Saved::Failed { reason } => Err(self.control.refused(STEP, reason)),
        }
    }

    async fn kill(&self) -> Result<(), VmmError> {
        self.control.kill(&self.config).await
    }

    async fn exited(&self) -> Exit {
        self.control.process.exited().await
    }

    fn console(&self) -> String {
        self.console.text()
    }

    fn log(&self) -> String {
        self.control.log.tail()
    }

    fn dir(&self) -> &Path {
        &self.record.dir
    }
}
