//! Wrenn's `/v1`: capsules. It has no route for files, so they go through commands.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use edge_api::{Chunk, Client, ClientError, CreateCapsule, ExecEvent, ExecRequest};
use pool_model::SandboxId;

use super::{Created, ExecEnd, NONCE_KEY, Sandboxes, collect, tail, ttl_s};
use crate::{chain, outcome::Failure};

/// Bytes of a file in one command. Their base64 and the rest stay below the API's limit for a
/// body, and it is a multiple of three: pieces of base64 then need no padding between them.
const PIECE_BYTES: usize = 384 << 10;

/// Wrenn's API.
#[derive(Debug)]
pub(super) struct V1 {
    client: Client,
}

impl V1 {
    pub(super) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Runs something until it ends; how it fails is called `call`.
    async fn run(
        &self,
        call: &'static str,
        sandbox: &Created,
        request: ExecRequest,
    ) -> Result<ExecEnd, Failure> {
        // The life's deadline bounds it, and then the kill ends it.
        let request = ExecRequest { timeout_ms: Some(0), ..request };
        let mut events = self.client.exec(id(call, sandbox)?, &request).await.map_err(of(call))?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(event) = events.next().await.map_err(of(call))? {
            match event {
                ExecEvent::Start { .. } => {}
                ExecEvent::Stdout(chunk) => collect(&mut stdout, &output(call, chunk)?)?,
                ExecEvent::Stderr(chunk) => collect(&mut stderr, &output(call, chunk)?)?,
                ExecEvent::Exit { code, .. } => {
                    return Ok(ExecEnd { code, stdout: stdout.into(), stderr: tail(&stderr) });
                }
                ExecEvent::Error { code, message } => {
                    return Err(failed(call, format!("it can't be followed: {code}: {message}")));
                }
            }
        }
        Err(failed(call, "the events ended without an exit".to_owned()))
    }

    /// Runs a script with a path as its argument and expects it to succeed.
    async fn script(
        &self,
        call: &'static str,
        sandbox: &Created,
        script: &str,
        path: &str,
        stdin: Option<String>,
    ) -> Result<Bytes, Failure> {
        let args = ["/bin/sh", "-c", script, "sh", path].map(str::to_owned).to_vec();
        let request = ExecRequest { args: Some(args), stdin, ..ExecRequest::default() };
        let end = self.run(call, sandbox, request).await?;
        if end.code == 0 {
            return Ok(end.stdout);
        }
        let ExecEnd { code, stderr, .. } = end;
        Err(failed(call, format!("`{script}` of {path} ended with {code} instead of 0: {stderr}")))
    }
}

#[async_trait]
impl Sandboxes for V1 {
    async fn create(
        &self,
        template: Option<&str>,
        nonce: &str,
        within: Duration,
    ) -> Result<Created, Failure> {
        let ttl_s = ttl_s(within);
        let body = CreateCapsule {
            template: template.map(str::to_owned),
            timeout_s: Some(ttl_s),
            metadata: BTreeMap::from([(NONCE_KEY.to_owned(), nonce.to_owned())]),
            ..CreateCapsule::default()
        };
        let capsule = self.client.create_capsule(&body).await.map_err(of("create"))?;
        Ok(Created { id: capsule.id.to_string(), ttl_s, token: None, domain: None })
    }

    async fn exec(
        &self,
        sandbox: &Created,
        command: &str,
        stdin: Option<Bytes>,
    ) -> Result<ExecEnd, Failure> {
        let stdin = stdin.map(|bytes| String::from_utf8(bytes.into()));
        let stdin = stdin.transpose().map_err(|_| {
            failed("exec", "the API carries a standard input of UTF-8 only".to_owned())
        })?;
        let cmd = Some(command.to_owned());
        self.run("exec", sandbox, ExecRequest { cmd, stdin, ..ExecRequest::default() }).await
    }

    async fn write(&self, sandbox: &Created, path: &str, content: Bytes) -> Result<(), Failure> {
        let mut script = "base64 -d > \"$1\"";
        let mut rest = content;
        loop {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            let stdin = Some(STANDARD.encode(piece));
            self.script("write", sandbox, script, path, stdin).await?;
            if rest.is_empty() {
                return Ok(());
            }
            script = "base64 -d >> \"$1\"";
        }
    }

    async fn read(&self, sandbox: &Created, path: &str) -> Result<Bytes, Failure> {
        // The API itself takes care of bytes that are no text.
        self.script("read", sandbox, "cat \"$1\"", path, None).await
    }

    async fn pause(&self, sandbox: &Created) -> Result<(), Failure> {
        let id = id("pause", sandbox)?;
        self.client.pause(id).await.map(drop).map_err(of("pause"))
    }

    async fn resume(&self, sandbox: &Created) -> Result<(), Failure> {
        let id = id("resume", sandbox)?;
        self.client.resume(id).await.map(drop).map_err(of("resume"))
    }

    async fn kill(&self, sandbox: &Created) -> Result<(), Failure> {
        let id = id("kill", sandbox)?;
        self.client.delete_capsule(id).await.map_err(of("kill"))
    }

    async fn kill_lost(&self, nonce: &str) -> Result<(), Failure> {
        for capsule in self.client.capsules().await.map_err(of("list"))? {
            if capsule.metadata.get(NONCE_KEY).is_some_and(|known| known == nonce) {
                self.client.delete_capsule(capsule.id).await.map_err(of("kill"))?;
            }
        }
        Ok(())
    }
}

fn id(call: &'static str, sandbox: &Created) -> Result<SandboxId, Failure> {
    let bad = |_| failed(call, format!("`{}` is no id of a sandbox", sandbox.id));
    sandbox.id.parse().map_err(bad)
}

fn output(call: &'static str, chunk: Chunk) -> Result<Vec<u8>, Failure> {
    chunk.into_bytes().map_err(|error| failed(call, error.to_string()))
}

fn failed(call: &'static str, message: String) -> Failure {
    Failure::new(format!("{call}_failed"), message)
}

/// The failure that an error of the client is.
fn of(call: &'static str) -> impl Fn(ClientError) -> Failure {
    move |error| {
        let kind = match &error {
            ClientError::Refused(_, status) => format!("status_{}", status.as_u16()),
            // Something in between refused, in words of its own.
            ClientError::BadAnswer { status, .. } if !status.is_success() => {
                format!("status_{}", status.as_u16())
            }
            ClientError::Connect { .. } => "connect".to_owned(),
            ClientError::Deadline(_) => "timeout".to_owned(),
            ClientError::BadEndpoint { .. }
            | ClientError::Http(_)
            | ClientError::BadAnswer { .. }
            | ClientError::BadRequest(_) => format!("{call}_failed"),
        };
        let mut message = chain(&error);
        if let ClientError::Refused(body, _) = &error {
            // Writing to a String does not fail.
            let _ = write!(message, " (request {})", body.request_id);
        }
        Failure::new(kind, message)
    }
}
