//! Is damage found wherever it is, named, and healed where it can be?

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use pool_remote::{Origin, Remote, RemoteError, SourceError, Trust};
use pool_store::{BLOCK_BYTES, Snapshot};

use crate::support::{Bucket, Host, read_memory};

async fn published() -> (Bucket, Remote, Host, Snapshot, Vec<u8>) {
    let (bucket, a) = (Bucket::new(), Host::new());
    let remote = bucket.remote();
    let (snapshot, memory) = a.usual_snapshot();
    remote.publish(&snapshot, &a.layers, &a.base_disk()).await.expect("the server works");
    (bucket, remote, a, snapshot, memory)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_refuses_every_damaged_object_by_name() {
    let (bucket, remote, _a, snapshot, _) = published().await;
    let memory_layer = snapshot.map().layers()[0].0.to_string();
    let id = snapshot.manifest.snapshot;
    for name in bucket.names().await {
        if name.contains(&memory_layer) && name.ends_with(".blocks") {
            continue; // not read by a fetch: the next test
        }
        bucket.damage(&name, 30).await;
        let b = Host::new();
        let error = b.fetch(&remote, id).await.err();
        bucket.damage(&name, 30).await; // as it was
        if name.contains("/bases/") {
            assert!(error.is_none(), "only a publisher reads it: {error:?}");
            continue;
        }
        let error = error.unwrap_or_else(|| panic!("damage in {name} was not noticed"));
        let text = error.to_string();
        // The snapshot's own files are verified together, and named as the store names them.
        let file = name.rsplit('/').next().unwrap_or_default();
        let named = text.contains(&name) || text.contains(&id.to_string()) && text.contains(file);
        assert!(named || file == "manifest.json", "{name}: {text}");
        assert!(b.store.list().unwrap().is_empty(), "{name}");
    }
    Host::new().fetch(&remote, id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_is_an_error_with_key_and_digests() {
    let (bucket, remote, _a, snapshot, _) = published().await;
    let b = Host::new();
    let fetched = b.fetch(&remote, snapshot.manifest.snapshot).await.unwrap();
    let layer = fetched.map().layers()[0];
    let key = bucket.damage(&format!("{}.blocks", layer.0), 1000).await;
    let source = b.source(&remote, &b.cache(1 << 30));
    let stats = std::sync::Arc::clone(source.stats());
    let (error, digest) = tokio::task::spawn_blocking(move || {
        let layer = source.open(layer).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut buf = vec![0; BLOCK_BYTES];
        let error = layer.read(0, 0, &mut buf, Trust::Cached, deadline).unwrap_err();
        // Damage is not kept: asked again, it asks the object store again.
        layer.read(0, 0, &mut buf, Trust::Cached, deadline).unwrap_err();
        (error, layer.index().blocks()[0].digest)
    })
    .await
    .unwrap();
    assert!(matches!(error, SourceError::Block { block: 0, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&key) && text.contains(&digest.to_string()), "{text}");
    assert_eq!((stats.failures(), stats.origin(Origin::Cache).requests()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_cache_is_healed() {
    let (_bucket, remote, _a, snapshot, memory) = published().await;
    let b = Host::new();
    let fetched = b.fetch(&remote, snapshot.manifest.snapshot).await.unwrap();
    let cache = b.cache(1 << 30);
    let source = b.source(&remote, &cache);
    read_memory(&source, fetched.map()).await;
    let path = b.dir.path().join("cache").join(format!("{}.blocks", fetched.map().layers()[0].0));
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0x55; 3000], 5000).unwrap();
    let (content, origins) = read_memory(&source, fetched.map()).await;
    assert!(content == memory);
    let refetched = origins.iter().filter(|origin| **origin == Origin::Remote).count();
    assert_eq!((refetched, source.stats().healed()), (1, 1));
    let (_, origins) = read_memory(&source, fetched.map()).await;
    assert!(origins.iter().all(|origin| *origin == Origin::Cache));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_is_named() {
    let (bucket, remote, _a, snapshot, _) = published().await;
    let (b, c) = (Host::new(), Host::new());
    let fetched = b.fetch(&remote, snapshot.manifest.snapshot).await.unwrap();
    let layer = fetched.map().layers()[0];
    let name = format!("hosts/test/layers/{}.blocks", layer.0);
    bucket.remove(&name).await;
    let source = b.source(&remote, &b.cache(1 << 30));
    let error = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut buf = vec![0; BLOCK_BYTES];
        source.open(layer).unwrap().read(0, 0, &mut buf, Trust::Cached, deadline).unwrap_err()
    })
    .await
    .unwrap();
    assert!(matches!(&error, SourceError::Remote(error) if error.is_missing()), "{error:?}");
    assert!(error.to_string().contains(&name), "{error}");

    let name = format!("hosts/test/layers/{}.index", layer.0);
    bucket.remove(&name).await;
    let error = c.fetch(&remote, snapshot.manifest.snapshot).await.unwrap_err();
    assert!(error.is_missing() && error.to_string().contains(&name), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_original_is_neither_spread_nor_healed() {
    let (bucket, a) = (Bucket::new(), Host::new());
    let remote = bucket.remote();
    let (snapshot, _) = a.usual_snapshot();
    let layer = snapshot.map().layers()[0];
    let path = a.layers.blocks_path(layer);
    let mut bytes = fs::read(&path).unwrap();
    bytes[77] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = remote.publish(&snapshot, &a.layers, &a.base_disk()).await.unwrap_err();
    assert!(matches!(error, RemoteError::Block { block: 0, .. }), "{error:?}");
    assert!(!remote.contains(snapshot.manifest.snapshot).await.unwrap());

    let source = a.source(&remote, &a.cache(1 << 30));
    let error = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut buf = vec![0; BLOCK_BYTES];
        let layer = source.open(layer).unwrap();
        assert_eq!(layer.read(0, 0, &mut buf, Trust::Cached, deadline).unwrap(), Origin::Local);
        assert!(matches!(
            layer.read(0, 0, &mut buf[..9], Trust::Cached, deadline),
            Err(SourceError::Range { buffer: 9, .. })
        ));
        assert!(matches!(
            layer.read(1, 0, &mut buf, Trust::Cached, deadline),
            Err(SourceError::Range { first: 1, last: 0, .. })
        ));
        layer.read(0, 0, &mut buf, Trust::Refetch, deadline).unwrap_err()
    })
    .await
    .unwrap();
    assert!(matches!(error, SourceError::LocalDamage { .. }), "{error:?}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}
