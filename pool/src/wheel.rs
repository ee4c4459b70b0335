//! Which timers are due: a hierarchical timing wheel, pure, without a clock of its own.
//!
//! Six levels of 64 slots; a slot of level `n` spans `64^n` ms. A timer lies in the level of the
//! highest digit (base 64) in which its time differs from now, so whatever lies in a lower level is
//! earlier than all above it, and a slot's timers move down when time enters it. Inserting and
//! cancelling are O(1): the slots are doubly linked lists inside one vector. Times more than
//! `64^6` ms (about two years) ahead lie aside and are placed when their span begins.

/// Levels of the wheel.
const LEVELS: usize = 6;
/// Slots of one level.
const SLOTS: usize = 64;
/// Binary digits that one level tells apart.
const LEVEL_BITS: u32 = 6;
/// The list of timers beyond all levels.
const BEYOND: usize = LEVELS * SLOTS;
/// Binary digits of all levels.
const RANGE_BITS: u32 = 36;
/// The end of a list.
const NONE: u32 = u32::MAX;

/// A timer in a [`Wheel`]; stands for nothing once the timer expired or was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry<K> {
    /// `None`: this place is free, and `next` links the free ones.
    key: Option<K>,
    at: u64,
    generation: u32,
    list: usize,
    prev: u32,
    next: u32,
}

/// Timers by time, in milliseconds since whenever the caller says.
#[derive(Debug)]
pub struct Wheel<K> {
    now: u64,
    /// One bit per slot that holds a timer.
    occupied: [u64; LEVELS],
    heads: Box<[u32; BEYOND + 1]>,
    entries: Vec<Entry<K>>,
    free: u32,
    len: usize,
}

impl<K> Default for Wheel<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> Wheel<K> {
    /// An empty wheel whose time is 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: 0,
            occupied: [0; LEVELS],
            heads: Box::new([NONE; BEYOND + 1]),
            entries: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    /// Timers that neither expired nor were cancelled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer for `at` ms. One in the past expires with the next [`Wheel::advance`].
    ///
    /// # Panics
    ///
    /// With more than 2^32 - 2 timers at once.
    pub fn insert(&mut self, key: K, at: u64) -> TimerId {
        let index = self.allocate(key, at);
        self.link(index);
        self.len += 1;
        TimerId { index, generation: self.entry(index).generation }
    }

    /// Takes a timer out. `None` if it has expired or was cancelled.
    pub fn cancel(&mut self, id: TimerId) -> Option<K> {
        let entry = self.entries.get(id.index as usize)?;
        if entry.generation != id.generation || entry.key.is_none() {
            return None;
        }
        self.unlink(id.index);
        self.release(id.index).map(|(key, _)| key)
    }

    /// Moves time on and returns what is due by then, in order of time. Time never goes back: an
    /// earlier `now` counts as the last one.
    pub fn advance(&mut self, now: u64) -> Vec<(K, u64)> {
        let until = now.max(self.now);
        let mut due = Vec::new();
        while let Some((list, begins)) = self.first(until) {
            self.now = self.now.max(begins);
            let mut index = std::mem::replace(&mut self.heads[list], NONE);
            self.mark(list);
            while index != NONE {
                let next = self.entry(index).next;
                if list < SLOTS {
                    due.extend(self.release(index));
                } else {
                    self.link(index);
                }
                index = next;
            }
        }
        self.now = until;
        // Slots came in order; only timers set in the past may stand behind later ones.
        due.sort_by_key(|(_, at)| *at);
        due
    }

