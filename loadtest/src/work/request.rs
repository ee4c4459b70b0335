//! A request and its answer, checked: `http`, `invoke` and `proxy`.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use loadtest_model::{Protocol, names};
use loadtest_wire::{Answer, Origin, Request};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};

use super::{
    check::{self, Distinct, NONCE_HEADER, Pattern},
    connections::Connections,
};
use crate::outcome::{Failure, Outcome, Timing};

/// Most of a refusal's body that is shown.
const SHOWN_BYTES: usize = 200;
/// The header in which a sandbox of ours says which one it is.
pub(crate) const GUEST_HEADER: &str = "x-loadtest-guest";
/// The header in which a Wrenn stack says which sandbox answered.
const SANDBOX_HEADER: &str = "x-wrenn-sandbox";

/// What is asked and what is right.
#[derive(Debug)]
pub(crate) struct Call {
    /// Whom: requests take turns.
    pub(crate) peers: Vec<Peer>,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) keep_alive: bool,
    pub(crate) streams_max: u32,
    pub(crate) limit: Duration,
    pub(crate) expect: Expect,
}

/// Who is asked.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) origin: Origin,
    /// What it has to say in [`GUEST_HEADER`].
    pub(crate) token: Option<String>,
}

/// What is right.
#[derive(Debug, Default)]
pub(crate) struct Expect {
    /// Any of 2xx if absent.
    pub(crate) status: Option<u16>,
    pub(crate) sha256: Option<String>,
    pub(crate) text: Option<String>,
    /// The body repeats the request's nonce.
    pub(crate) nonce: bool,
    /// The body is so many bytes of the pattern.
    pub(crate) pattern: Option<u64>,
    /// No two answers come from one sandbox.
    pub(crate) distinct: Option<Arc<Distinct>>,
}

impl Expect {
    /// Whether the body has to be looked at as a whole.
    fn whole_body(&self) -> bool {
        self.sha256.is_some() || self.text.is_some() || self.nonce
    }
}

/// What one worker has to make such calls.
#[derive(Debug)]
pub(crate) struct Caller {
    call: Arc<Call>,
    connections: Vec<Connections>,
    next: Cell<usize>,
    request: Request,
    /// Whether anything looks for a nonce in the answers.
    has_nonce: bool,
    random: RefCell<ChaCha8Rng>,
}

