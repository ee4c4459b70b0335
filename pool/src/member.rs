//! The slots of one pool and the sandboxes in them; every transition goes through here.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::slot::{Action, Denied, Event, State};

/// A slot of one pool; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Member<S> {
    pub(crate) state: State,
    /// Present from `Warm` on.
    pub(crate) sandbox: Option<Arc<S>>,
    /// How long its restore took.
    pub(crate) restore: Duration,
    /// Stops the watcher that reports its death.
    pub(crate) watch: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct Members<S> {
    by_id: BTreeMap<MemberId, Member<S>>,
    next: u64,
}

impl<S: fmt::Debug> Members<S> {
    pub(crate) fn new() -> Self {
        Self { by_id: BTreeMap::new(), next: 0 }
    }

    /// A slot that is being prepared.
    pub(crate) fn add(&mut self) -> MemberId {
        let id = MemberId(self.next);
        self.next += 1;
        self.by_id.insert(
            id,
            Member {
                state: State::Empty,
                sandbox: None,
                restore: Duration::ZERO,
                watch: CancellationToken::new(),
            },
        );
        id
    }

    /// Takes one step. `Denied` is a bug of ours: it is logged and changes nothing.
    pub(crate) fn step(&mut self, id: MemberId, event: Event, lease_max: Duration) -> Action {
        let Some(member) = self.by_id.get_mut(&id) else { return Action::None };
        match member.state.step(event, Instant::now(), lease_max) {
            Ok((next, action)) => {
                tracing::debug!(pool.member = id.0, ?event, from = ?member.state, to = ?next);
                member.state = next;
                if action == Action::Forget {
                    self.by_id.remove(&id);
                }
                action
            }
            Err(denied @ Denied { .. }) => {
                tracing::error!(pool.member = id.0, "{denied}");
                Action::None
            }
        }
    }

    pub(crate) fn get(&self, id: MemberId) -> Option<&Member<S>> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: MemberId) -> Option<&mut Member<S>> {
        self.by_id.get_mut(&id)
    }

    pub(crate) fn count(&self, is: impl Fn(&State) -> bool) -> usize {
        self.by_id.values().filter(|member| is(&member.state)).count()
    }

    pub(crate) fn warm(&self) -> usize {
        self.count(|state| matches!(state, State::Warm { .. }))
    }

    pub(crate) fn restoring(&self) -> usize {
        self.count(|state| matches!(state, State::Blank | State::Restoring { .. }))
    }

    /// The warm sandbox that has waited longest.
    pub(crate) fn oldest_warm(&self) -> Option<MemberId> {
        let warm = self.by_id.iter().filter_map(|(id, member)| match member.state {
            State::Warm { since } => Some((since, *id)),
            _ => None,
        });
        warm.min().map(|(_, id)| id)
    }

    /// Warm sandboxes and when each became warm, oldest first.
    pub(crate) fn warm_since(&self) -> Vec<(Instant, MemberId)> {
        let mut warm: Vec<_> = self
            .by_id
            .iter()
            .filter_map(|(id, member)| match member.state {
                State::Warm { since } => Some((since, *id)),
                _ => None,
            })
            .collect();
        warm.sort_unstable();
        warm
    }

    /// Leases and when each must end.
    pub(crate) fn lease_deadlines(&self) -> impl Iterator<Item = (Instant, MemberId)> + '_ {
        self.by_id.iter().filter_map(|(id, member)| match member.state {
            State::Leased { deadline } => Some((deadline, *id)),
            _ => None,
        })
    }

    pub(crate) fn ids(&self) -> Vec<MemberId> {
        self.by_id.keys().copied().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
