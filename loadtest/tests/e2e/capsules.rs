//! Sandboxes that users keep: reached by port, paused, resumed.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use loadtest::{Protocol, Request};
use pool_model::SandboxState;

use crate::{
    fixture::{eventually, minutes, seconds},
    guest::{Digester, Sandbox},
    host,
    teststack::TestStack,
};

const PORT: u16 = 8000;
const FILE_BYTES: u64 = 100 << 20;

pub(crate) async fn sandbox_serves_a_large_file_pauses_and_resumes_on_request(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let sandbox = Sandbox::create_by_cli(&stack).await?;
    let closed = sandbox.get(PORT, "/").await?;
    ensure!(closed.status == 502, "a closed port answers {}", closed.status);
    let closed: edge_api::ErrorBody = closed.json()?;
    ensure!(closed.code == "port_closed", "{closed:?}");

    sandbox.serve_home(PORT).await?;
    let make = format!("head -c {FILE_BYTES} /dev/urandom > large && sha256sum large");
    let made = sandbox.run(&make).await?;
    download(&sandbox, &made).await?;

    let vmm = host::vmm_of(&stack, sandbox.id)?;
    let memory = host::memory_of(vmm.pid);
    ensure!(!memory.is_empty(), "its VMM has no memory");
    let paused = stack.wrenn(["sandbox", "pause", &sandbox.id.to_string()]).await?;
    ensure!(paused["state"] == "paused", "{paused}");
    eventually("its QEMU is gone", seconds(5), || async {
        ensure!(!host::is_alive(vmm.pid), "process {} lives", vmm.pid);
        ensure!(host::vmm_of(&stack, sandbox.id).is_err(), "it has another VMM");
        Ok(())
    })
    .await?;
    let held: Vec<_> = memory.iter().filter_map(|memory| host::holder_of(*memory)).collect();
    ensure!(held.is_empty(), "its memory is held by processes {held:?}");

    // The next request resumes it and is held meanwhile; the server is where it was.
    let state = stack.api().capsule(sandbox.id).await?.state;
    ensure!(state == SandboxState::Paused, "{state}");
    let digest = made.split(' ').next().context("no digest")?;
    let listing = sandbox.fetch(PORT, "/").await?;
    ensure!(String::from_utf8_lossy(&listing).contains("large"), "the file is not listed");
    let capsule = stack.api().capsule(sandbox.id).await?;
    ensure!(capsule.state == SandboxState::Running, "{}", capsule.state);
    let again = sandbox.run("sha256sum large").await?;
    ensure!(again.starts_with(digest), "the file changed: {made}, now {again}");

    let (id, label) = (sandbox.id, sandbox.id.label());
    sandbox.delete().await?;
    let gone = Sandbox::get_gone(&stack, id, PORT).await?;
    ensure!(gone.code == "sandbox_not_found", "{label}: {gone:?}");
    host::no_orphans(&stack, false, seconds(20)).await
}

async fn download(sandbox: &Sandbox<'_>, made: &str) -> anyhow::Result<()> {
    let mut connection = sandbox.connect(PORT, Protocol::H2).await?;
    let mut answer = connection.start(&Request::get("/large").within(minutes(2))).await?;
    ensure!(answer.status == 200, "answered {}", answer.status);
    let mut digest = Digester::default();
    while let Some(piece) = answer.next().await? {
        digest.feed(&piece);
    }
    ensure!(digest.bytes == FILE_BYTES, "{} bytes came", digest.bytes);
    let digest = digest.hex();
    ensure!(made.starts_with(&digest), "made {made}, came {digest}");
    Ok(())
}
