//! Requests that find a sandbox paused, and one whose machine ends under it.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use edge_api::ErrorBody;
use futures::future::try_join_all;
use loadtest::{Protocol, Request};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pool_model::SandboxState;

use crate::{
    fixture::{eventually, seconds},
    guest::Sandbox,
    host,
    teststack::TestStack,
};

const PORT: u16 = 8000;
/// Where connections are accepted and nothing is answered.
const SILENT_PORT: u16 = 9000;
/// Requests of each protocol that come while the sandbox is paused.
const CALLERS: usize = 8;

pub(crate) async fn requests_share_a_resume_and_learn_of_a_crash(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let sandbox = Sandbox::create_by_cli(&stack).await?;
    sandbox.serve_home(PORT).await?;
    let before = stack.api().capsule(sandbox.id).await?.generation;
    stack.wrenn(["sandbox", "pause", &sandbox.id.to_string()]).await?;

    let protocols = [Protocol::H1, Protocol::H2, Protocol::H3];
    let callers = protocols.iter().flat_map(|protocol| [*protocol; CALLERS]);
    let statuses = try_join_all(callers.map(|protocol| {
        let sandbox = &sandbox;
        async move {
            let mut connection = sandbox.connect(PORT, protocol).await?;
            anyhow::Ok(connection.call(&Request::get("/")).await?.status)
        }
    }))
    .await?;
    ensure!(statuses.iter().all(|status| status.is_success()), "{statuses:?}");
    let capsule = stack.api().capsule(sandbox.id).await?;
    ensure!(capsule.state == SandboxState::Running, "{}", capsule.state);
    // Each resume is a generation: there was one for all of them.
    ensure!(capsule.generation.0 == before.0 + 1, "{before:?}, then {:?}", capsule.generation);

    let told = crash_under_a_request(&stack, &sandbox).await?;
    ensure!(told.code == "sandbox_crashed", "{told:?}");
    // Its requests are told at once, before what it leaves is removed.
    eventually("the sandbox is gone", seconds(20), || async {
        let gone = Sandbox::get_gone(&stack, sandbox.id, PORT).await?;
        ensure!(gone.code == "sandbox_not_found", "{gone:?}");
        Ok(())
    })
    .await?;
    host::no_orphans(&stack, false, seconds(20)).await
}

/// What a request is told whose machine ends before it answers.
async fn crash_under_a_request(
    stack: &TestStack,
    sandbox: &Sandbox<'_>,
) -> anyhow::Result<ErrorBody> {
    let silent = format!(
        "import socket, time; s = socket.create_server(('0.0.0.0', {SILENT_PORT})); \
         open('/tmp/listens', 'w').close(); c = s.accept(); open('/tmp/called', 'w').close(); time.sleep(600)"
    );
    sandbox.run(&format!("nohup python3 -c \"{silent}\" > /tmp/silent.log 2>&1 &")).await?;
    eventually("the silent server listens", seconds(30), || async {
        sandbox.run("test -e /tmp/listens").await.map(drop)
    })
    .await?;
    let mut connection = sandbox.connect(SILENT_PORT, Protocol::H2).await?;
    let asking = async { anyhow::Ok(connection.call(&Request::get("/")).await?) };
    let crash = async {
        eventually("the request arrives", seconds(30), || async {
            sandbox.run("test -e /tmp/called").await.map(drop)
        })
        .await?;
        let vmm = host::vmm_of(stack, sandbox.id)?;
        kill(Pid::from_raw(vmm.pid), Signal::SIGKILL).context("kill the machine")
    };
    let (answer, ()) = tokio::try_join!(asking, crash)?;
    ensure!(answer.status == 502, "answered {}", answer.status);
    Ok(answer.json()?)
}
