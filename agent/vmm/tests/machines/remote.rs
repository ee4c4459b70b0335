//! Guests whose memory is only in an object store, one that answers and one that does not.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agent_vmm::{Exit, Machine};
use pool_model::Prefetch;
use pool_pager::Stats;
use pool_remote::{Credentials, Remote, RemoteConfig};
use pool_store::Snapshot;

use crate::{
    bucket::{Bucket, Way},
    paged::Host,
    pattern,
};

const URL: &str = "s3://wrenn/hosts";
const REGION: &str = "us-east-1";
/// Longest for one fault.
const DEADLINE: Duration = Duration::from_secs(2);
/// How much longer a guest may live that waits for a store that says nothing.
const GRACE: Duration = Duration::from_secs(2);
/// Pages that a guest has compared when its way to the store becomes another: far from all.
const FEW: u32 = 300;

/// A store that has a snapshot, and a host that has all of it but its blocks.
async fn far() -> (Bucket, Arc<Host>, Snapshot) {
    let bucket = tokio::task::spawn_blocking(Bucket::start).await.unwrap();
    let config = RemoteConfig::parse(URL, Some(&bucket.endpoint), REGION, true).unwrap();
    let credentials = Credentials {
        access_key_id: "test-key".to_owned(),
        secret_access_key: "test-secret".to_owned(),
        session_token: None,
    };
    let patient = RemoteConfig {
        attempt_timeout: Duration::from_secs(30),
        deadline: Duration::from_secs(60),
        ..config
    };
    let remote = Remote::open(patient, credentials).unwrap();
    let (maker, made) = Host::with_snapshot().await;
    let base_disk = maker.fixture.dir.path().join("base.img");
    remote.publish(&made, maker.store.layers(), &base_disk).await.unwrap();

    let mut host = Host::new().await;
    let base_disk = host.fixture.dir.path().join("base.img");
    let id = made.manifest.snapshot;
    remote.fetch(id, &host.store, move |_| base_disk.clone()).await.unwrap();
    let snapshot = host.store.open(id).unwrap();
    let layers = host.store.layers();
    assert!(!snapshot.map().layers().iter().any(|id| layers.blocks_path(*id).exists()));
    host.settings = vec![
        format!("--object-store-url={URL}"),
        format!("--object-store-endpoint={}", bucket.endpoint),
        format!("--object-store-region={REGION}"),
        "--object-store-allow-http=true".to_owned(),
        format!("--fault-deadline-ms={}", DEADLINE.as_millis()),
        // So that a walk asks often.
        "--remote-read-kib=128".to_owned(),
    ];
    (bucket, Arc::new(host), snapshot)
}

/// A page server with nothing in its cache.
fn start_anew(host: &Host) {
    host.kill();
    let _ = std::fs::remove_dir_all(host.layout.cache_dir());
    host.start();
}

/// Has a clone's way to the store become another while it walks. How it ended, after how long, and
/// what the page server says.
async fn dies(
    host: &Arc<Host>,
    snapshot: &Snapshot,
    bucket: &Bucket,
    way: Way,
) -> (Duration, Stats) {
    bucket.set(Way::Clear);
    start_anew(host);
    let machine = host.clone_of(snapshot, Prefetch::None).await;
    let begun = pattern::watch(&*machine, |_| true).await.unwrap();
    pattern::watch(&*machine, |seen| seen.checked > begun.checked + FEW).await.unwrap();
    bucket.set(way);
    let since = Instant::now();
    let exit = pattern::verified(&*machine).await.unwrap_err();
    let took = since.elapsed();
    assert_eq!(exit, Exit::Signal(libc::SIGKILL), "{way:?}: {}", machine.log());
    host.end(machine).await;
    let stats = host.stats().await;
    assert_eq!(stats.totals.killed, 1, "{way:?}: {}", host.pager_log());
    (took, stats)
}

/// What the page server says went wrong.
fn cause(stats: &Stats) -> String {
    stats.bases.iter().find_map(|base| base.last_error.clone()).expect("a cause")
}

async fn lives(host: &Arc<Host>, snapshot: &Snapshot) -> (Stats, Box<dyn Machine>) {
    start_anew(host);
    let machine = host.clone_of(snapshot, Prefetch::None).await;
    pattern::verified(&*machine).await.unwrap();
    (host.stats().await, machine)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_of_far_memory_is_right_or_dies_in_time_with_its_cause() {
    let (bucket, host, snapshot) = far().await;
    let layer = snapshot.map().layers()[0].to_string();
    for way in [Way::Clear, Way::Rough, Way::WrongOnce] {
        bucket.set(way);
        let (stats, machine) = lives(&host, &snapshot).await;
        host.end(machine).await;
        assert!(stats.totals.bytes_remote > 1 << 20, "{way:?}: {:?}", stats.totals);
        assert_eq!(stats.totals.killed, 0, "{way:?}");
    }

    let (took, stats) = dies(&host, &snapshot, &bucket, Way::Silent).await;
    assert!(took < DEADLINE + GRACE, "killed after {took:?}");
    println!("silent, {took:?}: {}", cause(&stats));
    for part in [&*layer, "deadline"] {
        assert!(cause(&stats).contains(part), "{part} in {}", cause(&stats));
    }

    let (_, stats) = dies(&host, &snapshot, &bucket, Way::Wrong).await;
    println!("wrong: {}", cause(&stats));
    for part in [&*layer, "digest"] {
        assert!(cause(&stats).contains(part), "{part} in {}", cause(&stats));
    }
    assert!(host.pager_log().contains("damaged block, asking again"), "{}", host.pager_log());

    let (_, stats) = dies(&host, &snapshot, &bucket, Way::Gone).await;
    println!("gone: {}", cause(&stats));
    for part in [&*layer, "not found"] {
        assert!(cause(&stats).contains(part), "{part} in {}", cause(&stats));
    }

    // The way is clear again, and so is everything.
    bucket.set(Way::Clear);
    let (_, machine) = lives(&host, &snapshot).await;
    host.end(machine).await;
}
