//! A host with snapshots in layers and a real page server, and patterned guests over it.
//!
//! It does what the agent does: remembers its clones, starts another page server when one has
//! died, and gives it every clone again.

use std::{
    collections::HashMap,
    error::Error,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    process::{Child, Command},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agent_vmm::{
    BaseMemory, BoxError, Machine, MemoryReport, OnMemory, PageSink, Vmm, VmmError, capture_memory,
    pvh_kernel,
};
use pool_config::Layout;
use pool_model::{Generation, Prefetch, TeamId, TemplateId, chain};
use pool_pager::{Attach, PagerClient, PagerError, Population, Stats};
use pool_store::{
    ImageWriter, LayerStore, NewManifest, Snapshot, SnapshotStore, WriteError, copy_sparse,
};

use crate::{
    fixture::{Fixture, built::pager, exists, until},
    guest,
    pattern::{self, Command as Order},
};

/// No call takes longer, however busy the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A host. Its page server dies with it.
pub(crate) struct Host {
    pub(crate) fixture: Fixture,
    pub(crate) layout: Layout,
    pub(crate) store: SnapshotStore,
    /// What the page server is told besides its directory.
    pub(crate) settings: Vec<String>,
    pager: Mutex<Option<Child>>,
    /// By process id.
    clones: Arc<Mutex<HashMap<i32, Attach>>>,
}

impl Host {
    /// Without a page server yet.
    pub(crate) async fn new() -> Self {
        let fixture = Fixture::new().await;
        std::fs::write(fixture.dir.path().join("pattern"), pvh_kernel(pattern::PROGRAM)).unwrap();
        let layout = Layout::new(fixture.dir.path().join("host"));
        std::fs::create_dir_all(layout.run_dir()).unwrap();
        let store =
            SnapshotStore::new(layout.snapshots_dir(), LayerStore::new(layout.layers_dir()));
        let (settings, pager, clones) = (Vec::new(), Mutex::default(), Arc::default());
        Self { fixture, layout, store, settings, pager, clones }
    }

    /// One with a page server and a snapshot of a guest that has its pattern.
    pub(crate) async fn with_snapshot() -> (Self, Snapshot) {
        let host = Self::new().await;
        host.start();
        let snapshot = host.snapshot().await;
        (host, snapshot)
    }

    /// Starts the page server.
    pub(crate) fn start(&self) {
        let log = self.fixture.dir.path().join("pager.log");
        let log = File::options().append(true).create(true).open(log).unwrap();
        let child = Command::new(pager())
            .arg("--wrenn-dir")
            .arg(self.layout.root())
            .args(&self.settings)
            .env("AWS_ACCESS_KEY_ID", "test-key")
            .env("AWS_SECRET_ACCESS_KEY", "test-secret")
            .stderr(log)
            .spawn()
            .unwrap();
        *self.pager.lock().unwrap() = Some(child);
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        let Some(mut pager) = self.pager.lock().unwrap().take() else { return };
        pager.kill().unwrap();
        pager.wait().unwrap();
    }

    pub(crate) async fn client(&self) -> PagerClient {
        PagerClient::connect(&self.layout.pager_socket(), PATIENCE).await.unwrap()
    }

    /// Gives a new page server every clone of the last one that still lives.
    pub(crate) async fn reattach(&self) {
        let client = self.client().await;
        let clones: Vec<Attach> = self.clones.lock().unwrap().values().cloned().collect();
        for clone in clones {
            let pid = clone.pid;
            if let Err(error) = client.attach(clone).await {
                let why = format!("{pid} is not served: {}", chain(&error));
                until(&why, || !exists(pid)).await; // it was being killed
            }
        }
    }

    pub(crate) async fn stats(&self) -> Stats {
        self.client().await.stats().await.unwrap()
    }

    pub(crate) fn pager_log(&self) -> String {
        std::fs::read_to_string(self.fixture.dir.path().join("pager.log")).unwrap()
    }

    /// New clones of the snapshot get base memory of which nothing is there.
    pub(crate) async fn forget_base(&self, snapshot: &Snapshot) {
        let id = snapshot.manifest.snapshot;
        self.again(|client| async move { client.drop_base(id).await }).await.unwrap();
    }

    /// Base memory, or why the page server refuses to make it.
    pub(crate) async fn base(
        &self,
        snapshot: &Snapshot,
        prefetch: Prefetch,
    ) -> Result<OwnedFd, PagerError> {
        let (id, bytes) = (snapshot.manifest.snapshot, snapshot.manifest.memory.bytes);
        let call = |client: PagerClient| {
            let dir = snapshot.dir().to_owned();
            async move { client.base(id, &dir, bytes, prefetch).await }
        };
        self.again(call).await
    }

    /// A call to a page server that may die at any time: then its successor is asked.
    async fn again<T, F>(&self, call: impl Fn(PagerClient) -> F) -> Result<T, PagerError>
    where
        F: Future<Output = Result<T, PagerError>>,
    {
        let until = Instant::now() + PATIENCE;
        loop {
            match call(self.client().await).await {
                Err(error @ (PagerError::Gone { .. } | PagerError::Io { .. })) => {
                    assert!(Instant::now() < until, "page servers come and go: {}", chain(&error));
                }
                other => return other,
            }
        }
    }

    /// A booted guest that has filled its memory, running.
    pub(crate) async fn boot(&self) -> Box<dyn Machine> {
        let mut spec = self.fixture.spec();
        spec.kernel = self.fixture.dir.path().join("pattern");
        let disk = File::options().write(true).open(&spec.scratch_disk).unwrap();
        disk.write_all_at(&[0x5A; 64 << 10], 128 << 10).unwrap();
        let machine = self.fixture.qemu.boot(spec).await.unwrap();
        pattern::order(&*machine, Order::Again, 0).await.unwrap();
        machine
    }

    /// A snapshot of such a guest, which is gone.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let machine = self.boot().await;
        machine.pause().await.unwrap();
        let snapshot = self.save(&*machine, None, &self.store).await.unwrap();
        machine.kill().await.unwrap();
        snapshot
    }

    /// A clone, stopped; its disk is the snapshot's.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        prefetch: Prefetch,
    ) -> Result<Box<dyn Machine>, VmmError> {
        let spec = self.fixture.spec();
        std::fs::remove_file(&spec.scratch_disk).unwrap();
        copy_sparse(&snapshot.scratch_path(), &spec.scratch_disk).unwrap();
        let blank = self.fixture.qemu.prepare(spec).await?;
        let fd = self.base(snapshot, prefetch).await.unwrap();
        let base = BaseMemory { fd, bytes: guest::MEMORY_BYTES };
        let state = File::open(snapshot.state_path()).unwrap();
        let attach = self.attaching(snapshot);
        Ok(blank.restore(base, state, attach).await?.machine)
    }

    /// A clone that runs.
    pub(crate) async fn clone_of(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        prefetch: Prefetch,
    ) -> Box<dyn Machine> {
        let machine = self.restore(snapshot, prefetch).await.unwrap();
        machine.resume().await.unwrap();
        machine
    }

    /// Kills a clone.
    pub(crate) async fn end(&self, machine: Box<dyn Machine>) {
        machine.kill().await.unwrap();
        self.clones.lock().unwrap().remove(&machine.record().pid);
    }

    /// Has the page server serve a clone; remembers it first.
    fn attaching(self: &Arc<Self>, snapshot: &Snapshot) -> OnMemory {
        let (host, dir) = (Arc::clone(self), snapshot.dir().to_owned());
        let snapshot = snapshot.manifest.snapshot;
        Box::new(move |report: MemoryReport| {
            let attach = Attach {
                snapshot,
                pid: report.pid,
                pid_start_ticks: report.start_ticks,
                uffd_fd: report.uffd_fd,
                base_fd: report.base_fd,
                addr: report.addr,
                len: report.len,
                population: Population::Shared,
                snapshot_dir: dir,
            };
            host.clones.lock().unwrap().insert(report.pid, attach.clone());
            Box::pin(async move {
                let call = |client: PagerClient| {
                    let attach = attach.clone();
                    async move { client.attach(attach).await }
                };
                host.again(call).await.map_err(BoxError::from)
            })
        })
    }

    /// Saves a paused machine into `store`, over the snapshot it is a clone of.
    pub(crate) async fn save(
        &self,
        machine: &dyn Machine,
        parent: Option<&Snapshot>,
        store: &SnapshotStore,
    ) -> Result<Snapshot, Box<dyn Error + Send + Sync>> {
        let draft = store.begin()?;
        machine.save_state(File::create_new(draft.state())?).await?;
        let map = parent.map(|snapshot| snapshot.map().clone());
        let sink = Sink(store.layers().writer(map, guest::MEMORY_BYTES)?);
        let (_, sink) = capture_memory(&machine.record(), sink).await?;
        let (map, _) = sink.0.finish()?;
        copy_sparse(&machine.dir().join("scratch.img"), &draft.scratch())?;
        let parent = parent.map(|snapshot| snapshot.manifest.snapshot);
        let manifest = draft.commit(self.new_manifest(parent), &map)?;
        Ok(store.open(manifest.snapshot)?)
    }

    fn new_manifest(&self, parent: Option<pool_model::SnapshotId>) -> NewManifest {
        let qemu = &self.fixture.qemu;
        NewManifest {
            parent,
            template: TemplateId::DEFAULT,
            team: TeamId::PLATFORM,
            base_disk_digest: "ba5e".to_owned(),
            kernel: "pattern".to_owned(),
            memory_bytes: guest::MEMORY_BYTES,
            vcpus: 1,
            vmm: qemu.name(),
            accel: qemu.accel().to_owned(),
            cpu: qemu.cpu().to_owned(),
            cpu_fingerprint: qemu.cpu_fingerprint().to_owned(),
            envd_version: "none".to_owned(),
            generation: Generation(1),
            created_at: "2026-11-22T10:00:00Z".parse().unwrap(),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut pager) = self.pager.lock().unwrap().take() {
            let _ = pager.kill();
            let _ = pager.wait();
        }
    }
}

/// What is captured goes into a layer.
struct Sink(ImageWriter);

impl PageSink for Sink {
    fn put(&mut self, page: u64, content: &[u8]) -> io::Result<()> {
        self.0.put(page, content).map_err(|error| match error {
            WriteError::NoSpace { .. } => io::Error::new(io::ErrorKind::StorageFull, error),
            other => io::Error::other(other),
        })
    }
}
