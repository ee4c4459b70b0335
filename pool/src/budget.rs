//! Who gets how much of a host's memory: pure arithmetic over what the pools want.
//!
//! [`share`] hands out sandboxes one at a time, always to the pool that would have the fewest bytes
//! afterwards (max-min fairness): first every pool's minimum, then what it aims for, then what it
//! holds beyond that, then the rest as room to grow. It stops at the first sandbox that does not
//! fit, instead of giving the room to a smaller one: so more memory never takes a sandbox away from
//! anybody, and what is left over is less than the next sandbox in line.

use std::{cmp::Reverse, collections::BinaryHeap, fmt};

use pool_model::POOL_MAX;

/// What one pool wants of the host's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Sandboxes it was promised.
    pub min: u32,
    /// Sandboxes it aims for, leased ones included.
    pub target: u32,
    /// Sandboxes it has: warm, restoring and leased.
    pub in_use: u32,
    /// Memory of one of its sandboxes, bytes.
    pub bytes_each: u64,
    /// Its own budget, bytes; 0: none.
    pub limit_bytes: u64,
}

impl Want {
    /// Most sandboxes that its own budget allows.
    fn own_max(&self) -> u32 {
        let by_bytes = match self.limit_bytes {
            0 => u64::from(u32::MAX),
            limit => limit / self.bytes_each.max(1),
        };
        u32::try_from(by_bytes).unwrap_or(u32::MAX)
    }
}

/// How many sandboxes each pool may have (warm, restoring and leased), in the order of `wants`.
///
/// Never over the budget. A pool of which not even one sandbox fits into the budget gets none and
/// stands in nobody's way.
#[must_use]
pub fn share(wants: &[Want], budget_bytes: u64) -> Vec<u32> {
    let mut shares = Shares { wants, budget_bytes, left: budget_bytes, caps: vec![0; wants.len()] };
    let nothing = vec![0; wants.len()];
    let _ = shares.fill(&nothing, |want| want.min)
        && shares.fill(&nothing, |want| want.target)
        && shares.fill(&nothing, |want| want.in_use)
        && {
            let held = shares.caps.clone();
            shares.fill(&held, |_| POOL_MAX)
        };
    shares.caps
}

struct Shares<'a> {
    wants: &'a [Want],
    budget_bytes: u64,
    left: u64,
    caps: Vec<u32>,
}

impl Shares<'_> {
    /// Raises every pool towards its goal, fewest bytes over `base` first. False: out of memory.
    fn fill(&mut self, base: &[u32], goal: impl Fn(&Want) -> u32) -> bool {
        let next = |index: usize, cap: u32| {
            let want: &Want = &self.wants[index];
            let fits = want.bytes_each <= self.budget_bytes;
            let level = u64::from(cap + 1 - base[index]).saturating_mul(want.bytes_each);
            (fits && cap < goal(want).min(want.own_max())).then_some(Reverse((level, index)))
        };
        let mut line: BinaryHeap<_> =
            self.caps.iter().enumerate().filter_map(|(index, cap)| next(index, *cap)).collect();
        while let Some(Reverse((_, index))) = line.pop() {
            let Some(left) = self.left.checked_sub(self.wants[index].bytes_each) else {
                return false;
            };
            self.left = left;
            self.caps[index] += 1;
            line.extend(next(index, self.caps[index]));
        }
        true
    }
}

/// The sandboxes that a pool was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minimum {
    /// Whose pool it is.
    pub name: String,
    /// How many sandboxes.
    pub count: u32,
    /// Memory of one of them, bytes.
    pub bytes_each: u64,
}

impl Minimum {
    fn bytes(&self) -> u64 {
        u64::from(self.count).saturating_mul(self.bytes_each)
    }
}

/// The pools were promised more than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct OverBudget {
    /// What all of them need, bytes.
    pub sum_bytes: u64,
    /// What there is, bytes.
    pub budget_bytes: u64,
    /// Who needs how much of it; pools that were promised nothing are left out.
    pub lines: Vec<Minimum>,
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("warm minimums need ")?;
        for (index, line) in self.lines.iter().enumerate() {
            let plus = if index == 0 { "" } else { " + " };
            write!(f, "{plus}{} x {} ({})", line.count, mib(line.bytes_each), line.name)?;
        }
        write!(f, " = {}, the budget is {}", mib(self.sum_bytes), mib(self.budget_bytes))
    }
}

