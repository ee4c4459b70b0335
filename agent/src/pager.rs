//! Keeps a page server running and tells each new one what the last one served.
//!
//! # Invariants
//!
//! - A clone is known here before its device state is loaded and until its VMM is dead.
//! - When the page server dies, its clones' faults wait; the next one is given every clone again.
//!   If none can be started within 10 s, the clones are killed: a fault is answered from
//!   the snapshot or its guest dies.

use std::{
    collections::HashMap,
    fs::File,
    os::fd::OwnedFd,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent_vmm::MemoryReport;
use pool_config::Layout;
use pool_model::Prefetch;
use pool_pager::{Attach, PagerClient, PagerError, Population, Stats};
use rustix::process::{PidfdFlags, Signal};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    error::{AgentError, chain},
    journal::Backing,
};

/// Longest that faults may wait for a new page server.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// Longest for one that runs already to take a connection.
const PROBE_MAX: Duration = Duration::from_millis(50);
/// Longest for a new one to take its first connection, and for each call to it after that. A call
/// takes less than a millisecond unless the host is out of memory or processors.
const CALL_MAX: Duration = Duration::from_secs(5);
/// Longest for it to end after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Pause between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

type Clones = Arc<Mutex<HashMap<i32, Attach>>>;

/// The supervised page server.
#[derive(Debug, Clone)]
pub struct Pager {
    layout: Layout,
    binary: PathBuf,
    population: Population,
    /// Settings it is started with.
    settings: Arc<Vec<(String, String)>>,
    clones: Clones,
    client_rx: watch::Receiver<Option<Arc<PagerClient>>>,
}

