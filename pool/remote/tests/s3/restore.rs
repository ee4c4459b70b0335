//! Does a snapshot come over whole, and is nothing sent twice?

use std::{fs, os::unix::fs::MetadataExt as _};

use pool_remote::{Origin, Published, RemoteError};
use pool_store::{PAGE_BYTES, WorkingSet};

use crate::support::{Bucket, Host, noise, read_memory, usual_disk};

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_restores_on_a_host_that_never_saw_it() {
    let (bucket, a, b) = (Bucket::new(), Host::new(), Host::new());
    let remote = bucket.remote();
    remote.probe().await.unwrap();
    let (snapshot, memory) = a.usual_snapshot();
    let id = snapshot.manifest.snapshot;
    assert!(!remote.contains(id).await.unwrap());
    remote.publish(&snapshot, &a.layers, &a.base_disk()).await.unwrap();
    assert!(remote.contains(id).await.unwrap());

    let fetched = b.fetch(&remote, id).await.unwrap();
    assert_eq!(fetched.manifest, snapshot.manifest);
    for (here, there) in [
        (fetched.scratch_path(), snapshot.scratch_path()),
        (b.base_disk(), a.base_disk()),
        (fetched.state_path(), snapshot.state_path()),
    ] {
        assert!(fs::read(&here).unwrap() == fs::read(&there).unwrap(), "{}", here.display());
        let blocks = |path| fs::metadata(path).unwrap().blocks();
        assert!(blocks(&here) <= blocks(&there) + 8, "{} lost its holes", here.display());
    }
    assert!(!b.layers.contains(fetched.map().layers()[0]), "blocks came before they were needed");

    let cache = b.cache(64 << 20);
    let source = b.source(&remote, &cache);
    let (content, origins) = read_memory(&source, fetched.map()).await;
    assert!(content == memory);
    assert!(origins.iter().all(|origin| *origin == Origin::Remote));
    let (content, origins) = read_memory(&source, fetched.map()).await;
    assert!(content == memory);
    assert!(origins.iter().all(|origin| *origin == Origin::Cache));
    assert_eq!(source.stats().origin(Origin::Cache).requests(), origins.len() as u64);
    let (content, origins) = read_memory(&a.source(&remote, &a.cache(0)), snapshot.map()).await;
    assert!(content == memory);
    assert!(origins.iter().all(|origin| *origin == Origin::Local));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_not_sent_again() {
    let (bucket, a, b) = (Bucket::new(), Host::new(), Host::new());
    let remote = bucket.remote();
    let (first, memory) = a.usual_snapshot();
    let sent = remote.publish(&first, &a.layers, &a.base_disk()).await.unwrap();
    assert!(sent.sent_bytes > 1_000_000, "{sent:?}");
    let again = remote.publish(&first, &a.layers, &a.base_disk()).await.unwrap();
    assert_eq!((again.sent_bytes, again.objects), (0, 0), "{again:?}");
    assert!(again.skipped_bytes > 0);

    let mut changed = memory.clone();
    changed[8 * PAGE_BYTES..10 * PAGE_BYTES].copy_from_slice(&noise(70, 2 * PAGE_BYTES));
    let mut disk = usual_disk();
    disk.push((6 << 20, noise(71, PAGE_BYTES)));
    let second = a.snapshot(&changed, &disk, Some((&first, &memory)));
    let more = remote.publish(&second, &a.layers, &a.base_disk()).await.unwrap();
    // State is 180 kB of noise and new in every snapshot; the rest is small.
    assert!(more.sent_bytes < 180_000 + 30_000, "{more:?}");

    let fetched = b.fetch(&remote, second.manifest.snapshot).await.unwrap();
    let (content, _) = read_memory(&b.source(&remote, &b.cache(1 << 30)), fetched.map()).await;
    assert!(content == changed);
    let scratch = |s: &pool_store::Snapshot| fs::read(s.scratch_path()).unwrap();
    assert!(scratch(&fetched) == scratch(&second));
    // A diff of a snapshot that was fetched goes back, though its parent's blocks are not here.
    let mut third = changed.clone();
    third[..PAGE_BYTES].fill(9);
    let paused = b.snapshot(&third, &disk, Some((&fetched, &changed)));
    let back = remote.publish(&paused, &b.layers, &b.base_disk()).await.unwrap();
    assert!(back.sent_bytes < 180_000 + 30_000, "{back:?}");
    let (content, _) = read_memory(&a.source(&remote, &a.cache(1 << 30)), paused.map()).await;
    assert!(content == third);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_layer_goes_in_parts() {
    let (bucket, a, b) = (Bucket::new(), Host::new(), Host::new());
    let remote = bucket.remote();
    a.make_base_disk();
    let memory = noise(8, 21 << 20);
    let snapshot = a.snapshot(&memory, &[], None);
    let sent: Published = remote.publish(&snapshot, &a.layers, &a.base_disk()).await.unwrap();
    assert!(sent.sent_bytes > 21 << 20);
    let fetched = b.fetch(&remote, snapshot.manifest.snapshot).await.unwrap();
    let source = b.source(&remote, &b.cache(1 << 30));
    assert!(read_memory(&source, fetched.map()).await.0 == memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_working_set_travels_and_may_change() {
    let (bucket, a, b) = (Bucket::new(), Host::new(), Host::new());
    let remote = bucket.remote();
    let (snapshot, _) = a.usual_snapshot();
    remote.publish_working_set(&snapshot).await.unwrap(); // there is none: nothing happens
    remote.publish(&snapshot, &a.layers, &a.base_disk()).await.unwrap();
    let mut set = WorkingSet::new(snapshot.map().bytes());
    set.observe(&[3, 9].into());
    set.save(&snapshot.working_set_path()).unwrap();
    remote.publish_working_set(&snapshot).await.unwrap();
    let fetched = b.fetch(&remote, snapshot.manifest.snapshot).await.unwrap();
    let found = WorkingSet::load(&fetched.working_set_path()).unwrap().unwrap();
    assert_eq!(found.windows().collect::<Vec<_>>(), [3, 9]);

    // A damaged hint is no reason not to restore.
    bucket.damage("working-set", 20).await;
    let c = Host::new();
    let fetched = c.fetch(&remote, snapshot.manifest.snapshot).await.unwrap();
    assert!(!fetched.working_set_path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_published_is_said_to_be_missing() {
    let (bucket, a) = (Bucket::new(), Host::new());
    let (snapshot, _) = a.usual_snapshot();
    let id = snapshot.manifest.snapshot;
    let error = Host::new().fetch(&bucket.remote(), id).await.unwrap_err();
    assert!(matches!(error, RemoteError::NotPublished { .. }), "{error}");
    assert!(error.is_missing() && error.to_string().contains(&id.label()), "{error}");
}