    /// When to call [`Wheel::advance`] next: never after the earliest timer, and exactly then if
    /// it is less than 64 ms away. Earlier only when far timers have to be moved nearer.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        if let Some((_, begins)) = self.first_slot() {
            return Some(begins);
        }
        (self.heads[BEYOND] != NONE).then(|| ((self.now >> RANGE_BITS) + 1) << RANGE_BITS)
    }

    /// The first list that has to be looked at no later than `until`, and when it begins.
    fn first(&self, until: u64) -> Option<(usize, u64)> {
        let slot = self.first_slot().or_else(|| self.beyond());
        slot.filter(|(_, begins)| *begins <= until)
    }

    fn first_slot(&self) -> Option<(usize, u64)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let slot = self.occupied[level].trailing_zeros();
        let shift = LEVEL_BITS * u32::try_from(level).unwrap_or_default();
        let above = self.now >> (shift + LEVEL_BITS) << (shift + LEVEL_BITS);
        Some((level * SLOTS + slot as usize, above | (u64::from(slot) << shift)))
    }

    /// Timers beyond all levels, once nothing nearer is left: when the span of their first begins.
    fn beyond(&self) -> Option<(usize, u64)> {
        let mut first = None;
        let mut index = self.heads[BEYOND];
        while index != NONE {
            let entry = self.entry(index);
            first = Some(first.map_or(entry.at, |at: u64| at.min(entry.at)));
            index = entry.next;
        }
        first.map(|at| (BEYOND, at >> RANGE_BITS << RANGE_BITS))
    }

    fn list_of(&self, at: u64) -> usize {
        let at = at.max(self.now);
        let differing = (at ^ self.now) | 1;
        let level = (differing.ilog2() / LEVEL_BITS) as usize;
        if level >= LEVELS {
            return BEYOND;
        }
        let slot = (at >> (LEVEL_BITS as usize * level)) & (SLOTS as u64 - 1);
        level * SLOTS + usize::try_from(slot).unwrap_or_default()
    }

    fn link(&mut self, index: u32) {
        let list = self.list_of(self.entry(index).at);
        let head = std::mem::replace(&mut self.heads[list], index);
        let entry = self.entry_mut(index);
        (entry.list, entry.prev, entry.next) = (list, NONE, head);
        if head != NONE {
            self.entry_mut(head).prev = index;
        }
        self.mark(list);
    }

    fn unlink(&mut self, index: u32) {
        let Entry { list, prev, next, .. } = *self.entry(index);
        if prev == NONE {
            self.heads[list] = next;
        } else {
            self.entry_mut(prev).next = next;
        }
        if next != NONE {
            self.entry_mut(next).prev = prev;
        }
        self.mark(list);
    }

    /// Keeps the occupied bit of a list true.
    fn mark(&mut self, list: usize) {
        if list == BEYOND {
            return;
        }
        let bit = 1 << (list % SLOTS);
        if self.heads[list] == NONE {
            self.occupied[list / SLOTS] &= !bit;
        } else {
            self.occupied[list / SLOTS] |= bit;
        }
    }

    fn allocate(&mut self, key: K, at: u64) -> u32 {
        if self.free != NONE {
            let index = self.free;
            let entry = self.entry_mut(index);
            (entry.key, entry.at) = (Some(key), at);
            self.free = self.entry(index).next;
            return index;
        }
        let index = u32::try_from(self.entries.len()).unwrap_or(NONE);
        assert!(index != NONE, "a wheel holds at most 2^32 - 2 timers");
        let entry = Entry { key: Some(key), at, generation: 0, list: 0, prev: NONE, next: NONE };
        self.entries.push(entry);
        index
    }

    fn release(&mut self, index: u32) -> Option<(K, u64)> {
        let free = std::mem::replace(&mut self.free, index);
        let entry = self.entry_mut(index);
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = free;
        let (key, at) = (entry.key.take()?, entry.at);
        self.len -= 1;
        Some((key, at))
    }

    fn entry(&self, index: u32) -> &Entry<K> {
        &self.entries[index as usize]
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry<K> {
        &mut self.entries[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u64),
        Cancel(usize),
        Advance(u64),
        ToNext,
    }

    /// Steps of every magnitude, so that every level and the list beyond are met.
    fn steps() -> impl Strategy<Value = u64> {
        (0u32..40, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1))
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => steps().prop_map(Op::Insert),
            1 => any::<usize>().prop_map(Op::Cancel),
            1 => steps().prop_map(Op::Advance),
            2 => Just(Op::ToNext),
        ];
        prop::collection::vec(op, 0..200)
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(ops in ops()) {
            let (mut wheel, mut now) = (Wheel::new(), 0u64);
            let mut model: BTreeMap<(u64, usize), TimerId> = BTreeMap::new();
            let mut given = Vec::new();
            for op in ops {
                let to = match op {
                    Op::Insert(ahead) => {
                        let at = (now + ahead).saturating_sub(3);
                        let id = wheel.insert(given.len(), at);
                        model.insert((at, given.len()), id);
                        given.push((at, id));
                        continue;
                    }
                    Op::Cancel(pick) => {
                        if given.is_empty() { continue; }
                        let key = pick % given.len();
                        let (at, id) = given[key];
                        let expected = model.remove(&(at, key)).map(|_| key);
                        prop_assert_eq!(wheel.cancel(id), expected);
                        continue;
                    }
                    Op::Advance(by) => now + by,
                    Op::ToNext => wheel.next().unwrap_or(now).max(now),
                };
                let later = model.split_off(&(to + 1, 0));
                let mut expected: Vec<_> = model.keys().map(|(at, key)| (*key, *at)).collect();
                model = later;
                let mut due = wheel.advance(to);
                prop_assert!(due.is_sorted_by_key(|(_, at)| *at), "{:?}", due);
                due.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(due, expected);
                now = to;
                prop_assert_eq!(wheel.len(), model.len());
                match (wheel.next(), model.keys().next()) {
                    (None, None) => {}
                    (Some(next), Some((at, _))) => {
                        prop_assert!(next <= *at && next > now, "{} {} {}", next, at, now);
                        if at >> 6 == now >> 6 { prop_assert_eq!(next, *at); }
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }

    #[test]
    fn times_at_the_end_of_the_range_are_reached() {
        let mut wheel = Wheel::new();
        wheel.insert("far", u64::MAX);
        let gone = wheel.insert("gone", 1 << 40);
        wheel.insert("near", 5);
        assert_eq!(wheel.advance(1 << 37), [("near", 5)]);
        assert_eq!(wheel.cancel(gone), Some("gone"));
        assert_eq!(wheel.cancel(gone), None, "once");
        assert_eq!(wheel.advance(u64::MAX - 1), []);
        assert_eq!(wheel.advance(u64::MAX), [("far", u64::MAX)]);
        assert!(wheel.is_empty() && wheel.next().is_none());
    }
}
