//! What do benches restore? A server that listens, deployed as the edge does it, and snapshotted.

use std::{
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use agent::{guest::Guest, lifecycle::Source, sandbox::Sandbox};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use envd_api::{Output, Start};
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use pool_model::{Port, Prefetch, SnapshotId, TemplateId};
use pool_store::{ImageReader, PAGE_BYTES};
use tokio::time::{sleep, timeout};

use super::Stage;

/// The server: the sample function `hello`.
const SERVER: &str = include_str!("../../../images/functions/hello/server.py");
/// Where a deploy puts code, and who runs it.
const CODE: (&str, &str) = ("/home/user/app", "user");
/// Where the server listens.
const PORT: u16 = 8000;
/// Longest for the server to come up; an interpreter under emulation takes seconds.
const READY_MAX: Duration = Duration::from_secs(90);
/// Longest for a command or a request.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// Pause between requests to a server that is coming up.
const POLL: Duration = Duration::from_millis(100);
/// Most bytes of a command's output that are kept.
const OUTPUT_MAX: usize = 64 << 10;

/// The server's port.
///
/// # Errors
///
/// Never: it is one.
pub(crate) fn port() -> anyhow::Result<Port> {
    Ok(PORT.to_string().parse()?)
}

/// Boots a guest, has it serve, and snapshots it. Also says how long the boot took.
///
/// # Errors
///
/// Which step failed.
pub(crate) async fn deploy(
    stage: &Stage,
    memory_mib: u32,
) -> anyhow::Result<(SnapshotId, Duration)> {
    let template = Source::Template(TemplateId::DEFAULT);
    let (sandbox, booted) = stage.create(template, memory_mib, Prefetch::None).await?;
    let (guest, token) = reach(&sandbox)?;
    let envd = guest.envd(&token);
    let (dir, user) = CODE;
    let code = Bytes::from_static(SERVER.as_bytes());
    envd.write_file(&format!("{dir}/server.py"), Some(user), code).await?;
    let mut start = Start::shell("exec python3 server.py");
    start.cwd = Some(dir.to_owned());
    start.user = Some(user.to_owned());
    start.envs.insert("PORT".to_owned(), PORT.to_string());
    drop(envd.start(&start).await?); // letting go of the stream lets it run on
    let until = Instant::now() + READY_MAX;
    while let Err(error) = get(&guest, "/healthz").await {
        ensure!(Instant::now() < until, "the server does not come up: {error:#}");
        sleep(POLL).await;
    }
    drop(guest);
    let snapshot = stage.agent.snapshot(sandbox.id).await?;
    stage.destroy(&sandbox).await?;
    Ok((snapshot, booted))
}

/// Writes a snapshot's guest memory to a file, zeroes as holes.
///
/// # Errors
///
/// What the disk says.
pub(crate) fn write_memory(
    stage: &Stage,
    snapshot: SnapshotId,
    path: &std::path::Path,
) -> anyhow::Result<()> {
    let host = &stage.agent.host;
    let opened = host.snapshots().open(snapshot)?;
    let mut reader = ImageReader::new(&host.layers, opened.map());
    let file = std::fs::File::create(path)?;
    file.set_len(opened.map().bytes())?;
    for run in opened.map().runs() {
        file.write_all_at(reader.content(run)?, run.page * PAGE_BYTES as u64)?;
    }
    Ok(())
}

/// One request to a guest's server.
///
/// # Errors
///
/// It was not answered with a 2xx.
pub(crate) async fn get(guest: &Guest, path: &str) -> anyhow::Result<Bytes> {
    let exchange = async {
        let stream = guest.dial(port()?, ANSWER_MAX).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::CONNECTION, "close")
            .body(Empty::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        ensure!(status.is_success(), "{path} answers {status}");
        Ok(body)
    };
    timeout(ANSWER_MAX, exchange).await.context("no answer in time")?
}

/// Runs a line of shell as root and waits for its end.
///
/// # Errors
///
/// It failed; its output is in the error.
pub(crate) async fn run(sandbox: &Sandbox, line: &str) -> anyhow::Result<Output> {
    let (guest, token) = reach(sandbox)?;
    let mut start = Start::new("/bin/sh", ["-c", line]);
    start.user = Some("root".to_owned());
    let stream = guest.envd(&token).with_deadline(ANSWER_MAX).start(&start).await?;
    let output =
        timeout(ANSWER_MAX, stream.output(OUTPUT_MAX)).await.context(line.to_owned())??;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.end.exit_code == 0, "`{line}`: {}: {text}", output.end.status);
    Ok(output)
}

/// A sandbox's guest and its token.
///
/// # Errors
///
/// It does not serve.
pub(crate) fn reach(sandbox: &Sandbox) -> anyhow::Result<(std::sync::Arc<Guest>, String)> {
    let guest = sandbox.serving().context("the sandbox does not serve")?;
    Ok((guest, sandbox.record().access_token))
}
