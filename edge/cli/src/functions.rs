//! Functions, snapshots and templates: list, look up, remove.

use edge_api::{Function, SnapshotInfo, SnapshotKind, TemplateInfo};
use serde_json::json;

use crate::{
    args::{FunctionCommand, SnapshotCommand},
    connection::Connection,
    failure::Failure,
    output::Out,
    sandboxes,
};

/// `wrenn function ...`.
pub(crate) async fn function(
    connection: &Connection,
    command: FunctionCommand,
    out: &Out,
) -> Result<(), Failure> {
    match command {
        FunctionCommand::Ls => list(&connection.client.functions().await?, out),
        FunctionCommand::Get { name } => {
            let function = connection.client.function(&name).await?;
            out.result(&function, pretty)
        }
        FunctionCommand::Rm { name } => {
            connection.client.delete_function(&name).await?;
            out.result(&json!({ "removed": name }), |_| format!("removed {name}"))
        }
    }
}

/// `wrenn snapshot ...`.
pub(crate) async fn snapshot(
    connection: &Connection,
    command: SnapshotCommand,
    out: &Out,
) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Ls => {
            let columns = ["snapshot", "kind", "name", "memory", "on disk", "created"];
            out.listing(&connection.client.snapshots().await?, columns, |s: &SnapshotInfo| {
                let kind = match s.kind {
                    SnapshotKind::User => "user",
                    SnapshotKind::Function => "function",
                };
                [
                    s.id.to_string(),
                    kind.to_owned(),
                    s.name.clone().unwrap_or_default(),
                    format!("{} MiB", s.memory_mib),
                    format!("{} MiB", s.size_bytes.div_ceil(1 << 20)),
                    s.created_at.to_string(),
                ]
            })
        }
        SnapshotCommand::Rm { id } => {
            connection.client.delete_snapshot(id).await?;
            out.result(&json!({ "removed": id }), |_| format!("removed {id}"))
        }
    }
}

/// `wrenn template ls`.
pub(crate) async fn templates(connection: &Connection, out: &Out) -> Result<(), Failure> {
    let columns = ["template", "name", "memory", "cpus", "kernel", "envd"];
    out.listing(&connection.client.templates().await?, columns, |t: &TemplateInfo| {
        [
            t.id.to_string(),
            t.name.clone(),
            format!("{} MiB", t.memory_mib),
            t.vcpus.to_string(),
            t.kernel.clone(),
            t.envd_version.clone(),
        ]
    })
}

/// `wrenn ls`: functions, then sandboxes.
pub(crate) async fn everything(connection: &Connection, out: &Out) -> Result<(), Failure> {
    let functions = connection.client.functions().await?;
    let sandboxes = connection.client.capsules().await?;
    if out.is_json() {
        let both = json!({ "functions": functions, "sandboxes": sandboxes });
        return out.result(&both, |_| String::new());
    }
    list(&functions, out)?;
    out.line("")?;
    sandboxes::list(&sandboxes, out)
}

fn list(functions: &[Function], out: &Out) -> Result<(), Failure> {
    let columns = ["function", "version", "warm", "port", "url"];
    out.listing(functions, columns, |f| {
        [
            f.name.to_string(),
            f.version.to_string(),
            format!("{}..{}", f.pool.min_warm, f.pool.max_warm),
            f.port.to_string(),
            f.url.clone(),
        ]
    })
}

/// Indented JSON, for looking at one thing.
pub(crate) fn pretty<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
