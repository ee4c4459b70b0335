//! Where a pool's slot is, as data: one transition function, no clock, no lock, no log.
//!
//! ```text
//! Empty ─Prepare─► Blank ─Restore─► Restoring ─Ready─► Warm ─Lease─► Leased
//!   ▲                │                  │                │             │
//!   │                └──── Fail ────────┤ Fail      Expire, Drain   Release, Expire
//!   │                                   ▼                ▼             │
//!   └────────────── Reaped ────────── Reaping ◄── Failed ◄── Fail ─────┘
//! ```
//!
//! # Invariants
//!
//! - The only way out of `Leased` is `Reaping`, through `Failed` or straight.
//! - Every state reaches `Empty` by `Drain` and `Reaped`.

use tokio::time::{Duration, Instant};

/// Where a slot is. Each state holds only what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is there.
    Empty,
    /// Taken for this pool, not yet restored.
    Blank,
    /// A snapshot is being restored into it.
    Restoring {
        /// When that began.
        since: Instant,
    },
    /// Restored, unique, health-checked, and nobody's.
    Warm {
        /// When it became so.
        since: Instant,
    },
    /// Lent to one holder.
    Leased {
        /// When the lease ends even if the holder does not end it.
        deadline: Instant,
    },
    /// It broke; next it is reaped.
    Failed,
    /// Being taken apart.
    Reaping,
}

/// What happened to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The pool wants one more.
    Prepare,
    /// The restore begins.
    Restore,
    /// The restore ended well.
    Ready,
    /// A caller takes it.
    Lease,
    /// Its holder is done.
    Release,
    /// Its time passed: idle TTL when warm, lease limit when leased.
    Expire,
    /// It broke.
    Fail,
    /// The pool is closing.
    Drain,
    /// It is gone.
    Reaped,
}

/// What the driver does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Begin restoring.
    StartRestore,
    /// Give it to whoever waits longest, else keep it.
    Offer,
    /// Give it to the caller.
    HandOut,
    /// Destroy what is there.
    Kill,
    /// Forget the slot.
    Forget,
}

/// An event that a state does not allow: a bug in the driver, never in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a slot in {state:?} does not allow {event:?}")]
pub struct Denied {
    /// Where the slot is.
    pub state: State,
    /// What was asked.
    pub event: Event,
}

impl State {
    /// Moves on and says what to do next.
    ///
    /// # Errors
    ///
    /// [`Denied`] if `event` is not allowed here.
    pub fn step(
        self,
        event: Event,
        now: Instant,
        lease_max: Duration,
    ) -> Result<(Self, Action), Denied> {
        use {Action as A, Event as E, State as S};
        Ok(match (self, event) {
            (S::Empty, E::Prepare) => (S::Blank, A::None),
            (S::Blank, E::Restore) => (S::Restoring { since: now }, A::StartRestore),
            (S::Restoring { .. }, E::Ready) => (S::Warm { since: now }, A::Offer),
            (S::Warm { .. }, E::Lease) => (S::Leased { deadline: now + lease_max }, A::HandOut),
            (S::Warm { .. }, E::Expire | E::Drain) => (S::Reaping, A::Kill),
            // One lease, then death: nothing of a request may reach the next one.
            (S::Leased { .. }, E::Release | E::Expire | E::Drain) => (S::Reaping, A::Kill),
            (S::Blank, E::Drain) => (S::Reaping, A::None),
            // Its restore is still running: it is killed when that ends, whichever way.
            (S::Restoring { .. }, E::Drain) => (S::Reaping, A::None),
            (S::Blank | S::Restoring { .. } | S::Warm { .. } | S::Leased { .. }, E::Fail) => {
                (S::Failed, A::None)
            }
            (S::Failed, E::Drain) => (S::Reaping, A::Kill),
            (S::Reaping, E::Ready) => (S::Reaping, A::Kill),
            // A holder may let go of what is already being reaped.
            (S::Reaping, E::Release | E::Expire | E::Drain | E::Fail) => (S::Reaping, A::None),
            (S::Reaping, E::Reaped) => (S::Empty, A::Forget),
            (state, event) => return Err(Denied { state, event }),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE_MAX: Duration = Duration::from_secs(30);
    const EVENTS: [Event; 9] = [
        Event::Prepare,
        Event::Restore,
        Event::Ready,
        Event::Lease,
        Event::Release,
        Event::Expire,
        Event::Fail,
        Event::Drain,
        Event::Reaped,
    ];

    #[test]
    fn leased_slot_never_becomes_warm_again() {
        let leased = State::Leased { deadline: Instant::now() + LEASE_MAX };
        for event in EVENTS {
            if let Ok((next, _)) = leased.step(event, Instant::now(), LEASE_MAX) {
                assert!(matches!(next, State::Reaping | State::Failed), "{event:?}: {next:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn one_life_has_at_most_one_lease(picks in prop::collection::vec(0..EVENTS.len(), 0..60)) {
            let now = Instant::now();
            let (mut state, mut leases) = (State::Empty, 0);
            for pick in picks {
                if let Ok((next, action)) = state.step(EVENTS[pick], now, LEASE_MAX) {
                    leases += usize::from(action == Action::HandOut);
                    if next == State::Empty { leases = 0; }
                    prop_assert!(leases <= 1);
                    state = next;
                }
            }
        }

        #[test]
        fn every_state_can_be_drained(picks in prop::collection::vec(0..EVENTS.len(), 0..60)) {
            let now = Instant::now();
            let mut state = State::Empty;
            for pick in picks {
                state = state.step(EVENTS[pick], now, LEASE_MAX).map_or(state, |(next, _)| next);
            }
            if state != State::Empty {
                let (drained, _) = state.step(Event::Drain, now, LEASE_MAX).unwrap();
                prop_assert_eq!(drained, State::Reaping);
                let (gone, action) = drained.step(Event::Reaped, now, LEASE_MAX).unwrap();
                prop_assert_eq!((gone, action), (State::Empty, Action::Forget));
            }
        }
    }
}
