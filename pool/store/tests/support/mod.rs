//! What several tests need: content that is what it is by its seed, and images as plain arrays.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

pub(crate) mod disk;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use pool_store::{
    ImageReader, LayerStore, NewManifest, PAGE_BYTES, PageMap, SnapshotStore, Written,
};

/// Bytes that no codec compresses, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Numbers below `end`, the same for the same seed.
pub(crate) fn numbers(seed: u64, count: usize, end: u64) -> Vec<u64> {
    let bytes = noise(seed, count * 8);
    bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk) % end).collect()
}

pub(crate) fn new_layers(dir: &Path) -> LayerStore {
    LayerStore::new(dir.join("layers"))
}

/// Stores these pages of `memory` over `parent`; all of them without one.
pub(crate) fn write(
    layers: &LayerStore,
    parent: Option<&PageMap>,
    memory: &[u8],
    pages: impl IntoIterator<Item = u64>,
) -> (PageMap, Written) {
    let mut writer = layers.writer(parent.cloned(), memory.len() as u64).unwrap();
    for page in pages {
        writer.put(page, page_of(memory, page)).unwrap();
    }
    writer.finish().unwrap()
}

/// Stores all of `memory` without a parent.
pub(crate) fn write_all(layers: &LayerStore, memory: &[u8]) -> (PageMap, Written) {
    let mut writer = layers.writer(None, memory.len() as u64).unwrap();
    writer.put(0, memory).unwrap();
    writer.finish().unwrap()
}

/// The memory that `map` describes.
pub(crate) fn read_all(layers: &LayerStore, map: &PageMap) -> Vec<u8> {
    let mut memory = vec![0xee; usize::try_from(map.bytes()).unwrap()];
    ImageReader::new(layers, map).read(0, &mut memory).unwrap();
    memory
}

pub(crate) fn page_of(memory: &[u8], page: u64) -> &[u8] {
    let at = usize::try_from(page).unwrap() * PAGE_BYTES;
    &memory[at..at + PAGE_BYTES]
}

pub(crate) fn fill_page(memory: &mut [u8], page: u64, content: &[u8]) {
    let at = usize::try_from(page).unwrap() * PAGE_BYTES;
    memory[at..at + PAGE_BYTES].copy_from_slice(content);
}

pub(crate) fn new_manifest(memory_bytes: u64) -> NewManifest {
    NewManifest {
        parent: None,
        template: pool_model::TemplateId::DEFAULT,
        team: pool_model::TeamId::PLATFORM,
        base_disk_digest: "0".repeat(64),
        kernel: "6.1.0".to_owned(),
        memory_bytes,
        vcpus: 1,
        vmm: "qemu-7.2.22".to_owned(),
        accel: "tcg".to_owned(),
        cpu: "max".to_owned(),
        cpu_fingerprint: "f".repeat(64),
        envd_version: "0.1.0".to_owned(),
        generation: pool_model::Generation(1),
        created_at: "2026-11-22T10:00:00Z".parse().unwrap(),
    }
}

/// A snapshot with this memory.
pub(crate) fn commit(store: &SnapshotStore, map: &PageMap) -> pool_store::Manifest {
    let draft = store.begin().unwrap();
    fs::write(draft.state(), b"state").unwrap();
    fs::write(draft.scratch(), b"disk").unwrap();
    draft.commit(new_manifest(map.bytes()), map).unwrap()
}

pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A sparse file with data at these offsets.
pub(crate) fn sparse_file(path: &Path, len: u64, data: &[(u64, &[u8])]) {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (at, bytes) in data {
        file.write_all_at(bytes, *at).unwrap();
    }
}
