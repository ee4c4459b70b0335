//! Which entry of a static table has a name and a value? Found by one look, for names that are few and known.

use crate::Entry;

/// Slots by a name's hash; a power of two.
const SLOTS: usize = 256;
/// No entry: the end of a chain, or an empty slot.
const NONE: u8 = u8::MAX;

/// What a table has for a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Name and value, at this place from 0.
    Field(u8),
    /// The name, with another value.
    Name(u8),
    /// Nothing.
    Nothing,
}

/// Where the names of a table of `N` entries are.
#[derive(Debug)]
pub struct NameIndex<const N: usize> {
    multiplier: u32,
    /// The first entry of the name with this slot.
    first: [u8; SLOTS],
    /// The next entry with the same name.
    next: [u8; N],
}

impl<const N: usize> NameIndex<N> {
    /// Made by the compiler of all names and of a multiplier that gives each a slot of its own.
    ///
    /// # Panics
    ///
    /// If two names have the same slot, or there are more than 254 entries.
    #[must_use]
    pub const fn new(names: &[&str; N], multiplier: u32) -> Self {
        let mut index = Self { multiplier, first: [NONE; SLOTS], next: [NONE; N] };
        let mut at = 0;
        while at < N {
            let first = first_of_name(names, at);
            if first == at {
                let slot = slot(names[at].as_bytes(), multiplier);
                assert!(index.first[slot] == NONE, "two names have the same slot");
                index.first[slot] = number(at);
            }
            let mut other = at + 1;
            while other < N && !same(names[at].as_bytes(), names[other].as_bytes()) {
                other += 1;
            }
            if other < N {
                index.next[at] = number(other);
            }
            at += 1;
        }
        index
    }

    /// Looks for a field in the table that this is made of.
    #[inline]
    #[must_use]
    pub fn find(&self, table: &[Entry; N], name: &[u8], value: &[u8]) -> Found {
        if name.is_empty() {
            return Found::Nothing;
        }
        let first = self.first[slot(name, self.multiplier)];
        if first == NONE || table[usize::from(first)].name.as_bytes() != name {
            return Found::Nothing;
        }
        let mut index = first;
        while index != NONE {
            if table[usize::from(index)].value.as_bytes() == value {
                return Found::Field(index);
            }
            index = self.next[usize::from(index)];
        }
        Found::Name(first)
    }
}

/// The slot of a name that isn't empty: made of its length and of four bytes, in which all names of
/// the tables differ.
#[inline]
const fn slot(name: &[u8], multiplier: u32) -> usize {
    let len = name.len();
    let bytes = [name[0], name[len / 2], name[len * 3 / 4], name[len - 1]];
    let low = len.to_le_bytes()[0];
    let key = u32::from_le_bytes(bytes) ^ u32::from_le_bytes([low, low, low, 0]);
    (key.wrapping_mul(multiplier) >> 24) as usize
}

const fn first_of_name<const N: usize>(names: &[&str; N], at: usize) -> usize {
    let mut first = 0;
    while !same(names[first].as_bytes(), names[at].as_bytes()) {
        first += 1;
    }
    first
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

const fn number(index: usize) -> u8 {
    assert!(index < NONE as usize);
    index.to_le_bytes()[0]
}
