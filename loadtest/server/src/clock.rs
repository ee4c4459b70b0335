//! Waits that end within some tens of microseconds of what was asked.
//!
//! tokio's timers are good to a millisecond or two, so they do all but the end of a wait. A timer of
//! the kernel does the rest: nothing spins, which would take the processor from whoever measures.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Left to the kernel's timer. tokio rounds up to its millisecond, epoll to another one.
const FINE: Duration = Duration::from_micros(2500);

/// Waits until then.
pub(crate) async fn sleep_until(deadline: Instant) {
    if let Some(coarse) = deadline.checked_sub(FINE)
        && coarse > Instant::now()
    {
        tokio::time::sleep_until(coarse.into()).await;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    // Nothing left would disarm the timer; without a file to spare the wait is only less exact.
    if !left.is_zero() && sleep_fine(left).await.is_err() {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

// Its successor is unsafe, as not every type keeps its file open. An owned one does, and we neither
// borrow it mutably nor lend it out.
#[expect(deprecated)]
async fn sleep_fine(left: Duration) -> io::Result<()> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
    let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
    timer.set(expiration, TimerSetTimeFlags::empty())?;
    let timer = AsyncFd::with_interest(OwnedFd::from(timer), Interest::READABLE)?;
    let _ready = timer.readable().await?;
    Ok(())
}

/// Milliseconds, as `Server-Timing` has them.
pub(crate) fn dur(duration: Duration) -> String {
    format!("{:.4}", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_are_never_too_short_and_most_are_exact() {
        let mut late = Vec::new();
        for micros in [0, 1, 300, 1000, 2499, 2501, 5000, 20_000].repeat(5) {
            let deadline = Instant::now() + Duration::from_micros(micros);
            sleep_until(deadline).await;
            let now = Instant::now();
            assert!(now >= deadline, "{micros} us ended {:?} early", deadline - now);
            late.push(now - deadline);
        }
        late.sort_unstable();
        // tokio alone would be a millisecond late; a busy machine spoils a part of them, not all.
        assert!(late[late.len() / 4] < Duration::from_micros(800), "{late:?}");
    }

    #[test]
    fn durations_have_four_decimals_of_a_millisecond() {
        assert_eq!(dur(Duration::from_nanos(20_012_345)), "20.0123");
    }
}
