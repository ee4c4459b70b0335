//! `wrenn pool`: how many warm sandboxes a function has.

use edge_api::{PoolInfo, PoolPatch};

use crate::{args::PoolCommand, connection::Connection, failure::Failure, output::Out};

/// `wrenn pool ...`.
pub(crate) async fn run(
    connection: &Connection,
    command: PoolCommand,
    out: &Out,
) -> Result<(), Failure> {
    match command {
        PoolCommand::Ls => list(&connection.client.pools().await?, out),
        PoolCommand::Get { function } => one(&connection.client.pool(&function).await?, out),
        PoolCommand::Set { function, min_warm, max_warm, idle_ttl_ms } => {
            let patch = PoolPatch { min_warm, max_warm, idle_ttl_ms };
            if patch == PoolPatch::default() {
                let hint = "nothing to set: give --min-warm, --max-warm or --idle-ttl-ms";
                return Err(Failure::Usage(hint.to_owned()));
            }
            one(&connection.client.patch_pool(&function, &patch).await?, out)
        }
    }
}

fn one(pool: &PoolInfo, out: &Out) -> Result<(), Failure> {
    out.result(pool, crate::functions::pretty)
}

fn list(pools: &[PoolInfo], out: &Out) -> Result<(), Failure> {
    let columns = ["function", "aim", "warm", "restoring", "leased", "hits", "misses", "p50 ms"];
    out.listing(pools, columns, |pool| {
        let stats = pool.stats.clone().unwrap_or_default();
        [
            pool.function.to_string(),
            format!("{}..{}", pool.policy.min_warm, pool.policy.max_warm),
            stats.warm.to_string(),
            stats.restoring.to_string(),
            stats.leased.to_string(),
            stats.hits.to_string(),
            stats.misses.to_string(),
            format!("{:.2}", stats.lease_wait_p50_ms),
        ]
    })
}
