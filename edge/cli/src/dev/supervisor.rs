//! Runs agent and edge, restarts what dies, and keeps `dev.json` true.
//!
//! # Invariants
//!
//! - One supervisor per installation (a lock in `run/`).
//! - Stopping goes from the outside in: edge, agent, pager, then `agent reap`.
//! - A service left by a killed supervisor is stopped before a new one is started.
//! - A service that handed over to a successor (`SIGUSR2` to the edge) is not started again: the one
//!   that its pid file names is the service, whoever its parent is.

use std::{fs, io, time::Duration};

use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    backoff::Backoff,
    file::Pids,
    log,
    plan::Plan,
    process::{self, Role},
};
use crate::failure::Failure;

/// How long a service may drain before it is killed.
const GRACE: Duration = Duration::from_secs(15);

/// How long `agent reap` may take: it ends machines by SIGKILL and removes their slots.
const REAP_DEADLINE: Duration = Duration::from_secs(60);

/// How often pid files are looked at: the agent starts the pager, an edge its successor.
const REFRESH: Duration = Duration::from_millis(250);

/// Runs until SIGTERM or SIGINT, then stops everything.
pub(super) async fn run(plan: &Plan) -> Result<(), Failure> {
    // Fails only if we lead a session already, which is all we want.
    let _ = nix::unistd::setsid();
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let _lock = plan.lock()?;
    let own = i32::try_from(std::process::id()).ok();
    let pid_file = plan.layout.pid_file(Role::Supervisor.name());
    let text = format!("{}\n", std::process::id());
    fs::write(&pid_file, text).map_err(Failure::file("write", &pid_file))?;
    stop_leftovers(plan).await?;
    let mut agent = Service::start(plan, Role::Agent);
    let mut edge = Service::start(plan, Role::Edge);
    say(format_args!("started"));
    let mut written = None;
    loop {
        let pids = Pids {
            supervisor: own,
            agent: *agent.pid.borrow_and_update(),
            edge: *edge.pid.borrow_and_update(),
            pager: process::recorded(&plan.layout, Role::Pager),
        };
        if written.as_ref() != Some(&pids) {
            match plan.dev_file(pids.clone()).write(&plan.layout.dev_file()) {
                Ok(()) => written = Some(pids),
                Err(e) => say(format_args!("could not write dev.json: {e}")),
            }
        }
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Ok(()) = agent.pid.changed() => {}
            Ok(()) = edge.pid.changed() => {}
            () = sleep(REFRESH) => {}
        }
    }
    say(format_args!("stopping"));
    edge.stop().await;
    agent.stop().await;
    stop_leftovers(plan).await?;
    reap(plan).await?;
    forget(plan);
    say(format_args!("stopped"));
    Ok(())
}

/// Stops services whose supervisor is gone.
pub(super) async fn stop_leftovers(plan: &Plan) -> Result<(), Failure> {
    for role in [Role::Edge, Role::Agent, Role::Pager] {
        if let Some(pid) = process::recorded(&plan.layout, role) {
            process::stop(pid, GRACE).await.map_err(Failure::Gave)?;
        }
    }
    Ok(())
}

/// Destroys every machine and slot of the installation.
pub(super) async fn reap(plan: &Plan) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::local("reap the sandboxes", e);
    let program = plan.program(Role::Agent);
    if !program.exists() {
        // Nothing can have been run from here.
        return Ok(());
    }
    let log = log::open(&plan.layout, "agent").map_err(failed)?;
    let mut reaper = Command::new(program)
        .arg("reap")
        .arg("--wrenn-dir")
        .arg(plan.layout.root())
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    match timeout(REAP_DEADLINE, reaper.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Failure::Gave(format!("`agent reap` ended with {status}"))),
        Ok(Err(e)) => Err(failed(e)),
        Err(_) => Err(Failure::Gave(format!("`agent reap` took over {REAP_DEADLINE:?}"))),
    }
}

/// Removes the files that say that a stack runs.
pub(super) fn forget(plan: &Plan) {
    let roles = [Role::Supervisor, Role::Agent, Role::Edge, Role::Pager];
    let pid_files = roles.map(|role| plan.layout.pid_file(role.name()));
    for path in pid_files.into_iter().chain([plan.layout.dev_file()]) {
        if let Err(e) = fs::remove_file(&path)
            && e.kind() != io::ErrorKind::NotFound
        {
            say(format_args!("could not remove {}: {e}", path.display()));
        }
    }
}

