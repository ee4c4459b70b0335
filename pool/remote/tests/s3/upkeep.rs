//! Does a collection remove what nobody needs, and nothing else?

use std::time::Duration;

use pool_remote::{Cause, Credentials, Remote, RemoteConfig, RemoteError};

use crate::support::{Bucket, Host, Server, credentials, noise, read_memory, usual_disk};

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_removes_what_no_snapshot_names() {
    let (bucket, a, b) = (Bucket::new(), Host::new(), Host::new());
    let remote = bucket.remote();
    let (first, memory) = a.usual_snapshot();
    remote.publish(&first, &a.layers, &a.base_disk()).await.unwrap();
    let mut changed = memory.clone();
    changed[..8192].copy_from_slice(&noise(4, 8192));
    let second = a.snapshot(&changed, &usual_disk(), Some((&first, &memory)));
    let kept = bucket.names().await;
    remote.publish(&second, &a.layers, &a.base_disk()).await.unwrap();
    let stranger = object_store::path::Path::from("hosts/test/notes.txt");
    object_store::ObjectStoreExt::put(&bucket.raw(), &stranger, "mine".into()).await.unwrap();
    let all = bucket.names().await;

    // Everything is named, or young, or not ours.
    assert_eq!(remote.gc(Duration::ZERO).await.unwrap().objects, 0);
    remote.delete(second.manifest.snapshot).await.unwrap();
    assert!(!remote.contains(second.manifest.snapshot).await.unwrap());
    assert_eq!(remote.gc(Duration::from_secs(3600)).await.unwrap().objects, 0);

    let collected = remote.gc(Duration::ZERO).await.unwrap();
    assert!(collected.objects >= 2 && collected.bytes > 8192, "{collected:?}");
    let mut left = bucket.names().await;
    left.retain(|name| !name.ends_with("notes.txt"));
    assert_eq!(left, kept);
    assert!(all.len() > left.len() + 1);
    let fetched = b.fetch(&remote, first.manifest.snapshot).await.unwrap();
    let source = b.source(&remote, &b.cache(1 << 30));
    assert!(read_memory(&source, fetched.map()).await.0 == memory);

    remote.delete(first.manifest.snapshot).await.unwrap();
    remote.gc(Duration::ZERO).await.unwrap();
    assert_eq!(bucket.names().await, ["hosts/test/notes.txt"]);
    // And it can all be published anew.
    remote.publish(&second, &a.layers, &a.base_disk()).await.unwrap();
    Host::new().fetch(&remote, second.manifest.snapshot).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_manifest_stops_a_collection() {
    let (bucket, a) = (Bucket::new(), Host::new());
    let remote = bucket.remote();
    let (snapshot, _) = a.usual_snapshot();
    remote.publish(&snapshot, &a.layers, &a.base_disk()).await.unwrap();
    bucket.damage("manifest.json", 60).await;
    let before = bucket.names().await;
    remote.gc(Duration::ZERO).await.unwrap_err();
    assert_eq!(bucket.names().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_publisher_has_begun_is_spared() {
    let (bucket, a) = (Bucket::new(), Host::new());
    let remote = bucket.remote();
    let (snapshot, _) = a.usual_snapshot();
    remote.publish(&snapshot, &a.layers, &a.base_disk()).await.unwrap();
    let whole = bucket.names().await;
    let manifest = whole.iter().find(|name| name.ends_with("manifest.json")).unwrap();
    bucket.remove(manifest).await;
    assert_eq!(remote.gc(Duration::from_secs(3600)).await.unwrap().objects, 0);
    assert_eq!(bucket.names().await.len(), whole.len() - 1);
    remote.gc(Duration::ZERO).await.unwrap();
    assert!(bucket.names().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_buckets_are_told_apart() {
    // A server of its own: from here on it checks signatures.
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let bucket = server.bucket();
    bucket.remote().probe().await.unwrap();
    let status = server.plain("POST", "/moto-api/reset-auth", "0");
    assert!(status.contains("200"), "{status}");
    let config = RemoteConfig::parse(
        &format!("s3://{}/x", bucket.name),
        Some(&server.endpoint),
        "us-east-1",
        true,
    )
    .unwrap();
    let wrong = Credentials { secret_access_key: "hunter2".to_owned(), ..credentials() };
    let error = Remote::open(config, wrong).unwrap().probe().await.unwrap_err();
    assert!(
        matches!(&error, RemoteError::Request { attempts: 1, cause: Cause::Denied(_), .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("access denied"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));

    let shared = Server::shared();
    let config =
        RemoteConfig::parse("s3://no-such-bucket/x", Some(&shared.endpoint), "us-east-1", true);
    let error = Remote::open(config.unwrap(), credentials()).unwrap().probe().await.unwrap_err();
    assert!(error.is_missing(), "{error:?}");
}
