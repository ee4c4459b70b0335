//! Ends that come in their time: by timer, after an agent's absence, for idle machines, for slow ones.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use edge_api::{
    ClientError, CreateCapsule, DeployConfig, ErrorCode, PoolEvent, PoolPatch, Prefetch,
};
use jiff::Timestamp;
use loadtest::{Protocol, Request};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pool_model::{OnTimeout, SandboxId, SandboxState};
use tokio::time::{Instant, sleep};

use crate::{
    events,
    fixture::{eventually, seconds},
    guest::Sandbox,
    host, pools,
    pools::{SETTLE_MAX, refused, tuned, warm_is},
    refusals::tar_gz,
    teststack::TestStack,
};

/// Latest that an end is acted on.
const LATE_MAX: Duration = Duration::from_secs(1);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How the API finds a sandbox.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Is(SandboxState),
    Gone,
    /// Nobody can say: the agent is away.
    Unknown,
}

async fn find(stack: &TestStack, sandbox: SandboxId) -> anyhow::Result<Found> {
    match stack.api().capsule(sandbox).await {
        Ok(capsule) => Ok(Found::Is(capsule.state)),
        Err(ClientError::Refused(body, _)) if body.code == "sandbox_not_found" => Ok(Found::Gone),
        Err(ClientError::Refused(body, _)) if body.code == "agent_unavailable" => {
            Ok(Found::Unknown)
        }
        Err(error) => Err(error.into()),
    }
}

async fn with_end(
    stack: &TestStack,
    on_timeout: OnTimeout,
    timeout_s: u64,
) -> anyhow::Result<(Sandbox<'_>, Timestamp)> {
    let sandbox =
        Sandbox::create(stack, &CreateCapsule { on_timeout, ..Default::default() }).await?;
    let end = edge_api::SetTimeout { timeout_s };
    stack.api().set_timeout(sandbox.id, &end).await?;
    let end = stack.api().capsule(sandbox.id).await?.expires_at.context("it has no end")?;
    Ok((sandbox, end))
}

pub(crate) async fn ends_are_acted_on_within_a_second(stack: Arc<TestStack>) -> anyhow::Result<()> {
    for on_timeout in [OnTimeout::Kill, OnTimeout::Pause] {
        let (sandbox, end) = with_end(&stack, on_timeout, 3).await?;
        while find(&stack, sandbox.id).await? == Found::Is(SandboxState::Running) {
            let late = Timestamp::now().duration_since(end);
            ensure!(late < LATE_MAX.try_into()?, "{on_timeout:?}: it runs {late:?} after its end");
            sleep(LOOK).await;
        }
        let early = end.duration_since(Timestamp::now());
        ensure!(!early.is_positive(), "{on_timeout:?}: it came {early:?} too early");
        let outcome = match on_timeout {
            OnTimeout::Kill => Found::Gone,
            OnTimeout::Pause => Found::Is(SandboxState::Paused),
        };
        eventually("it is gone or paused", seconds(20), || async {
            let found = find(&stack, sandbox.id).await?;
            ensure!(found == outcome, "{found:?}, expected {outcome:?}");
            Ok(())
        })
        .await?;
        if on_timeout == OnTimeout::Pause {
            sandbox.delete().await?;
        }
    }
    host::no_orphans(&stack, false, seconds(20)).await
}

/// A stopped supervisor restarts nothing. It goes on when this is dropped.
struct Frozen(Pid);

impl Frozen {
    fn new(stack: &TestStack) -> anyhow::Result<Self> {
        let pid = Pid::from_raw(stack.dev()?.pids.supervisor.context("no supervisor")?);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = kill(self.0, Signal::SIGCONT) {
            eprintln!("the supervisor stands still: {error}");
        }
    }
}

