//! Bad input: each kind has its own documented code, soon, and leaves nothing behind.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use edge_api::{CreateCapsule, DeployConfig, ErrorBody, ErrorCode};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderName, HeaderValue, Method};
use loadtest::{Answer, Protocol, Request};
use pool_model::SnapshotId;
use tokio::time::Instant;

use crate::{fixture::seconds, host, pools::refused, teststack::TestStack};

/// Longest for a refusal that needs no machine.
const SOON: Duration = Duration::from_secs(2);
/// Longest for a boot and what comes after it, beside the wait that was asked for.
const BOOT_MAX: Duration = Duration::from_secs(40);
/// A sandbox that never was.
const NOBODY: &str = "00000000000000000000nobody";

pub(crate) async fn bad_hosts_and_calls_have_their_own_codes(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let domain = &stack.dev()?.domain;
    let (long, nobody) = ("a".repeat(64), &NOBODY[1..]);
    let hosts = [
        ("elsewhere.example.com".to_owned(), "unknown_host"),
        (format!("nothing.{domain}"), "unknown_host"),
        (format!("a b.{domain}"), "bad_host"),
        (format!("0-{nobody}.{domain}"), "bad_port"),
        (format!("65536-{nobody}.{domain}"), "bad_port"),
        (format!("http-{nobody}.{domain}"), "bad_port"),
        (format!("{long}.fn.{domain}"), "label_too_long"),
        (format!("nobody.fn.{domain}"), "function_not_found"),
        (format!("8000-{nobody}.{domain}"), "sandbox_not_found"),
    ];
    for (host, code) in &hosts {
        let mut connection = stack.stack().connect_plainly(host).await?;
        let began = Instant::now();
        let answer = connection.call(&Request::get("/")).await.with_context(|| host.clone())?;
        is_refused(&answer, code, began).with_context(|| host.clone())?;
    }
    for protocol in Protocol::ALL {
        let host = stack.stack().function_host("nobody");
        let mut connection = stack.stack().connect(&host, protocol).await?;
        let began = Instant::now();
        let answer = connection.call(&Request::get("/")).await?;
        is_refused(&answer, "function_not_found", began).with_context(|| protocol.to_string())?;
    }
    bad_calls(&stack).await
}

