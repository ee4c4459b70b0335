//! What all connections of a server share: its counts, its stall, the nonces it has seen.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{clock, tasks::Tasks};

/// Nonces kept to be mixed up.
const NONCES_KEPT: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    began: Instant,
    /// Until when nothing may leave, nanoseconds after `began`; 0 if it never was so.
    stalled_until_ns: AtomicU64,
    stalls: AtomicU64,
    nonces: Mutex<VecDeque<String>>,
    last_sandbox: AtomicU64,
    sandboxes: AtomicU64,
    /// The requests of each route that counts them.
    pub(crate) turns: Turns,
    /// Of the server.
    pub(crate) tasks: Tasks,
}

/// Requests so far, by route.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    pub(crate) stall: Turn,
    pub(crate) mixup: Turn,
    pub(crate) error: Turn,
    pub(crate) reset: Turn,
    pub(crate) sandbox: Turn,
}

/// Counts to tell every so-manyth.
#[derive(Debug, Default)]
pub(crate) struct Turn(AtomicU64);

impl Turn {
    /// Counts one more, and says whether it is one of those.
    pub(crate) fn is_every(&self, every: u64) -> bool {
        (self.0.fetch_add(1, Relaxed) + 1).is_multiple_of(every)
    }
}

impl State {
    pub(crate) fn new(tasks: Tasks) -> Self {
        Self {
            began: Instant::now(),
            stalled_until_ns: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            nonces: Mutex::default(),
            last_sandbox: AtomicU64::new(0),
            sandboxes: AtomicU64::new(0),
            turns: Turns::default(),
            tasks,
        }
    }

    /// Nothing leaves for so long from now.
    pub(crate) fn stall(&self, length: Duration) {
        let until = self.began.elapsed() + length;
        let until_ns = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.stalled_until_ns.fetch_max(until_ns, Relaxed);
        self.stalls.fetch_add(1, Relaxed);
    }

    /// How often that was so.
    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.load(Relaxed)
    }

    fn stalled_until(&self) -> Option<Instant> {
        let until_ns = self.stalled_until_ns.load(Relaxed);
        // The usual server never stalls, and needn't ask what time it is.
        if until_ns == 0 {
            return None;
        }
        let until = self.began + Duration::from_nanos(until_ns);
        (until > Instant::now()).then_some(until)
    }

    /// Whether nothing may leave now.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled_until().is_some()
    }

    /// Waits until things may leave. To be called before anything does.
    pub(crate) async fn released(&self) {
        // Another stall may have begun meanwhile.
        while let Some(until) = self.stalled_until() {
            clock::sleep_until(until).await;
        }
    }

    /// Remembers a nonce, and gives another one that came before, if there was one.
    pub(crate) fn swap_nonce(&self, nonce: &str) -> Option<String> {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        let other = nonces.iter().rev().find(|earlier| *earlier != nonce).cloned();
        if nonces.len() == NONCES_KEPT {
            nonces.pop_front();
        }
        nonces.push_back(nonce.to_owned());
        other
    }

    /// The number of a sandbox: a new one, or again the last one if there was one.
    pub(crate) fn sandbox(&self, again: bool) -> u64 {
        let last = self.last_sandbox.load(Relaxed);
        if again && last > 0 {
            return last;
        }
        let number = self.sandboxes.fetch_add(1, Relaxed) + 1;
        self.last_sandbox.store(number, Relaxed);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_third_is_told_from_the_others() {
        let turn = Turn::default();
        let told: Vec<bool> = (0..6).map(|_| turn.is_every(3)).collect();
        assert_eq!(told, [false, false, true, false, false, true]);
    }

    #[test]
    fn swapped_nonces_are_of_others() {
        let state = State::new(Tasks::default());
        assert_eq!(state.swap_nonce("a"), None);
        assert_eq!(state.swap_nonce("a"), None);
        assert_eq!(state.swap_nonce("b").as_deref(), Some("a"));
        for at in 0..1000 {
            state.swap_nonce(&at.to_string());
        }
        assert_eq!(state.nonces.lock().unwrap().len(), NONCES_KEPT);
    }

    #[tokio::test]
    async fn a_stall_holds_until_its_end_and_is_counted() {
        let state = State::new(Tasks::default());
        assert!(!state.is_stalled());
        let before = Instant::now();
        state.stall(Duration::from_millis(30));
        state.released().await;
        assert!(before.elapsed() >= Duration::from_millis(30));
        assert_eq!((state.stalls(), state.is_stalled()), (1, false));
    }
}
