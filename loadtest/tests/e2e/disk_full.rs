//! A full disk: snapshots are refused, sandboxes run on.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use edge_api::{ClientError, CreateCapsule, CreateSnapshot, ErrorCode};
use nix::{fcntl, sys::statvfs::statvfs};
use pool_model::SandboxState;

use crate::{
    fixture::seconds,
    guest::Sandbox,
    host,
    teststack::{Options, TestStack, clone_dir},
};

/// The disk: a snapshot or two fit.
const DISK_MIB: u32 = 1024;
/// What is left of it: records and logs fit, no guest's memory does.
const LEFT_BYTES: u64 = 16 << 20;

/// Uses a stack of its own, on a small disk.
pub(crate) async fn full_disk_refuses_snapshots_and_harms_nothing(
    _: Arc<TestStack>,
) -> anyhow::Result<()> {
    let options = Options { tmpfs_mib: Some(DISK_MIB), ..Options::default() };
    let stack = Arc::new(TestStack::start(&options).await?);
    let tested = refusals(&stack).await;
    if tested.is_err() {
        stack.show_logs();
    }
    // Its end waits for `wrenn dev down`.
    tokio::task::spawn_blocking(move || drop(stack)).await?;
    tested
}

async fn refusals(stack: &TestStack) -> anyhow::Result<()> {
    let sandbox = Sandbox::create(stack, &CreateCapsule::default()).await?;
    sandbox.run("echo before > note").await?;
    let filler = Filler::fill(stack.layout().root())?;

    let snapshot = stack.api().snapshot(sandbox.id, &CreateSnapshot::default()).await;
    is_no_space(snapshot)?;
    runs_on(stack, &sandbox).await.context("after the snapshot")?;

    is_no_space(stack.api().pause(sandbox.id).await)?;
    runs_on(stack, &sandbox).await.context("after the pause")?;

    let echo = clone_dir().join("images/functions/echo").display().to_string();
    let Err(refused) = stack.wrenn(["deploy", &echo]).await else { bail!("deployed") };
    ensure!(format!("{refused:#}").contains("no_space"), "{refused:#}");
    let functions = stack.api().functions().await?;
    ensure!(functions.is_empty(), "half deployed: {functions:?}");
    runs_on(stack, &sandbox).await.context("after the deploy")?;

    drop(filler);
    let name = Some("after".to_owned());
    let snapshot = stack.api().snapshot(sandbox.id, &CreateSnapshot { name }).await?;
    let asked = CreateCapsule { snapshot: Some(snapshot.id), ..Default::default() };
    let copy = Sandbox::create(stack, &asked).await?;
    let note = copy.run("cat note").await?;
    ensure!(note == "before", "{note}");
    copy.delete().await?;
    stack.api().delete_snapshot(snapshot.id).await?;
    let left = host::names(&stack.layout().snapshots_dir());
    ensure!(left.is_empty(), "{left:?}");
    host::no_orphans(stack, false, seconds(20)).await
}

/// The sandbox runs, with its file, and nothing of the attempt is left.
async fn runs_on(stack: &TestStack, sandbox: &Sandbox<'_>) -> anyhow::Result<()> {
    let state = stack.api().capsule(sandbox.id).await?.state;
    ensure!(state == SandboxState::Running, "{state}");
    let note = sandbox.run("cat note").await?;
    ensure!(note == "before", "{note}");
    let snapshots = stack.api().snapshots().await?;
    ensure!(snapshots.is_empty(), "{snapshots:?}");
    let left = host::names(&stack.layout().snapshots_dir());
    ensure!(left.is_empty(), "{left:?}");
    host::no_orphans(stack, false, seconds(20)).await
}

fn is_no_space<T: std::fmt::Debug>(result: Result<T, ClientError>) -> anyhow::Result<()> {
    match result {
        Err(ClientError::Refused(body, status)) => {
            ensure!(body.code == ErrorCode::NoSpace.as_str(), "{body:?}");
            ensure!(status == ErrorCode::NoSpace.http_status(), "no_space came with {status}");
            Ok(())
        }
        other => bail!("expected no_space, got {other:?}"),
    }
}

/// A file that takes up a disk until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn fill(root: &Path) -> anyhow::Result<Self> {
        let path = root.join("filler");
        let disk = statvfs(root)?;
        let free = disk.blocks_available() * disk.fragment_size();
        let bytes = free.checked_sub(LEFT_BYTES).context("the disk is full already")?;
        let file = File::create(&path)?;
        let filler = Self(path);
        fcntl::posix_fallocate(&file, 0, i64::try_from(bytes)?)?;
        Ok(filler)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}
