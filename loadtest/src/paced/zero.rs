//! Requests to pools that have nothing: each waits for a restore.

use std::{collections::BTreeMap, rc::Rc};

use edge_api::PoolPatch;
use tokio::time::Instant;

use super::{Paced, at_once};
use crate::engine::Lane;

/// The shortest that a pool may keep what is idle, milliseconds: the API's bound.
const IDLE_TTL_MS: u64 = 1000;

/// One request to each pool at once, once all have run empty.
#[derive(Debug)]
pub(super) struct Zeroes {
    pub(super) rounds: u32,
}

impl Zeroes {
    /// What the pools have to aim for.
    pub(super) fn patch() -> PoolPatch {
        PoolPatch { min_warm: Some(0), idle_ttl_ms: Some(IDLE_TTL_MS), ..PoolPatch::default() }
    }

    pub(super) async fn run(
        &self,
        paced: &Paced,
        lane: &Rc<Lane>,
        begin: Instant,
    ) -> Result<BTreeMap<String, f64>, String> {
        let mut burst_ms = 0.0;
        for _ in 0..self.rounds {
            paced
                .settle(lane, "empty", |stats| {
                    stats.warm + stats.restoring + stats.leased + stats.reaping == 0
                })
                .await?;
            let sent = Instant::now();
            at_once(lane, begin, paced.before.len()).await;
            burst_ms += sent.elapsed().as_secs_f64() * 1e3;
        }
        let mean = burst_ms / f64::from(self.rounds);
        Ok(BTreeMap::from([("all_answered_ms".to_owned(), mean)]))
    }
}
