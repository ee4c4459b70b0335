//! In which order answers share a connection (RFC 9218).

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use http::HeaderMap;

use crate::wire::Priority;

/// The name of the field, in requests and answers.
const FIELD: &str = "priority";

/// How many levels of QUIC lie between two urgencies: the answers that are to come one after the
/// other get one each.
const LEVELS: i32 = 1 << 27;

/// How many of them are given away, by the number of the request.
const ORDERED: u64 = 1 << 26;

/// The level for `quinn`, which sends higher ones first and shares between equal ones.
///
/// Incremental answers of one urgency have the same level. The others lie above it, earlier requests
/// first, so that each is whole as soon as can be (RFC 9218 10). Who said nothing at all has level 0,
/// that of `u=3, i`: a client without priorities must not wait for its first download.
pub(crate) fn level(priority: Priority, index: u64) -> i32 {
    let base = (3 - i32::from(priority.urgency)) * LEVELS;
    if priority.incremental {
        return base;
    }
    let behind = i32::try_from(index % ORDERED).unwrap_or(0);
    base + (LEVELS / 2) - behind
}

/// What a request's head says, if it says anything.
pub(crate) fn of_request(headers: &HeaderMap) -> Option<Priority> {
    headers.get(FIELD).map(|value| Priority::parse(value.as_bytes()))
}

/// What an answer's head makes of it (RFC 9218 8).
pub(crate) fn of_answer(headers: &HeaderMap, asked: Option<Priority>) -> Option<Priority> {
    headers.get(FIELD).map(|value| asked.unwrap_or_default().merged(value.as_bytes()))
}

/// PRIORITY_UPDATE frames, kept until the request they are for looks after them.
#[derive(Debug)]
pub(crate) struct Updates {
    max: usize,
    generation: AtomicU32,
    waiting: Mutex<VecDeque<(u64, Priority)>>,
}

impl Updates {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, generation: AtomicU32::new(0), waiting: Mutex::default() }
    }

    /// Keeps an update. One for the same stream is replaced; if there are too many the oldest goes,
    /// which may be for a request that is over.
    pub(crate) fn push(&self, stream: u64, priority: Priority) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(id, _)| *id != stream);
        while waiting.len() >= self.max.max(1) {
            waiting.pop_front();
        }
        waiting.push_back((stream, priority));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The update for a stream, if there is one and anything came since `seen`.
    pub(crate) fn take(&self, stream: u64, seen: &mut u32) -> Option<Priority> {
        let generation = self.generation.load(Ordering::Acquire);
        if generation == *seen {
            return None;
        }
        *seen = generation;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let at = waiting.iter().position(|(id, _)| *id == stream)?;
        waiting.remove(at).map(|(_, priority)| priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(urgency: u8, incremental: bool) -> Priority {
        Priority { urgency, incremental }
    }

    #[test]
    fn the_more_urgent_and_then_the_earlier_goes_first_and_incremental_ones_share() {
        assert!(level(priority(0, true), 9) > level(priority(1, false), 0));
        assert!(level(priority(6, true), u64::MAX) > level(priority(7, false), 0));
        assert!(level(priority(3, false), 1) > level(priority(3, false), 2));
        assert!(level(priority(3, false), u64::MAX) > level(priority(3, true), 0));
        assert_eq!(level(priority(5, true), 1), level(priority(5, true), 2));
        assert_eq!(level(priority(3, true), 7), 0);
    }

    #[test]
    fn updates_are_found_once_and_the_oldest_make_room() {
        let updates = Updates::new(2);
        let mut seen = 0;
        assert_eq!(updates.take(0, &mut seen), None);
        for (stream, urgency) in [(0, 1), (4, 2), (4, 5), (8, 3)] {
            updates.push(stream, priority(urgency, false));
        }
        assert_eq!(updates.take(0, &mut seen), None, "it made room");
        assert_eq!(updates.take(4, &mut 0), Some(priority(5, false)));
        assert_eq!(updates.take(4, &mut 0), None);
        assert_eq!(updates.take(8, &mut seen), None, "nothing came since");
        assert_eq!(updates.take(8, &mut 0), Some(priority(3, false)));
    }
}
