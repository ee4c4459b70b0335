//! `wrenn tag`, `promote` and `split`: which version of a function answers to which name.

use edge_api::{Function, Promote};
use serde_json::json;

use crate::{
    args::{PromoteArgs, SplitArgs, TagCommand},
    connection::Connection,
    failure::Failure,
    output::Out,
};

/// `wrenn tag ...`.
pub(crate) async fn tag(
    connection: &Connection,
    command: TagCommand,
    out: &Out,
) -> Result<(), Failure> {
    let client = &connection.client;
    match command {
        TagCommand::Ls { function } => {
            let tags = client.function(&function).await?.tags;
            out.listing(&tags, ["tag", "version", "weight", "url"], |tag| {
                [
                    tag.tag.to_string(),
                    tag.version.to_string(),
                    tag.weight.to_string(),
                    tag.url.clone(),
                ]
            })
        }
        TagCommand::Set { function, tag, version } => {
            let function = client.set_tag(&function, &tag, version).await?;
            out.result(&function, |function| {
                let made = function.tags.iter().find(|made| made.tag == tag);
                made.map_or_else(String::new, |made| format!("version {} at {}", version, made.url))
            })
        }
        TagCommand::Rm { function, tag } => {
            client.remove_tag(&function, &tag).await?;
            out.result(&json!({ "removed": tag }), |_| format!("removed {tag}"))
        }
    }
}

/// `wrenn promote`.
pub(crate) async fn promote(
    connection: &Connection,
    args: PromoteArgs,
    out: &Out,
) -> Result<(), Failure> {
    let wish = match args.to.parse() {
        Ok(version) if !args.tag => Promote { version: Some(version), tag: None },
        _ => {
            let tag = args.to.parse().map_err(|bad: edge_api::BadTagName| {
                Failure::Usage(format!("no version's number, and {bad}"))
            })?;
            Promote { version: None, tag: Some(tag) }
        }
    };
    let function = connection.client.promote(&args.function, &wish).await?;
    out.result(&function, |function| {
        format!("{} version {} at {}", function.name, function.version, function.url)
    })
}

/// `wrenn split`.
pub(crate) async fn split(
    connection: &Connection,
    args: SplitArgs,
    out: &Out,
) -> Result<(), Failure> {
    let function = connection.client.split(&args.function, &args.shares).await?;
    out.result(&function, shares)
}

fn shares(function: &Function) -> String {
    let of = |tag: &edge_api::FunctionTag| format!("{}={}", tag.tag, tag.weight);
    let shares: Vec<_> = function.tags.iter().filter(|tag| tag.weight > 0).map(of).collect();
    if shares.is_empty() {
        return format!("{}: all to version {}", function.name, function.version);
    }
    format!("{}: {}", function.name, shares.join(" "))
}
