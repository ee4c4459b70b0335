//! `kill -9`, at random moments, under load.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use edge_api::CreateCapsule;
use loadtest::{Pids, Protocol, Request};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pool_model::SandboxState;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;

use crate::{
    fixture::eventually,
    guest::Sandbox,
    host,
    host::Vmm,
    invocations::Invocation,
    load::{Load, Seen},
    teststack::TestStack,
};

/// Kills of each.
const ROUNDS: u32 = 6;
/// The latest moment of a kill after its load began, milliseconds.
const MOMENT_MAX_MS: u64 = 1200;
/// Longest until a killed process is back and everything serves again.
pub(crate) const BACK_MAX: Duration = Duration::from_secs(40);
const PORT: u16 = 8000;
/// Bytes of each part that lies in the guest's memory and is first read after a kill.
const PART_BYTES: u32 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Agent,
    Pager,
    Edge,
}

impl Role {
    fn pid(self, pids: &Pids) -> Option<i32> {
        match self {
            Self::Agent => pids.agent,
            Self::Pager => pids.pager,
            Self::Edge => pids.edge,
        }
    }
}

/// A user's sandbox that must live through everything.
struct Survivor<'a> {
    sandbox: Sandbox<'a>,
    vmm: Vmm,
    server: u32,
    /// Digests of parts in its memory, one for each kill.
    digests: Vec<String>,
}

pub(crate) async fn six_kills_each_of_agent_pager_and_edge_lose_nothing(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    // One that was booted, and one that was restored: its memory comes from the page server.
    let booted = Survivor::create(&stack, false).await?;
    let restored = Survivor::create(&stack, true).await?;
    let seed: u64 = rand::random();
    eprintln!("    moments of the kills are drawn from seed {seed}");
    let mut moments = StdRng::seed_from_u64(seed);
    let seen = Arc::new(Mutex::new(Seen::default()));
    for round in 0..ROUNDS {
        for role in [Role::Agent, Role::Pager, Role::Edge] {
            let moment = Duration::from_millis(moments.random_range(0..MOMENT_MAX_MS));
            let one = async {
                let load = Load::start(stack.stack(), &seen, &[Protocol::H2, Protocol::H3]);
                sleep(moment).await;
                kill_and_wait(&stack, role).await?;
                load.stop().await?;
                for survivor in [&booted, &restored] {
                    survivor.check(&stack, role, round).await?;
                }
                host::no_orphans(&stack, false, BACK_MAX).await
            };
            one.await.with_context(|| format!("{role:?}, round {round}, killed at {moment:?}"))?;
        }
    }
    let (answered, failures) = {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.answered(), seen.failures.clone())
    };
    eprintln!("    {answered} invocations were answered; failures by code: {failures:?}");
    ensure!(answered >= 3 * ROUNDS as usize, "{answered} invocations is no load");
    host::no_orphans(&stack, true, BACK_MAX).await?;
    booted.sandbox.delete().await?;
    restored.sandbox.delete().await?;
    host::no_orphans(&stack, true, BACK_MAX).await
}

/// Kills a process and waits until another one does its work.
pub(crate) async fn kill_and_wait(stack: &TestStack, role: Role) -> anyhow::Result<()> {
    let old = eventually("it runs", BACK_MAX, || async {
        role.pid(&stack.dev()?.pids).filter(|pid| host::is_alive(*pid)).context("it does not run")
    })
    .await?;
    kill(Pid::from_raw(old), Signal::SIGKILL)?;
    eventually("another one runs", BACK_MAX, || async {
        let pid = role.pid(&stack.dev()?.pids).context("none runs")?;
        ensure!(pid != old && host::is_alive(pid), "{pid} is not another one");
        let health = stack.api().health().await?;
        ensure!(health.agent_reachable, "{health:?}");
        Ok(())
    })
    .await?;
    eventually("it serves again", BACK_MAX, || async {
        let host = stack.stack().function_host("hello");
        let mut connection = stack.stack().connect(&host, Protocol::H1).await?;
        Invocation::of(&connection.call(&Request::get("/")).await?).map(drop)
    })
    .await
}

impl<'a> Survivor<'a> {
    async fn create(stack: &'a TestStack, restored: bool) -> anyhow::Result<Survivor<'a>> {
        let sandbox = Sandbox::create(stack, &CreateCapsule::default()).await?;
        let server = sandbox.serve_home(PORT).await?;
        // In the guest's memory, not on its disk.
        let parts = 3 * ROUNDS;
        let make = format!(
            "for i in $(seq 0 {}); do head -c {PART_BYTES} /dev/urandom > /dev/shm/part-$i; \
             sha256sum < /dev/shm/part-$i; done",
            parts - 1
        );
        let printed = sandbox.run(&make).await?;
        let digests: Vec<_> = printed.lines().map(str::to_owned).collect();
        ensure!(digests.len() == parts as usize, "{printed}");
        if restored {
            stack.api().pause(sandbox.id).await?;
            stack.api().resume(sandbox.id).await?;
        }
        let vmm = host::vmm_of(stack, sandbox.id)?;
        Ok(Self { sandbox, vmm, server, digests })
    }

    /// It is the same machine, its server serves, its files are there, and memory that nobody
    /// touched since before all kills holds what it held.
    async fn check(&self, stack: &TestStack, role: Role, round: u32) -> anyhow::Result<()> {
        let vmm = host::vmm_of(stack, self.sandbox.id)?;
        ensure!(vmm == self.vmm, "{:?} became {vmm:?}", self.vmm);
        let state = stack.api().capsule(self.sandbox.id).await?.state;
        ensure!(state == SandboxState::Running, "{} is {state}", self.sandbox.id);
        let file = format!("{role:?}-{round}");
        let part = 3 * round + role as u32;
        let line = format!(
            "echo {file} > {file}; cat {role:?}-0; kill -0 {} && sha256sum < /dev/shm/part-{part}",
            self.server
        );
        let printed = self.sandbox.run(&line).await?;
        let expected = format!("{role:?}-0\n{}", self.digests[part as usize]);
        ensure!(printed == expected, "{printed}, expected {expected}");
        let served = self.sandbox.fetch(PORT, &format!("/{file}")).await?;
        ensure!(served == format!("{file}\n"), "{served:?}");
        Ok(())
    }
}
