//! `wrenn pool`: what pools aim for and how they are, to look at, to change and to follow.

mod text;

use std::time::Duration;

use edge_api::{FunctionName, PoolEvent, PoolInfo, PoolPatch};
use serde_json::json;

use crate::{args::PoolCommand, connection::Connection, failure::Failure, output::Out};

/// `wrenn pool ...`.
pub(crate) async fn run(
    connection: &Connection,
    command: PoolCommand,
    out: &Out,
) -> Result<(), Failure> {
    let client = &connection.client;
    match command {
        PoolCommand::Ls => list(&client.pools().await?, out),
        PoolCommand::Get { function } => one(&client.pool(&function).await?, out),
        PoolCommand::Set { function, policy } => {
            let patch = policy.into_patch();
            if patch == PoolPatch::default() {
                let hint = "nothing to set: give --min-warm or another of `wrenn pool set --help`";
                return Err(Failure::Usage(hint.to_owned()));
            }
            one(&client.patch_pool(&function, &patch).await?, out)
        }
        PoolCommand::Prewarm { function, count } => {
            one(&client.prewarm_pool(&function, count).await?, out)
        }
        PoolCommand::Drain { function } => {
            let drained = client.drain_pool(&function).await?;
            out.result(&json!({ "drained": drained }), |_| {
                format!("destroyed {drained} warm sandboxes of {function}")
            })
        }
        PoolCommand::Watch { function, interval_ms } => {
            watch(connection, function.as_ref(), interval_ms, out).await
        }
    }
}

fn one(pool: &PoolInfo, out: &Out) -> Result<(), Failure> {
    out.result(pool, text::whole)
}

fn list(pools: &[PoolInfo], out: &Out) -> Result<(), Failure> {
    let columns = [
        "function",
        "aim",
        "target",
        "warm",
        "restoring",
        "leased",
        "hits",
        "misses",
        "hit rate",
        "p50 ms",
    ];
    out.listing(pools, columns, |pool| {
        let stats = pool.stats.clone().unwrap_or_default();
        [
            pool.function.to_string(),
            format!("{}..{}", pool.policy.min_warm, pool.policy.max_warm),
            stats.target.to_string(),
            stats.warm.to_string(),
            stats.restoring.to_string(),
            stats.leased.to_string(),
            stats.hits.to_string(),
            stats.misses.to_string(),
            text::share(stats.hit_rate),
            format!("{:.2}", stats.lease_wait_p50_ms),
        ]
    })
}

/// Prints events until the function is gone or the stream ends.
async fn watch(
    connection: &Connection,
    function: Option<&FunctionName>,
    interval_ms: u64,
    out: &Out,
) -> Result<(), Failure> {
    let interval = Duration::from_millis(interval_ms);
    let mut events = connection.client.pool_events(function, Some(interval)).await?;
    while let Some(event) = events.next().await? {
        match &event {
            _ if out.is_json() => out.result(&event, |_| String::new())?,
            PoolEvent::Stats(pool) => out.line(&text::line(pool))?,
            PoolEvent::End(end) => out.note(&format!("{} was deleted", end.function)),
            PoolEvent::Error(trouble) => {
                out.note(&format!("{}: {}", trouble.code, trouble.message));
            }
        }
        if matches!(&event, PoolEvent::End(_)) && function.is_some() {
            return Ok(());
        }
    }
    Err(Failure::Gave("the server ended the stream".to_owned()))
}