async fn bad_calls(stack: &TestStack) -> anyhow::Result<()> {
    let host = stack.stack().api_host();
    let mut connection = stack.stack().connect(&host, Protocol::H2).await?;
    let key = std::fs::read_to_string(&stack.dev()?.key_file)?;
    let key = key.trim();
    let calls = [
        (Method::GET, "/v1/capsules", Some("wrong"), "", "unauthorized"),
        (Method::GET, "/v1/capsules", None, "", "unauthorized"),
        (Method::GET, "/v1/nothing", Some(key), "", "not_found"),
        (Method::PUT, "/v1/capsules", Some(key), "", "method_not_allowed"),
        (Method::POST, "/v1/capsules", Some(key), "{", "invalid_argument"),
        (Method::POST, "/v1/capsules", Some(key), r#"{"temlate":"x"}"#, "invalid_argument"),
        (Method::POST, "/v1/capsules", Some(key), r#"{"timeout_s":0}"#, "invalid_argument"),
        (Method::POST, "/v1/capsules", Some(key), r#"{"template":"none"}"#, "template_not_found"),
        (Method::GET, "/v1/functions/nobody", Some(key), "", "function_not_found"),
        (Method::GET, "/v1/pools/nobody", Some(key), "", "function_not_found"),
    ];
    for (method, path, key, body, code) in calls {
        let mut request = Request::new(method.clone(), path);
        if let Some(key) = key {
            let key = HeaderValue::from_str(key)?;
            request = request.header(HeaderName::from_static(edge_api::API_KEY_HEADER), key);
        }
        if !body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            request = request.header(http::header::CONTENT_TYPE, json);
            request = request.body(vec![body.as_bytes().to_vec().into()]);
        }
        let began = Instant::now();
        let answer = connection.call(&request).await?;
        is_refused(&answer, code, began).with_context(|| format!("{method} {path} {body}"))?;
    }
    let template = Some("tpl_0000000000000000000000zzz".to_owned());
    let asked = CreateCapsule { template, ..Default::default() };
    let created = stack.api().create_capsule(&asked).await;
    refused(created, ErrorCode::TemplateNotFound)?;
    let asked = CreateCapsule { snapshot: Some(SnapshotId::from_u128(7)), ..Default::default() };
    let created = stack.api().create_capsule(&asked).await;
    refused(created, ErrorCode::SnapshotNotFound)?;
    host::no_orphans(stack, false, seconds(20)).await
}

/// The one error shape, with this code, the code's status, and soon.
fn is_refused(answer: &Answer, code: &str, began: Instant) -> anyhow::Result<()> {
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&answer.body);
    let body: ErrorBody = answer.json().with_context(|| format!("{}: {text}", answer.status))?;
    ensure!(body.code == code, "{body:?}");
    let known: ErrorCode = code.parse()?;
    ensure!(answer.status == known.http_status(), "{code} came with {}", answer.status);
    ensure!(!body.message.is_empty(), "it says nothing");
    let id = answer.header(edge_api::REQUEST_ID_HEADER);
    ensure!(id == Some(body.request_id.as_str()), "{id:?} in the head, in the body {body:?}");
    ensure!(took < SOON, "it took {took:?}");
    Ok(())
}

pub(crate) async fn bad_deploys_have_their_own_codes_and_leave_nothing(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let before = state(&stack).await?;
    let good = tar_gz("server.py", b"pass\n")?;
    let config = |start: &str| DeployConfig {
        ready_timeout_ms: 3000,
        ..DeployConfig::new("bad".parse().expect("`bad` is a name"), start)
    };
    let template = DeployConfig { template: Some("none".to_owned()), ..config("sleep 60") };
    let cases = [
        ("no archive", config("sleep 60"), b"no archive".to_vec(), ErrorCode::MalformedArchive),
        ("cut", config("sleep 60"), good[..good.len() / 2].to_vec(), ErrorCode::MalformedArchive),
        ("leaves", config("sleep 60"), tar_gz("../evil", b"")?, ErrorCode::MalformedArchive),
        ("template", template, good.clone(), ErrorCode::TemplateNotFound),
        ("empty", config(" "), good.clone(), ErrorCode::InvalidArgument),
        ("exits", config("echo so long >&2; exit 7"), good.clone(), ErrorCode::StartCommandExited),
        ("never listens", config("sleep 600"), good.clone(), ErrorCode::NotReady),
    ];
    for (name, config, archive, code) in cases {
        let machines = matches!(code, ErrorCode::StartCommandExited | ErrorCode::NotReady);
        let limit = if machines { BOOT_MAX + seconds(3) } else { SOON };
        let began = Instant::now();
        let body = refused(stack.api().deploy(&config, &archive).await, code)
            .with_context(|| name.to_owned())?;
        let took = began.elapsed();
        ensure!(took < limit, "{name}: it took {took:?}");
        if code == ErrorCode::StartCommandExited {
            let says = body.message.contains('7') && body.message.contains("so long");
            ensure!(says, "it does not say how it exited: {}", body.message);
        }
        host::no_orphans(&stack, false, seconds(20)).await.with_context(|| name.to_owned())?;
        let after = state(&stack).await?;
        ensure!(after == before, "{name}: {before:?} became {after:?}");
    }
    Ok(())
}

/// What the API lists and the disk holds: names of functions, ids, directories.
async fn state(stack: &TestStack) -> anyhow::Result<[BTreeSet<String>; 4]> {
    let functions = stack.api().functions().await?;
    let capsules = stack.api().capsules().await?;
    let snapshots = stack.api().snapshots().await?;
    Ok([
        functions
            .iter()
            .map(|function| format!("{} {}", function.name, function.version))
            .collect(),
        capsules.iter().map(|capsule| capsule.id.to_string()).collect(),
        snapshots.iter().map(|snapshot| snapshot.id.to_string()).collect(),
        host::names(&stack.layout().snapshots_dir()),
    ])
}

/// An archive of one file, whatever its name.
pub(crate) fn tar_gz(name: &str, content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    // Past the checks that keep honest archives honest.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    archive.append(&header, content)?;
    Ok(archive.into_inner()?.finish()?)
}
