//! Is what was interrupted completed by the next try, and never half visible?

use std::time::Duration;

use crate::support::{Bucket, Host, read_memory};

/// Interruptions before a call may run to its end.
const INTERRUPTIONS: u64 = 12;

/// Runs `future` for a random time.
async fn interrupted<T>(future: impl Future<Output = T>) -> Option<T> {
    let time = Duration::from_micros(rand::random_range(0..120_000));
    tokio::time::timeout(time, future).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_may_end_anywhere() {
    let (bucket, a) = (Bucket::new(), Host::new());
    let remote = bucket.remote();
    let (snapshot, memory) = a.usual_snapshot();
    let id = snapshot.manifest.snapshot;
    for _ in 0..INTERRUPTIONS {
        let done = interrupted(remote.publish(&snapshot, &a.layers, &a.base_disk())).await;
        done.transpose().unwrap();
        if remote.contains(id).await.unwrap() {
            break; // then it must be whole: below
        }
        let error = Host::new().fetch(&remote, id).await.unwrap_err();
        assert!(error.is_missing(), "{error}");
    }
    if !remote.contains(id).await.unwrap() {
        remote.publish(&snapshot, &a.layers, &a.base_disk()).await.unwrap();
    }
    let b = Host::new();
    let fetched = b.fetch(&remote, id).await.unwrap();
    let source = b.source(&remote, &b.cache(1 << 30));
    assert!(read_memory(&source, fetched.map()).await.0 == memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn fetching_may_end_anywhere() {
    let (bucket, a, b) = (Bucket::new(), Host::new(), Host::new());
    let remote = bucket.remote();
    let (snapshot, memory) = a.usual_snapshot();
    let id = snapshot.manifest.snapshot;
    remote.publish(&snapshot, &a.layers, &a.base_disk()).await.unwrap();
    for _ in 0..INTERRUPTIONS {
        if let Some(done) = interrupted(b.fetch(&remote, id)).await {
            done.unwrap();
            break;
        }
        // A base disk under its name is whole, and so is a snapshot.
        if b.base_disk().exists() {
            assert!(std::fs::read(b.base_disk()).unwrap() == std::fs::read(a.base_disk()).unwrap());
        }
        for id in b.store.list().unwrap() {
            b.store.open(id).unwrap().verify_files().unwrap();
        }
    }
    let fetched = b.fetch(&remote, id).await.unwrap();
    fetched.verify_files().unwrap();
    let source = b.source(&remote, &b.cache(1 << 30));
    assert!(read_memory(&source, fetched.map()).await.0 == memory);
}
