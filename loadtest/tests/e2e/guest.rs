//! What tests do in a sandbox.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use edge_api::{Client, CreateCapsule, ErrorBody, ExecEvent, ExecRequest};
use loadtest::{Answer, Connection, Protocol, Request};
use pool_model::SandboxId;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::{
    fixture::{eventually, seconds},
    teststack::TestStack,
};

/// Longest for a command in a guest that is interpreted on a busy host.
const EXEC_MAX: Duration = Duration::from_secs(120);

/// A user's sandbox.
pub(crate) struct Sandbox<'a> {
    pub(crate) id: SandboxId,
    stack: &'a TestStack,
}

impl<'a> Sandbox<'a> {
    /// Boots one by the API.
    pub(crate) async fn create(
        stack: &'a TestStack,
        asked: &CreateCapsule,
    ) -> anyhow::Result<Sandbox<'a>> {
        let id = stack.api().create_capsule(asked).await.context("create a sandbox")?.id;
        Ok(Sandbox { id, stack })
    }

    /// Boots one by `wrenn sandbox create`.
    pub(crate) async fn create_by_cli(stack: &'a TestStack) -> anyhow::Result<Sandbox<'a>> {
        let created = stack.wrenn(["sandbox", "create"]).await?;
        let id = created["id"].as_str().context("no id was printed")?.parse()?;
        Ok(Sandbox { id, stack })
    }

    /// Runs a shell line as its user; what it prints, if it ends well.
    pub(crate) async fn run(&self, line: &str) -> anyhow::Result<String> {
        run(self.stack.api(), self.id, line).await
    }

    /// Starts `python3 -m http.server` in its user's home by `wrenn sandbox exec`; answers with
    /// its process id once it listens.
    pub(crate) async fn serve_home(&self, port: u16) -> anyhow::Result<u32> {
        let (id, port_text) = (self.id.to_string(), port.to_string());
        let server = ["python3", "-m", "http.server", port_text.as_str()];
        let exec = ["sandbox", "exec", "--background", "--cwd", "/home/user", &id, "--"];
        let started = self.stack.wrenn(exec.into_iter().chain(server)).await?;
        let pid = started["pid"].as_u64().context("no pid was printed")?;
        eventually("the server listens", seconds(30), || async {
            let status = self.get(port, "/").await?.status;
            ensure!(status.is_success(), "it answers {status}");
            Ok(())
        })
        .await?;
        Ok(u32::try_from(pid)?)
    }

    /// One GET of a port, over HTTP/2.
    pub(crate) async fn get(&self, port: u16, path: &str) -> anyhow::Result<Answer> {
        let mut connection = self.connect(port, Protocol::H2).await?;
        Ok(connection.call(&Request::get(path)).await?)
    }

    /// The body of a file that a server on `port` serves.
    pub(crate) async fn fetch(&self, port: u16, path: &str) -> anyhow::Result<Bytes> {
        let answer = self.get(port, path).await?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status.is_success(), "{path} answers {}: {text}", answer.status);
        Ok(answer.body)
    }

    /// A connection to a port.
    pub(crate) async fn connect(&self, port: u16, by: Protocol) -> anyhow::Result<Connection> {
        let host = self.stack.stack().port_host(self.id, port);
        Ok(self.stack.stack().connect(&host, by).await?)
    }

    /// The refusal that a request to a sandbox gets that is gone.
    pub(crate) async fn get_gone(
        stack: &TestStack,
        id: SandboxId,
        port: u16,
    ) -> anyhow::Result<ErrorBody> {
        let gone = Sandbox { id, stack };
        let answer = gone.get(port, "/").await?;
        ensure!(answer.status == 404, "{id} is gone and answers {}", answer.status);
        Ok(answer.json()?)
    }

    /// Destroys it.
    pub(crate) async fn delete(self) -> anyhow::Result<()> {
        self.stack.api().delete_capsule(self.id).await.context("delete a sandbox")
    }
}

/// Runs a shell line; what it prints, if it ends well.
async fn run(api: &Client, id: SandboxId, line: &str) -> anyhow::Result<String> {
    let request = ExecRequest {
        cmd: Some(line.to_owned()),
        timeout_ms: Some(u64::try_from(EXEC_MAX.as_millis())?),
        ..Default::default()
    };
    timeout(EXEC_MAX + seconds(10), follow(api, id, &request))
        .await
        .with_context(|| format!("`{line}` took too long"))?
        .with_context(|| format!("`{line}` in {id}"))
}

async fn follow(api: &Client, id: SandboxId, request: &ExecRequest) -> anyhow::Result<String> {
    let mut events = api.exec(id, request).await?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(event) = events.next().await? {
        match event {
            ExecEvent::Start { .. } => {}
            ExecEvent::Stdout(chunk) => out.extend(chunk.into_bytes()?),
            ExecEvent::Stderr(chunk) => err.extend(chunk.into_bytes()?),
            ExecEvent::Exit { code: 0, .. } => {
                return Ok(String::from_utf8(out)?.trim().to_owned());
            }
            ExecEvent::Exit { code, signal } => {
                let err = String::from_utf8_lossy(&err);
                bail!("ended with {code} (signal {signal:?}): {err}");
            }
            ExecEvent::Error { code, message } => bail!("{code}: {message}"),
        }
    }
    bail!("its events ended without an exit")
}

/// A SHA-256 that is fed piece by piece, as `sha256sum` prints it.
#[derive(Default)]
pub(crate) struct Digester {
    digest: Sha256,
    pub(crate) bytes: u64,
}

impl Digester {
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        self.digest.update(piece);
        self.bytes += piece.len() as u64;
    }

    pub(crate) fn hex(self) -> String {
        self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
