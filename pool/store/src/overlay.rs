//! What a map becomes when some of its pages change.

use crate::Run;

/// Guest pages from `page` to before `end` with new content: a run of just them, or zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) page: u64,
    pub(crate) end: u64,
    pub(crate) run: Option<Run>,
}

/// The runs of `base` except where `patches` say otherwise. Both are sorted and don't overlap in
/// themselves; neither does the result.
pub(crate) fn overlay(base: &[Run], patches: &[Patch]) -> Vec<Run> {
    let mut runs = Vec::with_capacity(base.len() + patches.len());
    let mut patches = patches.iter().peekable();
    let mut patched_to = 0; // end of the last patch that was taken
    for run in base {
        let mut at = run.page.max(patched_to);
        while at < run.end() {
            let Some(patch) = patches.next_if(|patch| patch.page < run.end()) else {
                runs.push(run.part(at, run.end()));
                break;
            };
            if patch.page > at {
                runs.push(run.part(at, patch.page));
            }
            runs.extend(patch.run);
            patched_to = patch.end;
            at = at.max(patch.end);
        }
    }
    runs.extend(patches.filter_map(|patch| patch.run));
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Sorted runs without overlap: (gap before, pages, first, block).
    fn runs(shapes: &[(u64, u32, u8, u32)]) -> Vec<Run> {
        let mut page = 0;
        let run = |(gap, pages, first, block): &(u64, u32, u8, u32)| {
            let start = page + gap;
            page = start + u64::from(*pages);
            Run { page: start, pages: *pages, layer: 0, block: *block, first: *first }
        };
        shapes.iter().map(run).collect()
    }

    /// Page by page, what the runs say.
    fn spread(runs: &[Run]) -> BTreeMap<u64, (u32, u64)> {
        let pages = runs.iter().flat_map(|run| {
            (run.page..run.end())
                .map(|page| (page, (run.block, u64::from(run.first) + page - run.page)))
        });
        pages.collect()
    }

    proptest! {
        #[test]
        fn patched_pages_are_new_and_all_others_old(
            old in prop::collection::vec((0..20_u64, 1..=12_u32, 0..4_u8, 0..9_u32), 0..30),
            new in prop::collection::vec((0..30_u64, 1..=12_u32, 0..4_u8, 10..19_u32), 0..20),
            zero: [bool; 20],
        ) {
            let base = runs(&old);
            let patches: Vec<Patch> = runs(&new)
                .iter()
                .zip(zero)
                .map(|(run, zero)| {
                    Patch { page: run.page, end: run.end(), run: (!zero).then_some(*run) }
                })
                .collect();
            let mut expected = spread(&base);
            for patch in &patches {
                expected.retain(|page, _| !(patch.page..patch.end).contains(page));
                expected.extend(spread(patch.run.as_slice()));
            }
            let merged = overlay(&base, &patches);
            prop_assert!(merged.is_sorted_by(|a, b| a.end() <= b.page), "{merged:?}");
            prop_assert!(merged.iter().all(|run| run.pages > 0));
            prop_assert_eq!(spread(&merged), expected);
        }
    }
}
