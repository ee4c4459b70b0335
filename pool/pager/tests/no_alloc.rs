//! Nothing is allocated and nothing logged between a fault and its answer.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pool_model::{Prefetch, SnapshotId};
use pool_pager::{
    Attach, Limits, PagerClient, Population, Server, start_ticks,
    sys::{CountingAllocator, DEVICE, Mapping, Uffd},
};
use pool_remote::{BlockCache, Credentials, LayerSource, Remote, RemoteConfig};
use pool_store::LayerStore;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

static LOGGED: AtomicU64 = AtomicU64::new(0);

struct CountLines;

impl io::Write for CountLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.fetch_add(1, Ordering::SeqCst);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The counter is the process's: on a busy machine the server may not have finished with the attaching
/// when the first page is there.
fn until_nobody_allocates() {
    let mut seen = ALLOCATOR.allocations();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        match ALLOCATOR.allocations() {
            now if now == seen => return,
            now => seen = now,
        }
    }
}

/// Serves `snapshot` from `source` to a mapping in this very process and touches all of it; returns
/// how often memory was allocated and a line was logged meanwhile.
async fn costs(root: &Path, snapshot: SnapshotId, source: LayerSource, bytes: usize) -> (u64, u64) {
    let (socket, pid_file) = (root.join("pager.sock"), root.join("pager.pid"));
    let server = Server::bind(&socket, &pid_file, Limits::default(), source).unwrap();
    let stopper = server.stopper();
    let serving = std::thread::spawn(move || server.run());
    let client = PagerClient::connect(&socket, Duration::from_secs(10)).await.unwrap();
    let dir = root.join("snapshots").join(snapshot.label());
    let base = client.base(snapshot, &dir, bytes as u64, Prefetch::None).await.unwrap();
    let mapping = Mapping::private(base.as_fd(), bytes).unwrap();
    let uffd = Uffd::open_with_events(Path::new(DEVICE)).unwrap();
    uffd.register(&mapping).unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    let attach = Attach {
        snapshot,
        pid,
        pid_start_ticks: start_ticks(pid).unwrap(),
        uffd_fd: uffd.as_fd().as_raw_fd(),
        base_fd: base.as_raw_fd(),
        addr: mapping.addr(),
        len: bytes as u64,
        population: Population::Shared,
        snapshot_dir: dir,
    };
    client.attach(attach).await.unwrap();
    let mut content = [0; 16];
    mapping.read(0, &mut content); // the session is under way
    until_nobody_allocates();
    let before = (ALLOCATOR.allocations(), LOGGED.load(Ordering::SeqCst));
    for page in 0..bytes / 4096 {
        mapping.read(page * 4096, &mut content);
    }
    let after = (ALLOCATOR.allocations(), LOGGED.load(Ordering::SeqCst));
    let faults = client.stats().await.unwrap().totals.faults;
    assert!(faults >= (bytes >> 16) as u64, "{faults} faults");
    // Unmapping would be an event that kills.
    std::mem::forget((mapping, uffd));
    stopper.stop();
    serving.join().unwrap().unwrap();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn faults_on_local_and_cached_blocks_allocate_and_log_nothing() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(|| CountLines)
        .init();
    let dir = tempfile::tempdir().unwrap();
    let (root, bytes) = (dir.path(), 8 << 20);
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_pager-probe"))
        .arg(format!("pattern={}", root.display()))
        .arg(format!("bytes={bytes}"))
        .output()
        .unwrap();
    let snapshot: SnapshotId = String::from_utf8(made.stdout).unwrap().trim().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let layers = LayerStore::new(root.join("layers"));
    let source = LayerSource::new(layers.clone(), None);
    let local = runtime.block_on(costs(root, snapshot, source, bytes));
    assert_eq!(local, (0, 0), "allocations and lines, local");

    // The same from the cache, the object store being nowhere.
    let opened =
        pool_store::Snapshot::open_at(&root.join("snapshots").join(snapshot.label()), snapshot);
    let layer = opened.unwrap().map().layers()[0];
    let blocks = std::fs::read(layers.blocks_path(layer)).unwrap();
    std::fs::remove_file(layers.blocks_path(layer)).unwrap();
    let cache = BlockCache::new(root.join("cache"), 64 << 20).unwrap();
    let file = cache.file(layer, blocks.len() as u64).unwrap();
    assert!(file.write_at(0, &blocks).unwrap());
    let nowhere = Some("http://127.0.0.1:1");
    let config = RemoteConfig::parse("s3://bucket/p", nowhere, "us-east-1", true).unwrap();
    let credentials = Credentials {
        access_key_id: "none".to_owned(),
        secret_access_key: "none".to_owned(),
        session_token: None,
    };
    // One thread, which has begun: the allocations of its start are not those of a fault.
    let mut fetching = tokio::runtime::Builder::new_multi_thread();
    let fetching = fetching.worker_threads(1).enable_all().build().unwrap();
    fetching.block_on(fetching.spawn(async {})).unwrap();
    let remote = Remote::open(config, credentials).unwrap();
    let far = Some((remote, fetching.handle().clone(), Arc::new(cache)));
    let cached = runtime.block_on(costs(root, snapshot, LayerSource::new(layers, far), bytes));
    assert_eq!(cached, (0, 0), "allocations and lines, cached");
}
