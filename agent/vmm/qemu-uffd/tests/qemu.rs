//! A real QEMU, without privileges and with its sandbox on, over base memory of a real pager.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    fs::{self, File, Permissions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{FileExt as _, PermissionsExt as _, chown},
            net::UnixStream,
            process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pool_model::SnapshotId;
use pool_pager::{Attach, Limits, PagerClient, Population, Server, Stats, start_ticks};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(20);
const MEMORY_BYTES: u64 = 64 << 20;
const SNAPSHOT: SnapshotId = SnapshotId::from_u128(1);
/// Nobody's user: the test machine has no account with it.
const UID: u32 = 712_345;
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

#[tokio::test]
async fn guest_memory_is_a_private_mapping_whose_faults_the_pager_serves() {
    let rig = Rig::start().await;
    let mut qemu = rig.qemu(&[]).await;
    let report = qemu.report();
    assert_eq!(report["len"], MEMORY_BYTES, "{report}");
    assert_eq!(report["base"], qemu.base_fd);
    rig.attach(&qemu, &report).await;

    let mut qmp = qemu.qmp();
    // Physical memory in the middle, as the monitor shows it and as it is saved.
    let at = 33 << 20;
    let shown = qmp.call(
        r#"{"execute":"human-monitor-command","arguments":{"command-line":"xp /1xg 0x2100000"}}"#,
    );
    let word = u64::from_le_bytes(pattern(at / 8));
    assert!(shown.to_string().contains(&format!("0x{word:016x}")), "{shown}");
    let before = rig.stats().await.clones[0].faults;
    assert!(before >= 1, "somebody has answered that fault");

    let saved = qemu.dir.join("saved");
    let (start, len) = (4_u64 << 20, 56 << 20);
    qmp.call(&format!(
        r#"{{"execute":"pmemsave","arguments":{{"val":{start},"size":{len},"filename":"{}"}}}}"#,
        saved.display()
    ));
    let (mut found, mut expected) = (Vec::new(), vec![0; len]);
    File::open(&saved).unwrap().read_to_end(&mut found).unwrap();
    rig.memory.read_exact_at(&mut expected, start).unwrap();
    assert!(found == expected, "all of it is the snapshot's");
    let stats = rig.stats().await;
    assert!(stats.clones[0].faults >= (56 << 20) / (64 << 10) - 1, "{stats:?}");
    assert_eq!(stats.bases[0].clones, 1);

    let smaps = qemu.smaps(&report);
    assert!(smaps[0].contains(" rw-p "), "private: {}", smaps[0]);
    assert!(smaps[0].contains("/memfd:wrenn-base-"), "of base memory: {}", smaps[0]);
    let flags = smaps.iter().find(|line| line.starts_with("VmFlags:")).unwrap();
    assert!(flags.contains(" um") && flags.contains(" nh"), "missing mode, small pages: {flags}");
    assert!(!flags.contains(" mg"), "its pages are not merged with other guests': {flags}");
}

