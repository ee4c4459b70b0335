//! Works that pace themselves, as they wait for a pool: bursts on a warm one, requests to an empty
//! one.

mod pool;
mod zero;

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use edge_api::{Client, FunctionName, PoolInfo, PoolPatch, PoolPolicy, PoolStats};
use loadtest_model::Work;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{Stack, engine::Lane, error::RunError, work::Ready};

/// Longest for a pool to be as it has to be.
const SETTLE_MAX: Duration = Duration::from_secs(300);
/// How often it is looked at meanwhile.
const POLL: Duration = Duration::from_millis(50);

/// A work that paces itself, and the pools that it changes.
#[derive(Debug)]
pub(crate) struct Paced {
    api: Client,
    /// What the pools aimed for before.
    before: Vec<(FunctionName, PoolPolicy)>,
    what: What,
}

#[derive(Debug)]
enum What {
    Pool(pool::Bursts),
    Zero(zero::Zeroes),
}

impl Paced {
    /// Makes a pool ready to be drained.
    pub(crate) async fn pool(work: &Work, stack: &Stack) -> Result<Self, String> {
        let Work::Pool { function, warm, burst, rounds } = work else {
            return Err("no pool to drain".to_owned());
        };
        let bursts = pool::Bursts { warm: *warm, burst: *burst, rounds: *rounds };
        let patch = bursts.patch();
        Self::begin(stack, std::slice::from_ref(function), patch, What::Pool(bursts)).await
    }

    /// Makes pools ready to run empty.
    pub(crate) async fn zero(work: &Work, stack: &Stack) -> Result<Self, String> {
        let Work::ScaleFromZero { functions, rounds } = work else {
            return Err("no pools to let run empty".to_owned());
        };
        let what = What::Zero(zero::Zeroes { rounds: *rounds });
        Self::begin(stack, functions, zero::Zeroes::patch(), what).await
    }

    async fn begin(
        stack: &Stack,
        functions: &[String],
        patch: PoolPatch,
        what: What,
    ) -> Result<Self, String> {
        let mut paced = Self { api: stack.api().clone(), before: Vec::new(), what };
        for function in functions {
            if let Err(error) = paced.change(function, &patch).await {
                let left = paced.clear().await.err();
                return Err(left.map_or_else(|| error.clone(), |left| format!("{error}; {left}")));
            }
        }
        Ok(paced)
    }

    async fn change(&mut self, function: &str, patch: &PoolPatch) -> Result<(), String> {
        let name: FunctionName =
            function.parse().map_err(|error| format!("function `{function}`: {error}"))?;
        let failed = |error| format!("pool of `{function}`: {}", crate::chain(&error));
        let before = self.api.pool(&name).await.map_err(failed)?.policy;
        self.before.push((name.clone(), before));
        self.api.patch_pool(&name, patch).await.map_err(failed)?;
        Ok(())
    }

    /// Gives the pools back what they aimed for.
    pub(crate) async fn clear(&self) -> Result<(), String> {
        let mut left = Vec::new();
        for (function, policy) in &self.before {
            let patch = PoolPatch::whole(policy.clone());
            if let Err(error) = self.api.patch_pool(function, &patch).await {
                left.push(format!(
                    "pool of `{function}` was not set back: {}",
                    crate::chain(&error)
                ));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }
}

/// Does a work that paces itself; gives what only it has to say.
///
/// # Errors
///
/// [`RunError`] if a pool did not become what it had to be.
pub(crate) async fn run(
    ready: &Ready,
    lane: &Rc<Lane>,
    begin: Instant,
) -> Result<BTreeMap<String, f64>, RunError> {
    let Some(paced) = &ready.paced else {
        return Err(RunError::Target("a scenario without a load".to_owned()));
    };
    let done = match &paced.what {
        What::Pool(bursts) => bursts.run(paced, lane, begin).await,
        What::Zero(zeroes) => zeroes.run(paced, lane, begin).await,
    };
    done.map_err(RunError::Target)
}

/// Sends so many at once and waits for all of their answers.
async fn at_once(lane: &Rc<Lane>, begin: Instant, count: usize) {
    let due = begin.elapsed();
    let mut shots = JoinSet::new();
    for _ in 0..count {
        let lane = Rc::clone(lane);
        shots.spawn_local(async move { lane.shoot(begin, Some(due), false).await });
    }
    while shots.join_next().await.is_some() {}
}

impl Paced {
    /// Waits until all pools are as `wanted`; gives them then.
    async fn settle(
        &self,
        lane: &Lane,
        what: &str,
        wanted: impl Fn(&PoolStats) -> bool,
    ) -> Result<Vec<PoolStats>, String> {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let mut all = Vec::new();
            let mut odd = None;
            for (function, _) in &self.before {
                match self.api.pool(function).await {
                    Ok(PoolInfo { stats: Some(stats), .. }) if wanted(&stats) => all.push(stats),
                    Ok(PoolInfo { stats, .. }) => odd = Some(format!("`{function}`: {stats:?}")),
                    Err(error) => odd = Some(format!("`{function}`: {}", crate::chain(&error))),
                }
            }
            let Some(odd) = odd else { return Ok(all) };
            if lane.cancel.is_cancelled() {
                return Err("interrupted".to_owned());
            }
            if Instant::now() >= deadline {
                return Err(format!("pools are not {what} after {SETTLE_MAX:?}: {odd}"));
            }
            sleep(POLL).await;
        }
    }
}