/// A service that is kept running.
struct Service {
    pid: watch::Receiver<Option<i32>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Service {
    fn start(plan: &Plan, role: Role) -> Self {
        let (stop, stop_rx) = watch::channel(false);
        let (pid_tx, pid) = watch::channel(None);
        let task = tokio::spawn(keep(plan.clone(), role, stop_rx, pid_tx));
        Self { pid, stop, task }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(e) = self.task.await {
            say(format_args!("a service's task failed: {e}"));
        }
    }
}

async fn keep(
    plan: Plan,
    role: Role,
    mut stop: watch::Receiver<bool>,
    pid: watch::Sender<Option<i32>>,
) {
    let mut backoff = Backoff::new();
    while !*stop.borrow_and_update() {
        let since = Instant::now();
        match spawn(&plan, role) {
            Ok(mut child) => {
                tokio::select! {
                    () = attend(&plan, role, &mut child, &pid) => {}
                    _ = stop.changed() => return end(&plan, child, role).await,
                }
                pid.send_replace(None);
            }
            Err(e) => say(format_args!("{} does not start: {e}", role.name())),
        }
        let wait = backoff.after(since.elapsed());
        tokio::select! {
            () = sleep(wait) => {}
            _ = stop.changed() => return,
        }
    }
}

/// Waits until the service has ended: the child, and whoever took over from it. Keeps `pid` true.
async fn attend(plan: &Plan, role: Role, child: &mut Child, pid: &watch::Sender<Option<i32>>) {
    let own = id(child);
    let mut ended = false;
    loop {
        let successor = successor(plan, role, own);
        if ended && successor.is_none() {
            return;
        }
        let serving = successor.or(own);
        pid.send_if_modified(|known| std::mem::replace(known, serving) != serving);
        tokio::select! {
            status = child.wait(), if !ended => {
                ended = true;
                match status {
                    Ok(status) => say(format_args!("{} ended with {status}", role.name())),
                    Err(e) => say(format_args!("{} was lost: {e}", role.name())),
                }
            }
            () = sleep(REFRESH) => {}
        }
    }
}

/// Who took over from our own process of a service, if anyone did.
fn successor(plan: &Plan, role: Role, own: Option<i32>) -> Option<i32> {
    process::recorded(&plan.layout, role).filter(|pid| Some(*pid) != own)
}

fn id(child: &Child) -> Option<i32> {
    child.id().and_then(|id| i32::try_from(id).ok())
}

fn spawn(plan: &Plan, role: Role) -> io::Result<Child> {
    let log = log::open(&plan.layout, role.name())?;
    Command::new(plan.program(role))
        .args(plan.args(role))
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// Stops a service: who took over from our child, then the child, whose status is collected.
async fn end(plan: &Plan, mut child: Child, role: Role) {
    let own = id(&child);
    if let Some(successor) = successor(plan, role, own)
        && let Err(reason) = process::stop(successor, GRACE).await
    {
        say(format_args!("{}: {reason}", role.name()));
    }
    let Some(pid) = own else { return };
    if let Err(reason) = process::stop(pid, GRACE).await {
        say(format_args!("{}: {reason}", role.name()));
        return;
    }
    match child.wait().await {
        Ok(status) => say(format_args!("{} stopped with {status}", role.name())),
        Err(e) => say(format_args!("{} was lost: {e}", role.name())),
    }
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|e| Failure::local("listen for signals", e))
}

/// One line of the supervisor's log, which is its standard error.
fn say(text: std::fmt::Arguments<'_>) {
    eprintln!("supervisor: {text}");
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::args::DevDir;

    /// An "edge" that writes its pid file and lives until it is told to end.
    fn start(plan: &Plan, program: &std::path::Path) -> Child {
        let pid_file = plan.layout.pid_file("edge");
        let mut command = Command::new("sh");
        command.arg(program).arg(plan.layout.root()).env("PID_FILE", pid_file).kill_on_drop(true);
        command.spawn().unwrap()
    }

    async fn serving(pid: &mut watch::Receiver<Option<i32>>, expected: Option<i32>) {
        let serving = pid.wait_for(|pid| *pid == expected);
        timeout(Duration::from_secs(10), serving).await.expect("the pid is seen").unwrap();
    }

    #[tokio::test]
    async fn a_service_is_there_as_long_as_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let at = DevDir { wrenn_dir: dir.path().to_owned(), bin_dir: None };
        let plan = Plan::of_dir(&at).unwrap();
        fs::create_dir_all(plan.layout.run_dir()).unwrap();
        let program: PathBuf = dir.path().join("edge");
        // Waits for a line that nobody writes.
        let wait = "mkfifo $0.$$ && exec 3<> $0.$$ && read never <&3";
        fs::write(&program, format!("#!/bin/sh\necho $$ > $PID_FILE\n{wait}\n")).unwrap();
        let mut first = start(&plan, &program);
        let first_pid = id(&first);
        let (pid_tx, mut pid) = watch::channel(None);
        let attending = {
            let plan = plan.clone();
            tokio::spawn(async move { attend(&plan, Role::Edge, &mut first, &pid_tx).await })
        };
        serving(&mut pid, first_pid).await;
        // As a successor is only started by one that has said who it is: the file is the second's then.
        let named = async {
            while process::recorded(&plan.layout, Role::Edge) != first_pid {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), named).await.expect("the first has its pid file");
        let mut second = start(&plan, &program);
        serving(&mut pid, id(&second)).await;
        process::stop(first_pid.unwrap(), GRACE).await.unwrap();
        sleep(2 * REFRESH).await;
        assert!(!attending.is_finished(), "the successor serves");
        second.kill().await.unwrap();
        timeout(Duration::from_secs(10), attending).await.expect("nobody serves").unwrap();
    }
}
