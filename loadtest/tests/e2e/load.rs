//! Invocations without pause, while things are killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use edge_api::{ErrorBody, ErrorCode};
use loadtest::{CallError, Protocol, Request, Stack};
use pool_model::SandboxId;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::invocations::Invocation;

/// Longest for any answer: a function's own timeout is 30 s.
const ANSWER_MAX: Duration = Duration::from_secs(45);
/// Pause after a failure, so that a dead edge isn't asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(50);

/// What all load of a test has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Sandboxes that answered.
    sandboxes: BTreeSet<SandboxId>,
    /// Random values that they drew.
    uuids: BTreeSet<String>,
    /// Failures by code; `connection` where none was sent.
    pub(crate) failures: BTreeMap<String, u32>,
    /// What may never happen.
    wrong: Vec<String>,
}

impl Seen {
    /// How many invocations were answered well.
    pub(crate) fn answered(&self) -> usize {
        self.sandboxes.len()
    }

    fn note(&mut self, outcome: anyhow::Result<Outcome>) {
        match outcome {
            Ok(Outcome::Answered(Invocation { sandbox, said })) => {
                if said.counter != 1 || !self.sandboxes.insert(sandbox) {
                    self.wrong.push(format!("{sandbox} was handed out twice"));
                }
                if !self.uuids.insert(said.uuid) {
                    self.wrong.push(format!("{sandbox} drew what another one drew"));
                }
            }
            Ok(Outcome::Refused(code)) => *self.failures.entry(code).or_default() += 1,
            Err(error) => self.wrong.push(format!("{error:#}")),
        }
    }
}

enum Outcome {
    Answered(Invocation),
    Refused(String),
}

/// Running load.
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
    workers: JoinSet<()>,
}

impl Load {
    /// Starts workers that invoke `hello`, each by its own protocol.
    pub(crate) fn start(stack: &Stack, seen: &Arc<Mutex<Seen>>, protocols: &[Protocol]) -> Self {
        let (stop, _) = watch::channel(false);
        let mut workers = JoinSet::new();
        for protocol in protocols.iter().copied() {
            let (stack, seen, stop) = (stack.clone(), Arc::clone(seen), stop.subscribe());
            workers.spawn(async move {
                while !*stop.borrow() {
                    let outcome = invoke(&stack, protocol).await;
                    let failed = !matches!(outcome, Ok(Outcome::Answered(_)));
                    seen.lock().unwrap_or_else(PoisonError::into_inner).note(outcome);
                    if failed {
                        sleep(PAUSE).await;
                    }
                }
            });
        }
        Self { seen: Arc::clone(seen), stop, workers }
    }

    /// Lets the invocations under way end, and fails if anything was ever wrong.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let ended = async { while self.workers.join_next().await.is_some() {} };
        timeout(ANSWER_MAX + PAUSE, ended).await.context("an invocation hangs")?;
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
        Ok(())
    }
}

/// One invocation on a connection of its own. A broken connection or a documented refusal is what
/// a killed process costs; silence, or any other answer, is an error.
async fn invoke(stack: &Stack, protocol: Protocol) -> anyhow::Result<Outcome> {
    let called = async {
        let host = stack.function_host("hello");
        let mut connection = stack.connect(&host, protocol).await?;
        connection.call(&Request::get("/").within(ANSWER_MAX)).await
    };
    match called.await {
        Ok(answer) if answer.status == 200 => Ok(Outcome::Answered(Invocation::of(&answer)?)),
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer.body);
            let body: ErrorBody =
                answer.json().with_context(|| format!("{} with {text}", answer.status))?;
            let code: ErrorCode = body.code.parse().with_context(|| format!("{body:?}"))?;
            ensure!(answer.status == code.http_status(), "{code} came with {}", answer.status);
            ensure!(code != ErrorCode::Internal, "{body:?}");
            Ok(Outcome::Refused(body.code))
        }
        // To a dead edge, QUIC has no other answer than none.
        Err(error @ CallError::Deadline { step: "connecting", .. }) if protocol == Protocol::H3 => {
            Ok(Outcome::Refused(format!("{error}")))
        }
        Err(error) if error.is_deadline() => Err(error).context("a request hangs"),
        Err(_) => Ok(Outcome::Refused("connection".to_owned())),
    }
}
