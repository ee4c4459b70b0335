//! How long and how often one request is tried.

use std::time::{Duration, Instant};

use crate::{Cause, RemoteConfig, RemoteError, SourceStats};

/// The first pause between attempts; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The slowest transfer that is not given up, in bytes per second.
const SLOWEST: u64 = 1 << 20;

/// The patience for one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    attempts: u32,
    attempt: Duration,
    deadline: Duration,
}

impl Patience {
    /// For a call that moves `bytes`: the settings, and for each whole second of [`SLOWEST`] one
    /// more. So the settings are kept to the letter for a block.
    pub(crate) fn of(config: &RemoteConfig, bytes: u64) -> Self {
        let more = Duration::from_secs(bytes / SLOWEST);
        Self {
            attempts: config.attempts,
            attempt: config.attempt_timeout + more,
            deadline: config.deadline + more * config.attempts,
        }
    }
}

/// Tries until it works, cannot work, was tried often enough or took long enough.
///
/// `what` and `key` are for the error. Cancel-safe as far as one attempt is.
pub(crate) async fn retry<T, F: Future<Output = Result<T, Cause>>>(
    patience: Patience,
    stats: &SourceStats,
    what: &'static str,
    key: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, RemoteError> {
    let start = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let left = patience.deadline.saturating_sub(start.elapsed());
        let limit = patience.attempt.min(left);
        let cause = match tokio::time::timeout(limit, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(cause)) => cause,
            Err(_) => Cause::Timeout(limit),
        };
        let pause = pause_after(attempts);
        let elapsed = start.elapsed();
        let over = attempts >= patience.attempts || elapsed + pause >= patience.deadline;
        if over || cause.is_final() {
            // Often just the answer to a question; who needs the object counts it.
            if !matches!(cause, Cause::Missing(_)) {
                stats.count_failure();
            }
            return Err(RemoteError::Request {
                what,
                key: key.to_owned(),
                attempts,
                elapsed,
                cause,
            });
        }
        tracing::debug!(key, what, attempts, %cause, "object store failed, asking again");
        stats.count_retry();
        tokio::time::sleep(pause).await;
    }
}

/// Between half and all of a pause that doubles: those who failed together do not come together.
fn pause_after(attempts: u32) -> Duration {
    let full = PAUSE.saturating_mul(1 << (attempts - 1).min(10)).min(PAUSE_MAX);
    full.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Cause {
        Cause::from(object_store::Error::Generic { store: "S3", source: "500".into() })
    }

    fn patience(attempts: u32) -> Patience {
        let second = Duration::from_secs(1);
        Patience { attempts, attempt: second, deadline: 10 * second }
    }

    #[tokio::test]
    async fn what_works_at_last_is_a_success_and_counted() {
        let stats = SourceStats::default();
        let mut calls = 0;
        let got = retry(patience(4), &stats, "read", "k", || {
            calls += 1;
            std::future::ready(if calls < 3 { Err(answer()) } else { Ok(calls) })
        });
        assert_eq!(got.await.unwrap(), 3);
        assert_eq!((stats.retries(), stats.failures()), (2, 0));
    }

    #[tokio::test]
    async fn attempts_are_bounded_and_said() {
        let stats = SourceStats::default();
        let failed =
            retry(patience(3), &stats, "read", "layers/x", || async { Err::<(), _>(answer()) });
        let error = failed.await.unwrap_err();
        let RemoteError::Request { attempts: 3, .. } = &error else { panic!("{error:?}") };
        assert!(error.to_string().contains("read layers/x, 3 attempts"), "{error}");
        assert_eq!((stats.retries(), stats.failures()), (2, 1));
    }

    #[tokio::test]
    async fn what_cannot_help_is_not_repeated() {
        let stats = SourceStats::default();
        let missing = || object_store::Error::NotFound { path: "k".into(), source: "404".into() };
        let failed = retry(patience(3), &stats, "read", "k", || async move {
            Err::<(), _>(Cause::from(missing()))
        });
        assert!(failed.await.unwrap_err().is_missing());
        assert_eq!(stats.retries(), 0);
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let short = Duration::from_millis(40);
        let patience = Patience { attempts: 50, attempt: short, deadline: 4 * short };
        let start = Instant::now();
        let stats = SourceStats::default();
        let failed =
            retry(patience, &stats, "read", "k", std::future::pending::<Result<(), Cause>>);
        let error = failed.await.unwrap_err();
        assert!(matches!(error, RemoteError::Request { cause: Cause::Timeout(_), .. }), "{error}");
        assert!(stats.retries() >= 1);
        // A loaded machine may be late, but not by as much as another twenty attempts.
        assert!(start.elapsed() < 20 * short);
    }

    proptest::proptest! {
        #[test]
        fn pauses_grow_and_stay_bounded(attempts in 1u32..100) {
            let pause = pause_after(attempts);
            assert!(pause >= PAUSE / 2 && pause <= PAUSE_MAX);
        }
    }
}
