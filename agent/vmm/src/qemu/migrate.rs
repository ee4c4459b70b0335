//! Device state in and out: QEMU's migration, to and from a file that we hand over.
//!
//! With `x-ignore-shared` guest memory is left out, so a state is some tens of kilobytes.

use std::{fs::File, io, os::unix::fs::FileExt as _, time::Duration};

use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    QemuConfig,
    qmp::{Event, Qmp, QmpError},
};

/// Name under which QEMU keeps the descriptor between `getfd` and its use.
const FD_NAME: &str = "state";
/// How often QEMU is asked in case an event was missed.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How often it is asked whether it is ready again; it takes less than a millisecond.
const ASK_AGAIN: Duration = Duration::from_millis(1);

/// What a file system gives room by.
const PAGE: usize = 4096;

/// How saving ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    Complete,
    NoSpace,
    Failed { reason: String },
}

/// Writes the state of a stopped machine to `file`, from its position on.
pub(crate) async fn save(qmp: &Qmp, file: File, config: &QemuConfig) -> Result<Saved, QmpError> {
    let max = config.command_max;
    let status = qmp.execute("query-status", json!({}), max).await?;
    if status["running"] != Value::Bool(false) {
        return Ok(Saved::Failed { reason: "it is running".to_owned() });
    }
    let mut events = qmp.events();
    leave_memory_out(qmp, max).await?;
    let ours = file.try_clone();
    qmp.getfd(FD_NAME, file.into(), max).await?;
    qmp.execute("migrate", json!({ "uri": format!("fd:{FD_NAME}") }), max).await?;
    let ended = wait(qmp, &mut events, config).await;
    if matches!(ended, Err(QmpError::Deadline { .. })) {
        // Best effort: the machine stays stopped and good, the caller hears of the deadline.
        let _ = qmp.execute("migrate_cancel", json!({}), max).await;
    }
    let failed = ended?;
    settle(qmp, config).await?;
    Ok(match failed {
        None => Saved::Complete,
        Some(reason) if reason.contains("No space left on device") => Saved::NoSpace,
        // A write that got some of its bytes out before the disk was full fails without a reason.
        Some(_) if ours.is_ok_and(|file| is_full(&file)) => Saved::NoSpace,
        Some(reason) => Saved::Failed { reason },
    })
}

/// Whether the file, which nobody needs any more, cannot get another page.
fn is_full(file: &File) -> bool {
    let end = file.metadata().map_or(0, |metadata| metadata.len());
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    let more = file.write_all_at(&[0; PAGE], end.next_multiple_of(PAGE as u64));
    more.is_err_and(|error| full.contains(&error.kind()))
}

/// Makes a process that waits for a state ready for [`give`].
pub(crate) async fn expect(qmp: &Qmp, config: &QemuConfig) -> Result<(), QmpError> {
    leave_memory_out(qmp, config.command_max).await
}

/// Hands over the state that [`load`] loads. Guest memory is not touched yet.
pub(crate) async fn give(qmp: &Qmp, file: File, config: &QemuConfig) -> Result<(), QmpError> {
    qmp.getfd(FD_NAME, file.into(), config.command_max).await
}

/// Loads the state that was given. `Some` is why it could not be loaded; mostly QEMU ends
/// instead, with the reason in its log.
pub(crate) async fn load(qmp: &Qmp, config: &QemuConfig) -> Result<Option<String>, QmpError> {
    let max = config.command_max;
    let mut events = qmp.events();
    qmp.execute("migrate-incoming", json!({ "uri": format!("fd:{FD_NAME}") }), max).await?;
    wait(qmp, &mut events, config).await
}

async fn leave_memory_out(qmp: &Qmp, max: Duration) -> Result<(), QmpError> {
    let capabilities = json!({ "capabilities": [
        { "capability": "x-ignore-shared", "state": true },
        { "capability": "events", "state": true },
    ] });
    qmp.execute("migrate-set-capabilities", capabilities, max).await.map(drop)
}

/// Waits for the migration to end; `Some` is why it failed.
async fn wait(
    qmp: &Qmp,
    events: &mut broadcast::Receiver<Event>,
    config: &QemuConfig,
) -> Result<Option<String>, QmpError> {
    let late = QmpError::Deadline { command: "migrate", waited: config.state_max };
    let ended = async {
        loop {
            let event = tokio::time::timeout(ASK_EVERY, events.recv()).await;
            match event {
                Ok(Ok(event)) if is_completed(&event) => return Ok(None),
                Ok(Err(RecvError::Closed)) => return Err(QmpError::Closed),
                Ok(Ok(event)) if !is_failed(&event) => continue,
                // Failed, perhaps missed, or nothing heard for a while.
                _ => {}
            }
            let state = qmp.execute("query-migrate", json!({}), config.command_max).await?;
            match state["status"].as_str() {
                Some("completed") => return Ok(None),
                Some(bad @ ("failed" | "cancelled")) => {
                    let reason = state["error-desc"].as_str().unwrap_or(bad);
                    return Ok(Some(reason.chars().take(500).collect()));
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(config.state_max, ended).await.unwrap_or(Err(late))
}

/// Waits until the machine has left the state in which it can neither run nor be saved again:
/// the end of a migration is announced a little before that.
async fn settle(qmp: &Qmp, config: &QemuConfig) -> Result<(), QmpError> {
    let late = QmpError::Deadline { command: "query-status", waited: config.state_max };
    let settled = async {
        while !is_settled(qmp, config.command_max).await? {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Ok(())
    };
    tokio::time::timeout(config.state_max, settled).await.unwrap_or(Err(late))
}

/// A migration's yank instance goes with the last of it. One that is begun before is refused ("duplicate
/// yank instance"), and QEMU then takes it for one under way for good: the machine could never be saved.
async fn is_settled(qmp: &Qmp, max: Duration) -> Result<bool, QmpError> {
    let state = qmp.execute("query-status", json!({}), max).await?;
    if state["status"] == "finish-migrate" {
        return Ok(false);
    }
    let instances = qmp.execute("query-yank", json!({}), max).await?;
    let mut instances = instances.as_array().into_iter().flatten();
    Ok(instances.all(|instance| instance["type"] != "migration"))
}

fn is_completed(event: &Event) -> bool {
    event.name == "MIGRATION" && event.data["status"] == "completed"
}

fn is_failed(event: &Event) -> bool {
    event.name == "MIGRATION" && event.data["status"] == "failed"
}
