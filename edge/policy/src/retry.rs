//! May one more request be sent again? A budget keeps retries from making an outage worse.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use pool_model::FunctionId;

use crate::{
    keys::OurKeys,
    shards::{SHARDS, Shards, lock},
};

/// What one retry costs, in thousandths: a request deposits its share of that.
const RETRY: u64 = 1000;
/// How much history counts: deposits of more than this are not kept.
const WINDOW_S: u64 = 10;
/// Most deposits kept above the minimum's, in retries.
const DEPOSITS_MAX: u64 = 1000;
/// Functions that have a budget at a time.
const BUDGETS_MAX: usize = 1 << 14;
/// A budget that was not used for so long is as good as a new one.
const IDLE: Duration = Duration::from_secs(60);

/// One budget: a share of the requests plus a minimum per second.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u64,
    per_second: u64,
    state: Mutex<Balance>,
}

#[derive(Debug, Clone, Copy)]
struct Balance {
    thousandths: u64,
    at: Instant,
}

impl RetryBudget {
    /// Allows retries for `percent` of the requests and `per_second` besides.
    #[must_use]
    pub fn new(percent: u32, per_second: u32, now: Instant) -> Self {
        let (percent, per_second) = (u64::from(percent), u64::from(per_second));
        let thousandths = per_second * WINDOW_S * RETRY;
        Self { percent, per_second, state: Mutex::new(Balance { thousandths, at: now }) }
    }

    /// A first attempt was made.
    pub fn deposit(&self, now: Instant) {
        let mut balance = lock(&self.state);
        self.refill(&mut balance, now);
        let sum = balance.thousandths + self.percent * RETRY / 100;
        balance.thousandths = sum.min(self.most());
    }

    /// Takes a retry out; `false` if there is none.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> bool {
        let mut balance = lock(&self.state);
        self.refill(&mut balance, now);
        let Some(rest) = balance.thousandths.checked_sub(RETRY) else { return false };
        balance.thousandths = rest;
        true
    }

    fn most(&self) -> u64 {
        (self.per_second * WINDOW_S + DEPOSITS_MAX) * RETRY
    }

    fn refill(&self, balance: &mut Balance, now: Instant) {
        if self.per_second == 0 {
            balance.at = balance.at.max(now);
            return;
        }
        let millis = now.saturating_duration_since(balance.at).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        if millis == 0 {
            return;
        }
        // The minimum accrues up to its window; what requests deposited above that stays.
        let floor = self.per_second * WINDOW_S * RETRY;
        if balance.thousandths < floor {
            let inflow = millis.saturating_mul(self.per_second);
            balance.thousandths = balance.thousandths.saturating_add(inflow).min(floor);
        }
        balance.at = now;
    }

    fn used_at(&self) -> Instant {
        lock(&self.state).at
    }
}

/// A budget per function.
#[derive(Debug)]
pub struct RetryBudgets {
    percent: u32,
    per_second: u32,
    budgets: Shards<FunctionId, RetryBudget, OurKeys>,
}

impl Default for RetryBudgets {
    /// A fifth of the requests and 10 a second besides.
    fn default() -> Self {
        Self::new(20, 10)
    }
}

impl RetryBudgets {
    /// Budgets of `percent` of the requests plus `per_second`.
    #[must_use]
    pub fn new(percent: u32, per_second: u32) -> Self {
        Self { percent, per_second, budgets: Shards::new() }
    }

    /// A first attempt for `function` was made.
    pub fn deposit(&self, function: FunctionId, now: Instant) {
        self.with(function, now, |budget| budget.deposit(now));
    }

    /// Takes a retry out of the function's budget; `false` if there is none.
    #[must_use]
    pub fn withdraw(&self, function: FunctionId, now: Instant) -> bool {
        self.with(function, now, |budget| budget.withdraw(now))
    }

    fn with<R>(&self, key: FunctionId, now: Instant, act: impl FnOnce(&RetryBudget) -> R) -> R {
        let mut shard = self.budgets.lock(&key);
        if !shard.contains_key(&key) && shard.len() >= BUDGETS_MAX / SHARDS {
            shard.retain(|_, budget| now.saturating_duration_since(budget.used_at()) < IDLE);
            if shard.len() >= BUDGETS_MAX / SHARDS {
                let oldest = shard.iter().min_by_key(|(_, b)| b.used_at()).map(|(key, _)| *key);
                oldest.map(|key| shard.remove(&key));
            }
        }
        let new = || RetryBudget::new(self.percent, self.per_second, now);
        act(shard.entry(key).or_insert_with(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(budget: &RetryBudget, now: Instant) -> usize {
        std::iter::repeat_with(|| budget.withdraw(now)).take_while(|yes| *yes).count()
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let now = Instant::now();
        let budget = RetryBudget::new(20, 0, now);
        assert!(!budget.withdraw(now));
        for _ in 0..100 {
            budget.deposit(now);
        }
        assert_eq!(drain(&budget, now), 20);
    }

    #[test]
    fn the_minimum_comes_back_with_time_but_does_not_pile_up() {
        let now = Instant::now();
        let budget = RetryBudget::new(20, 2, now);
        assert_eq!(drain(&budget, now), 20);
        assert_eq!(drain(&budget, now + Duration::from_secs(1)), 2);
        assert_eq!(drain(&budget, now + Duration::from_secs(3600)), 20);
    }

    #[test]
    fn deposits_have_a_bound() {
        let now = Instant::now();
        let budget = RetryBudget::new(20, 0, now);
        for _ in 0..100_000 {
            budget.deposit(now);
        }
        assert_eq!(drain(&budget, now), 1000);
    }

    #[test]
    fn functions_do_not_share_and_their_number_is_bounded() {
        let (budgets, now) = (RetryBudgets::new(20, 0), Instant::now());
        let (one, two) = (FunctionId::from_u128(1), FunctionId::from_u128(2));
        for _ in 0..5 {
            budgets.deposit(one, now);
        }
        assert!(!budgets.withdraw(two, now));
        assert!(budgets.withdraw(one, now));
        for id in 0..40_000 {
            budgets.deposit(FunctionId::from_u128(id), now);
        }
        assert!(budgets.budgets.len() <= BUDGETS_MAX);
    }
}
