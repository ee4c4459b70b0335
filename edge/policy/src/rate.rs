//! Does this request come too soon? Token buckets by function, client, team and sandbox.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use pool_model::{FunctionId, Rate, SandboxId, TeamId};

use crate::{
    ip::ClientNet,
    shards::{SHARDS, Shards},
};

/// What one token is in the bucket's unit, so that a nanosecond at 1/s adds one.
const TOKEN: u64 = 1_000_000_000;
/// Buckets kept at most by [`Rates::default`].
const DEFAULT_KEYS: usize = 1 << 17;
/// How many buckets are looked at to find one to evict.
const EVICT_SAMPLE: usize = 8;

/// Whose bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// All requests to a function.
    Function(FunctionId),
    /// One client's requests to a function.
    Client(FunctionId, ClientNet),
    /// All requests to a team's functions and sandboxes.
    Team(TeamId),
    /// All requests to a sandbox.
    Sandbox(SandboxId),
}

/// A bucket's state: the numbers of the `RateLimit` header fields
/// (draft-ietf-httpapi-ratelimit-headers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests at once (`q`).
    pub limit: u32,
    /// Time in which an empty bucket fills (`w`).
    pub window: Duration,
    /// Requests that would pass now (`r`).
    pub remaining: u32,
    /// Time until the bucket is full (`t`).
    pub reset: Duration,
}

/// The request came too soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} requests at once, try again in {retry_after:?}", quota.limit)]
pub struct Limited {
    /// When one would pass.
    pub retry_after: Duration,
    /// The bucket.
    pub quota: Quota,
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    level: u64,
    at: Instant,
}

/// The buckets of a process.
#[derive(Debug)]
pub struct Rates {
    per_shard: usize,
    shards: Shards<RateKey, Bucket>,
}

impl Default for Rates {
    fn default() -> Self {
        Self::new(DEFAULT_KEYS)
    }
}

impl Rates {
    /// Keeps at most about `keys` buckets. Past that, the fullest of a few is forgotten: its owner
    /// gains least by that.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        Self { per_shard: keys.div_ceil(SHARDS).max(1), shards: Shards::new() }
    }

    /// Takes a token; `Ok(None)` if there is no limit. Another `rate` than before holds at once:
    /// what is in the bucket stays, up to the new burst.
    ///
    /// # Errors
    ///
    /// [`Limited`] if the bucket is empty.
    pub fn check(
        &self,
        key: RateKey,
        rate: Option<Rate>,
        now: Instant,
    ) -> Result<Option<Quota>, Limited> {
        let Some(rate) = rate else { return Ok(None) };
        let mut shard = self.shards.lock(&key);
        if let Some(bucket) = shard.get_mut(&key) {
            return bucket.take(rate, now).map(Some);
        }
        if shard.len() >= self.per_shard {
            evict(&mut shard, now);
        }
        let bucket = shard.entry(key).or_insert(Bucket { rate, level: full(rate), at: now });
        bucket.take(rate, now).map(Some)
    }

    /// Forgets buckets that are full: they say nothing. For a schedule of a few seconds; locks one
    /// shard at a time.
    pub fn forget_idle(&self, now: Instant) {
        for mut shard in self.shards.each() {
            shard.retain(|_, bucket| !bucket.is_full(now));
            if shard.capacity() > 4 * shard.len().max(64) {
                shard.shrink_to_fit();
            }
        }
    }

    /// How many buckets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Forgets the fullest of a few: its owner gains least by a new one.
fn evict(shard: &mut HashMap<RateKey, Bucket>, now: Instant) {
    let fullest = shard
        .iter()
        .take(EVICT_SAMPLE)
        .max_by_key(|(_, bucket)| bucket.level_at(now) / u64::from(burst(bucket.rate)))
        .map(|(key, _)| *key);
    if let Some(key) = fullest {
        shard.remove(&key);
    }
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> Result<Quota, Limited> {
        // What has flowed in until now flowed at the old rate.
        self.level = self.level_at(now).min(full(rate));
        self.at = self.at.max(now);
        self.rate = rate;
        if self.level >= TOKEN {
            self.level -= TOKEN;
            return Ok(self.quota());
        }
        let retry_after = time_for(TOKEN - self.level, rate);
        Err(Limited { retry_after, quota: self.quota() })
    }

    fn level_at(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let inflow = elapsed.saturating_mul(u64::from(self.rate.per_second));
        self.level.saturating_add(inflow).min(full(self.rate))
    }

    fn is_full(&self, now: Instant) -> bool {
        self.level_at(now) >= full(self.rate)
    }

    fn quota(&self) -> Quota {
        let whole = full(self.rate);
        Quota {
            limit: burst(self.rate),
            window: time_for(whole, self.rate),
            remaining: u32::try_from(self.level / TOKEN).unwrap_or(u32::MAX),
            reset: time_for(whole - self.level, self.rate),
        }
    }
}

