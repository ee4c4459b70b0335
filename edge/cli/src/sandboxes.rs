//! `wrenn sandbox`: one virtual machine after the other.

use std::process::ExitCode;

use edge_api::{Capsule, CreateCapsule, CreateSnapshot, SetTimeout};
use serde_json::json;

use crate::{
    args::{CreateArgs, SandboxCommand},
    connection::Connection,
    exec,
    failure::Failure,
    functions::pretty,
    output::Out,
};

/// `wrenn sandbox ...`.
pub(crate) async fn run(
    connection: &Connection,
    command: SandboxCommand,
    out: &Out,
) -> Result<ExitCode, Failure> {
    let client = &connection.client;
    match command {
        SandboxCommand::Create(args) => create(connection, args, out).await,
        SandboxCommand::Ls => list(&client.capsules().await?, out),
        SandboxCommand::Get { id } => out.result(&client.capsule(id).await?, pretty),
        SandboxCommand::Exec(args) => return exec::run(connection, args, out).await,
        SandboxCommand::Pause { id } => {
            let step = out.step(format!("pausing {id}"));
            let capsule = client.pause(id).await?;
            step.done();
            state(&capsule, out)
        }
        SandboxCommand::Resume { id } => {
            let step = out.step(format!("resuming {id}"));
            let capsule = client.resume(id).await?;
            step.done();
            state(&capsule, out)
        }
        SandboxCommand::Rm { id } => {
            client.delete_capsule(id).await?;
            out.result(&json!({ "removed": id }), |_| format!("removed {id}"))
        }
        SandboxCommand::Url { id, port } => {
            let url = client.capsule(id).await?.url(port);
            out.result(&json!({ "url": url }), |_| url.clone())
        }
        SandboxCommand::Timeout { id, seconds } => {
            let body = SetTimeout { timeout_s: seconds };
            state(&client.set_timeout(id, &body).await?, out)
        }
        SandboxCommand::Snapshot { id, name } => {
            let step = out.step(format!("taking a snapshot of {id}"));
            let snapshot = client.snapshot(id, &CreateSnapshot { name }).await?;
            step.done();
            out.result(&snapshot, |snapshot| snapshot.id.to_string())
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Prints sandboxes as a table.
pub(crate) fn list(capsules: &[Capsule], out: &Out) -> Result<(), Failure> {
    let columns = ["sandbox", "state", "memory", "expires", "generation"];
    out.listing(capsules, columns, |capsule| {
        [
            capsule.id.to_string(),
            capsule.state.to_string(),
            format!("{} MiB", capsule.memory_mib),
            capsule.expires_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            capsule.generation.0.to_string(),
        ]
    })
}

async fn create(connection: &Connection, args: CreateArgs, out: &Out) -> Result<(), Failure> {
    let step = out.step(if args.snapshot.is_some() { "restoring" } else { "booting" });
    let body = CreateCapsule {
        template: args.template,
        snapshot: args.snapshot,
        timeout_s: args.timeout_s,
        on_timeout: args.on_timeout.into(),
        memory_mib: args.memory_mib,
        vcpus: args.vcpus,
        env: args.env.into_iter().collect(),
        metadata: args.metadata.into_iter().collect(),
        internet: args.no_internet.then_some(false),
        traffic: None,
    };
    let capsule = connection.client.create_capsule(&body).await?;
    step.done();
    out.note(&format!("ports at {}", capsule.url_pattern));
    out.result(&capsule, |capsule| capsule.id.to_string())
}

fn state(capsule: &Capsule, out: &Out) -> Result<(), Failure> {
    out.result(capsule, |capsule| format!("{} {}", capsule.id, capsule.state))
}
