//! A running machine in its slot, and the guest daemon in it.
//!
//! ```text
//! reserve slot ─► journal ─► build slot ─► boot │ restore ─► journal ─► resume ─► init ─► unique
//!                                └────────── any failure: kill, give back ──────────┘
//! ```
//!
//! # Invariants
//!
//! - A guest is handed out only after `/init` was acknowledged: no acknowledgement, no guest.
//! - Every connection to a guest is made for this generation and is never used after it: those that
//!   are kept belong to the guest, and break with it.

use std::{
    fmt, io,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use agent_slot::{Dialer, Slot};
use agent_vmm::{Exit, Machine, MachineRecord, VmmError};
use envd_api::{EnvdClient, EnvdError, Init};
use futures::FutureExt as _;
use jiff::Timestamp;
use pool_model::{Generation, Port, SandboxId};
use rand::TryRngCore;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    capacity::Share,
    error::AgentError,
    host::Host,
    journal::{Backing, Purpose, Record},
    launch::{Launched, Origin, Steps, launch},
    proxy::Links,
};

/// Longest for a guest's daemon to answer after a boot. TCG takes 4 to 8 s when the host is quiet.
const BOOT_MAX: Duration = Duration::from_secs(90);
/// Longest for it to answer after a restore: it was running when it was saved.
const RESTORE_MAX: Duration = Duration::from_secs(30);
/// Longest for one connection to the guest's daemon.
const ENVD_DIAL_MAX: Duration = Duration::from_secs(1);
/// Pause between attempts to reach it while it starts.
const ENVD_RETRY: Duration = Duration::from_millis(20);
/// Longest for it to freeze processes and write everything to disk.
const QUIESCE_MAX: Duration = Duration::from_secs(30);
/// Bytes of entropy that each restored guest is given.
const ENTROPY_BYTES: usize = 64;

/// Why a guest is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its machine ended by itself.
    Crashed,
    /// It was stopped: killed, or its time was over.
    Stopped,
    /// It was saved, and lives on in its image.
    Paused,
}

/// A running machine in its slot.
pub struct Guest {
    /// Whose it is.
    pub sandbox: SandboxId,
    /// Which restore it is on.
    pub generation: Generation,
    /// From the start of the work to the acknowledged init.
    pub took: Duration,
    /// How long the steps of a restore took; empty when it was booted or adopted.
    pub steps: Steps,
    /// What its memory is backed by; none when it was booted.
    pub backing: Option<Backing>,
    /// Whether it was made for a pool.
    pub of_pool: bool,
    host: Arc<Host>,
    machine: Box<dyn Machine>,
    dialer: Dialer,
    links: Links,
    ending: OnceLock<Ending>,
    /// Taken by whoever stops it.
    parts: Mutex<Option<Parts>>,
}

/// What goes back to the host when a guest stops.
struct Parts {
    slot: Slot,
    _share: Share,
}

impl Guest {
    /// Starts a sandbox's guest: reserves a place, journals it, starts the machine, makes it
    /// unique. `record` is updated and journalled as things come into being.
    ///
    /// # Errors
    ///
    /// [`AgentError`]; no slot, process or share is held then. The record remains for the caller.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: run it in a task of its own.
    pub async fn start(
        host: &Arc<Host>,
        record: &mut Record,
        origin: Origin,
    ) -> Result<Self, AgentError> {
        let _start = host.starts.acquire().await.expect("the semaphore is never closed");
        let began = Instant::now();
        let share = host.capacity.take(record.memory_bytes, record.purpose)?;
        let launched = launch(host, record, origin).await?;
        let Launched { slot, machine, steps } = launched;
        let guest = Self { steps, ..Self::over(host, record, machine, slot, share) };
        guest.begin(record, began).await
    }

    /// Takes over a guest whose agent died.
    #[must_use]
    pub fn adopted(
        host: &Arc<Host>,
        record: &Record,
        machine: Box<dyn Machine>,
        slot: Slot,
        share: Share,
    ) -> Self {
        Self::over(host, record, machine, slot, share)
    }

    fn over(
        host: &Arc<Host>,
        record: &Record,
        machine: Box<dyn Machine>,
        slot: Slot,
        share: Share,
    ) -> Self {
        Self {
            sandbox: record.sandbox,
            generation: record.generation,
            took: Duration::ZERO,
            steps: Steps::new(),
            backing: record.backing.clone(),
            of_pool: matches!(record.purpose, Purpose::Warm(_)),
            host: Arc::clone(host),
            dialer: slot.dialer(),
            links: Links::default(),
            ending: OnceLock::new(),
            machine,
            parts: Mutex::new(Some(Parts { slot, _share: share })),
        }
    }

    /// Lets the machine run and waits for the acknowledged init.
    async fn begin(mut self, record: &Record, began: Instant) -> Result<Self, AgentError> {
        let limit = if self.backing.is_some() { RESTORE_MAX } else { BOOT_MAX };
        let resumed = Instant::now();
        let ready = async {
            self.resume().await?;
            self.init(record, limit).await
        };
        match ready.await {
            Ok(()) => {
                self.steps.push(("init", resumed.elapsed()));
                self.took = began.elapsed();
                Ok(self)
            }
            Err(error) => {
                self.stop().await;
                Err(error)
            }
        }
    }

    /// Lets the processors run.
    ///
    /// # Errors
    ///
    /// [`AgentError::Vmm`].
    pub async fn resume(&self) -> Result<(), AgentError> {
        self.machine.resume().await.map_err(self.vmm_error("resume"))
    }