impl Caller {
    pub(crate) fn new(call: &Arc<Call>, protocol: Protocol, seed: u64) -> Self {
        let connect = |peer: &Peer| {
            Connections::new(peer.origin.clone(), protocol, call.keep_alive, call.streams_max)
        };
        let mut request = Request::new(call.method.clone(), call.path.clone()).within(call.limit);
        for (name, value) in &call.headers {
            request = request.header(name.clone(), value.clone());
        }
        if !call.keep_alive && protocol == Protocol::H1 {
            request = request.header(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if !call.body.is_empty() {
            request = request.content(call.body.clone());
        }
        Self {
            connections: call.peers.iter().map(connect).collect(),
            call: Arc::clone(call),
            next: Cell::new(0),
            request,
            has_nonce: call.expect.nonce || call.peers.iter().any(|peer| peer.token.is_some()),
            random: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
        }
    }

    pub(crate) async fn once(&self) -> Outcome {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let turn = turn % self.connections.len();
        let connections = &self.connections[turn];
        let mut lease = match connections.take().await {
            Ok(lease) => lease,
            Err(error) => return Outcome::failed(Failure::of_call(&error)),
        };
        let (request, nonce) = self.request();
        let mut outcome = Outcome {
            bytes_sent: self.call.body.len() as u64,
            connections: u64::from(lease.opened.is_some()),
            ..Outcome::default()
        };
        let mut pattern = self.call.expect.pattern.map(|_| Pattern::default());
        let mut shown = Vec::new();
        let answered = if self.call.expect.whole_body() {
            lease.connection.call(&request).await
        } else {
            let mut sink = |piece: &[u8]| {
                // What a refusal says is in its first bytes.
                shown.extend(&piece[..piece.len().min(SHOWN_BYTES - shown.len())]);
                if let Some(pattern) = &mut pattern {
                    pattern.take(piece);
                }
            };
            let answered = lease.connection.exchange(&request, &mut sink).await;
            answered.map(|answer| Answer { body: shown.into(), ..answer })
        };
        match answered {
            Err(error) => outcome.failure = Some(Failure::of_call(&error)),
            Ok(answer) => {
                if let Some(times) = &lease.opened {
                    push_open(&mut outcome, times);
                }
                connections.give_back(lease);
                push_times(&mut outcome, &answer);
                let peer = &self.call.peers[turn];
                judge(&mut outcome, &self.call.expect, peer, &answer, &nonce, pattern.as_ref());
            }
        }
        outcome
    }

    /// The request, with a nonce of its own if one is looked for; else that is empty.
    fn request(&self) -> (Request, String) {
        let mut request = self.request.clone();
        if !self.has_nonce {
            return (request, String::new());
        }
        const NAME: HeaderName = HeaderName::from_static(NONCE_HEADER);
        let nonce = check::nonce(self.random.borrow_mut().next_u64());
        let value = HeaderValue::from_str(&nonce).expect("letters and digits");
        request.set_nonce(NAME, value);
        (request, nonce)
    }
}

/// Adds what it took to open a connection.
pub(super) fn push_open(outcome: &mut Outcome, times: &loadtest_wire::OpenTimes) {
    let phases = [
        (names::DNS, times.dns),
        (names::CONNECT, times.connect),
        (names::HANDSHAKE, times.handshake),
    ];
    for (name, took) in phases {
        if let Some(took) = took {
            outcome.timings.push((Timing::Own(name), took));
        }
    }
}

fn push_times(outcome: &mut Outcome, answer: &Answer) {
    let times = &answer.times;
    outcome.ended = Some(times.last_byte);
    outcome.bytes_received += answer.bytes;
    outcome.status = Some(answer.status.as_u16());
    let phases = [
        (names::SERVICE, times.last_byte - times.sent),
        (names::FIRST_BYTE, times.first_byte - times.sent),
        (names::LAST_BYTE, times.last_byte - times.first_byte),
    ];
    outcome.timings.extend(phases.map(|(name, took)| (Timing::Own(name), took)));
    for (name, ms) in answer.timing().iter() {
        let took = Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
        outcome.timings.push((Timing::Server(name.to_owned()), took));
    }
}

/// Says what is wrong with an answer, if something is.
fn judge(
    outcome: &mut Outcome,
    expect: &Expect,
    peer: &Peer,
    answer: &Answer,
    nonce: &str,
    pattern: Option<&Pattern>,
) {
    let status = answer.status.as_u16();
    let right = expect.status.map_or_else(|| answer.status.is_success(), |right| status == right);
    if !right {
        let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(SHOWN_BYTES)]);
        outcome.failure =
            Some(Failure::new(format!("status_{status}"), format!("answered {status}: {body}")));
        // What a refusal holds is not what was to be checked.
        return;
    }
    let mut checks = Vec::new();
    if let Some(sha256) = &expect.sha256 {
        checks.push(("sha256", wrong_digest(&answer.body, sha256)));
    }
    if let Some(text) = &expect.text {
        let there = holds(&answer.body, text.as_bytes());
        checks.push(("text", (!there).then(|| format!("the body does not contain {text:?}"))));
    }
    if expect.nonce {
        match check::alone(&answer.body, nonce) {
            Ok(()) => checks.push(("nonce", None)),
            Err((check, why)) => checks.push((check, Some(why))),
        }
    }
    if let (Some(pattern), Some(bytes)) = (pattern, expect.pattern) {
        checks.push(("pattern", pattern.wrong(bytes)));
    }
    if let Some(distinct) = &expect.distinct {
        checks.push(("distinct_sandbox", same_sandbox(distinct, answer)));
    }
    if let Some(token) = &peer.token {
        checks.push(("own_sandbox", wrong_guest(answer, &format!("{token} {nonce}"))));
    }
    let failed = checks.iter().find_map(|(name, wrong)| Some((*name, wrong.clone()?)));
    outcome.failure = failed.map(|(name, why)| Failure::new(format!("check_{name}"), why));
    outcome.checks = checks;
}

fn wrong_digest(body: &[u8], right: &str) -> Option<String> {
    let digest = Sha256::digest(body);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    (!hex.eq_ignore_ascii_case(right)).then(|| format!("the body's SHA-256 is {hex}"))
}

fn same_sandbox(distinct: &Distinct, answer: &Answer) -> Option<String> {
    match answer.header(SANDBOX_HEADER) {
        None => Some(format!("the answer has no {SANDBOX_HEADER}")),
        Some(sandbox) if distinct.is_new(sandbox) => None,
        Some(sandbox) => Some(format!("{sandbox} has answered before")),
    }
}

fn wrong_guest(answer: &Answer, right: &str) -> Option<String> {
    match answer.header(GUEST_HEADER) {
        Some(said) if said == right => None,
        said => Some(format!("the sandbox said {said:?}; expected {right:?}")),
    }
}

/// Whether a text is in a body.
fn holds(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}
