//! A directory with disks and a kernel, machines in it, and snapshots of them in memory.
//!
//! Base memory is a memfd that has all its pages, so no fault is ever raised and no page server is
//! needed; [`crate::paged`] has a real one.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use agent_vmm::{
    BaseMemory, Blank, Captured, Machine, MachineSpec, MemoryReport, OnMemory, PageSink, Qemu,
    QemuConfig, Restored, Vmm, VmmError, capture_memory, pvh_kernel,
};
use nix::{
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::Signal,
    },
    unistd::Pid,
};
use pool_model::SandboxId;
use tempfile::TempDir;

use crate::{guest, tap::tap};

#[path = "built.rs"] // the examples have this file by its path, too
pub(crate) mod built;

const PATIENCE: Duration = Duration::from_secs(20);

/// Users of VMMs; each machine has its own.
static NEXT_UID: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) qemu: Qemu,
    uids: Mutex<Vec<u32>>,
}

/// What a machine's memory and devices were when it stood still.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) memory: Arc<Vec<u8>>,
    /// The same, as all its clones have it.
    base: Arc<OwnedFd>,
    pub(crate) state: PathBuf,
    pub(crate) count: u32,
    pub(crate) captured: Captured,
    /// Pages that were captured as zeroes.
    pub(crate) zero_pages: u64,
}

impl Snapshot {
    /// The base memory of its clones.
    pub(crate) fn base(&self) -> BaseMemory {
        BaseMemory { fd: self.base.try_clone().unwrap(), bytes: self.memory.len() as u64 }
    }

    /// Whether base memory is as it was made.
    pub(crate) fn base_is_untouched(&self) -> bool {
        let mut found = vec![0; self.memory.len()];
        File::from(self.base().fd).read_exact_at(&mut found, 0).unwrap();
        found == *self.memory
    }

    pub(crate) fn state(&self) -> File {
        File::open(&self.state).unwrap()
    }
}

