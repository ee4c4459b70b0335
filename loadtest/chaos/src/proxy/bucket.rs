//! How many bytes may go now: a token bucket, as a pure function of time.
//!
//! It keeps the moment up to which all that went is paid for. Bytes may go when that moment has
//! come, a slice at a time, and move it on by what they cost.
//!
//! # Limits
//!
//! In any stretch of time no more goes than the rate gives in it, and in [`CATCH_UP`], and a slice.

use std::time::Duration;

/// What may be made good of time in which nothing went: timers and schedulers are late.
pub(crate) const CATCH_UP: Duration = Duration::from_millis(100);
/// Parts of a second's bytes that go at a time, so that a slow connection trickles.
const SLICES_PER_S: u64 = 50;

/// Follows one connection. Times are since any moment, always the same.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    paid_until: Duration,
}

impl Bucket {
    /// How many of `want` bytes may go now; none before the moment it returns otherwise.
    pub(crate) fn allow(&self, now: Duration, want: usize, rate: u64) -> Result<usize, Duration> {
        if self.paid_until > now {
            return Err(self.paid_until);
        }
        let slice = usize::try_from(rate / SLICES_PER_S).unwrap_or(usize::MAX).max(1);
        Ok(want.min(slice))
    }

    /// Takes what went.
    pub(crate) fn spend(&mut self, now: Duration, bytes: usize, rate: u64) {
        let cost = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(rate.max(1)));
        let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
        self.paid_until = self.paid_until.max(now.saturating_sub(CATCH_UP)).saturating_add(cost);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_in(time: Duration, rate: u64) -> u128 {
        time.as_nanos() * u128::from(rate) / 1_000_000_000
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_in_any_stretch(
            rate in 1_u64..2_000_000_000,
            calls in prop::collection::vec((0_u64..300_000_000, 0_usize..10_000_000), 1..100),
        ) {
            let mut bucket = Bucket::default();
            let mut now = Duration::from_secs(5);
            let mut went = Vec::new();
            for (wait_ns, want) in calls {
                now += Duration::from_nanos(wait_ns);
                if let Ok(bytes) = bucket.allow(now, want, rate) {
                    prop_assert!(bytes <= want && (bytes > 0 || want == 0));
                    bucket.spend(now, bytes, rate);
                    went.push((now, bytes));
                }
            }
            let slice = u128::from((rate / SLICES_PER_S).max(1));
            for from in 0..went.len() {
                let mut total = 0;
                for (then, bytes) in &went[from..] {
                    total += *bytes as u128;
                    let most = bytes_in(*then - went[from].0 + CATCH_UP, rate) + 1 + slice;
                    prop_assert!(total <= most, "{total} bytes, at most {most}");
                }
            }
        }

        #[test]
        fn whoever_always_asks_gets_the_rate(rate in 1_u64..2_000_000_000, late_ns in 0_u64..20_000_000) {
            let mut bucket = Bucket::default();
            let begin = Duration::from_secs(5);
            let (mut now, mut total) = (begin, 0_u128);
            // Late by a little each time, as a timer is.
            for _ in 0..2000 {
                match bucket.allow(now, usize::MAX, rate) {
                    Ok(bytes) => {
                        bucket.spend(now, bytes, rate);
                        total += bytes as u128;
                    }
                    Err(then) => {
                        prop_assert!(then > now, "waiting for the past never ends");
                        now = then + Duration::from_nanos(late_ns);
                    }
                }
            }
            let least = bytes_in(now - begin, rate) * 99 / 100;
            prop_assert!(total + u128::from(rate / SLICES_PER_S) + 1 >= least, "{total} of {least}");
        }
    }

    #[test]
    fn slowest_rate_gives_a_byte_a_second() {
        let mut bucket = Bucket::default();
        let now = Duration::from_secs(1);
        assert_eq!(bucket.allow(now, 10, 1), Ok(1));
        bucket.spend(now, 1, 1);
        let next = now + Duration::from_secs(1) - CATCH_UP;
        assert_eq!(bucket.allow(now, 10, 1), Err(next));
        assert_eq!(bucket.allow(next, 10, 1), Ok(1));
    }
}
