//! The slots of one pool and the sandboxes in them; every transition goes through here.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    sync::Arc,
};

use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use crate::{
    ReapReason,
    slot::{Action, Event, Limits, State},
    wheel::TimerId,
};

/// A slot of one pool; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Member<S> {
    pub(crate) state: State,
    /// Present from `Warm` until it is destroyed.
    pub(crate) sandbox: Option<Arc<S>>,
    /// How long its restore took.
    pub(crate) restore: Duration,
    /// Tells its task to destroy it, once.
    pub(crate) end: Option<oneshot::Sender<ReapReason>>,
    /// Ends its lease.
    pub(crate) lease_timer: Option<TimerId>,
    /// Has it replaced.
    pub(crate) age_timer: Option<TimerId>,
}

/// How many slots are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) warm: u32,
    pub(crate) restoring: u32,
    pub(crate) leased: u32,
    pub(crate) reaping: u32,
}

impl Counts {
    fn of(&mut self, state: State) -> Option<&mut u32> {
        match state {
            State::Empty => None,
            State::Blank | State::Restoring { .. } => Some(&mut self.restoring),
            State::Warm { .. } => Some(&mut self.warm),
            State::Leased { .. } => Some(&mut self.leased),
            State::Failed | State::Reaping => Some(&mut self.reaping),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Members<S> {
    by_id: HashMap<MemberId, Member<S>>,
    /// In the order in which they became warm, which is the order in which they are lent.
    warm: VecDeque<MemberId>,
    /// Warm ones that should be replaced.
    aged: BTreeSet<MemberId>,
    counts: Counts,
    next: u64,
}

impl<S: fmt::Debug> Members<S> {
    pub(crate) fn new() -> Self {
        Self {
            by_id: HashMap::new(),
            warm: VecDeque::new(),
            aged: BTreeSet::new(),
            counts: Counts::default(),
            next: 0,
        }
    }

    /// An empty slot; `end` tells the task of what will be in it to destroy it.
    pub(crate) fn add(&mut self, end: oneshot::Sender<ReapReason>) -> MemberId {
        let id = MemberId(self.next);
        self.next += 1;
        let member = Member {
            state: State::Empty,
            sandbox: None,
            restore: Duration::ZERO,
            end: Some(end),
            lease_timer: None,
            age_timer: None,
        };
        self.by_id.insert(id, member);
        id
    }

    /// Takes one step. `Denied` is a bug of ours: it is logged and changes nothing.
    pub(crate) fn step(
        &mut self,
        id: MemberId,
        event: Event,
        now: Instant,
        limits: Limits,
    ) -> Action {
        let Some(member) = self.by_id.get_mut(&id) else { return Action::None };
        let from = member.state;
        let (next, action) = match from.step(event, now, limits) {
            Ok(step) => step,
            Err(denied) => {
                tracing::error!(pool.member = id.0, "{denied}");
                return Action::None;
            }
        };
        tracing::trace!(pool.member = id.0, ?event, ?from, to = ?next);
        member.state = next;
        if action == Action::Forget {
            self.by_id.remove(&id);
        }
        self.count(id, from, next);
        action
    }

    fn count(&mut self, id: MemberId, from: State, to: State) {
        if let Some(count) = self.counts.of(from) {
            *count -= 1;
        }
        if let Some(count) = self.counts.of(to) {
            *count += 1;
        }
        if matches!(from, State::Warm { .. }) {
            // Nearly always the first: only death and age pick others.
            if self.warm.front() == Some(&id) {
                self.warm.pop_front();
            } else {
                self.warm.retain(|other| *other != id);
            }
            self.aged.remove(&id);
        }
        if matches!(to, State::Warm { .. }) {
            self.warm.push_back(id);
        }
    }

    pub(crate) fn get(&self, id: MemberId) -> Option<&Member<S>> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: MemberId) -> Option<&mut Member<S>> {
        self.by_id.get_mut(&id)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The warm sandbox that has waited longest, and since when.
    pub(crate) fn oldest_warm(&self) -> Option<(MemberId, Instant)> {
        let id = *self.warm.front()?;
        match self.by_id.get(&id)?.state {
            State::Warm { since, .. } => Some((id, since)),
            _ => None,
        }
    }

    /// Remembers that a warm sandbox should be replaced; nothing if it is not warm.
    pub(crate) fn mark_aged(&mut self, id: MemberId) {
        if matches!(self.get(id).map(|member| member.state), Some(State::Warm { .. })) {
            self.aged.insert(id);
        }
    }

    /// How many warm ones should be replaced, and the first of them.
    pub(crate) fn aged(&self) -> (usize, Option<MemberId>) {
        (self.aged.len(), self.aged.first().copied())
    }

    /// All of them that are in such a state, oldest slot first. Looks at every slot.
    pub(crate) fn ids(&self, is: impl Fn(State) -> bool) -> Vec<MemberId> {
        let found = self.by_id.iter().filter(|(_, member)| is(member.state));
        let mut ids: Vec<_> = found.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// What a pool does to its table, in any order.
    #[derive(Debug, Clone, Copy)]
    enum Op {
        Start,
        LeaseOldest,
        Age(usize),
        Step(usize, Event),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        use Event as E;
        let events = [E::Ready, E::Ready, E::Return, E::Return, E::Release, E::Expire, E::Evict];
        let events = [&events[..], &[E::Fail, E::Drain, E::Reaped, E::Lease]].concat();
        let op = prop_oneof![
            Just(Op::Start),
            Just(Op::LeaseOldest),
            any::<usize>().prop_map(Op::Age),
            (any::<usize>(), prop::sample::select(events)).prop_map(|(pick, e)| Op::Step(pick, e)),
        ];
        prop::collection::vec(op, 0..250)
    }

    proptest! {
        #[test]
        fn no_slot_is_leased_twice_at_once_and_the_counts_are_true(ops in ops(), max_requests in 1u32..4) {
            let limits = Limits { lease_max: Duration::from_secs(9), max_requests };
            let mut now = Instant::now();
            let mut table = Members::<u8>::new();
            let (mut leased, mut leases) = (HashSet::new(), HashMap::<MemberId, u32>::new());
            for op in ops {
                now += Duration::from_millis(1);
                let all = table.ids(|_| true);
                let (id, event) = match op {
                    Op::Start => {
                        let id = table.add(oneshot::channel().0);
                        table.step(id, Event::Prepare, now, limits);
                        (id, Event::Restore)
                    }
                    Op::LeaseOldest => match table.oldest_warm() {
                        Some((id, _)) => (id, Event::Lease),
                        None => continue,
                    },
                    Op::Age(pick) if !all.is_empty() => {
                        table.mark_aged(all[pick % all.len()]);
                        continue;
                    }
                    Op::Step(pick, event) if !all.is_empty() => (all[pick % all.len()], event),
                    _ => continue,
                };
                if table.step(id, event, now, limits) == Action::HandOut {
                    prop_assert!(leased.insert(id), "leased twice at once");
                    *leases.entry(id).or_default() += 1;
                    prop_assert!(leases[&id] <= max_requests);
                }
                let is_leased = |state| matches!(state, State::Leased { .. });
                leased.retain(|id| table.get(*id).is_some_and(|member| is_leased(member.state)));
                prop_assert_eq!(&table.ids(is_leased).into_iter().collect::<HashSet<_>>(), &leased);
                check(&table)?;
            }
        }
    }

    /// What is kept beside the states agrees with them.
    fn check(table: &Members<u8>) -> Result<(), TestCaseError> {
        let warm = table.ids(|state| matches!(state, State::Warm { .. }));
        let count = |is: fn(State) -> bool| u32::try_from(table.ids(is).len()).unwrap();
        let expected = Counts {
            warm: count(|state| matches!(state, State::Warm { .. })),
            restoring: count(|state| matches!(state, State::Blank | State::Restoring { .. })),
            leased: count(|state| matches!(state, State::Leased { .. })),
            reaping: count(|state| matches!(state, State::Failed | State::Reaping)),
        };
        prop_assert_eq!(table.counts(), expected);
        let since = |id: &MemberId| match table.get(*id).map(|member| member.state) {
            Some(State::Warm { since, .. }) => Some(since),
            _ => None,
        };
        prop_assert!(table.warm.iter().is_sorted_by_key(since), "oldest first");
        prop_assert_eq!(
            table.warm.iter().copied().collect::<BTreeSet<_>>(),
            warm.into_iter().collect()
        );
        prop_assert!(table.aged.iter().all(|id| since(id).is_some()));
        prop_assert_eq!(table.oldest_warm().map(|(id, _)| id), table.warm.front().copied());
        Ok(())
    }
}
