//! Bursts on a warm pool: what they find there, and how long until it is full again.

use std::{collections::BTreeMap, rc::Rc};

use edge_api::{PoolPatch, PoolStats};
use tokio::time::Instant;

use super::{Paced, at_once};
use crate::engine::Lane;

/// Bursts, one after the other.
#[derive(Debug)]
pub(super) struct Bursts {
    pub(super) warm: u32,
    pub(super) burst: u32,
    pub(super) rounds: u32,
}

impl Bursts {
    /// What the pool has to aim for.
    pub(super) fn patch(&self) -> PoolPatch {
        PoolPatch {
            min_warm: Some(self.warm),
            // A burst may need as many again beside those that are kept warm.
            max_warm: Some(self.warm + self.burst),
            ..PoolPatch::default()
        }
    }

    fn is_full(&self, stats: &PoolStats) -> bool {
        stats.warm >= self.warm && stats.restoring == 0 && stats.leased == 0 && stats.reaping == 0
    }

    pub(super) async fn run(
        &self,
        paced: &Paced,
        lane: &Rc<Lane>,
        begin: Instant,
    ) -> Result<BTreeMap<String, f64>, String> {
        let (mut burst_ms, mut refill_ms) = (0.0, 0.0);
        let (mut hits, mut misses) = (0, 0);
        let sum =
            |stats: &[PoolStats], of: fn(&PoolStats) -> u64| stats.iter().map(of).sum::<u64>();
        let mut before = paced.settle(lane, "full", |stats| self.is_full(stats)).await?;
        for _ in 0..self.rounds {
            let sent = Instant::now();
            at_once(lane, begin, self.burst as usize).await;
            burst_ms += sent.elapsed().as_secs_f64() * 1e3;
            let after = paced.settle(lane, "full", |stats| self.is_full(stats)).await?;
            refill_ms += sent.elapsed().as_secs_f64() * 1e3;
            // A pool that was made anew meanwhile counts from 0.
            hits += sum(&after, |s| s.hits).saturating_sub(sum(&before, |s| s.hits));
            misses += sum(&after, |s| s.misses).saturating_sub(sum(&before, |s| s.misses));
            before = after;
        }
        let rounds = f64::from(self.rounds);
        #[allow(clippy::cast_precision_loss)]
        let (hits, all) = (hits as f64, (hits + misses).max(1) as f64);
        Ok(BTreeMap::from([
            ("burst_ms".to_owned(), burst_ms / rounds),
            ("refill_ms".to_owned(), refill_ms / rounds),
            ("hit_rate".to_owned(), hits / all),
        ]))
    }
}
