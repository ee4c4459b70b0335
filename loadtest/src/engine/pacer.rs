//! Waits until a moment, to within microseconds.
//!
//! Tokio's timers wake on whole milliseconds: at thousands of requests per second they would turn
//! evenly spaced requests into bursts, and each wait would add up to a millisecond to what is
//! measured. A `timerfd` is an ordinary event of the reactor and has the kernel's resolution.

use std::{io, os::fd::AsFd as _, time::Duration};

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::{io::unix::AsyncFd, time::Instant};

/// A wait shorter than this is none: arming the timer takes as long.
const AT_ONCE: Duration = Duration::from_micros(5);

/// A timer.
#[derive(Debug)]
pub(crate) struct Pacer {
    timer: AsyncFd<std::os::fd::OwnedFd>,
    handle: TimerFd,
}

impl Pacer {
    /// Makes one, for the runtime that it is made in.
    ///
    /// # Errors
    ///
    /// The kernel's, if it has no more timers.
    // `new`'s successor is unsafe, as not every type keeps its file open: an owned one does.
    #[expect(deprecated)]
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let handle = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let timer = AsyncFd::new(handle.as_fd().try_clone_to_owned()?)?;
        Ok(Self { timer, handle })
    }

    /// Waits until `moment`; not at all if it has passed.
    ///
    /// Cancel-safe: the next wait arms the timer anew.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) async fn until(&mut self, moment: Instant) -> io::Result<()> {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left < AT_ONCE {
                return Ok(());
            }
            let expiration = Expiration::OneShot(nix::sys::time::TimeSpec::from_duration(left));
            self.handle.set(expiration, TimerSetTimeFlags::empty())?;
            let mut ready = self.timer.readable().await?;
            // Takes the count of expirations, so that the next wait does not end at once. The
            // timer does not block: one that was armed anew meanwhile has nothing to read.
            let _ = nix::unistd::read(self.timer.get_ref(), &mut [0; 8]);
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_are_never_short_and_mostly_finer_than_a_millisecond() {
        let mut pacer = Pacer::new().unwrap();
        let mut late = Vec::new();
        let begin = Instant::now();
        for count in 1..=40 {
            let moment = begin + Duration::from_micros(1700 * count);
            pacer.until(moment).await.unwrap();
            let now = Instant::now();
            assert!(now + AT_ONCE > moment, "woke early");
            late.push(now.saturating_duration_since(moment));
        }
        late.sort();
        // A busy machine delays some of them, a timer of milliseconds all of them.
        assert!(late[5] < Duration::from_micros(900), "{late:?}");
    }

    #[tokio::test]
    async fn a_moment_that_has_passed_is_no_wait() {
        let mut pacer = Pacer::new().unwrap();
        let began = Instant::now();
        pacer.until(began).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(500));
    }
}
