//! What the tests stand on: a server, buckets, hosts, snapshots with known content.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use object_store::{
    ObjectStoreExt as _,
    aws::{AmazonS3, AmazonS3Builder},
};
use pool_model::{Generation, SnapshotId, TeamId, TemplateId};
use pool_remote::{BlockCache, Credentials, LayerSource, Origin, Remote, RemoteConfig, Trust};
use pool_store::{
    BLOCK_BYTES, LayerStore, NewManifest, PAGE_BYTES, PageMap, Snapshot, SnapshotStore,
    decode_block,
};
use tokio::runtime::Handle;

pub(crate) const BASE_DIGEST: &str = "ba5e";
/// Length of the writable disk: not whole blocks, and mostly holes.
pub(crate) const SCRATCH_BYTES: u64 = (8 << 20) + 5 * 4096;

/// An S3 server that ends when this process does.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    _process: Child,
}

impl Server {
    pub(crate) fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3-server.sh");
        let mut process = Command::new("bash")
            .args([script, "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().expect("the server prints its port");
        Self { endpoint: format!("http://127.0.0.1:{port}"), _process: process }
    }

    /// One server for all tests of the binary.
    pub(crate) fn shared() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    /// Sends a request without a signature and returns the status line.
    pub(crate) fn plain(&self, method: &str, path: &str, body: &str) -> String {
        let address = self.endpoint.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let len = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len}\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// A bucket of its own for one test.
    pub(crate) fn bucket(&self) -> Bucket {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("bucket-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let status = self.plain("PUT", &format!("/{name}"), "");
        assert!(status.contains("200"), "{status}");
        Bucket { endpoint: self.endpoint.clone(), name }
    }
}

/// One test's bucket.
pub(crate) struct Bucket {
    endpoint: String,
    pub(crate) name: String,
}

pub(crate) fn credentials() -> Credentials {
    Credentials {
        access_key_id: "test-key".to_owned(),
        secret_access_key: "test-secret".to_owned(),
        session_token: None,
    }
}

impl Bucket {
    pub(crate) fn new() -> Self {
        Server::shared().bucket()
    }

    pub(crate) fn remote(&self) -> Remote {
        let url = format!("s3://{}/hosts/test", self.name);
        let config = RemoteConfig::parse(&url, Some(&self.endpoint), "us-east-1", true).unwrap();
        // A machine that is busy with other things is no reason to fail.
        let patient = RemoteConfig {
            attempt_timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(120),
            ..config
        };
        Remote::open(patient, credentials()).unwrap()
    }

    /// The same bucket for the tests' own hands.
    pub(crate) fn raw(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_bucket_name(&self.name)
            .with_endpoint(&self.endpoint)
            .with_region("us-east-1")
            .with_access_key_id("test-key")
            .with_secret_access_key("test-secret")
            .with_allow_http(true)
            .build()
            .unwrap()
    }

    /// Names of all objects, sorted.
    pub(crate) async fn names(&self) -> Vec<String> {
        use futures::TryStreamExt as _;
        use object_store::ObjectStore as _;
        let objects: Vec<_> = self.raw().list(None).try_collect().await.unwrap();
        let mut names: Vec<_> = objects.iter().map(|object| object.location.to_string()).collect();
        names.sort();
        names
    }

    /// Flips a bit of the object whose name ends so, and returns the name.
    pub(crate) async fn damage(&self, suffix: &str, at: usize) -> String {
        let names = self.names().await;
        let name = names.into_iter().find(|name| name.ends_with(suffix)).unwrap();
        let key = object_store::path::Path::from(name.as_str());
        let mut bytes = self.raw().get(&key).await.unwrap().bytes().await.unwrap().to_vec();
        bytes[at] ^= 4;
        self.raw().put(&key, bytes.into()).await.unwrap();
        name
    }

    pub(crate) async fn remove(&self, name: &str) {
        self.raw().delete(&object_store::path::Path::from(name)).await.unwrap();
    }
}

/// Directories of one host.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) layers: LayerStore,
    pub(crate) store: SnapshotStore,
}

impl Host {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers = LayerStore::new(dir.path().join("layers"));
        let store = SnapshotStore::new(dir.path().join("snapshots"), layers.clone());
        Self { dir, layers, store }
    }

    /// Where this host has the base disk.
    pub(crate) fn base_disk(&self) -> PathBuf {
        self.dir.path().join("bases").join(format!("{BASE_DIGEST}.ext4"))
    }

    pub(crate) fn make_base_disk(&self) {
        std::fs::create_dir_all(self.base_disk().parent().unwrap()).unwrap();
        sparse(&self.base_disk(), 3 << 20, &[(0, noise(1, 200_000)), (2 << 20, vec![7; 9000])]);
    }