    /// Stops the processors.
    ///
    /// # Errors
    ///
    /// [`AgentError::Vmm`].
    pub async fn pause(&self) -> Result<(), AgentError> {
        self.machine.pause().await.map_err(self.vmm_error("pause"))
    }

    /// Makes the guest unique: clock, entropy, name, environment, token; thaws its processes.
    /// Tries until it answers or `limit` has passed.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`], or [`AgentError::SandboxGone`] if the machine died.
    pub async fn init(&self, record: &Record, limit: Duration) -> Result<(), AgentError> {
        let deadline = Instant::now() + limit;
        let envd = self.envd(&record.access_token).with_deadline(limit);
        loop {
            let body = init_body(record)?;
            let error = tokio::select! {
                result = envd.init(&body) => match result {
                    Ok(_) => return Ok(()),
                    Err(error) => error,
                },
                _ = self.machine.exited() => return Err(AgentError::SandboxGone(self.sandbox)),
            };
            let may_come = matches!(error, EnvdError::Unreachable { .. });
            if !may_come || Instant::now() >= deadline {
                let console = self.machine.console();
                tracing::warn!(sandbox.id = %self.sandbox, console = tail(&console), "no init");
                return Err(self.guest_error("init")(error));
            }
            sleep(ENVD_RETRY).await;
        }
    }

    /// Freezes processes, writes everything to disk, forgets secrets.
    ///
    /// # Errors
    ///
    /// [`AgentError::Guest`]; [`Guest::init`] undoes what was done of it.
    pub async fn quiesce(&self, access_token: &str) -> Result<(), AgentError> {
        let envd = self.envd(access_token).with_deadline(QUIESCE_MAX);
        envd.quiesce().await.map_err(self.guest_error("quiesce"))
    }

    /// A client of the guest's daemon that lives for this generation.
    #[must_use]
    pub fn envd(&self, access_token: &str) -> EnvdClient {
        let dialer = self.dialer.clone();
        let connect = move || {
            let dialer = dialer.clone();
            async move { dialer.dial(Port::ENVD.get(), ENVD_DIAL_MAX).await }
        };
        EnvdClient::new(connect).with_token(access_token)
    }

    /// Opens a connection to a port of the guest, from inside its network namespace.
    ///
    /// # Errors
    ///
    /// As `connect(2)`: refused when nothing listens, timed out when the guest is silent.
    pub async fn dial(&self, port: Port, limit: Duration) -> io::Result<tokio::net::TcpStream> {
        self.dialer.dial(port.get(), limit).await
    }

    /// What to remember about the machine.
    #[must_use]
    pub fn record(&self) -> MachineRecord {
        self.machine.record()
    }

    /// The machine itself, for saving its state.
    #[must_use]
    pub fn machine(&self) -> &dyn Machine {
        self.machine.as_ref()
    }

    /// Resolves when the machine is gone, for whatever reason.
    pub async fn exited(&self) -> Exit {
        self.machine.exited().await
    }

    /// Connections kept into it.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending.get().copied()
    }

    /// Resolves when the machine is gone; says how it went.
    pub async fn ended(&self) -> Ending {
        self.machine.exited().await;
        // Whoever stops it says so before.
        *self.ending.get_or_init(|| Ending::Crashed)
    }

    /// Breaks its connections for good. The first ending that is told counts.
    pub(crate) fn end(&self, ending: Ending) {
        let _ = self.ending.set(ending);
        self.links.cut();
    }

    /// Kills the machine and gives its place back. Does nothing the second time.
    pub async fn stop(&self) {
        let crashed = self.machine.exited().now_or_never().is_some();
        self.end(if crashed { Ending::Crashed } else { Ending::Stopped });
        let Some(parts) = self.parts.lock().await.take() else { return };
        let pid = self.machine.record().pid;
        if let Err(error) = self.machine.kill().await {
            // Giving back the slot kills what is left in its cgroup, or retires the slot.
            tracing::error!(sandbox.id = %self.sandbox, "{}", crate::error::chain(&error));
        }
        self.host.pager.detach(pid).await;
        self.host.slots.give(parts.slot).await;
    }

    fn vmm_error(&self, step: &'static str) -> impl FnOnce(VmmError) -> AgentError + use<> {
        let sandbox = self.sandbox;
        move |source| AgentError::Vmm { sandbox, step, source: Box::new(source) }
    }

    fn guest_error(&self, step: &'static str) -> impl FnOnce(EnvdError) -> AgentError + use<> {
        let sandbox = self.sandbox;
        move |source| AgentError::Guest { sandbox, step, source: Box::new(source) }
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("sandbox", &self.sandbox)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

fn init_body(record: &Record) -> Result<Init, AgentError> {
    let mut entropy = vec![0; ENTROPY_BYTES];
    // Fail closed: a guest without fresh entropy must not run.
    rand::rngs::OsRng
        .try_fill_bytes(&mut entropy)
        .map_err(|error| AgentError::io("read the host's entropy")(io::Error::other(error)))?;
    Ok(Init {
        timestamp: Timestamp::now(),
        entropy,
        hostname: record.sandbox.label(),
        sandbox_id: record.sandbox.to_string(),
        template_id: record.template.to_string(),
        generation: record.generation.0,
        env_vars: record.env.clone(),
        access_token: Some(record.access_token.clone()),
        default_user: None,
        default_workdir: None,
    })
}

/// The end of a console, for a log line.
fn tail(console: &str) -> &str {
    let start = console.len().saturating_sub(2000);
    &console[console.ceil_char_boundary(start)..]
}
