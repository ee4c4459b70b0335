//! What is written of a sandbox: pause after pause, from snapshots, and nothing left at the end.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, ensure};
use edge_api::{CreateCapsule, CreateSnapshot, ErrorCode};
use pool_model::{SandboxState, SnapshotId};

use crate::{
    fixture::{eventually, seconds},
    guest::Sandbox,
    host,
    pools::refused,
    teststack::TestStack,
};

const PORT: u16 = 8000;
/// More than the layers that an image may have.
const ROUNDS: u32 = 12;
/// Layers that an image may have, and the one that it is merged from.
const LAYERS_MAX: usize = 9;
/// A sandbox small enough to be written often.
const MEMORY_MIB: u32 = 128;

fn small() -> CreateCapsule {
    CreateCapsule { memory_mib: Some(MEMORY_MIB), ..CreateCapsule::default() }
}

pub(crate) async fn twelve_rounds_of_pause_and_resume_lose_nothing_and_pile_up_nothing(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let before = host::layers(&stack);
    let sandbox = Sandbox::create(&stack, &small()).await?;
    let pid = sandbox.serve_home(PORT).await?;
    let mut generation = stack.api().capsule(sandbox.id).await?.generation;
    for round in 1..=ROUNDS {
        // No sync: a pause must take what the guest's page cache holds with it. One file is written
        // anew each time, in memory as well.
        let write = format!(
            "head -c 65536 /dev/urandom > file-{round}; head -c 1M /dev/urandom > changing; \
             head -c 1M /dev/urandom > /dev/shm/part; head -c 64K /dev/urandom > /dev/shm/{round}; \
             sha256sum file-* changing /dev/shm/* > sums"
        );
        sandbox.run(&write).await.with_context(|| format!("round {round}"))?;
        stack.api().pause(sandbox.id).await.with_context(|| format!("pause {round}"))?;
        few_layers(&stack, &before, round).await?;
        // Every other round by request, every other by name.
        if round % 2 == 0 {
            stack.api().resume(sandbox.id).await.with_context(|| format!("resume {round}"))?;
        }
        let sums = sandbox.fetch(PORT, "/sums").await.with_context(|| format!("round {round}"))?;
        let lines = sums.iter().filter(|byte| **byte == b'\n').count();
        ensure!(lines == 2 * round as usize + 2, "{lines} sums in round {round}");
        let check = format!("sha256sum --quiet -c sums && ls file-* | wc -l && kill -0 {pid}");
        let count = sandbox.run(&check).await.with_context(|| format!("round {round}"))?;
        ensure!(count == round.to_string(), "{count} files in round {round}");
        let now = stack.api().capsule(sandbox.id).await?.generation;
        ensure!(now > generation, "generation {} after {}", now.0, generation.0);
        generation = now;
    }
    sandbox.delete().await?;
    no_layers(&stack, &before).await?;
    host::no_orphans(&stack, false, seconds(20)).await
}

/// The image of a paused sandbox stands on few layers, once they were merged.
async fn few_layers(
    stack: &TestStack,
    before: &BTreeSet<String>,
    round: u32,
) -> anyhow::Result<()> {
    eventually("its layers are few", seconds(10), || async {
        let layers = host::layers(stack).difference(before).count();
        ensure!(layers > 0, "it was paused and has no layer in round {round}");
        ensure!(layers <= LAYERS_MAX, "{layers} layers in round {round}");
        Ok(())
    })
    .await
}

/// Layers that nothing names any more are collected.
async fn no_layers(stack: &TestStack, before: &BTreeSet<String>) -> anyhow::Result<()> {
    eventually("its layers are collected", seconds(10), || async {
        let layers = host::layers(stack);
        ensure!(layers.is_subset(before), "{layers:?} are left, {before:?} were there");
        Ok(())
    })
    .await
}

pub(crate) async fn snapshots_of_running_and_paused_sandboxes_are_restored_twice(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let before = host::layers(&stack);
    let sandbox = Sandbox::create(&stack, &small()).await?;
    for paused in [false, true] {
        let word = if paused { "paused" } else { "running" };
        sandbox.run(&format!("echo {word} | tee note > /dev/shm/note")).await?;
        if paused {
            stack.api().pause(sandbox.id).await?;
        }
        let name = Some(word.to_owned());
        let snapshot = stack.api().snapshot(sandbox.id, &CreateSnapshot { name }).await;
        let snapshot = snapshot.with_context(|| format!("a snapshot of a {word} one"))?.id;
        let state = stack.api().capsule(sandbox.id).await?.state;
        let expected = if paused { SandboxState::Paused } else { SandboxState::Running };
        ensure!(state == expected, "a snapshot of a {word} one left it {state}");
        restored_twice(&stack, snapshot, word).await.with_context(|| word.to_owned())?;
        if paused {
            stack.api().resume(sandbox.id).await?;
        }
        // It is what it was, whatever its copies wrote.
        let note = sandbox.run("cat note /dev/shm/note").await?;
        ensure!(note == format!("{word}\n{word}"), "{note:?}");
        stack.api().delete_snapshot(snapshot).await?;
        let asked = CreateCapsule { snapshot: Some(snapshot), ..Default::default() };
        refused(stack.api().create_capsule(&asked).await, ErrorCode::SnapshotNotFound)?;
    }
    sandbox.delete().await?;
    no_layers(&stack, &before).await?;
    host::no_orphans(&stack, false, seconds(20)).await
}

/// Two sandboxes of one snapshot at a time: both have what it had, and neither sees the other.
async fn restored_twice(stack: &TestStack, from: SnapshotId, word: &str) -> anyhow::Result<()> {
    let asked = CreateCapsule { snapshot: Some(from), ..Default::default() };
    let (one, two) = (Sandbox::create(stack, &asked).await?, Sandbox::create(stack, &asked).await?);
    for copy in [&one, &two] {
        let line = format!("cat note /dev/shm/note; echo {} | tee note > /dev/shm/note", copy.id);
        let note = copy.run(&line).await?;
        ensure!(note == format!("{word}\n{word}"), "{}: {note:?}", copy.id);
    }
    for copy in [&one, &two] {
        let note = copy.run("cat note /dev/shm/note").await?;
        ensure!(note == format!("{0}\n{0}", copy.id), "{}: {note:?}", copy.id);
    }
    one.delete().await?;
    two.delete().await
}
