//! Does the block cache keep its bound, and never give what was not put into it?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use pool_remote::BlockCache;
use pool_store::{Digest, LayerId};
use proptest::prelude::*;

const LEN: u64 = 1 << 20;

fn layer(number: u8) -> LayerId {
    LayerId(Digest([number; 32]))
}

/// What layer `number` has at `offset`: never zero.
fn content(number: u8, offset: u64, len: usize) -> Vec<u8> {
    (offset..)
        .take(len)
        .map(|at| u8::try_from((at + u64::from(number)) % 250 + 1).unwrap())
        .collect()
}

fn occupied(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

#[derive(Debug, Clone)]
enum Step {
    Write(u8, u64, usize),
    Read(u8, u64, usize),
    Trim,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..5_u8, 0..LEN - 70_000, 1..70_000_usize);
    let step = prop_oneof![
        6 => place().prop_map(|(layer, at, len)| Step::Write(layer, at, len)),
        6 => place().prop_map(|(layer, at, len)| Step::Read(layer, at, len)),
        1 => Just(Step::Trim),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_bound_is_kept_and_hits_are_right(steps in steps(), max in 40_000..400_000_u64) {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = BlockCache::new(dir.path().to_owned(), max).unwrap();
        let mut restarted = false;
        for step in steps {
            match step {
                Step::Write(number, at, len) => {
                    let file = cache.file(layer(number), LEN).unwrap();
                    let bytes = content(number, at, len);
                    let kept = file.write_at(at, &bytes).unwrap();
                    let mut found = vec![0; len];
                    prop_assert_eq!(file.read_at(at, &mut found).unwrap(), kept);
                    prop_assert!(!kept || found == bytes);
                    prop_assert!(kept || (len as u64) + 8192 > max);
                }
                Step::Read(number, at, len) => {
                    let file = cache.file(layer(number), LEN).unwrap();
                    let mut found = vec![0; len];
                    // After a restart the file system's blocks are all that is known.
                    if file.read_at(at, &mut found).unwrap() && !restarted {
                        prop_assert!(found == content(number, at, len));
                    }
                }
                Step::Trim => {
                    cache.trim().unwrap();
                }
                Step::Restart => {
                    drop(cache);
                    cache = BlockCache::new(dir.path().to_owned(), max).unwrap();
                    restarted = true;
                }
            }
            prop_assert!(cache.bytes() <= max, "{} > {max}", cache.bytes());
            prop_assert!(occupied(dir.path()) <= max);
        }
    }
}

#[test]
fn the_least_recently_used_layer_goes_first_and_its_readers_miss() {
    let dir = tempfile::tempdir().unwrap();
    let cache = BlockCache::new(dir.path().to_owned(), 200_000).unwrap();
    let files: Vec<_> = (0..2).map(|n| cache.file(layer(n), LEN).unwrap()).collect();
    for (number, file) in (0..).zip(&files) {
        assert!(file.write_at(0, &content(number, 0, 65_536)).unwrap());
    }
    let mut buf = vec![0; 65_536];
    assert!(files[0].read_at(0, &mut buf).unwrap());
    let third = cache.file(layer(2), LEN).unwrap();
    assert!(third.write_at(65_536, &content(2, 65_536, 100_000)).unwrap());
    assert!(files[0].read_at(0, &mut buf).unwrap(), "it was used after the other");
    assert!(!files[1].read_at(0, &mut buf).unwrap());
    // It can be filled again, and what nobody holds is gone from the disk.
    assert!(files[1].write_at(0, &buf).unwrap());
    drop((files, third));
    let small = cache.file(layer(9), LEN).unwrap();
    assert!(small.write_at(0, &content(9, 0, 190_000)).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn another_length_means_another_content() {
    let dir = tempfile::tempdir().unwrap();
    let cache = BlockCache::new(dir.path().to_owned(), LEN).unwrap();
    cache.file(layer(1), LEN).unwrap().write_at(0, &[1; 4096]).unwrap();
    let mut buf = [0; 4096];
    let shorter = cache.file(layer(1), 8192).unwrap();
    assert!(!shorter.read_at(0, &mut buf).unwrap());
    assert!(!shorter.write_at(8000, &[1; 4096]).unwrap(), "beyond its end");
}

#[test]
fn readers_and_writers_in_many_threads_agree() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Arc::new(BlockCache::new(dir.path().to_owned(), 300_000).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let cache = Arc::clone(&cache);
            scope.spawn(move || {
                let mut buf = vec![0; 20_000];
                for round in 0..300_u64 {
                    let number = u8::try_from((round + thread) % 3).unwrap();
                    let at = (round * 7919 + thread * 104_729) % (LEN - 20_000);
                    let file = cache.file(layer(number), LEN).unwrap();
                    if file.read_at(at, &mut buf).unwrap() {
                        assert!(buf == content(number, at, buf.len()));
                    } else {
                        file.write_at(at, &content(number, at, buf.len())).unwrap();
                    }
                }
            });
        }
    });
    assert!(cache.bytes() <= 300_000 && occupied(dir.path()) <= 300_000);
}

#[test]
fn what_a_crash_left_is_used_or_missed_but_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = {
        let cache = BlockCache::new(dir.path().to_owned(), LEN).unwrap();
        let file = cache.file(layer(1), LEN).unwrap();
        file.write_at(0, &content(1, 0, 131_072)).unwrap();
        file.path().to_owned()
    };
    fs::write(dir.path().join("a-stranger"), "mine").unwrap();
    let cache = BlockCache::new(dir.path().to_owned(), LEN).unwrap();
    let file = cache.file(layer(1), LEN).unwrap();
    let mut buf = vec![0; 131_072];
    assert!(file.read_at(0, &mut buf).unwrap());
    assert!(buf == content(1, 0, buf.len()));
    assert!(!file.read_at(500_000, &mut buf).unwrap(), "a hole is a miss");
    drop((file, cache));
    let cache = BlockCache::new(dir.path().to_owned(), 4096).unwrap();
    assert_eq!(cache.bytes(), 0);
    assert!(!path.exists() && dir.path().join("a-stranger").exists());
    let mut nothing = String::new();
    fs::File::open(dir.path().join("a-stranger"))
        .and_then(|mut file| file.seek(SeekFrom::Start(0)).map(|_| file))
        .unwrap()
        .read_to_string(&mut nothing)
        .unwrap();
    assert_eq!(nothing, "mine");
}