/// Rounded up, so that a sum over the budget never reads as if it fitted.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Refuses promises that cannot all be kept at once.
///
/// # Errors
///
/// [`OverBudget`], with the sum and what it consists of.
pub fn check_minimums(minimums: &[Minimum], budget_bytes: u64) -> Result<(), OverBudget> {
    let sum_bytes = minimums.iter().map(Minimum::bytes).fold(0, u64::saturating_add);
    if sum_bytes <= budget_bytes {
        return Ok(());
    }
    let lines = minimums.iter().filter(|minimum| minimum.bytes() > 0).cloned().collect();
    Err(OverBudget { sum_bytes, budget_bytes, lines })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn want(min: u32, target: u32, bytes_each: u64) -> Want {
        Want { min, target, in_use: 0, bytes_each, limit_bytes: 0 }
    }

    #[test]
    fn minimums_come_first_and_the_rest_is_shared_evenly_in_bytes() {
        let wants = [want(6, 6, GIB), want(0, 9, GIB), want(0, 9, 2 * GIB)];
        assert_eq!(share(&wants, 6 * GIB), [6, 0, 0]);
        assert_eq!(share(&wants, 10 * GIB), [6, 2, 1]);
        assert_eq!(share(&wants, 14 * GIB), [6, 4, 2]);
    }

    #[test]
    fn what_nobody_aims_for_is_room_to_grow_within_own_budgets() {
        let limited = Want { limit_bytes: 3 * GIB, ..want(1, 2, GIB) };
        assert_eq!(share(&[limited, want(0, 1, GIB)], 10 * GIB), [3, 7]);
        let holding = Want { in_use: 5, ..want(0, 1, GIB) };
        assert_eq!(share(&[holding, want(0, 1, GIB)], 6 * GIB), [5, 1]);
        assert_eq!(share(&[holding, want(0, 4, GIB)], 6 * GIB), [2, 4], "taken for those who ask");
    }

    #[test]
    fn pool_that_can_never_fit_blocks_nobody() {
        assert_eq!(share(&[want(1, 1, 9 * GIB), want(0, 2, GIB)], 2 * GIB), [0, 2]);
        assert_eq!(share(&[], GIB), Vec::<u32>::new());
    }

    #[test]
    fn refused_minimums_show_their_sum() {
        let line = |name: &str, count, bytes_each| Minimum { name: name.into(), count, bytes_each };
        let minimums = [line("web", 3, GIB), line("cron", 0, GIB), line("ml", 1, 4 * GIB)];
        assert_eq!(check_minimums(&minimums, 7 * GIB), Ok(()));
        let over = check_minimums(&minimums, 6 * GIB).unwrap_err();
        assert_eq!((over.sum_bytes, over.lines.len()), (7 * GIB, 2));
        let text = "warm minimums need 3 x 1024 MiB (web) + 1 x 4096 MiB (ml) = 7168 MiB, \
                    the budget is 6144 MiB";
        assert_eq!(over.to_string(), text);
    }

    fn wants() -> impl Strategy<Value = Vec<Want>> {
        let limit = prop_oneof![2 => Just(0u64), 1 => 1u64..100];
        let one = (0u32..6, 0u32..20, 0u32..20, 1u64..9, limit).prop_map(
            |(min, target, in_use, bytes_each, limit_bytes)| Want {
                min,
                target,
                in_use,
                bytes_each,
                limit_bytes,
            },
        );
        prop::collection::vec(one, 0..8)
    }

    fn used(wants: &[Want], caps: &[u32]) -> u64 {
        wants.iter().zip(caps).map(|(want, cap)| u64::from(*cap) * want.bytes_each).sum()
    }

    proptest! {
        #[test]
        fn stays_within_every_budget(wants in wants(), budget in 0u64..400) {
            let caps = share(&wants, budget);
            prop_assert!(used(&wants, &caps) <= budget);
            for (want, cap) in wants.iter().zip(&caps) {
                prop_assert!(*cap <= want.own_max());
            }
        }

        #[test]
        fn more_memory_takes_nothing_away(wants in wants(), budget in 9u64..400, more in 0u64..50) {
            let (less, more) = (share(&wants, budget), share(&wants, budget + more));
            prop_assert!(less.iter().zip(&more).all(|(less, more)| less <= more), "{:?} {:?}", less, more);
        }

        #[test]
        fn minimums_are_kept_whenever_they_fit(wants in wants(), more in 0u64..50) {
            let minimum = |want: &Want| want.min.min(want.own_max());
            let minimums: Vec<u32> = wants.iter().map(minimum).collect();
            let caps = share(&wants, used(&wants, &minimums).max(9) + more);
            prop_assert!(caps.iter().zip(&minimums).all(|(cap, min)| cap >= min));
        }

        /// Beyond its minimum no pool has so much that another, still short of what it aims for,
        /// could have had one more sandbox first.
        #[test]
        fn nobody_gets_more_than_one_who_wants_more(wants in wants(), budget in 9u64..400) {
            let caps = share(&wants, budget);
            let rich = |i: usize| caps[i] > wants[i].min.min(wants[i].own_max());
            let poor = |i: usize| caps[i] < wants[i].target.min(wants[i].own_max());
            for a in (0..wants.len()).filter(|a| rich(*a)) {
                for b in (0..wants.len()).filter(|b| poor(*b)) {
                    let has = u64::from(caps[a]) * wants[a].bytes_each;
                    let next = u64::from(caps[b] + 1) * wants[b].bytes_each;
                    prop_assert!(has <= next, "{} has {}, {} would have {}", a, has, b, next);
                }
            }
        }

        #[test]
        fn what_is_left_over_is_less_than_one_that_is_wanted(wants in wants(), budget in 9u64..400) {
            let caps = share(&wants, budget);
            let left = budget - used(&wants, &caps);
            let short = |(want, cap): (&Want, &u32)| *cap < want.target.min(want.own_max());
            if wants.iter().zip(&caps).any(short) {
                let largest = wants.iter().map(|want| want.bytes_each).max().unwrap();
                prop_assert!(left < largest, "{} left", left);
            }
        }
    }
}
