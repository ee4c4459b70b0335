//! Memory in layers: what is written is read back, whatever was written before.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use std::{collections::BTreeSet, fs};

use pool_store::{BLOCK_BYTES, LAYERS_MAX, LayerError, PAGE_BYTES, PageMap, ReadError, WriteError};
use proptest::prelude::*;
use support::{
    fill_page, names_in, new_layers, noise, numbers, page_of, read_all, write, write_all,
};

const PAGES: u64 = 1024;
const BYTES: usize = 4 << 20;

#[test]
fn image_is_read_back_and_zero_pages_take_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let mut memory = vec![0; BYTES];
    memory[3 * PAGE_BYTES..40 * PAGE_BYTES].copy_from_slice(&noise(1, 37 * PAGE_BYTES));
    memory[BYTES - 1] = 1;
    let (map, written) = write_all(&layers, &memory);
    assert!(read_all(&layers, &map) == memory);
    assert_eq!((written.pages, written.zero_pages), (1024, 1024 - 38));
    assert_eq!(map.runs().len(), 4, "one per window: {:?}", map.runs());
    assert_eq!(map.lookup(2), None);
    assert_eq!(map.lookup(3), Some((0, 0, 0)));
    assert_eq!(map.lookup(17), Some((0, 1, 1)));
    let layer = layers.open(written.layer.unwrap()).unwrap();
    assert_eq!(layer.index().stored_bytes(), written.stored_bytes);
    let stored = u64::try_from(37 * PAGE_BYTES).unwrap();
    assert!((stored..stored + 200).contains(&written.stored_bytes), "{written:?}");
    assert_eq!(PageMap::from_bytes(&map.to_bytes()).unwrap(), map);
}

#[test]
fn empty_image_makes_no_layer_and_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let (map, written) = write_all(&layers, &vec![0; BYTES]);
    assert_eq!((map.layers(), written.layer), (&[][..], None));
    assert!(!layers.dir().exists());
}

#[test]
fn diff_stores_what_changed_and_zeroes_what_became_zero() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let mut memory = noise(1, BYTES);
    let (base, _) = write_all(&layers, &memory);
    // Within a block, over its edge, its last page, and far from everything.
    let changed = [5, 6, 15, 16, 17, 31, 800];
    for page in changed {
        fill_page(&mut memory, page, &noise(100 + page, PAGE_BYTES));
    }
    fill_page(&mut memory, 100, &[0; PAGE_BYTES]);
    fill_page(&mut memory, 101, &[0; PAGE_BYTES]);
    let pages = changed.into_iter().chain([100, 101]).collect::<BTreeSet<_>>();
    let (map, written) = write(&layers, Some(&base), &memory, pages);
    assert!(read_all(&layers, &map) == memory);
    assert_eq!(map.layers().len(), 2);
    assert_eq!((map.lookup(100), map.lookup(101)), (None, None));
    let index = layers.open(written.layer.unwrap()).unwrap();
    let blocks: Vec<_> = index.index().blocks().iter().map(|block| block.pages).collect();
    assert_eq!(blocks, [6, 1], "page 800 is too far off to be packed with the others");

    // The same changes again: nothing is stored, and the map is the same.
    let (again, written) = write(&layers, Some(&map), &memory, changed);
    assert_eq!((written.layer, written.deduplicated_pages), (None, 7));
    assert_eq!(again, map);
}

#[test]
fn equal_windows_of_two_images_are_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let first = noise(1, BYTES);
    let mut second = first.clone();
    second[100] ^= 1;
    let (_, one) = write_all(&layers, &first);
    let (map, two) = write_all(&layers, &second);
    assert_eq!(one.stored_bytes, BYTES as u64);
    assert_eq!(two.stored_bytes, BLOCK_BYTES as u64);
    assert_eq!(two.deduplicated_pages, PAGES - 16);
    assert_eq!(map.layers().len(), 2);
    assert!(read_all(&layers, &map) == second);
    // The same by another store over the same directory, which has to read the indexes first.
    let (same, three) = write_all(&new_layers(dir.path()), &second);
    assert_eq!((three.layer, three.deduplicated_pages), (None, PAGES));
    assert_eq!(same, map);
}

#[test]
fn deduplication_never_makes_a_map_name_many_layers() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let memory = noise(1, 20 * BLOCK_BYTES);
    for window in memory.chunks(BLOCK_BYTES) {
        write_all(&layers, window);
    }
    let (map, written) = write_all(&layers, &memory);
    assert_eq!(map.layers().len(), LAYERS_MAX + 1);
    assert_eq!(written.stored_bytes, 12 * BLOCK_BYTES as u64);
    assert!(read_all(&layers, &map) == memory);
}

