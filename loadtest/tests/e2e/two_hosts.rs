//! Two hosts and one object store: what one made, the other one serves.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, ensure};
use edge_api::{CreateCapsule, CreateSnapshot, ErrorCode};
use pool_model::{SandboxId, SnapshotId};

use crate::{
    fixture::{eventually, seconds},
    guest::Sandbox,
    host,
    pools::{SETTLE_MAX, invoke, refused, warm_is},
    s3::ObjectStore,
    teststack::{Options, TestStack},
};

/// Invocations of each host.
const EACH: usize = 5;

/// Uses two stacks of its own.
pub(crate) async fn function_of_one_host_is_served_by_another(
    _: Arc<TestStack>,
) -> anyhow::Result<()> {
    let store = ObjectStore::start().await?;
    let options = Options {
        sample: true,
        config: store.config(),
        env: ObjectStore::env(),
        ..Options::default()
    };
    let one = TestStack::start(&options).await.context("the first host")?;
    let mut other = None;
    let tested = two(&one, &options, store, &mut other).await;
    if tested.is_err() {
        one.show_logs();
        other.iter().for_each(TestStack::show_logs);
    }
    // Their ends wait for `wrenn dev down`.
    tokio::task::spawn_blocking(move || drop((one, other))).await?;
    tested
}

async fn two(
    one: &TestStack,
    options: &Options,
    store: ObjectStore,
    other: &mut Option<TestStack>,
) -> anyhow::Result<()> {
    let hello = one.api().function(&"hello".parse()?).await?.snapshot;
    let sandbox = Sandbox::create(one, &CreateCapsule::default()).await?;
    sandbox.run("echo far | tee note > /dev/shm/note").await?;
    let brought = one.api().snapshot(sandbox.id, &CreateSnapshot::default()).await?.id;
    let late = one.api().snapshot(sandbox.id, &CreateSnapshot::default()).await?.id;
    for snapshot in [hello, brought, late] {
        published(one, snapshot).await?;
    }
    let options = Options {
        sample: false,
        records_of: Some(one.layout().root().to_owned()),
        ..options.clone()
    };
    let other = other.insert(TestStack::start(&options).await.context("the second host")?);
    let here = |snapshot| other.layout().snapshot_dir(snapshot).exists();
    ensure!(!here(brought) && !here(late), "the second host has what it was not asked for");

    warm_is(other, "hello", 1).await.context("on the second host")?;
    ensure!(here(hello), "it serves what it has not");
    let mut served = serves(one).await?;
    served.append(&mut serves(other).await?);
    ensure!(served.len() == 2 * EACH, "a machine served twice: {served:?}");
    restored(other, brought).await.context("a sandbox of the first host's snapshot")?;
    let unknown = CreateCapsule { snapshot: Some(SnapshotId::from_u128(7)), ..Default::default() };
    refused(other.api().create_capsule(&unknown).await, ErrorCode::SnapshotNotFound)?;

    drop(store);
    // What is here serves on; what is not cannot be had, which is no lie about its existence.
    serves(other).await.context("without the object store")?;
    let asked = CreateCapsule { snapshot: Some(late), ..Default::default() };
    let body = refused(other.api().create_capsule(&asked).await, ErrorCode::SnapshotUnavailable)?;
    ensure!(!body.message.is_empty() && !here(late), "{body:?}");
    serves(other).await.context("after a refusal")?;
    restored(one, late).await.context("on the host that made it")?;
    sandbox.delete().await?;
    host::no_orphans(one, false, SETTLE_MAX).await.context("on the first host")?;
    host::no_orphans(other, false, SETTLE_MAX).await.context("on the second host")
}

/// Waits until a snapshot is in the object store.
async fn published(stack: &TestStack, snapshot: SnapshotId) -> anyhow::Result<()> {
    eventually("it is published", seconds(60), || async {
        let mark = stack.layout().snapshot_dir(snapshot).join("published");
        ensure!(mark.exists(), "{snapshot} has no mark");
        Ok(())
    })
    .await
}

/// Answers some invocations, each rightly and by a machine of its own.
async fn serves(stack: &TestStack) -> anyhow::Result<BTreeSet<SandboxId>> {
    let mut sandboxes = BTreeSet::new();
    for _ in 0..EACH {
        let (invocation, _) = invoke(stack).await?;
        ensure!(invocation.said.counter == 1, "{} had served before", invocation.sandbox);
        ensure!(sandboxes.insert(invocation.sandbox), "{} served twice", invocation.sandbox);
    }
    Ok(sandboxes)
}

/// A sandbox of a snapshot has the file and the memory of the one it was made of.
async fn restored(stack: &TestStack, from: SnapshotId) -> anyhow::Result<()> {
    let asked = CreateCapsule { snapshot: Some(from), ..Default::default() };
    let copy = Sandbox::create(stack, &asked).await?;
    let note = copy.run("cat note /dev/shm/note").await?;
    ensure!(note == "far\nfar", "{note:?}");
    copy.delete().await
}
