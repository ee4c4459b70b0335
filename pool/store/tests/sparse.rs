//! Sparse files on real file systems: digests and copies.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use pool_store::{copy_sparse, copy_sparse_into, data_extents, digest_sparse};
use support::{disk::Mounted, noise, sparse_file};

#[test]
fn digest_tells_content_apart_but_not_how_it_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let digest = |name: &str, len: u64, data: &[(u64, &[u8])]| {
        let path = dir.path().join(name);
        sparse_file(&path, len, data);
        digest_sparse(&File::open(path).unwrap()).unwrap()
    };
    let zeroes = vec![0; 300 << 10];
    let holes = digest("holes", 1_000_001, &[(70_000, b"a"), (1_000_000, b"b")]);
    let mut dense = vec![0; 1_000_001];
    (dense[70_000], dense[1_000_000]) = (b'a', b'b');
    assert_eq!(holes, digest("dense", 1_000_001, &[(0, &dense)]));
    let partly = [(0, &zeroes[..]), (70_000, b"a".as_slice()), (1_000_000, b"b")];
    assert_eq!(holes, digest("partly", 1_000_001, &partly));
    assert_ne!(holes, digest("moved", 1_000_001, &[(70_001, b"a"), (1_000_000, b"b")]));
    assert_ne!(holes, digest("block", 1_000_001, &[(4464, b"a"), (1_000_000, b"b")]));
    assert_ne!(digest("empty", 0, &[]), digest("zeroes", 65_536, &[]));
    assert_ne!(digest("short", 65_536, &[]), digest("long", 131_072, &[]));
}

#[test]
fn copies_keep_content_and_holes_on_every_file_system_at_hand() {
    let home = tempfile::tempdir().unwrap(); // whatever the machine's disk has
    let memory = Mounted::tmpfs("size=32M");
    for (from, to) in [
        (home.path(), home.path()),
        (memory.path(), memory.path()),
        (memory.path(), home.path()), // between two: copied by hand
    ] {
        check_copy(from, to);
    }
}

fn check_copy(from: &Path, to: &Path) {
    let (from, to) = (from.join("from"), to.join("to"));
    let data = vec![7; 200_000];
    sparse_file(&from, 20 << 20, &[(0, b"start"), (5 << 20, &data), ((20 << 20) - 3, b"end")]);
    fs::write(&to, b"something older and longer than nothing").unwrap();
    let copied = copy_sparse(&from, &to).unwrap();
    assert!((200_000..1 << 20).contains(&copied), "{copied} bytes of data");
    assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap(), "same content");
    let meta = fs::metadata(&to).unwrap();
    assert!(meta.blocks() * 512 < 1 << 20, "{} bytes allocated", meta.blocks() * 512);
    let extents = |path: &Path| data_extents(&File::open(path).unwrap()).unwrap();
    assert_eq!(extents(&from).len(), extents(&to).len());
    assert!(copy_sparse(&from, &from).is_err(), "onto itself");
    assert_eq!(fs::metadata(&from).unwrap().len(), 20 << 20, "and unharmed by that");
}

#[test]
fn copies_into_a_file_leave_nothing_of_what_was_there() {
    let home = tempfile::tempdir().unwrap();
    let memory = Mounted::tmpfs("size=32M");
    for (from, to) in
        [(home.path(), home.path()), (memory.path(), memory.path()), (memory.path(), home.path())]
    {
        check_copy_into(from, to);
    }
}

fn check_copy_into(from: &Path, to: &Path) {
    let (from, to) = (from.join("new"), to.join("old"));
    let data = noise(1, 200_000);
    let new = [(0, &b"start"[..]), (5 << 20, &data), ((10 << 20) - 3, b"end")];
    sparse_file(&from, 10 << 20, &new);
    // Data before, over the edges of, within and after what is data in the other.
    let old = noise(2, 1 << 20);
    let there = [(64 << 10, &old[..]), ((5 << 20) - 100_000, &old[..]), (8 << 20, &old[..9000])];
    sparse_file(&to, 10 << 20, &there);
    let target = File::options().read(true).write(true).open(&to).unwrap();
    let inode = target.metadata().unwrap().ino();
    copy_sparse_into(&from, &target).unwrap();
    assert!(fs::read(&from).unwrap() == fs::read(&to).unwrap(), "same content");
    let meta = fs::metadata(&to).unwrap();
    assert_eq!(meta.ino(), inode, "in place");
    assert!(meta.blocks() * 512 < 1 << 20, "{} bytes allocated", meta.blocks() * 512);

    target.set_len(4096).unwrap();
    let error = copy_sparse_into(&from, &target).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "of another length");
    copy_sparse_into(&to, &target).unwrap_err(); // onto itself
}
