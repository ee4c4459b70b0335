//! Which bytes of a file are there: a set of byte ranges.

use std::collections::BTreeMap;

/// Ranges of bytes, each by its start, the end exclusive; none touches another.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `start..end`.
    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start, end);
        if start >= end {
            return;
        }
        // All that touch it melt into it; they are neighbours, the last of them comes first here.
        while let Some((&s, &e)) = self.0.range(..=end).next_back()
            && e >= start
        {
            self.0.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.0.insert(start, end);
    }

    /// Whether all of `start..end` is there. Allocates nothing.
    pub(crate) fn covers(&self, start: u64, end: u64) -> bool {
        start >= end || self.0.range(..=start).next_back().is_some_and(|(_, e)| *e >= end)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn it_is_a_set_of_bytes(
            inserts in proptest::collection::vec((0u64..200, 0u64..40), 0..40),
            (start, len) in (0u64..200, 0u64..60),
        ) {
            let mut ranges = Ranges::default();
            let mut model = [false; 300];
            for (start, len) in inserts {
                ranges.insert(start, start + len);
                (start..start + len).for_each(|at| model[usize::try_from(at).unwrap()] = true);
            }
            let expected = (start..start + len).all(|at| model[usize::try_from(at).unwrap()]);
            assert_eq!(ranges.covers(start, start + len), expected);
            // No two touch, so the set has one form.
            let all: Vec<_> = ranges.0.iter().collect();
            assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].0), "{all:?}");
        }
    }
}
