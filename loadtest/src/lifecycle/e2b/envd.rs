//! The daemon in a sandbox: commands and files.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use loadtest_wire::{Connection, Incoming, Origin, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Reach,
    connect::{BadStream, Frame, Frames, envelope, json as message},
    http::{CALL_MAX, call, encoded, expect, failed, refusal_of, shown, start},
};
use crate::{
    lifecycle::{Created, ExecEnd, collect, tail},
    outcome::Failure,
};

/// The daemon's port.
const PORT: u16 = 49_983;
/// Bytes of input in one call; the daemon takes at most 4 MiB, and base64 makes more of it.
const INPUT_BYTES: usize = 1 << 20;

const SANDBOX: HeaderName = HeaderName::from_static("e2b-sandbox-id");
const SANDBOX_PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");
const TOKEN: HeaderName = HeaderName::from_static("x-access-token");
const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const PING: HeaderName = HeaderName::from_static("keepalive-ping-interval");

/// Runs a line of shell until it ends.
pub(super) async fn exec(
    reach: &Reach,
    sandbox: &Created,
    command: &str,
    stdin: Option<Bytes>,
) -> Result<ExecEnd, Failure> {
    let origin = reach.origin(sandbox, PORT);
    let config = json!({ "cmd": "/bin/bash", "args": ["-l", "-c", command], "envs": {} });
    let body = json!({ "process": config, "stdin": stdin.is_some() });
    // No Connect-Timeout-Ms: the life's deadline bounds it, and then the kill ends it.
    let request = rpc(sandbox, "Start", "application/connect+json")?
        .header(PING, HeaderValue::from_static("50"))
        .content(envelope(&body.to_string()))
        .within(CALL_MAX);
    let (connection, incoming) = start(&origin, &request).await?;
    if incoming.status.as_u16() != 200 {
        return Err(refusal_of(incoming).await);
    }
    let kind = incoming.headers.get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| !kind.as_bytes().starts_with(b"application/connect+json")) {
        let text = format!("expected a stream of application/connect+json, got {kind:?}");
        return Err(failed("exec", text));
    }
    let mut events = Events { incoming, frames: Frames::default(), _connection: connection };
    let pid = events.started().await?;
    match stdin {
        None => events.follow().await,
        // Both at once: a process that writes before it has read all must not wait for us.
        Some(stdin) => {
            let fed = feed(&origin, sandbox, pid, stdin);
            tokio::try_join!(events.follow(), fed).map(|(end, ())| end)
        }
    }
}

/// Writes a file.
pub(super) async fn write(
    reach: &Reach,
    sandbox: &Created,
    path: &str,
    content: Bytes,
) -> Result<(), Failure> {
    const NAME: &str = "write";
    let request = to_sandbox(NAME, sandbox, Method::POST, &files(path))?
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
        .content(content)
        .within(CALL_MAX);
    let answer = call(&reach.origin(sandbox, PORT), &request).await?;
    expect(NAME, answer, &[200]).map(drop)
}

/// Reads a file.
pub(super) async fn read(reach: &Reach, sandbox: &Created, path: &str) -> Result<Bytes, Failure> {
    const NAME: &str = "read";
    let request = to_sandbox(NAME, sandbox, Method::GET, &files(path))?.within(CALL_MAX);
    let answer = call(&reach.origin(sandbox, PORT), &request).await?;
    Ok(expect(NAME, answer, &[200])?.body)
}

fn files(path: &str) -> String {
    format!("/files?path={}", encoded(path))
}

/// A request to the daemon. The headers name the sandbox even where its host name does, as E2B's
/// clients have it.
fn to_sandbox(
    name: &str,
    sandbox: &Created,
    method: Method,
    path: &str,
) -> Result<Request, Failure> {
    let value = |text: &str| {
        let unfit = |_| failed(name, "what create answered can't be the value of a header");
        HeaderValue::from_str(text).map_err(unfit)
    };
    let request = Request::new(method, path)
        .header(SANDBOX, value(&sandbox.id)?)
        .header(SANDBOX_PORT, HeaderValue::from(PORT));
    let Some(token) = &sandbox.token else { return Ok(request) };
    let mut token = value(token)?;
    token.set_sensitive(true);
    Ok(request.header(TOKEN, token))
}