fn burst(rate: Rate) -> u32 {
    if rate.burst == 0 { rate.per_second.max(1) } else { rate.burst }
}

fn full(rate: Rate) -> u64 {
    u64::from(burst(rate)) * TOKEN
}

fn time_for(level: u64, rate: Rate) -> Duration {
    Duration::from_nanos(level.div_ceil(u64::from(rate.per_second.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RateKey = RateKey::Function(FunctionId::from_u128(7));

    fn rate(per_second: u32, burst: u32) -> Option<Rate> {
        Some(Rate { per_second, burst })
    }

    #[test]
    fn a_burst_passes_and_the_next_waits_for_its_token() {
        let (rates, now) = (Rates::default(), Instant::now());
        for left in (0..5).rev() {
            let quota = rates.check(KEY, rate(10, 5), now).unwrap().unwrap();
            assert_eq!((quota.limit, quota.remaining), (5, left));
        }
        let limited = rates.check(KEY, rate(10, 5), now).unwrap_err();
        assert_eq!(limited.retry_after, Duration::from_millis(100));
        assert_eq!(limited.quota.reset, Duration::from_millis(500));
        let early = now + Duration::from_millis(99);
        assert!(rates.check(KEY, rate(10, 5), early).is_err());
        assert!(rates.check(KEY, rate(10, 5), now + limited.retry_after).is_ok());
    }

    #[test]
    fn no_rate_keeps_nothing_and_keys_are_apart() {
        let (rates, now) = (Rates::default(), Instant::now());
        assert_eq!(rates.check(KEY, None, now), Ok(None));
        assert!(rates.is_empty());
        assert!(rates.check(KEY, rate(1, 0), now).is_ok());
        assert!(rates.check(KEY, rate(1, 0), now).is_err());
        let team = RateKey::Team(TeamId::from_u128(7));
        assert!(rates.check(team, rate(1, 0), now).is_ok());
    }

    #[test]
    fn another_rate_holds_at_once() {
        let (rates, now) = (Rates::default(), Instant::now());
        assert!(rates.check(KEY, rate(1, 100), now).is_ok());
        let quota = rates.check(KEY, rate(1, 2), now).unwrap().unwrap();
        assert_eq!(quota.remaining, 1, "99 were left, the new bucket holds 2");
        assert!(rates.check(KEY, rate(1, 2), now).is_ok());
        let slow = rates.check(KEY, rate(1, 2), now).unwrap_err();
        let fast = rates.check(KEY, rate(1000, 2), now).unwrap_err();
        assert_eq!(slow.retry_after, Duration::from_secs(1));
        assert_eq!(fast.retry_after, Duration::from_millis(1));
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let (rates, now) = (Rates::default(), Instant::now() + Duration::from_secs(60));
        assert!(rates.check(KEY, rate(1, 1), now).is_ok());
        assert!(rates.check(KEY, rate(1, 1), now - Duration::from_secs(30)).is_err());
        assert!(rates.check(KEY, rate(1, 1), now + Duration::from_millis(999)).is_err());
    }

    #[test]
    fn full_buckets_are_forgotten_and_others_stay() {
        let (rates, now) = (Rates::default(), Instant::now());
        assert!(rates.check(KEY, rate(1, 10), now).is_ok());
        rates.forget_idle(now + Duration::from_millis(500));
        assert_eq!(rates.len(), 1);
        rates.forget_idle(now + Duration::from_secs(1));
        assert!(rates.is_empty());
    }

    #[test]
    fn a_flood_of_clients_stays_within_the_bound() {
        let (rates, now) = (Rates::new(64), Instant::now());
        for client in 0..10_000 {
            let key = RateKey::Client(FunctionId::from_u128(1), ClientNet::V6(client));
            assert!(rates.check(key, rate(1, 10), now).is_ok());
        }
        assert!(rates.len() <= 64, "{}", rates.len());
    }

    #[test]
    fn threads_together_get_one_burst() {
        let (rates, now) = (Rates::default(), Instant::now());
        let take = || (0..1000).filter(|_| rates.check(KEY, rate(1, 500), now).is_ok()).count();
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 500);
    }
}