#[tokio::test]
async fn what_qemu_writes_stays_its_own_and_it_holds_nothing_it_could_change_the_base_with() {
    let rig = Rig::start().await;
    let mut qemu = rig.qemu(&[]).await;
    let report = qemu.report();
    rig.attach(&qemu, &report).await;
    let mut qmp = qemu.qmp();
    // The firmware runs and writes to low memory.
    qmp.call(r#"{"execute":"cont"}"#);
    let until = Instant::now() + DEADLINE;
    while qemu.private_dirty(&report) == 0 {
        assert!(Instant::now() < until, "the firmware writes nothing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    qmp.call(r#"{"execute":"stop"}"#);
    let base = rig.base().await;
    let (mut base_bytes, mut file_bytes) = (vec![0; 4096], vec![0; 4096]);
    let base = File::from(base);
    for extent in data_pages(&base) {
        base.read_exact_at(&mut base_bytes, extent).unwrap();
        rig.memory.read_exact_at(&mut file_bytes, extent).unwrap();
        assert!(base_bytes == file_bytes, "page at {extent:#x} of the base has changed");
    }
    let fds = fs::read_dir(format!("/proc/{}/fd", qemu.child.id())).unwrap();
    for fd in fds.map(|entry| entry.unwrap().path()) {
        let Ok(link) = fs::read_link(&fd) else { continue };
        let link = link.to_string_lossy().into_owned();
        assert!(!link.contains("/dev/userfaultfd"), "the device is still open");
        if link.contains("memfd:wrenn-base") {
            let number = fd.file_name().unwrap().to_string_lossy().into_owned();
            let info = format!("/proc/{}/fdinfo/{number}", qemu.child.id());
            let info = fs::read_to_string(info).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
            assert_eq!(flags & 3, 0, "descriptor {number} of the base is read-only");
        }
    }
}

#[tokio::test]
async fn faults_wait_for_the_pager_from_the_first_touch_on() {
    let rig = Rig::start().await;
    let mut qemu = rig.qemu(&[]).await;
    let report = qemu.report();
    tokio::time::sleep(Duration::from_millis(200)).await; // it is free to run into a fault
    rig.attach(&qemu, &report).await;
    let answer = qemu.qmp().call(r#"{"execute":"query-status"}"#);
    assert_eq!(answer["return"]["running"], false);
}

#[tokio::test]
async fn without_a_usable_device_it_says_why_and_aborts() {
    let rig = Rig::start().await;
    let mut qemu = rig.qemu(&[("WRENN_UFFD_DEV_FD", "999")]).await;
    let report = qemu.report();
    assert_eq!(report["error"], "cannot make a userfaultfd: errno 9");
    let status = wait(&mut qemu.child);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6));
}

/// Eight bytes of guest memory: word number `index`.
fn pattern(index: u64) -> [u8; 8] {
    (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1).to_le_bytes()
}

struct Rig {
    dir: tempfile::TempDir,
    memory: File,
    client: PagerClient,
    stopper: pool_pager::Stopper,
    serving: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Rig {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let mut bytes = vec![0; usize::try_from(MEMORY_BYTES).unwrap()];
        for (index, word) in (0..).zip(bytes.as_chunks_mut().0) {
            *word = pattern(index);
        }
        fs::write(dir.path().join("memory"), bytes).unwrap();
        let memory = File::open(dir.path().join("memory")).unwrap();
        let (socket, pid) = (dir.path().join("pager.sock"), dir.path().join("pager.pid"));
        let server = Server::bind(&socket, &pid, Limits::default()).unwrap();
        let stopper = server.stopper();
        let serving = std::thread::spawn(|| server.run());
        let client = PagerClient::connect(&socket, DEADLINE).await.unwrap();
        Self { dir, memory, client, stopper, serving: Some(serving) }
    }

    async fn base(&self) -> OwnedFd {
        self.client.base(SNAPSHOT, &self.dir.path().join("memory"), MEMORY_BYTES).await.unwrap()
    }

    async fn stats(&self) -> Stats {
        self.client.stats().await.unwrap()
    }

    async fn attach(&self, qemu: &Qemu, report: &Value) {
        let pid = i32::try_from(qemu.child.id()).unwrap();
        let number = |name: &str| report[name].as_i64().unwrap();
        let attach = Attach {
            snapshot: SNAPSHOT,
            pid,
            pid_start_ticks: start_ticks(pid).unwrap(),
            uffd_fd: i32::try_from(number("uffd")).unwrap(),
            base_fd: i32::try_from(number("base")).unwrap(),
            addr: report["addr"].as_u64().unwrap(),
            len: report["len"].as_u64().unwrap(),
            population: Population::Shared,
            memory_file: self.dir.path().join("memory"),
        };
        self.client.attach(attach).await.unwrap();
    }

    /// QEMU as the agent starts it, but for its devices.
    async fn qemu(&self, env: &[(&str, &str)]) -> Qemu {
        let dir = self.dir.path().join("vmm");
        fs::create_dir(&dir).unwrap();
        chown(&dir, Some(UID), Some(UID)).unwrap();
        let base = inheritable(self.base().await);
        let device = File::options().read(true).write(true).open("/dev/userfaultfd").unwrap();
        let device = inheritable(device.into());
        let (report, report_tx) = std::io::pipe().unwrap();
        let report_tx = inheritable(report_tx.into());
        let base_fd = base.as_raw_fd();
        let path = format!("/proc/self/fd/{base_fd}");
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-M", "microvm,memory-backend=ram", "-accel", "tcg", "-cpu", "max", "-m", "64M"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-S"])
            .arg("-object")
            .arg(format!("memory-backend-file,id=ram,size=64M,share=on,mem-path={path}"))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", dir.join("qmp.sock").display()))
            .args(["-sandbox", SANDBOX])
            .env("LD_PRELOAD", library())
            .env("WRENN_UFFD_PATH", &path)
            .env("WRENN_UFFD_BASE_FD", base_fd.to_string())
            .env("WRENN_UFFD_DEV_FD", device.as_raw_fd().to_string())
            .env("WRENN_UFFD_REPORT_FD", report_tx.as_raw_fd().to_string())
            .envs(env.iter().copied())
            .current_dir("/")
            .uid(UID)
            .gid(UID)
            .stdin(Stdio::null());
        let child = command.spawn().unwrap();
        Qemu { child, report: BufReader::new(report), dir, base_fd }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

struct Qemu {
    child: Child,
    report: BufReader<std::io::PipeReader>,
    dir: PathBuf,
    base_fd: i32,
}

impl Qemu {
    /// The line on the report descriptor. Ends with QEMU at the latest, so it can't hang.
    fn report(&mut self) -> Value {
        let mut line = String::new();
        self.report.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no report: {line:?}"))
    }

    fn qmp(&self) -> Qmp {
        let until = Instant::now() + DEADLINE;
        let stream = loop {
            match UnixStream::connect(self.dir.join("qmp.sock")) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut qmp = Qmp { lines: BufReader::new(stream.try_clone().unwrap()), stream };
        assert!(qmp.line()["QMP"].is_object());
        qmp.call(r#"{"execute":"qmp_capabilities"}"#);
        qmp
    }

    /// The lines of `/proc/PID/smaps` about guest memory.
    fn smaps(&self, report: &Value) -> Vec<String> {
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", self.child.id())).unwrap();
        let start = format!("{:x}-", report["addr"].as_u64().unwrap());
        let lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let mut lines: Vec<_> = lines.map(str::to_owned).collect();
        let end = lines.iter().position(|line| line.starts_with("VmFlags:")).unwrap();
        lines.truncate(end + 1);
        lines
    }

    fn private_dirty(&self, report: &Value) -> u64 {
        let smaps = self.smaps(report);
        let line = smaps.iter().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Qmp {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Qmp {
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn call(&mut self, command: &str) -> Value {
        self.stream.write_all(command.as_bytes()).unwrap();
        loop {
            let answer = self.line();
            assert!(answer.get("error").is_none(), "{command}: {answer}");
            if answer.get("return").is_some() {
                return answer;
            }
        }
    }
}

/// A descriptor that a child gets: without close-on-exec.
fn inheritable(fd: OwnedFd) -> OwnedFd {
    let flags = rustix::io::FdFlags::empty();
    rustix::io::fcntl_setfd(&fd, flags).unwrap();
    fd
}

/// The library under test, as Cargo built it for this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let library = test.parent().unwrap().join("libqemu_uffd.so");
    assert!(library.exists(), "{} is missing", library.display());
    // The path must be open to QEMU's user, too.
    assert!(is_open_to_all(&library), "{} can't be read by others", library.display());
    library
}

fn is_open_to_all(path: &Path) -> bool {
    path.ancestors().all(|part| fs::metadata(part).unwrap().permissions().mode() & 0o005 != 0)
}

fn data_pages(file: &File) -> Vec<u64> {
    let mut pages = Vec::new();
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        at = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start)).unwrap();
        pages.extend((start..at).step_by(4096));
    }
    pages
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < until, "QEMU doesn't end");
        std::thread::sleep(Duration::from_millis(5));
    }
}