/// A call of the daemon's process service.
fn rpc(sandbox: &Created, call: &str, kind: &'static str) -> Result<Request, Failure> {
    let path = format!("/process.Process/{call}");
    let request = to_sandbox("exec", sandbox, Method::POST, &path)?;
    let request = request.header(VERSION, HeaderValue::from_static("1"));
    Ok(request.header(header::CONTENT_TYPE, HeaderValue::from_static(kind)))
}

/// Sends all of a standard input and closes it.
async fn feed(origin: &Origin, sandbox: &Created, pid: u32, stdin: Bytes) -> Result<(), Failure> {
    let process = json!({ "pid": pid });
    let send = async |name: &str, body: Value| {
        let request = rpc(sandbox, name, "application/json")?;
        let request = request.content(body.to_string().into()).within(CALL_MAX);
        call(origin, &request).await
    };
    for piece in stdin.chunks(INPUT_BYTES) {
        let input = json!({ "stdin": STANDARD.encode(piece) });
        let answer = send("SendInput", json!({ "process": process, "input": input })).await?;
        if !answer.status.is_success() {
            // The process may end, or close its input, without reading all of it.
            return Ok(());
        }
    }
    send("CloseStdin", json!({ "process": process })).await.map(drop)
}

/// The events of a running command.
struct Events {
    incoming: Incoming,
    frames: Frames,
    /// Carries the above.
    _connection: Connection,
}

#[derive(Deserialize)]
struct Message {
    event: Event,
}

/// Exactly one of these, or something that doesn't matter here.
#[derive(Deserialize)]
struct Event {
    start: Option<Start>,
    data: Option<Data>,
    end: Option<End>,
}

#[derive(Deserialize)]
struct Start {
    pid: u32,
}

#[derive(Deserialize)]
struct Data {
    stdout: Option<String>,
    stderr: Option<String>,
}

/// JSON leaves out what is 0, false or empty.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct End {
    #[serde(default)]
    exit_code: i32,
}

impl Events {
    /// The next event; none at the stream's proper end.
    async fn next(&mut self) -> Result<Option<Event>, Failure> {
        let bad = |error: BadStream| failed("exec", error.to_string());
        loop {
            match self.frames.next().map_err(bad)? {
                Some(Frame::Message(bytes)) => {
                    return message::<Message>(&bytes).map(|m| Some(m.event)).map_err(bad);
                }
                Some(Frame::End(None)) => return Ok(None),
                Some(Frame::End(Some(error))) => {
                    let text = format!("the daemon said {}: {}", error.code, error.message);
                    return Err(failed("exec", text));
                }
                None => {}
            }
            match self.incoming.next().await.map_err(|error| Failure::of_call(&error))? {
                Some(bytes) => self.frames.push(&bytes),
                None => return Err(bad(BadStream::Cut)),
            }
        }
    }

    /// Waits until the process runs.
    async fn started(&mut self) -> Result<u32, Failure> {
        while let Some(event) = self.next().await? {
            if let Some(Start { pid }) = event.start {
                return Ok(pid);
            }
            if event.data.is_some() || event.end.is_some() {
                break;
            }
        }
        Err(failed("exec", "expected the start of a process as the first event"))
    }

    /// Collects its output until it ends.
    async fn follow(&mut self) -> Result<ExecEnd, Failure> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut code = None;
        while let Some(Event { data, end, .. }) = self.next().await? {
            if let Some(Data { stdout: out, stderr: err }) = data {
                collect(&mut stdout, &decoded(out)?)?;
                collect(&mut stderr, &decoded(err)?)?;
            }
            if let Some(End { exit_code }) = end {
                code = Some(exit_code);
            }
        }
        let code = code.ok_or_else(|| failed("exec", "the stream ended without an end event"))?;
        Ok(ExecEnd { code, stdout: stdout.into(), stderr: tail(&stderr) })
    }
}

fn decoded(text: Option<String>) -> Result<Vec<u8>, Failure> {
    let text = text.unwrap_or_default();
    STANDARD.decode(&text).map_err(|_| {
        let came = shown(text.as_bytes());
        failed("exec", format!("expected output as base64, got {came}"))
    })
}
