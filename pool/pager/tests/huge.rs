//! Base memory of reserved 2 MiB pages.

mod common;

use std::fs;

use common::Rig;
use pool_model::Prefetch;

const RESERVED: &str = "/proc/sys/vm/nr_hugepages";

/// Gives back what was reserved.
struct Restore(String);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = fs::write(RESERVED, &self.0);
    }
}

#[tokio::test]
async fn huge_base_is_the_snapshot_and_too_few_pages_are_named() {
    let mut rig = Rig::stopped(16, &["--huge-pages", "2m"], &["diff=yes"]);
    rig.start();
    let client = rig.client().await;
    let (dir, bytes) = (rig.snapshot_dir(rig.snapshot), rig.bytes as u64);
    let old = fs::read_to_string(RESERVED).unwrap_or_default();
    let Ok(reserved) = old.trim().parse::<u64>() else {
        return eprintln!("skipped: this kernel has no huge pages");
    };
    if reserved == 0 {
        let base = client.base(rig.snapshot, &dir, bytes, Prefetch::None).await;
        let refused = base.unwrap_err().to_string();
        assert!(refused.contains("needs 8 huge pages of 2 MiB, 0 are free"), "{refused}");
    }
    let _restore = Restore(old);
    let wanted = reserved + 16;
    let got = fs::write(RESERVED, wanted.to_string())
        .and_then(|()| fs::read_to_string(RESERVED))
        .unwrap_or_default();
    if got.trim().parse() != Ok(wanted) {
        return eprintln!("skipped: {wanted} huge pages can't be reserved here ({})", got.trim());
    }
    let mut clone = rig.clone_with(&["hold=yes", "order=shuffled"]);
    clone.go();
    assert_eq!(clone.pass().wrong, 0);
    let stats = client.stats().await.unwrap();
    assert_eq!((stats.bases[0].units, stats.clones[0].faults), (8, 8), "one per 2 MiB");
    assert_eq!(stats.bases[0].resident_bytes, bytes);

    rig.kill();
    rig.start();
    let client = rig.client().await;
    client.attach(rig.attach_of(&clone)).await.unwrap();
    client.base(rig.snapshot, &dir, bytes, Prefetch::Full).await.unwrap();
    let mut second = rig.clone_with(&["hold=yes"]);
    second.go();
    assert_eq!(second.pass().wrong, 0, "taken over and filled ahead, what was there left alone");
}
