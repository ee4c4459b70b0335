//! How fast are blocks had from this host, from the cache, from the server?

use std::time::{Duration, Instant};

use pool_remote::{Origin, Trust};
use pool_store::BLOCK_BYTES;

use crate::support::{Bucket, Host, noise};

#[ignore = "measures; run it alone, with --nocapture"]
#[tokio::test(flavor = "multi_thread")]
async fn reads_by_origin() {
    let (bucket, a, b) = (Bucket::new(), Host::new(), Host::new());
    let remote = bucket.remote();
    a.make_base_disk();
    let snapshot = a.snapshot(&noise(1, 64 << 20), &[], None);
    remote.publish(&snapshot, &a.layers, &a.base_disk()).await.unwrap();
    b.fetch(&remote, snapshot.manifest.snapshot).await.unwrap();
    let layer = snapshot.map().layers()[0];
    let (here, there) = (a.source(&remote, &a.cache(0)), b.source(&remote, &b.cache(1 << 30)));
    tokio::task::spawn_blocking(move || {
        let (here, there) = (here.open(layer).unwrap(), there.open(layer).unwrap());
        for (source, expected) in
            [(&here, Origin::Local), (&there, Origin::Remote), (&there, Origin::Cache)]
        {
            let mut buf = vec![0; BLOCK_BYTES];
            let mut times: Vec<Duration> = (0..200)
                .map(|number| {
                    let start = Instant::now();
                    let deadline = start + Duration::from_secs(60);
                    let read = source.read(number, number, &mut buf, Trust::Cached, deadline);
                    assert_eq!(read.unwrap(), expected);
                    start.elapsed()
                })
                .collect();
            times.sort();
            println!("block of 64 KiB, {expected:?}: p50 {:?}, p99 {:?}", times[100], times[198]);
        }
        let mut buf = vec![0; 64 * BLOCK_BYTES];
        let start = Instant::now();
        for first in (256..1024).step_by(64) {
            let deadline = Instant::now() + Duration::from_secs(60);
            let read = there.read(first, first + 63, &mut buf, Trust::Cached, deadline);
            assert_eq!(read.unwrap(), Origin::Remote);
        }
        let rate = 48.0 / start.elapsed().as_secs_f64();
        println!("in order, 4 MiB a request, verified and cached: {rate:.0} MiB/s");
    })
    .await
    .unwrap();
}
