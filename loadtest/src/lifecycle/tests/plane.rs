//! A small control plane as E2B's contract has it, for [`Guest`]s: pause is SIGSTOP, connect is
//! SIGCONT, kill is SIGKILL. It also passes on what goes to the guests, which headers name.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinHandle,
};

use super::guest::{self, Guest};

/// The key that it takes.
pub(super) const KEY: &str = "e2b_00112233445566778899aabbccddeeff00112233";

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Create,
    Pause,
    Connect,
    Kill,
    Data,
}

/// How it differs from a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// It is from before `/v2`.
    Old,
    /// Such calls are not done, but answered so; the first so many.
    Answers(Call, u16, &'static str, u32),
    /// Such calls are done, and never answered.
    Hangs(Call),
    /// A paused sandbox keeps its disk only.
    ColdBoot,
    /// A paused sandbox keeps its memory only.
    LosesFiles,
    /// A file has other content after a pause.
    ChangesFiles,
}

struct Sandbox {
    guest: Guest,
    token: String,
    metadata: Value,
    paused: bool,
}

/// A running control plane.
pub(super) struct Plane {
    pub(super) address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct State {
    flaw: Flaw,
    flawed: AtomicU32,
    created: AtomicU32,
    sandboxes: Mutex<BTreeMap<String, Sandbox>>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Plane {
    pub(super) async fn start(flaw: Flaw) -> Self {
        // Whoever builds it waits here and not in a create, which has a deadline.
        tokio::task::spawn_blocking(guest::daemon).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (flawed, created) = (AtomicU32::new(0), AtomicU32::new(0));
        let state = Arc::new(State { flaw, flawed, created, sandboxes: Mutex::default() });
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let connection = server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, state, server }
    }

    /// The sandboxes that there are.
    pub(super) async fn ids(&self) -> Vec<String> {
        self.state.sandboxes.lock().await.keys().cloned().collect()
    }

    /// How many there ever were.
    pub(super) fn created(&self) -> u32 {
        self.state.created.load(Ordering::Relaxed)
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let call = call_of(&request);
    if let Flaw::Answers(flawed, status, body, times) = state.flaw
        && call == Some(flawed)
        && state.flawed.fetch_add(1, Ordering::Relaxed) < times
    {
        return Ok(text(status, body));
    }
    let answer = match request.headers().get("e2b-sandbox-id") {
        Some(_) => pass_on(&state, request).await,
        None => control(&state, request).await,
    };
    if call.is_some_and(|call| state.flaw == Flaw::Hangs(call)) {
        std::future::pending::<()>().await;
    }
    Ok(answer)
}

fn call_of(request: &Request<Incoming>) -> Option<Call> {
    let path = request.uri().path();
    match *request.method() {
        _ if request.headers().contains_key("e2b-sandbox-id") => Some(Call::Data),
        Method::DELETE => Some(Call::Kill),
        Method::POST if path.ends_with("/sandboxes") => Some(Call::Create),
        Method::POST if path.ends_with("/pause") => Some(Call::Pause),
        Method::POST if path.ends_with("/connect") => Some(Call::Connect),
        _ => None,
    }
}

async fn control(state: &State, request: Request<Incoming>) -> Response<Body> {
    if request.headers().get("x-api-key").is_none_or(|key| key != KEY) {
        return error(401, "invalid API key");
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let parts = match (state.flaw, &parts[..]) {
        (Flaw::Old, ["v2", ..]) => return text(404, "404 page not found"),
        // Both versions do the same here.
        (_, ["v2", rest @ ..]) => rest,
        (_, all) => all,
    };
    match (method.as_str(), parts) {
        ("POST", ["sandboxes"]) => create(state, &body).await,
        ("GET", ["sandboxes"]) => list(state, &query).await,
        (method, ["sandboxes", id, rest @ ..]) => {
            let mut sandboxes = state.sandboxes.lock().await;
            let Some(sandbox) = sandboxes.get_mut(*id) else {
                return error(404, &format!("sandbox \"{id}\" not found"));
            };
            match (method, rest) {
                ("GET", []) => json(200, &detail(id, sandbox)),
                ("DELETE", []) => {
                    sandboxes.remove(*id);
                    empty(204)
                }
                ("POST", ["pause"]) if sandbox.paused => error(409, "already paused"),
                ("POST", ["pause"]) => {
                    sandbox.guest.signal(Signal::SIGSTOP);
                    sandbox.paused = true;
                    empty(204)
                }
                ("POST", ["connect"]) => connect(state.flaw, id, sandbox).await,
                ("POST", ["timeout"]) => empty(204),
                _ => error(404, "no such route"),
            }
        }
        _ => error(404, "no such route"),
    }
}

async fn create(state: &State, body: &Value) -> Response<Body> {
    if body["templateID"] != "base" {
        return error(404, "template not found");
    }
    if body["timeout"].as_u64().is_none_or(|timeout| timeout == 0) {
        return error(400, "timeout must be above 0");
    }
    let number = state.created.fetch_add(1, Ordering::Relaxed);
    let id = format!("i{}x{}x{number}", std::process::id(), std::ptr::from_ref(state).addr());
    let (token, metadata) = (format!("token-of-{id}"), body["metadata"].clone());
    let nonce = metadata["loadtest"].as_str().unwrap_or(&id).to_owned();
    let guest = Guest::start(&id, &nonce, &token).await;
    let sandbox = Sandbox { guest, token, metadata, paused: false };
    let answer = json(201, &sandbox_of(&id, &sandbox));
    state.sandboxes.lock().await.insert(id, sandbox);
    answer
}

async fn list(state: &State, query: &str) -> Response<Body> {
    // `k=v`, each encoded, and the whole once more: so a sandbox's own has to look the same.
    let wanted = query.split('&').find_map(|pair| pair.strip_prefix("metadata="));
    let sandboxes = state.sandboxes.lock().await;
    let listed = sandboxes.iter().filter(|(_, sandbox)| {
        let nonce = sandbox.metadata["loadtest"].as_str().unwrap_or_default();
        wanted.is_none_or(|wanted| wanted == format!("loadtest%3D{nonce}"))
    });
    json(200, &listed.map(|(id, sandbox)| detail(id, sandbox)).collect())
}

async fn connect(flaw: Flaw, id: &str, sandbox: &mut Sandbox) -> Response<Body> {
    if !sandbox.paused {
        return json(200, &sandbox_of(id, sandbox));
    }
    let nonce = sandbox.metadata["loadtest"].as_str().unwrap_or(id).to_owned();
    match flaw {
        Flaw::ColdBoot => sandbox.guest = Guest::start(id, &nonce, &sandbox.token).await,
        Flaw::LosesFiles => sandbox.guest.lose_file(),
        Flaw::ChangesFiles => sandbox.guest.change_file(),
        _ => {}
    }
    sandbox.guest.signal(Signal::SIGCONT);
    sandbox.paused = false;
    json(201, &sandbox_of(id, sandbox))
}

fn sandbox_of(id: &str, sandbox: &Sandbox) -> Value {
    json!({
        "templateID": "tmpl", "sandboxID": id, "clientID": "c", "envdVersion": "0.6.13",
        "alias": "base", "envdAccessToken": sandbox.token, "domain": null,
    })
}

fn detail(id: &str, sandbox: &Sandbox) -> Value {
    let state = if sandbox.paused { "paused" } else { "running" };
    json!({
        "templateID": "tmpl", "sandboxID": id, "clientID": "c", "envdVersion": "0.6.13",
        "startedAt": "2026-01-02T03:04:05Z", "endAt": "2026-01-02T04:04:05Z", "cpuCount": 1,
        "memoryMB": 128, "diskSizeMB": 512, "state": state, "metadata": sandbox.metadata,
    })
}

/// Passes a request on to the guest that its headers name.
async fn pass_on(state: &State, request: Request<Incoming>) -> Response<Body> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if header("e2b-sandbox-port") != Some("49983") {
        return error(502, "The sandbox is running but port is not open");
    }
    let id = header("e2b-sandbox-id").unwrap_or_default();
    let address = {
        let sandboxes = state.sandboxes.lock().await;
        sandboxes.get(id).filter(|sandbox| !sandbox.paused).map(|sandbox| sandbox.guest.address)
    };
    let Some(address) = address else { return error(502, "The sandbox was not found") };
    let answered = async {
        let stream = TokioIo::new(TcpStream::connect(address).await.ok()?);
        let (mut sender, connection) = client::conn::http1::handshake(stream).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request).await.ok()
    };
    match answered.await {
        Some(answer) => answer.map(http_body_util::BodyExt::boxed_unsync),
        None => error(502, "The sandbox was not found"),
    }
}

fn json(status: u16, value: &Value) -> Response<Body> {
    let mut answer = text(status, &value.to_string());
    let kind = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert("content-type", kind);
    answer
}

fn error(status: u16, message: &str) -> Response<Body> {
    json(status, &json!({ "code": status, "message": message }))
}

fn text(status: u16, body: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_owned())).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn empty(status: u16) -> Response<Body> {
    let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}