impl Pager {
    /// Takes over the running page server or starts one, and watches it until `cancel`.
    ///
    /// # Errors
    ///
    /// [`AgentError::Pager`] if none can be started.
    pub async fn start(
        layout: Layout,
        binary: PathBuf,
        population: Population,
        settings: Vec<(String, String)>,
        cancel: CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Self, AgentError> {
        let (client_tx, client_rx) = watch::channel(None);
        let settings = Arc::new(settings);
        let clones = Clones::default();
        let pager = Self { layout, binary, population, settings, clones, client_rx };
        let (client, child) = pager.reach().await?;
        client_tx.send_replace(Some(Arc::clone(&client)));
        tasks.spawn(pager.clone().supervise(client, child, client_tx, cancel));
        Ok(pager)
    }

    /// The read-only base memory of a snapshot, made on its first use on this host.
    ///
    /// # Errors
    ///
    /// [`AgentError::Pager`].
    pub async fn base(&self, backing: &Backing, prefetch: Prefetch) -> Result<OwnedFd, AgentError> {
        let client = self.client().await?;
        let base = client.base(backing.snapshot, &backing.dir, backing.memory_bytes, prefetch);
        base.await.map_err(pager_error("open base memory"))
    }

    /// Serves a clone's faults from now on.
    ///
    /// # Errors
    ///
    /// [`AgentError::Pager`]; the clone must be killed then.
    pub async fn attach(&self, backing: &Backing, report: MemoryReport) -> Result<(), AgentError> {
        let attach = Attach {
            snapshot: backing.snapshot,
            pid: report.pid,
            pid_start_ticks: report.start_ticks,
            uffd_fd: report.uffd_fd,
            base_fd: report.base_fd,
            addr: report.addr,
            len: report.len,
            population: self.population,
            snapshot_dir: backing.dir.clone(),
        };
        self.clones().insert(report.pid, attach.clone());
        let client = self.client().await?;
        client.attach(attach).await.map_err(pager_error("attach a clone"))
    }

    /// Forgets a clone whose VMM is dead.
    pub async fn detach(&self, pid: i32) {
        self.clones().remove(&pid);
        // The page server sees the death by itself too; this is only sooner.
        if let Some(client) = self.current() {
            let _ = client.detach(pid).await;
        }
    }

    /// Gives a snapshot's base memory back to the host. Clones that run keep what they mapped.
    pub async fn drop_base(&self, snapshot: pool_model::SnapshotId) {
        if let Some(client) = self.current()
            && let Err(error) = client.drop_base(snapshot).await
        {
            tracing::debug!(snapshot.id = %snapshot, "base not dropped: {}", chain(&error));
        }
    }

    /// Notes what a clone touched from its restore up to now as its snapshot's working set. Best
    /// effort: without it the next cold restore is slower.
    pub async fn record(&self, pid: i32) {
        if let Some(client) = self.current()
            && let Err(error) = client.record(pid).await
        {
            tracing::debug!(vmm.pid = pid, "working set not noted: {}", chain(&error));
        }
    }

    /// What the page server counted, if it answers.
    pub async fn stats(&self) -> Option<Stats> {
        self.current()?.stats().await.ok()
    }

    /// Ends the page server's process. Nothing may be left that it serves, and the supervision must
    /// have been cancelled, or it is started again.
    ///
    /// # Errors
    ///
    /// [`AgentError`] if it cannot be found or does not end.
    pub async fn stop(&self) -> Result<(), AgentError> {
        let Some(client) = self.current() else { return Ok(()) };
        let text = std::fs::read_to_string(self.layout.pid_file("pager"));
        let text = text.map_err(AgentError::io("read the page server's pid file"))?;
        // Its socket answers, so the process that wrote the file still runs.
        let pid = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, Signal::TERM)
                .map_err(|error| AgentError::io("stop the page server")(error.into()))?;
        }
        timeout(STOP_MAX, client.closed())
            .await
            .map_err(|_| AgentError::Deadline { what: "end of the page server", waited: STOP_MAX })
    }

    fn current(&self) -> Option<Arc<PagerClient>> {
        self.client_rx.borrow().clone()
    }

    /// The current client; waits for a restart in progress.
    async fn client(&self) -> Result<Arc<PagerClient>, AgentError> {
        let mut client_rx = self.client_rx.clone();
        let up = timeout(RESTART_MAX, client_rx.wait_for(Option::is_some)).await;
        match up {
            Ok(Ok(client)) => Ok(Arc::clone(client.as_ref().expect("waited for Some"))),
            _ => Err(AgentError::Deadline {
                what: "restart of the page server",
                waited: RESTART_MAX,
            }),
        }
    }

    async fn supervise(
        self,
        mut client: Arc<PagerClient>,
        mut child: Option<Child>,
        client_tx: watch::Sender<Option<Arc<PagerClient>>>,
        cancel: CancellationToken,
    ) {
        while cancel.run_until_cancelled(client.closed()).await.is_some() {
            client_tx.send_replace(None);
            tracing::warn!("page server died; its {} clones wait", self.clones().len());
            reap(child.take());
            match self.restart().await {
                Ok((next, process)) => (client, child) = (next, process),
                Err(error) => {
                    tracing::error!("page server is gone for good: {}", chain(&error));
                    self.kill_clones();
                    let Some(next) = self.restart_for_ever(&cancel).await else { return };
                    (client, child) = next;
                }
            }
            client_tx.send_replace(Some(Arc::clone(&client)));
        }
    }

    /// A new page server that serves all clones of the last one.
    async fn restart(&self) -> Result<(Arc<PagerClient>, Option<Child>), AgentError> {
        let deadline = Instant::now() + RESTART_MAX;
        loop {
            let attempt = async {
                let (client, child) = self.reach().await?;
                self.reattach(&client).await?;
                Ok((client, child))
            };
            match attempt.await {
                Ok(reached) => return Ok(reached),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(error) => {
                    tracing::warn!("page server did not start: {}", chain(&error));
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn restart_for_ever(
        &self,
        cancel: &CancellationToken,
    ) -> Option<(Arc<PagerClient>, Option<Child>)> {
        cancel
            .run_until_cancelled(async {
                loop {
                    if let Ok(reached) = self.restart().await {
                        return reached;
                    }
                }
            })
            .await
    }

    /// Hands every clone to a page server. Only its refusal condemns a clone: a page server that
    /// is gone again (its socket may outlive it for a moment) says nothing about the clone.
    async fn reattach(&self, client: &PagerClient) -> Result<(), AgentError> {
        let clones: Vec<Attach> = self.clones().values().cloned().collect();
        for clone in clones {
            let pid = clone.pid;
            match client.attach(clone).await {
                Ok(()) => {}
                Err(error @ PagerError::Refused { .. }) => {
                    tracing::error!(vmm.pid = pid, "clone cannot be served: {}", chain(&error));
                    self.kill_clone(pid);
                }
                Err(error) => return Err(pager_error("attach a clone again")(error)),
            }
        }
        Ok(())
    }

    async fn reach(&self) -> Result<(Arc<PagerClient>, Option<Child>), AgentError> {
        let socket = self.layout.pager_socket();
        let mut child = None;
        if PagerClient::connect(&socket, PROBE_MAX).await.is_err() {
            child = Some(self.spawn()?);
        }
        match PagerClient::connect(&socket, CALL_MAX).await {
            Ok(client) => Ok((Arc::new(client), child)),
            Err(error) => {
                // It may hang: it must not answer later beside the next one.
                if let Some(child) = &mut child {
                    let _ = child.kill();
                }
                reap(child);
                Err(pager_error("start")(error))
            }
        }
    }

    fn spawn(&self) -> Result<Child, AgentError> {
        let step = "start the page server";
        std::fs::create_dir_all(self.layout.log_dir()).map_err(AgentError::io(step))?;
        let log = self.layout.log_dir().join("pager.log");
        let log = File::options().create(true).append(true).open(log);
        Command::new(&self.binary)
            .arg("--wrenn-dir")
            .arg(self.layout.root())
            .args(self.settings.iter().map(|(name, value)| format!("--{name}={value}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.map_err(AgentError::io(step))?)
            // A group of its own: a signal to the agent's group must not reach it.
            .process_group(0)
            .spawn()
            .map_err(AgentError::io(step))
    }

    fn kill_clones(&self) {
        let pids: Vec<i32> = self.clones().keys().copied().collect();
        for pid in pids {
            self.kill_clone(pid);
        }
    }

    fn kill_clone(&self, pid: i32) {
        let Some(clone) = self.clones().remove(&pid) else { return };
        if let Err(error) = kill_process(pid, clone.pid_start_ticks) {
            tracing::error!(vmm.pid = pid, "clone not killed: {error}");
        }
    }

    fn clones(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Attach>> {
        self.clones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pager_error<E>(step: &'static str) -> impl FnOnce(E) -> AgentError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |source| AgentError::Pager { step, source: Box::new(source) }
}

/// Kills the process that started at `start_ticks`, through a descriptor so that a reused id is
/// never hit. One that is gone is fine.
fn kill_process(pid: i32, start_ticks: u64) -> std::io::Result<()> {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return Ok(()) };
    let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    if pool_pager::start_ticks(pid.as_raw_nonzero().get()).is_ok_and(|found| found == start_ticks) {
        rustix::process::pidfd_send_signal(&process, Signal::KILL)?;
    }
    Ok(())
}

/// Collects a dead child so that it does not stay a zombie.
fn reap(child: Option<Child>) {
    let Some(mut child) = child else { return };
    std::thread::spawn(move || child.wait());
}
