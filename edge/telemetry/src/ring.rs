//! The last records, to be looked up by id.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pool_model::{RequestId, TeamId};

use crate::record::RequestRecord;

/// Slots looked at under one lock: a worker that wants to push waits for microseconds at most.
const SLICE: u64 = 1024;

/// The last records of one worker, oldest overwritten.
#[derive(Debug)]
pub(crate) struct Ring {
    slots: Mutex<Slots>,
    capacity: usize,
}

#[derive(Debug)]
struct Slots {
    slots: Vec<Slot>,
    next: usize,
    /// Records ever pushed: the newest has this number less one.
    pushed: u64,
}

/// What is looked for stands in the slot itself, so that a search reads memory in order.
#[derive(Debug)]
struct Slot {
    id: RequestId,
    team: Option<TeamId>,
    record: Arc<RequestRecord>,
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        let slots = Slots { slots: Vec::new(), next: 0, pushed: 0 };
        Self { slots: Mutex::new(slots), capacity: capacity.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, record: Arc<RequestRecord>) {
        let slot = Slot { id: record.id.0, team: record.team, record };
        let mut slots = self.lock();
        let at = slots.next;
        slots.next = if at + 1 == self.capacity { 0 } else { at + 1 };
        slots.pushed += 1;
        if at < slots.slots.len() {
            let oldest = std::mem::replace(&mut slots.slots[at], slot);
            drop(slots);
            drop(oldest); // freed after the lock
        } else {
            slots.slots.push(slot);
        }
    }

    /// The newest record of this id, if it is `team`'s or no team is asked for.
    pub(crate) fn find(&self, id: RequestId, team: Option<TeamId>) -> Option<Arc<RequestRecord>> {
        let is = |slot: &Slot| slot.id == id && (team.is_none() || slot.team == team);
        self.search(1, is).pop()
    }

    /// The newest records of a team (of all, if none is asked for), newest first.
    pub(crate) fn recent(&self, team: Option<TeamId>, limit: usize) -> Vec<Arc<RequestRecord>> {
        self.search(limit, |slot| team.is_none() || slot.team == team)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// From the newest to the oldest as of the beginning, what was overwritten meanwhile left out.
    fn search(&self, limit: usize, is: impl Fn(&Slot) -> bool) -> Vec<Arc<RequestRecord>> {
        let mut found = Vec::new();
        let mut before = self.lock().pushed;
        while found.len() < limit {
            let slots = self.lock();
            let oldest = slots.pushed - slots.slots.len() as u64;
            if before <= oldest {
                break;
            }
            let from = oldest.max(before.saturating_sub(SLICE));
            for number in (from..before).rev() {
                let slot = &slots.slots[self.index(number)];
                if is(slot) {
                    found.push(Arc::clone(&slot.record));
                    if found.len() == limit {
                        break;
                    }
                }
            }
            before = from;
        }
        found
    }

    /// Where the record of this number is, if it is still there.
    fn index(&self, number: u64) -> usize {
        usize::try_from(number % self.capacity as u64).expect("less than a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordId;

    fn record(id: u128, team: u128, at_ns: u64) -> Arc<RequestRecord> {
        Arc::new(RequestRecord {
            id: RecordId(RequestId::from_u128(id)),
            team: Some(TeamId::from_u128(team)),
            at_ns,
            ..RequestRecord::default()
        })
    }

    fn find(ring: &Ring, id: u128, team: Option<u128>) -> Option<u64> {
        let found = ring.find(RequestId::from_u128(id), team.map(TeamId::from_u128));
        found.map(|record| record.at_ns)
    }

    #[test]
    fn the_newest_stay_and_teams_see_their_own() {
        let ring = Ring::new(3);
        for id in 1..=5 {
            ring.push(record(id, id % 2, 0));
        }
        let is = |id, team| find(&ring, id, team).is_some();
        assert!(!is(1, None) && !is(2, None) && is(3, None) && is(5, Some(1)));
        assert!(!is(5, Some(0)), "another team's");
        let recent = ring.recent(Some(TeamId::from_u128(1)), 10);
        let ids: Vec<_> = recent.iter().map(|record| record.id.0).collect();
        assert_eq!(ids, [RequestId::from_u128(5), RequestId::from_u128(3)]);
        assert_eq!(ring.recent(None, 2).len(), 2);
        assert_eq!(ring.recent(None, 0).len(), 0);
        assert_eq!(ring.len(), 3);
    }

    #[test]
    fn of_one_id_the_newest_wins_before_and_after_each_wrap() {
        let ring = Ring::new(4);
        for at in 0..23 {
            ring.push(record(7, 1, at));
            assert_eq!(find(&ring, 7, None), Some(at));
            let recent = ring.recent(None, 10);
            let times: Vec<u64> = recent.iter().map(|record| record.at_ns).collect();
            let expected: Vec<u64> = (at.saturating_sub(3)..=at).rev().collect();
            assert_eq!(times, expected);
        }
    }

    #[test]
    fn another_teams_record_of_the_same_id_hides_nothing() {
        let ring = Ring::new(8);
        ring.push(record(7, 1, 10));
        ring.push(record(7, 2, 20));
        assert_eq!(find(&ring, 7, Some(1)), Some(10));
        assert_eq!(find(&ring, 7, Some(2)), Some(20));
        assert_eq!(find(&ring, 7, Some(3)), None);
        assert_eq!(find(&ring, 7, None), Some(20));
    }

    #[test]
    fn a_search_over_many_slices_finds_the_oldest_and_nothing_twice() {
        let ring = Ring::new(5000);
        for id in 0..7500 {
            ring.push(record(id, id % 2, 0));
        }
        assert!(find(&ring, 2500, None).is_some() && find(&ring, 2499, None).is_none());
        let recent = ring.recent(Some(TeamId::from_u128(1)), 10_000);
        let ids: Vec<u128> = recent.iter().map(|record| record.id.0.as_u128()).collect();
        let expected: Vec<u128> = (2500..7500).rev().filter(|id| id % 2 == 1).collect();
        assert_eq!(ids, expected);
    }

    #[test]
    fn a_search_ends_while_a_worker_overwrites_all_the_time() {
        let ring = Arc::new(Ring::new(3000));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (pushing, stopping) = (Arc::clone(&ring), Arc::clone(&stop));
        let worker = std::thread::spawn(move || {
            let mut at = 0;
            while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
                pushing.push(record(1, 1, at));
                at += 1;
            }
        });
        for _ in 0..200 {
            let recent = ring.recent(None, 3000);
            let in_order = recent.windows(2).all(|two| two[0].at_ns > two[1].at_ns);
            assert!(in_order, "newest first, none twice");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        worker.join().unwrap();
    }
}