#[test]
fn fifty_generations_stay_small_and_right() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let mut memory = noise(1, BYTES);
    memory[BYTES / 2..].fill(0);
    let (mut map, _) = write_all(&layers, &memory);
    for generation in 0..50 {
        let mut pages: BTreeSet<u64> = numbers(generation, 40, PAGES).into_iter().collect();
        let some = numbers(generation + 1000, 1, PAGES - 30)[0];
        pages.extend(some..some + 30);
        let mut changed = 0;
        for page in &pages {
            let zero = page % 9 == generation % 9;
            let content = noise(generation << 32 | page, PAGE_BYTES);
            fill_page(&mut memory, *page, if zero { &[0; PAGE_BYTES] } else { &content });
            changed += u64::from(!zero) * PAGE_BYTES as u64;
        }
        let (next, written) = write(&layers, Some(&map), &memory, pages);
        let index = layers.read_index(written.layer.unwrap()).unwrap().to_bytes().len() as u64;
        let stored = written.stored_bytes + index;
        assert!(stored * 10 <= changed * 12, "{stored} bytes for {changed} of {generation}");
        assert!(next.layers().len() <= LAYERS_MAX + 1, "{generation}: {:?}", next.layers());
        assert!(read_all(&layers, &next) == memory, "generation {generation}");
        map = match layers.compact(&next).unwrap() {
            None => next,
            Some(compacted) => {
                assert_eq!(next.layers().len(), LAYERS_MAX + 1);
                assert!(compacted.layers().len() <= 2, "{:?}", compacted.layers());
                assert!(read_all(&layers, &compacted) == memory, "{generation}, compacted");
                compacted
            }
        };
        assert_eq!(PageMap::from_bytes(&map.to_bytes()).as_ref(), Ok(&map));
    }
    // What the last map doesn't name goes; the image stays.
    let live: BTreeSet<_> = map.layers().iter().copied().collect();
    let report = layers.gc(|| Ok(live.clone())).unwrap();
    assert!(report.layers > 30, "{report:?}");
    assert_eq!(names_in(layers.dir()).len(), 2 * live.len());
    assert!(read_all(&layers, &map) == memory);
}

#[test]
fn layers_that_became_useless_are_dropped_without_writing() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let mut memory = noise(1, 20 * BLOCK_BYTES);
    let (mut map, _) = write_all(&layers, &memory);
    for generation in 0..20 {
        // Always the same pages: only the last generation's are used.
        memory[..BLOCK_BYTES].copy_from_slice(&noise(100 + generation, BLOCK_BYTES));
        map = write(&layers, Some(&map), &memory, 0..16).0;
    }
    assert_eq!(map.layers().len(), 2);
    assert!(layers.compact(&map).unwrap().is_none());
    assert!(read_all(&layers, &map) == memory);
}

#[test]
fn misuse_of_the_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let page = noise(1, PAGE_BYTES);
    let mut writer = layers.writer(None, BYTES as u64).unwrap();
    writer.put(10, &page).unwrap();
    let order = writer.put(10, &page).unwrap_err();
    assert!(matches!(order, WriteError::Order { page: 10, next: 11 }), "{order:?}");
    let partial = writer.put(11, &page[1..]).unwrap_err();
    assert!(matches!(partial, WriteError::Partial { page: 11, bytes: 4095 }), "{partial:?}");
    for beyond in [PAGES, u64::MAX] {
        let range = writer.put(beyond, &page).unwrap_err();
        assert!(matches!(range, WriteError::Range { .. }), "{range:?}");
    }
    let error = layers.writer(Some(PageMap::empty(8192)), 4096).unwrap_err();
    assert!(matches!(error, WriteError::MemoryLength { parent: 8192, bytes: 4096 }), "{error:?}");
    layers.writer(None, 4097).unwrap_err();
    drop(writer);
    assert!(
        !layers.dir().exists() || names_in(layers.dir()).is_empty(),
        "dropped: nothing is left"
    );
}

