//! A directory with disks and a kernel, a pager of its own, and machines in it.

use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use agent_vmm::{
    BaseMemory, BoxError, Captured, Machine, MachineSpec, MemoryReport, OnMemory, Qemu, QemuConfig,
    Restored, Vmm, VmmError, capture_memory, pvh_kernel,
};
use nix::{sys::signal::Signal, unistd::Pid};
use pool_model::{SandboxId, SnapshotId};
use pool_pager::{Attach, PagerClient, Population};
use tempfile::TempDir;

use crate::{guest, tap::tap};

const PATIENCE: Duration = Duration::from_secs(20);

/// Users of VMMs; each machine has its own.
static NEXT_UID: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) qemu: Qemu,
    pager: Arc<PagerClient>,
    pager_process: Child,
    uids: Mutex<Vec<u32>>,
}

/// A snapshot: where its files are.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) id: SnapshotId,
    pub(crate) memory: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) count: u32,
    pub(crate) captured: Captured,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let built = built();
        let dir = tempfile::Builder::new().prefix("wvmm").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("kernel"), pvh_kernel(guest::PROGRAM)).unwrap();
        std::fs::write(at("initramfs"), [0; 512]).unwrap();
        File::create(at("base.img")).unwrap().set_len(1 << 20).unwrap();
        std::fs::create_dir(at("run")).unwrap();
        let pager_process = Command::new(&built.pager)
            .arg("--wrenn-dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let config = QemuConfig { preload: built.library.clone(), ..QemuConfig::default() };
        let qemu = Qemu::new(config).await.unwrap();
        let pager = PagerClient::connect(&at("run/pager.sock"), PATIENCE).await.unwrap();
        Self { qemu, pager: Arc::new(pager), pager_process, uids: Mutex::default(), dir }
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
        let memory = self.dir.path().join(format!("memory-{number}"));
        let state = self.dir.path().join(format!("state-{number}"));
        machine.save_state(File::create_new(&state).unwrap()).await.unwrap();
        let base = of.map(|snapshot| snapshot.memory.as_path());
        let captured = capture_memory(&machine.record(), base, &memory).await.unwrap();
        let count = guest::check(&memory);
        Snapshot { id: SnapshotId::from_u128(number.into()), memory, state, count, captured }
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

    pub(crate) async fn base(&self, snapshot: &Snapshot) -> BaseMemory {
        let bytes = guest::MEMORY_BYTES;
        let fd = self.pager.base(snapshot.id, &snapshot.memory, bytes).await.unwrap();
        BaseMemory { fd, bytes }
    }

    /// Attaches a clone of `snapshot` to the pager.
    pub(crate) fn attach(&self, snapshot: &Snapshot) -> OnMemory {
        let (pager, snapshot) = (Arc::clone(&self.pager), snapshot.clone());
        Box::new(move |report: MemoryReport| {
            Box::pin(async move {
                let attach = Attach {
                    snapshot: snapshot.id,
                    pid: report.pid,
                    pid_start_ticks: report.start_ticks,
                    uffd_fd: report.uffd_fd,
                    base_fd: report.base_fd,
                    addr: report.addr,
                    len: report.len,
                    population: Population::Shared,
                    memory_file: snapshot.memory,
                };
                pager.attach(attach).await.map_err(BoxError::from)
            })
        })
    }

    /// A clone, stopped.
    pub(crate) async fn restore(&self, snapshot: &Snapshot) -> Result<Restored, VmmError> {
        let state = File::open(&snapshot.state).unwrap();
        let base = self.base(snapshot).await;
        self.qemu.restore(self.spec(), base, state, self.attach(snapshot)).await
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
        let _ = self.pager_process.kill();
        let _ = self.pager_process.wait();
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

/// Whether a process is there, a zombie or not.
pub(crate) fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

struct Built {
    pager: PathBuf,
    library: PathBuf,
}

/// The pager and the preloaded library, built beside this test unless a build of the whole
/// workspace has just put them there.
fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile_dir = test.ancestors().nth(2).expect("a test lives in <profile>/deps");
        let built = Built {
            pager: profile_dir.join("pager"),
            library: profile_dir.join("libqemu_uffd.so"),
        };
        let vmm = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sources = [vmm.join("../../pool/pager/src"), vmm.join("qemu-uffd/src")];
        let changed = sources.iter().filter_map(|dir| newest(dir)).max();
        if [&built.pager, &built.library].iter().all(|file| modified(file) >= changed) {
            return built;
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "-q",
            "-p",
            "pool-pager",
            "--bin",
            "pager",
            "-p",
            "qemu-uffd",
            "--lib",
        ]);
        cargo.arg("--target-dir").arg(profile_dir.parent().unwrap());
        if profile_dir.ends_with("release") {
            cargo.arg("--release");
        }
        let done = cargo.current_dir(vmm).status().unwrap();
        assert!(done.success(), "cargo build of pager and library");
        built
    })
}

fn modified(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|metadata| metadata.modified()).ok()
}

fn newest(dir: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter_map(|path| if path.is_dir() { newest(&path) } else { modified(&path) }).max()
}
