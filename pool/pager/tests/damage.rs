//! A flipped byte anywhere is refused, kills, or is never read: it never reaches a guest.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod common;

use std::{
    fs::File,
    os::unix::{fs::FileExt as _, process::ExitStatusExt as _},
    path::Path,
};

use common::Rig;

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 0x40;
    file.write_all_at(&byte, at).unwrap();
}

#[test]
fn flipped_bytes_never_reach_a_guest() {
    let mut rig = Rig::stopped(2, &[], &["diff=yes"]);
    let dir = rig.snapshot_dir(rig.snapshot);
    let mut files = [rig.layer_files("blocks"), rig.layer_files("index")].concat();
    files.extend([dir.join("memory.map"), dir.join("manifest.json")]);
    assert_eq!(files.len(), 6);
    let (mut refused, mut killed, mut unread) = (0, 0, 0);
    for round in 0..60_u64 {
        let path = &files[usize::try_from(round % 6).unwrap()];
        let len = path.metadata().unwrap().len();
        let at = (round + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) % len;
        flip(path, at);
        rig.start();
        let place = format!("{} at {at}", path.display());
        match rig.clone_or_status(&["hold=yes", "order=shuffled"]) {
            Err(status) => {
                assert_eq!(status.code(), Some(1), "{place}");
                assert!(path.extension().is_none_or(|its| its != "blocks"), "{place}");
                refused += 1;
            }
            Ok(mut clone) => {
                clone.go();
                match clone.outcome() {
                    Ok(pass) => {
                        assert_eq!(pass.wrong, 0, "{place}");
                        unread += 1;
                    }
                    Err(status) => {
                        assert_eq!(status.signal(), Some(9), "{place}");
                        killed += 1;
                    }
                }
            }
        }
        rig.kill();
        flip(path, at);
    }
    assert!(refused >= 40, "{refused} of 40 in index, map and manifest were refused");
    assert!(killed >= 10, "{killed} of 20 in blocks killed, {unread} were of no consequence");
    let log = rig.log();
    for part in ["is damaged, block", "the pages have digest"] {
        assert!(log.contains(part), "{part} in {log}");
    }
    rig.start();
    let mut healthy = rig.clone_with(&["hold=yes"]);
    healthy.go();
    assert_eq!(healthy.pass().wrong, 0, "all bytes are as they were");
}