#[test]
fn every_damaged_byte_of_a_layer_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let mut memory = noise(2, 61).repeat(2 * BLOCK_BYTES / 61 + 1);
    memory.truncate(2 * BLOCK_BYTES);
    memory[..PAGE_BYTES].copy_from_slice(&noise(1, PAGE_BYTES));
    let (map, written) = write_all(&layers, &memory);
    let id = written.layer.unwrap();

    let (path, index) = (layers.index_path(id), fs::read(layers.index_path(id)).unwrap());
    for at in 0..index.len() {
        let mut damaged = index.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged).unwrap();
        let error = layers.open(id).unwrap_err();
        assert!(matches!(error, LayerError::Format { layer, .. } if layer == id), "{error:?}");
    }
    fs::write(&path, index).unwrap();

    let (path, blocks) = (layers.blocks_path(id), fs::read(layers.blocks_path(id)).unwrap());
    let (mut out, mut refused) = (vec![0; memory.len()], 0);
    for at in 0..blocks.len() {
        let mut damaged = blocks.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged).unwrap();
        match pool_store::ImageReader::new(&layers, &map).read(0, &mut out) {
            Err(ReadError::Damaged { layer, .. }) if layer == id => refused += 1,
            // LZ4 has several ways to say the same: those pages are right.
            read => assert!(read.is_ok() && out == memory, "byte {at}: {read:?}"),
        }
    }
    assert!(refused * 100 >= blocks.len() * 99, "{refused} of {}", blocks.len());
    fs::write(&path, &blocks[1..]).unwrap();
    let error = layers.open(id).unwrap_err();
    let expected = blocks.len() as u64;
    assert!(
        matches!(error, LayerError::Length { expected: e, found, .. } if e == expected && found == e - 1),
        "{error:?}"
    );
    fs::remove_file(&path).unwrap();
    assert!(matches!(layers.open(id), Err(LayerError::NotFound { .. })));
    assert!(!layers.contains(id));
}

#[test]
fn map_that_claims_more_than_its_layer_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let (map, _) = write(&layers, None, &noise(1, BYTES), [3]);
    // The only run is the last 16 bytes: page (8), block (4), layer (2), first (1), pages (1).
    let claim = |at_from_end: usize, value: u8| {
        let mut bytes = map.to_bytes();
        let at = bytes.len() - at_from_end;
        bytes[at] = value;
        let map = PageMap::from_bytes(&bytes).unwrap();
        let mut reader = pool_store::ImageReader::new(&layers, &map);
        reader.read(0, &mut vec![0; BYTES]).unwrap_err()
    };
    assert!(matches!(claim(8, 1), ReadError::Missing { block: 1, blocks: 1, .. }));
    assert!(matches!(claim(1, 2), ReadError::Pages { pages: 1, .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any sequence of images, diffs and collections, over content that repeats often.
    #[test]
    fn images_are_what_was_put(
        steps in prop::collection::vec(
            (any::<bool>(), prop::collection::btree_map(0..200_u64, 0..6_u64, 0..60)), 1..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let layers = new_layers(dir.path());
        let mut images: Vec<(PageMap, Vec<u8>)> = Vec::new();
        for (fresh, pages) in steps {
            let parent = images.last().filter(|_| !fresh).cloned();
            let (parent, mut memory) = match parent {
                Some((map, memory)) => (Some(map), memory),
                None => (None, vec![0; 200 * PAGE_BYTES]),
            };
            for (page, seed) in &pages {
                // Zero, noise that repeats, or what compresses.
                let content = match seed {
                    0 => vec![0; PAGE_BYTES],
                    1 | 2 => noise(*seed, PAGE_BYTES),
                    _ => vec![u8::try_from(*seed).unwrap(); PAGE_BYTES],
                };
                fill_page(&mut memory, *page, &content);
            }
            let (map, written) = write(&layers, parent.as_ref(), &memory, pages.keys().copied());
            prop_assert_eq!(written.pages, pages.len() as u64);
            prop_assert!(map.layers().len() <= LAYERS_MAX + 1);
            images.push((map, memory));
        }
        for (map, memory) in &images {
            prop_assert!(read_all(&layers, map) == *memory);
            prop_assert_eq!(&PageMap::from_bytes(&map.to_bytes()).unwrap(), map);
            for page in 0..200 {
                let zero = page_of(memory, page).iter().all(|byte| *byte == 0);
                prop_assert_eq!(map.lookup(page).is_none(), zero, "page {}", page);
            }
        }
        let (last, memory) = images.pop().unwrap();
        layers.gc(|| Ok(last.layers().iter().copied().collect())).unwrap();
        prop_assert!(read_all(&layers, &last) == memory);
        prop_assert_eq!(write_all(&layers, &memory).0.bytes(), last.bytes());
    }
}