    /// Makes a snapshot of this memory. `disk` says what is in its writable disk; with a parent
    /// only pages that differ from `before` are written.
    pub(crate) fn snapshot(
        &self,
        memory: &[u8],
        disk: &[(u64, Vec<u8>)],
        parent: Option<(&Snapshot, &[u8])>,
    ) -> Snapshot {
        let map = parent.map(|(snapshot, _)| snapshot.map().clone());
        let mut writer = self.layers.writer(map, memory.len() as u64).unwrap();
        for (page, content) in (0..).zip(memory.chunks(PAGE_BYTES)) {
            let from = usize::try_from(page).unwrap() * PAGE_BYTES;
            let same = parent.is_some_and(|(_, old)| old[from..from + PAGE_BYTES] == *content);
            if !same {
                writer.put(page, content).unwrap();
            }
        }
        let draft = self.store.begin().unwrap();
        std::fs::write(draft.state(), noise(99, 180_000)).unwrap();
        sparse(&draft.scratch(), SCRATCH_BYTES, disk);
        let (map, _) = writer.finish().unwrap();
        let parent = parent.map(|(snapshot, _)| snapshot.manifest.snapshot);
        let manifest = draft.commit(new_manifest(memory.len() as u64, parent), &map).unwrap();
        self.store.open(manifest.snapshot).unwrap()
    }

    /// The snapshot most tests take.
    pub(crate) fn usual_snapshot(&self) -> (Snapshot, Vec<u8>) {
        self.make_base_disk();
        let memory = usual_memory();
        (self.snapshot(&memory, &usual_disk(), None), memory)
    }

    pub(crate) fn cache(&self, max: u64) -> Arc<BlockCache> {
        Arc::new(BlockCache::new(self.dir.path().join("cache"), max).unwrap())
    }

    /// Fetches onto this host.
    pub(crate) async fn fetch(
        &self,
        remote: &Remote,
        id: SnapshotId,
    ) -> Result<Snapshot, pool_remote::RemoteError> {
        let base = self.base_disk();
        let manifest = remote.fetch(id, &self.store, move |_| base.clone()).await?;
        assert_eq!(manifest.snapshot, id);
        Ok(self.store.open(id).unwrap())
    }

    pub(crate) fn source(&self, remote: &Remote, cache: &Arc<BlockCache>) -> LayerSource {
        let far = (remote.clone(), Handle::current(), Arc::clone(cache));
        LayerSource::new(self.layers.clone(), Some(far))
    }
}

pub(crate) fn usual_memory() -> Vec<u8> {
    let mut memory = vec![0; 4 << 20];
    memory[..700_000].copy_from_slice(&noise(5, 700_000));
    for (at, byte) in memory[2 << 20..3 << 20].iter_mut().enumerate() {
        *byte = u8::try_from(at / 5000 % 251).unwrap();
    }
    memory
}

pub(crate) fn usual_disk() -> Vec<(u64, Vec<u8>)> {
    vec![(4096, noise(2, 150_000)), (5 << 20, vec![3; 40_000]), (8 << 20, noise(3, 5 * 4096))]
}

fn new_manifest(memory_bytes: u64, parent: Option<SnapshotId>) -> NewManifest {
    NewManifest {
        parent,
        template: TemplateId::DEFAULT,
        team: TeamId::PLATFORM,
        base_disk_digest: BASE_DIGEST.to_owned(),
        kernel: "6.1.0".to_owned(),
        memory_bytes,
        vcpus: 1,
        vmm: "qemu-7.2.22".to_owned(),
        accel: "tcg".to_owned(),
        cpu: "max".to_owned(),
        cpu_fingerprint: "f".to_owned(),
        envd_version: "0.1.0".to_owned(),
        generation: Generation(1),
        created_at: "2026-11-22T10:00:00Z".parse().unwrap(),
    }
}

/// Bytes that no compression makes shorter, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn sparse(path: &Path, len: u64, content: &[(u64, Vec<u8>)]) {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (at, bytes) in content {
        file.write_all_at(bytes, *at).unwrap();
    }
}

/// Reads all memory of a snapshot, every block verified; and where the blocks came from.
pub(crate) async fn read_memory(source: &LayerSource, map: &PageMap) -> (Vec<u8>, Vec<Origin>) {
    let (source, map) = (source.clone(), map.clone());
    tokio::task::spawn_blocking(move || {
        let mut memory = vec![0; usize::try_from(map.bytes()).unwrap()];
        let layers: Vec<_> = map.layers().iter().map(|id| source.open(*id).unwrap()).collect();
        let (mut stored, mut pages) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
        let mut origins = Vec::new();
        for run in map.runs() {
            let layer = &layers[usize::from(run.layer)];
            let entry = layer.index().blocks()[run.block as usize];
            let mut trust = Trust::Cached;
            let origin = loop {
                let deadline = Instant::now() + Duration::from_secs(120);
                let origin =
                    layer.read(run.block, run.block, &mut stored, trust, deadline).unwrap();
                match decode_block(&entry, &stored[..entry.stored as usize], &mut pages) {
                    Ok(()) => break origin,
                    Err(error) => assert_eq!(trust, Trust::Cached, "{error}"),
                }
                trust = Trust::Refetch;
            };
            origins.push(origin);
            let (from, to) = (usize::from(run.first) * PAGE_BYTES, run.pages as usize * PAGE_BYTES);
            let at = usize::try_from(run.page).unwrap() * PAGE_BYTES;
            memory[at..at + to].copy_from_slice(&pages[from..from + to]);
        }
        (memory, origins)
    })
    .await
    .unwrap()
}