pub(crate) async fn ends_that_passed_without_an_agent_are_made_up_for(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let (paused, _) = with_end(&stack, OnTimeout::Pause, 600).await?;
    paused.run("echo kept > note").await?;
    let (kept, _) = with_end(&stack, OnTimeout::Kill, 600).await?;
    // Boots take their time; only now the ends come near.
    let (killed, end) = with_end(&stack, OnTimeout::Kill, 4).await?;
    stack.api().set_timeout(paused.id, &edge_api::SetTimeout { timeout_s: 4 }).await?;
    let frozen = Frozen::new(&stack)?;
    let agent = stack.dev()?.pids.agent.context("no agent")?;
    kill(Pid::from_raw(agent), Signal::SIGKILL)?;
    ensure!(Timestamp::now() < end, "the host was too slow: the end came before the kill");
    sleep(seconds(5)).await;
    ensure!(host::vmm_of(&stack, killed.id).is_ok(), "it ended without an agent");
    drop(frozen);
    let mut ready = None;
    loop {
        let found = (find(&stack, killed.id).await?, find(&stack, paused.id).await?);
        let (dead, stopped) = match found {
            (Found::Unknown, _) | (_, Found::Unknown) => {
                ensure!(ready.is_none_or(|at: Instant| at.elapsed() < seconds(30)), "no agent");
                sleep(LOOK).await;
                continue;
            }
            (_, Found::Gone) => bail!("it was to be paused, and is gone"),
            (killed, paused) => (
                killed != Found::Is(SandboxState::Running),
                paused != Found::Is(SandboxState::Running),
            ),
        };
        let since = ready.get_or_insert_with(Instant::now).elapsed();
        if dead && stopped {
            break;
        }
        ensure!(since < LATE_MAX, "{since:?} after the agent's return they still run");
        sleep(LOOK).await;
    }
    eventually("one is gone, one is paused", seconds(20), || async {
        let found = (find(&stack, killed.id).await?, find(&stack, paused.id).await?);
        ensure!(found == (Found::Gone, Found::Is(SandboxState::Paused)), "{found:?}");
        Ok(())
    })
    .await?;
    let note = paused.run("cat note").await;
    // Whoever runs a command in it may have to resume it first.
    let note = match note {
        Ok(note) => note,
        Err(_) => {
            stack.api().resume(paused.id).await?;
            paused.run("cat note").await?
        }
    };
    ensure!(note == "kept", "{note:?}");
    ensure!(find(&stack, kept.id).await? == Found::Is(SandboxState::Running), "it had time left");
    paused.delete().await?;
    kept.delete().await?;
    host::no_orphans(&stack, false, seconds(30)).await
}

pub(crate) async fn idle_warm_sandboxes_go_after_their_time(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let idle_ttl = seconds(4);
    let patch = PoolPatch {
        min_warm: Some(0),
        max_warm: Some(2),
        idle_ttl_ms: Some(4000),
        prefetch: Some(Prefetch::Full),
        ..PoolPatch::default()
    };
    tuned(&stack, "hello", &patch, async {
        let asked = Instant::now();
        stack.api().prewarm_pool(&"hello".parse()?, 2).await?;
        warm_is(&stack, "hello", 2).await?;
        warm_is(&stack, "hello", 0).await?;
        let took = asked.elapsed();
        ensure!(took >= idle_ttl, "they went {took:?} after they were asked for");
        let reaped = pools::stats(&stack, "hello").await?.reaped_idle;
        ensure!(reaped == 2, "{reaped} were counted as idle");
        Ok(())
    })
    .await?;
    host::no_orphans(&stack, false, SETTLE_MAX).await
}

/// Answers at once, but never to `/slow`.
const SLOW: &str = "\
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/slow':
            time.sleep(600)
        self.send_response(204)
        self.end_headers()
http.server.ThreadingHTTPServer(('', int(os.environ['PORT'])), Handler).serve_forever()
";

pub(crate) async fn invocation_past_its_time_ends_with_its_sandbox(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let name: edge_api::FunctionName = "slow".parse()?;
    let config = DeployConfig {
        timeout_ms: 2000,
        min_warm: Some(1),
        max_warm: Some(1),
        ..DeployConfig::new(name.clone(), "python3 slow.py")
    };
    stack.api().deploy(&config, &tar_gz("slow.py", SLOW.as_bytes())?).await?;
    let mut followed = stack.api().pool_events(Some(&name), Some(seconds(1))).await?;
    warm_is(&stack, "slow", 1).await?;
    let host = stack.stack().function_host("slow");
    let mut connection = stack.stack().connect(&host, Protocol::H2).await?;
    let began = Instant::now();
    let answer = connection.call(&Request::get("/slow").within(seconds(30))).await?;
    let took = began.elapsed();
    ensure!(answer.status == 504, "answered {} after {took:?}", answer.status);
    let body: edge_api::ErrorBody = answer.json()?;
    ensure!(body.code == ErrorCode::DeadlineExceeded.as_str(), "{body:?}");
    ensure!(took >= seconds(2) && took < seconds(8), "refused after {took:?}");
    warm_is(&stack, "slow", 1).await.context("after the slow one")?;
    let mut connection = stack.stack().connect(&host, Protocol::H2).await?;
    let answer = connection.call(&Request::get("/")).await?;
    ensure!(answer.status == 204, "answered {}", answer.status);
    // The end of a function is the end of its events.
    stack.api().delete_function(&name).await?;
    loop {
        match events::next(&mut followed).await? {
            PoolEvent::Stats(_) | PoolEvent::Error(_) => {}
            PoolEvent::End(end) => break ensure!(end.function == name, "{end:?}"),
        }
    }
    events::ends(followed).await?;
    refused(stack.api().pool(&name).await, ErrorCode::FunctionNotFound)?;
    host::no_orphans(&stack, false, SETTLE_MAX).await
}