/// Base memory as the page server's, read-only, but complete from the start.
pub(crate) fn base_memory(content: &[u8]) -> OwnedFd {
    let mut file = File::from(memfd_create(c"wrenn-base", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(content).unwrap();
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap().into()
}

/// A page server that has nothing to do.
pub(crate) fn attached() -> OnMemory {
    Box::new(|_: MemoryReport| Box::pin(std::future::ready(Ok(()))))
}

/// Memory that is being captured.
struct Image {
    bytes: Vec<u8>,
    zero_pages: u64,
}

impl PageSink for Image {
    fn put(&mut self, page: u64, content: &[u8]) -> io::Result<()> {
        let start = usize::try_from(page * 4096).unwrap();
        self.bytes[start..start + content.len()].copy_from_slice(content);
        let zero = content.chunks(4096).filter(|page| page.iter().all(|&byte| byte == 0));
        self.zero_pages += zero.count() as u64;
        Ok(())
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("wvmm").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("kernel"), pvh_kernel(guest::PROGRAM)).unwrap();
        std::fs::write(at("initramfs"), [0; 512]).unwrap();
        File::create(at("base.img")).unwrap().set_len(1 << 20).unwrap();
        let config = QemuConfig { preload: built::library().to_owned(), ..QemuConfig::default() };
        let qemu = Qemu::new(config).await.unwrap();
        Self { qemu, uids: Mutex::default(), dir }
    }

    /// A machine to be made, in a new directory.
    pub(crate) fn spec(&self) -> MachineSpec {
        let number = NEXT_UID.fetch_add(1, Ordering::Relaxed);
        let uid = 7_100_000 + std::process::id() % 10_000 * 1000 + number;
        self.uids.lock().unwrap().push(uid);
        let dir = self.dir.path().join(format!("machine-{number}"));
        std::fs::create_dir(&dir).unwrap();
        let scratch_disk = dir.join("scratch.img");
        File::create(&scratch_disk).unwrap().set_len(1 << 20).unwrap();
        MachineSpec {
            sandbox: SandboxId::from_u128(u128::from(number)),
            memory_bytes: guest::MEMORY_BYTES,
            vcpus: 1,
            kernel: self.dir.path().join("kernel"),
            initramfs: self.dir.path().join("initramfs"),
            cmdline: String::new(),
            base_disk: self.dir.path().join("base.img"),
            scratch_disk,
            tap: tap(),
            mac: [2, 0x57, 0x52, 0, 0, 2],
            dir,
            uid,
            gid: uid,
            cgroup_procs: Vec::new(),
            netns: None,
            huge_pages: false,
        }
    }

    /// A machine that has begun to count.
    pub(crate) async fn counting(&self) -> Box<dyn Machine> {
        let machine = self.qemu.boot(self.spec()).await.unwrap();
        counts_beyond(&*machine, 0).await;
        machine
    }

    /// Saves a machine that is paused, checks the memory, and makes it a snapshot.
    pub(crate) async fn save(&self, machine: &dyn Machine, of: Option<&Snapshot>) -> Snapshot {
        let number = NEXT_UID.fetch_add(1, Ordering::Relaxed);
        let state = self.dir.path().join(format!("state-{number}"));
        machine.save_state(File::create_new(&state).unwrap()).await.unwrap();
        let empty = || vec![0; usize::try_from(guest::MEMORY_BYTES).unwrap()];
        let bytes = of.map_or_else(empty, |base| base.memory.to_vec());
        let image = Image { bytes, zero_pages: 0 };
        let (captured, image) = capture_memory(&machine.record(), image).await.unwrap();
        let count = guest::check(&image.bytes);
        let base = Arc::new(base_memory(&image.bytes));
        let (memory, zero_pages) = (Arc::new(image.bytes), image.zero_pages);
        Snapshot { memory, base, state, count, captured, zero_pages }
    }

    /// A snapshot of a machine that has counted for a while; the machine is gone.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let machine = self.counting().await;
        counts_beyond(&*machine, 1500).await;
        machine.pause().await.unwrap();
        let snapshot = self.save(&*machine, None).await;
        machine.kill().await.unwrap();
        snapshot
    }

    /// A process that waits for a snapshot.
    pub(crate) async fn blank(&self) -> Box<dyn Blank> {
        self.qemu.prepare(self.spec()).await.unwrap()
    }

    /// A clone, stopped.
    pub(crate) async fn restore(&self, snapshot: &Snapshot) -> Result<Restored, VmmError> {
        self.blank().await.restore(snapshot.base(), snapshot.state(), attached()).await
    }

    /// A clone that has counted beyond its snapshot.
    pub(crate) async fn running_clone(&self, snapshot: &Snapshot) -> Box<dyn Machine> {
        let machine = self.restore(snapshot).await.unwrap().machine;
        machine.resume().await.unwrap();
        counts_beyond(&*machine, snapshot.count).await;
        machine
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // A test that failed leaves machines; each has a user that nobody else has.
        let uids = self.uids.lock().unwrap();
        for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
            let uid = process.metadata().map(|metadata| metadata.uid());
            if let (Some(pid), Ok(uid)) = (pid, uid)
                && uids.contains(&uid)
            {
                let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// Waits until the guest has counted further than `count`.
pub(crate) async fn counts_beyond(machine: &dyn Machine, count: u32) {
    let record = machine.record();
    let deadline = Instant::now() + PATIENCE;
    while guest::count(&record) <= count {
        assert!(Instant::now() < deadline, "it does not count: {}", machine.log());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a process of user `uid` is there.
pub(crate) fn runs_as(uid: u32) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut owners = processes.filter_map(|process| process.metadata().ok());
    owners.any(|metadata| metadata.uid() == uid)
}

/// Waits until `gone` says so.
pub(crate) async fn until(what: &str, mut gone: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !gone() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a process is there, a zombie or not.
pub(crate) fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
