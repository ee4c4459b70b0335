//! Invocations of `hello`: one machine each.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use loadtest::{Answer, Protocol, Request};
use pool_model::SandboxId;
use serde::Deserialize;

use crate::{fixture::version, teststack::TestStack};

/// Invocations by each protocol.
const EACH: usize = 10;
/// How far a guest's clock may be off.
const SKEW_MAX: Duration = Duration::from_secs(1);

/// What `hello` says.
#[derive(Debug, Deserialize)]
pub(crate) struct Hello {
    pub(crate) counter: u64,
    pub(crate) uuid: String,
    time: f64,
}

/// One good answer of `hello`.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) sandbox: SandboxId,
    pub(crate) said: Hello,
}

impl Invocation {
    /// Checks an answer for what every invocation has.
    pub(crate) fn of(answer: &Answer) -> anyhow::Result<Self> {
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200, "answered {}: {text}", answer.status);
        let sandbox = answer.header("x-wrenn-sandbox").context("no x-wrenn-sandbox")?.parse()?;
        Ok(Self { sandbox, said: answer.json()? })
    }
}

pub(crate) async fn each_of_thirty_invocations_has_a_machine_of_its_own(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let (mut sandboxes, mut uuids) = (BTreeSet::new(), BTreeSet::new());
    let host = stack.stack().function_host("hello");
    for protocol in Protocol::ALL {
        // One connection: a machine belongs to a request, not to a client.
        let mut connection = stack.stack().connect(&host, protocol).await?;
        for _ in 0..EACH {
            let before = now()?;
            let answer = connection.call(&Request::get("/")).await?;
            let after = now()?;
            let Invocation { sandbox, said } =
                Invocation::of(&answer).with_context(|| protocol.to_string())?;
            ensure!(answer.version == version(protocol), "came by {:?}", answer.version);
            ensure!(said.counter == 1, "{sandbox} served {} requests", said.counter);
            ensure!(sandboxes.insert(sandbox), "{sandbox} served twice");
            ensure!(uuids.insert(said.uuid.clone()), "{} was drawn twice", said.uuid);
            let there = Duration::try_from_secs_f64(said.time)?;
            ensure!(
                there + SKEW_MAX > before && there < after + SKEW_MAX,
                "the guest's clock says {there:?} between {before:?} and {after:?}"
            );
            check_headers(protocol, &answer, stack.dev()?.https_port)?;
        }
    }
    ensure!(sandboxes.len() == 3 * EACH && uuids.len() == 3 * EACH);
    Ok(())
}

fn check_headers(protocol: Protocol, answer: &Answer, port: u16) -> anyhow::Result<()> {
    let timing = answer.timing();
    for name in ["route", "lease", "restore", "upstream"] {
        let dur = timing.get(name).with_context(|| format!("{protocol}: no timing of {name}"))?;
        ensure!((0.0..60_000.0).contains(&dur), "{name} took {dur} ms");
    }
    if protocol != Protocol::H3 {
        let offer = answer.header("alt-svc").context("no alt-svc")?;
        ensure!(offer.contains(&format!("h3=\":{port}\"")), "{offer}");
    }
    let ours = answer.headers.keys().filter(|name| name.as_str().starts_with("x-wrenn-"));
    let ours: BTreeSet<_> = ours.map(|name| name.as_str()).collect();
    let expected = BTreeSet::from(["x-wrenn-reuse", "x-wrenn-sandbox"]);
    ensure!(ours == expected, "inner headers came out, or not the right ones: {ours:?}");
    let reuse = answer.header("x-wrenn-reuse");
    ensure!(reuse == Some("never"), "a machine of its own says {reuse:?}");
    Ok(())
}

fn now() -> anyhow::Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}
