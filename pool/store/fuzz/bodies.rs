//! What has to hold for any bytes: an error, or a value whose invariants hold and that is written as
//! these very bytes. Shared by the fuzz targets and `tests/corpus.rs`.

#![allow(dead_code, reason = "each fuzz target uses one")]

use pool_model::SnapshotId;
use pool_store::{
    BLOCK_BYTES, BLOCK_PAGES, BlockEntry, BlockError, Codec, Digest, LayerId, LayerIndex, Manifest,
    OpenError, PAGE_BYTES, PageMap, WorkingSet, decode_block, is_damage,
};

/// `manifest.json`, under the id that it claims and under another one.
pub(crate) fn manifest(data: &[u8]) {
    let other = SnapshotId::from_u128(1);
    let error = Manifest::from_json(other, data).expect_err("no content has this id");
    assert!(is_damage(&error), "{error}");
    // What it claims to be is what it has to be, if it is anything.
    let OpenError::Malformed { reason, .. } = error else { return };
    let Some(id) = reason.strip_prefix("its content belongs to ") else { return };
    let id: SnapshotId = id.parse().expect("an id is written as it is read");
    if let Ok(manifest) = Manifest::from_json(id, data) {
        assert_eq!(manifest.snapshot, id);
        let again = Manifest::from_json(id, &manifest.to_json());
        assert_eq!(again.expect("what is read can be written"), manifest);
    }
}

/// `memory.map`.
pub(crate) fn page_map(data: &[u8]) {
    let Ok(map) = PageMap::from_bytes(data) else { return };
    assert_eq!(map.to_bytes(), data);
    let pages = map.bytes() / PAGE_BYTES as u64;
    let mut free = 0;
    for run in map.runs() {
        assert!(run.page >= free && run.pages > 0 && run.end() <= pages, "{run:?}");
        assert!(usize::from(run.first) + run.pages as usize <= BLOCK_PAGES, "{run:?}");
        assert!(usize::from(run.layer) < map.layers().len(), "{run:?}");
        assert_eq!(map.lookup(run.page), Some((run.layer, run.block, run.first)));
        if run.page > free {
            assert_eq!(map.lookup(free), None);
            assert!(map.runs_between(free, run.page).is_empty());
        }
        assert_eq!(map.runs_between(run.page, run.end()), [*run]);
        free = run.end();
    }
    assert_eq!(map.lookup(free), None);
    assert_eq!(map.lookup(u64::MAX), None);
    assert_eq!(map.runs_between(0, u64::MAX), map.runs());
}

/// `{layer}.index`, under the name that its bytes have.
pub(crate) fn layer_index(data: &[u8]) {
    let id = LayerId::of(data);
    let Ok(index) = LayerIndex::from_bytes(id, data) else { return };
    assert_eq!((index.to_bytes(), index.id()), (data.to_vec(), id));
    let mut offset = 0;
    for block in index.blocks() {
        assert_eq!(block.offset, offset);
        assert!((1..=BLOCK_PAGES).contains(&usize::from(block.pages)));
        assert!((1..=block.content_bytes()).contains(&block.stored_len()));
        offset += u64::from(block.stored);
    }
    assert_eq!(index.stored_bytes(), offset);
    assert!(offset > 0, "a layer has at least one block");
}

/// `working-set`, and what one more restore makes of it.
pub(crate) fn working_set(data: &[u8]) {
    let Ok(mut set) = WorkingSet::from_bytes(data) else { return };
    assert_eq!(set.to_bytes(), data);
    assert!(set.windows().is_sorted());
    let touched = set.windows().map(|window| window ^ 1).collect();
    set.observe(&touched);
    assert!(!set.is_stale(&set.windows().collect()));
    assert_eq!(WorkingSet::from_bytes(&set.to_bytes()), Ok(set));
}

/// The stored bytes of a block after one byte that says how many pages (low bits) and which codec
/// (highest bit). The digest is whatever comes out, so that the decoder is what is tried.
pub(crate) fn block(data: &[u8]) {
    let Some((head, stored)) = data.split_first() else { return };
    let entry = BlockEntry {
        digest: Digest([0; 32]),
        offset: 0,
        stored: u32::try_from(stored.len()).unwrap_or(u32::MAX),
        pages: head % 16 + 1,
        codec: if *head < 128 { Codec::Lz4 } else { Codec::Raw },
    };
    let mut out = vec![0; BLOCK_BYTES];
    let error = decode_block(&entry, stored, &mut out).expect_err("nothing has this digest");
    let BlockError::Digest { found, .. } = error else { return };
    let mut again = vec![0xee; entry.content_bytes()];
    decode_block(&BlockEntry { digest: found, ..entry }, stored, &mut again)
        .expect("this is its digest");
    assert_eq!(again, out[..entry.content_bytes()], "the same bytes, whatever was there before");
}
