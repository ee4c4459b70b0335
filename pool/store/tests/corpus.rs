//! The corpus of the fuzz targets through their bodies: real files, damaged ones, and whatever
//! fuzzing has found.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

#[path = "../fuzz/bodies.rs"]
mod bodies;
mod support;

use std::{fs, path::Path};

use pool_store::{
    LayerId, LayerIndex, Manifest, PAGE_BYTES, PageMap, SnapshotStore, WorkingSet, decode_block,
};
use support::{commit, fill_page, new_layers, noise, write, write_all};

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 5] = [
    ("block", bodies::block),
    ("layer_index", bodies::layer_index),
    ("manifest", bodies::manifest),
    ("page_map", bodies::page_map),
    ("working_set", bodies::working_set),
];

fn corpus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_file_of_the_corpus_is_read_or_refused() {
    for (target, body) in TARGETS {
        let files: Vec<_> = fs::read_dir(corpus().join(target)).unwrap().flatten().collect();
        assert!(files.len() >= 3, "{target} has only {} files", files.len());
        for file in files {
            body(&fs::read(file.path()).unwrap());
        }
    }
}

#[test]
fn whole_files_of_the_corpus_are_still_read() {
    let whole = |target: &str| fs::read(corpus().join(target).join("whole")).unwrap();
    assert!(PageMap::from_bytes(&whole("page_map")).unwrap().runs().len() > 3);
    assert_eq!(WorkingSet::from_bytes(&whole("working_set")).unwrap().restores(), 2);
    let index = whole("layer_index");
    assert_eq!(LayerIndex::from_bytes(LayerId::of(&index), &index).unwrap().blocks().len(), 3);
    let manifest = whole("manifest");
    let error = Manifest::from_json(pool_model::SnapshotId::from_u128(0), &manifest).unwrap_err();
    let id = error.to_string().rsplit_once(' ').unwrap().1.parse().unwrap();
    Manifest::from_json(id, &manifest).unwrap();
}

#[test]
fn every_flipped_byte_and_every_cut_of_whole_files_is_read_or_refused() {
    for (target, body) in TARGETS {
        let whole = fs::read(corpus().join(target).join("whole")).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            body(&damaged);
            body(&whole[..at]);
        }
    }
}

/// Writes the seeds anew, by today's writers. `cargo test -p pool-store --test corpus -- --ignored`
#[test]
#[ignore = "it changes the corpus"]
fn seeds_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let layers = new_layers(dir.path());
    let store = SnapshotStore::new(dir.path().join("snapshots"), layers.clone());
    let mut memory = noise(1, 40 * PAGE_BYTES);
    memory[16 * PAGE_BYTES..32 * PAGE_BYTES].fill(9);
    let (base, written) = write_all(&layers, &memory);
    let layer = layers.open(written.layer.unwrap()).unwrap();
    fill_page(&mut memory, 5, &[0; PAGE_BYTES]);
    fill_page(&mut memory, 7, &noise(2, PAGE_BYTES));
    let (map, _) = write(&layers, Some(&base), &memory, [5, 7]);
    let manifest = commit(&store, &map);

    seed("page_map", &map.to_bytes(), 40);
    seed("layer_index", &layer.index().to_bytes(), 50);
    seed("manifest", &manifest.to_json(), 300);
    let mut set = WorkingSet::new(map.bytes());
    set.observe(&[0, 1, 2].into());
    set.observe(&[1].into());
    seed("working_set", &set.to_bytes(), 30);
    let entry = layer.index().blocks()[1]; // what compresses
    let blocks = fs::read(layers.blocks_path(layer.index().id())).unwrap();
    let at = usize::try_from(entry.offset).unwrap();
    let stored = &blocks[at..at + entry.stored_len()];
    decode_block(&entry, stored, &mut vec![0; pool_store::BLOCK_BYTES]).unwrap();
    seed("block", &[&[entry.pages - 1], stored].concat(), 3);
}

/// The whole file, one cut short, and one with a byte of its content flipped.
fn seed(target: &str, whole: &[u8], at: usize) {
    let dir = corpus().join(target);
    fs::create_dir_all(&dir).unwrap();
    let mut flipped = whole.to_vec();
    flipped[at] ^= 1;
    fs::write(dir.join("whole"), whole).unwrap();
    fs::write(dir.join("cut"), &whole[..whole.len() - 1]).unwrap();
    fs::write(dir.join("flipped"), flipped).unwrap();
}
