//! `wrenn domain`, `sign` and `invocation`: how a function is reached, and by whom.

use std::{fs, path::Path};

use edge_api::{Domain, InvocationPolicy, Sign};
use serde_json::json;

use crate::{
    args::{DomainCommand, InvocationCommand, SignArgs},
    connection::Connection,
    failure::Failure,
    functions::pretty,
    output::Out,
};

/// `wrenn domain ...`.
pub(crate) async fn domain(
    connection: &Connection,
    command: DomainCommand,
    out: &Out,
) -> Result<(), Failure> {
    let client = &connection.client;
    match command {
        DomainCommand::Add { function, domain } => {
            let claim = client.add_domain(&function, &domain).await?;
            out.result(&claim, |claim| {
                format!(
                    "set this record, then run `wrenn domain verify {function} {}`:\n\
                     {} TXT \"{}\"",
                    claim.domain, claim.record.name, claim.record.value
                )
            })
        }
        DomainCommand::Verify { function, domain } => {
            let step = out.step(format!("looking for the TXT record of {domain}"));
            let verified = client.verify_domain(&function, &domain).await?;
            step.done();
            out.result(&verified, |domain| {
                format!("{} leads to {}", domain.domain, domain.function)
            })
        }
        DomainCommand::Ls { function } => {
            let columns = ["domain", "verified", "record", "text"];
            out.listing(&client.domains(&function).await?, columns, |domain: &Domain| {
                [
                    domain.domain.clone(),
                    domain.verified_at.map_or_else(|| "no".to_owned(), |at| at.to_string()),
                    domain.record.name.clone(),
                    domain.record.value.clone(),
                ]
            })
        }
        DomainCommand::Rm { function, domain } => {
            client.remove_domain(&function, &domain).await?;
            out.result(&json!({ "removed": domain }), |_| format!("removed {domain}"))
        }
    }
}

/// `wrenn sign`.
pub(crate) async fn sign(
    connection: &Connection,
    args: SignArgs,
    out: &Out,
) -> Result<(), Failure> {
    let method = args.method.map(|method| method.to_string());
    let wish = Sign { method, path: args.path, expires_s: args.expires_s };
    let signed = connection.client.sign(&args.function, &wish).await?;
    out.note(&format!("good until {}", signed.expires_at));
    out.result(&signed, |signed| signed.url.clone())
}

/// `wrenn invocation ...`.
pub(crate) async fn invocation(
    connection: &Connection,
    command: InvocationCommand,
    out: &Out,
) -> Result<(), Failure> {
    match command {
        InvocationCommand::Get { function } => {
            out.result(&connection.client.invocation(&function).await?, pretty)
        }
        InvocationCommand::Set { function, file } => {
            let policy = read(&file)?;
            let set = connection.client.set_invocation(&function, &policy).await?;
            out.result(&set, pretty)
        }
    }
}

/// A policy from a file, by the file's ending.
fn read(path: &Path) -> Result<InvocationPolicy, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::file("read", path))?;
    let read = if path.extension().is_some_and(|ending| ending == "toml") {
        toml::from_str(&text).map_err(|wrong| wrong.to_string())
    } else {
        serde_json::from_str(&text).map_err(|wrong| wrong.to_string())
    };
    read.map_err(|wrong| Failure::Usage(format!("{}: {}", path.display(), wrong.trim_end())))
}
