//! Where a pool's slot is, as data: one transition function, no clock, no lock, no log.
//!
//! ```text
//!                                                  ┌──── Return ────┐
//!                                                  ▼                │
//! Empty ─Prepare─► Blank ─Restore─► Restoring ─Ready─► Warm ─Lease─► Leased
//!   ▲                │                  │                │             │
//!   │                └──── Fail ────────┤ Fail     Expire, Evict,   Release, Expire,
//!   │                                   ▼              Drain         Drain
//!   └────────────── Reaped ────────── Reaping ◄── Failed ◄── Fail ─────┘
//! ```
//!
//! # Invariants
//!
//! - A life has at most `max_requests` leases, and `max_requests` is 1 unless the function opted
//!   into sequential reuse: then the only way out of `Leased` is `Reaping`, through `Failed` or straight.
//! - Nothing is leased that was not `Ready` before.
//! - A sandbox that returns keeps its age.
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
        /// When it was restored.
        born: Instant,
        /// When it became warm: then, or when its last lease ended.
        since: Instant,
        /// Leases it has served.
        served: u32,
    },
    /// Lent to one holder.
    Leased {
        /// When it was restored.
        born: Instant,
        /// When the lease ends even if the holder does not end it.
        deadline: Instant,
        /// Leases it has served, this one included.
        served: u32,
    },
    /// It broke; next it is reaped.
    Failed,
    /// Being taken apart.
    Reaping,
}

/// What bounds a slot's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a lease may last.
    pub lease_max: Duration,
    /// How many leases a life may have; 1 without reuse.
    pub max_requests: u32,
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
    /// Its holder is done, and it is not to be used again.
    Release,
    /// Its holder is done, and it is fit for another request.
    Return,
    /// Its time passed: idle TTL or age when warm, lease limit when leased.
    Expire,
    /// Its memory is given to another pool.
    Evict,
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
        limits: Limits,
    ) -> Result<(Self, Action), Denied> {
        use {Action as A, Event as E, State as S};
        Ok(match (self, event) {
            (S::Empty, E::Prepare) => (S::Blank, A::None),
            (S::Blank, E::Restore) => (S::Restoring { since: now }, A::StartRestore),
            (S::Restoring { .. }, E::Ready) => {
                (S::Warm { born: now, since: now, served: 0 }, A::Offer)
            }
            (S::Warm { born, served, .. }, E::Lease) if served < limits.max_requests => {
                let deadline = now + limits.lease_max;
                (S::Leased { born, deadline, served: served + 1 }, A::HandOut)
            }
            (S::Warm { .. }, E::Expire | E::Evict | E::Drain) => (S::Reaping, A::Kill),
            (S::Leased { born, served, .. }, E::Return) if served < limits.max_requests => {
                (S::Warm { born, since: now, served }, A::Offer)
            }
            // Its last lease, and without reuse its only one: nothing reaches the next request.
            (S::Leased { .. }, E::Return | E::Release | E::Expire | E::Drain) => {
                (S::Reaping, A::Kill)
            }
            (S::Blank, E::Drain) => (S::Reaping, A::None),
            // Its restore is still running: it is killed when that ends, whichever way.
            (S::Restoring { .. }, E::Drain) => (S::Reaping, A::None),
            (S::Blank | S::Restoring { .. } | S::Warm { .. } | S::Leased { .. }, E::Fail) => {
                (S::Failed, A::None)
            }
            (S::Failed, E::Drain) => (S::Reaping, A::Kill),
            (S::Reaping, E::Ready) => (S::Reaping, A::Kill),
            // A holder may let go of what is already being reaped.
            (S::Reaping, E::Release | E::Return | E::Expire | E::Evict | E::Drain | E::Fail) => {
                (S::Reaping, A::None)
            }
            (S::Reaping, E::Reaped) => (S::Empty, A::Forget),
            (state, event) => return Err(Denied { state, event }),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 11] = [
        Event::Prepare,
        Event::Restore,
        Event::Ready,
        Event::Lease,
        Event::Release,
        Event::Return,
        Event::Expire,
        Event::Evict,
        Event::Fail,
        Event::Drain,
        Event::Reaped,
    ];

    fn limits(max_requests: u32) -> Limits {
        Limits { lease_max: Duration::from_secs(30), max_requests }
    }

    /// Mostly the way a life goes, so that long ones are met; else anything.
    fn events() -> impl Strategy<Value = Vec<Event>> {
        let usual = [Event::Prepare, Event::Restore, Event::Ready, Event::Lease, Event::Return];
        let one = prop_oneof![5 => prop::sample::select(usual.to_vec()), 1 => prop::sample::select(EVENTS.to_vec())];
        prop::collection::vec(one, 0..150)
    }

    #[test]
    fn leased_slot_never_becomes_warm_again_without_reuse() {
        let now = Instant::now();
        let leased = State::Leased { born: now, deadline: now, served: 1 };
        for event in EVENTS {
            if let Ok((next, _)) = leased.step(event, now, limits(1)) {
                assert!(matches!(next, State::Reaping | State::Failed), "{event:?}: {next:?}");
            }
        }
    }

    #[test]
    fn returned_slot_keeps_its_age() {
        let born = Instant::now();
        let leased = State::Leased { born, deadline: born, served: 1 };
        let later = born + Duration::from_secs(9);
        let (warm, action) = leased.step(Event::Return, later, limits(2)).unwrap();
        assert_eq!((warm, action), (State::Warm { born, since: later, served: 1 }, Action::Offer));
    }

    #[test]
    fn policy_that_forbids_reuse_forbids_the_next_lease_of_a_used_one() {
        let now = Instant::now();
        let used = State::Warm { born: now, since: now, served: 1 };
        assert!(used.step(Event::Lease, now, limits(1)).is_err());
        assert!(used.step(Event::Lease, now, limits(2)).is_ok());
    }

    proptest! {
        #[test]
        fn life_has_at_most_max_requests_leases_and_none_without_ready(
            events in events(), max_requests in 1u32..5,
        ) {
            let now = Instant::now();
            let (mut state, mut leases, mut ready) = (State::Empty, 0, false);
            for event in events {
                let Ok((next, action)) = state.step(event, now, limits(max_requests)) else { continue };
                ready |= event == Event::Ready;
                leases += u32::from(action == Action::HandOut);
                prop_assert!(leases <= max_requests);
                prop_assert!(leases == 0 || ready, "a lease without Ready");
                if let State::Leased { served, .. } | State::Warm { served, .. } = next {
                    prop_assert_eq!(served, leases);
                }
                if next == State::Empty { (leases, ready) = (0, false); }
                state = next;
            }
        }

        #[test]
        fn every_state_can_be_drained(events in events(), max_requests in 1u32..5) {
            let (now, limits) = (Instant::now(), limits(max_requests));
            let mut state = State::Empty;
            for event in events {
                state = state.step(event, now, limits).map_or(state, |(next, _)| next);
                if state == State::Empty { continue; }
                let (drained, _) = state.step(Event::Drain, now, limits).unwrap();
                prop_assert_eq!(drained, State::Reaping);
                let (gone, action) = drained.step(Event::Reaped, now, limits).unwrap();
                prop_assert_eq!((gone, action), (State::Empty, Action::Forget));
            }
        }
    }
}
