//! A real QEMU, without privileges and with its sandbox on, over base memory that the test made.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

#[path = "support/base.rs"]
mod base;

use std::{
    fs::{self, File, Permissions},
    io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{FileExt as _, PermissionsExt as _, chown},
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use serde_json::Value;

use base::{Base, MEMORY_BYTES, memory_file, pattern};

const DEADLINE: Duration = Duration::from_secs(20);
/// Nobody's user: the test machine has no account with it.
const UID: u32 = 712_345;
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

#[test]
fn guest_memory_becomes_a_private_mapping_of_the_base() {
    let mut qemu = Qemu::start();
    let mut qmp = qemu.qmp();
    let base = Base::new();
    qemu.send(&base, MEMORY_BYTES, &device());
    let report = qemu.report();
    assert_eq!(report["len"], MEMORY_BYTES, "{report}");

    // Physical memory in the middle, as the monitor shows it and as it is saved.
    let at = 33 << 20;
    let shown = qmp.call(
        r#"{"execute":"human-monitor-command","arguments":{"command-line":"xp /1xg 0x2100000"}}"#,
    );
    let word = u64::from_le_bytes(pattern(at / 8));
    assert!(shown.to_string().contains(&format!("0x{word:016x}")), "{shown}");
    let (start, len) = (4 << 20, 56 << 20);
    let mut expected = vec![0; len];
    base.writable.read_exact_at(&mut expected, start).unwrap();
    assert!(qemu.saved(&mut qmp, start, len) == expected, "all of it is the snapshot's");

    let smaps = qemu.smaps(&report);
    assert!(smaps[0].contains(" rw-p "), "private: {}", smaps[0]);
    assert!(smaps[0].contains("/memfd:base"), "of base memory: {}", smaps[0]);
    let flags = smaps.iter().find(|line| line.starts_with("VmFlags:")).unwrap();
    for flag in [" um", " nh", " dd", " dc"] {
        assert!(flags.contains(flag), "missing mode, small pages, no dump, no fork: {flags}");
    }
    assert!(!flags.contains(" mg"), "its pages are not merged with other guests': {flags}");
}

#[test]
fn nothing_of_the_guests_is_there_before_the_snapshot_is() {
    let qemu = Qemu::start();
    let mut qmp = qemu.qmp();
    let status = qmp.call(r#"{"execute":"query-status"}"#);
    assert_eq!(status["return"]["running"], false);
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", qemu.child.id())).unwrap();
    let size = format!("Size: {:>18} kB", MEMORY_BYTES >> 10);
    let reserved: Vec<_> = smaps.split("VmFlags:").filter(|part| part.contains(&size)).collect();
    assert_eq!(reserved.len(), 1, "{reserved:?}");
    assert!(reserved[0].contains("Rss:                   0 kB"), "{reserved:?}");
    assert!(qemu.descriptors("userfaultfd").is_empty());
}

#[test]
fn what_qemu_writes_stays_its_own_and_it_holds_nothing_it_could_change_the_base_with() {
    let mut qemu = Qemu::start();
    let mut qmp = qemu.qmp();
    let base = Base::new();
    let before = base.content();
    let socket = format!("/proc/{}/fd/{}", qemu.child.id(), qemu.socket_fd);
    let ours = fs::read_link(&socket).unwrap();
    qemu.send(&base, MEMORY_BYTES, &device());
    let report = qemu.report();
    let number = report["uffd"].as_u64().unwrap();
    assert_eq!(qemu.descriptors("userfaultfd"), [number], "and the device is closed");
    // It is closed after the report; QEMU may then use its number for another.
    let deadline = Instant::now() + DEADLINE;
    while fs::read_link(&socket).is_ok_and(|open| open == ours) {
        assert!(Instant::now() < deadline, "the socket stays open");
        std::thread::sleep(Duration::from_millis(1));
    }

    let read_only = qemu.descriptors("/memfd:base");
    assert_eq!(read_only, [report["base"].as_u64().unwrap()]);
    let flags = u32::from_str_radix(&qemu.fdinfo(read_only[0], "flags:"), 8).unwrap();
    assert_eq!(flags & 3, 0, "the base is read-only");

    let memory = File::options().write(true).open(format!("/proc/{}/mem", qemu.child.id()));
    memory.unwrap().write_all_at(b"own", report["addr"].as_u64().unwrap()).unwrap();
    assert_eq!(&qemu.saved(&mut qmp, 0, 4096)[..3], b"own");
    assert!(base.content() == before, "base memory is untouched");
}

#[test]
fn missing_page_waits_for_a_page_server_and_is_never_made_of_zeroes() {
    let mut qemu = Qemu::start();
    let mut qmp = qemu.qmp();
    let base = Base::new();
    let hole = 32 << 20;
    base.punch(hole);
    qemu.send(&base, MEMORY_BYTES, &device());
    let report = qemu.report();
    qmp.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let show = r#"{"execute":"human-monitor-command","arguments":{"command-line":"xp 0x2000000"}}"#;
    qmp.stream.write_all(show.as_bytes()).unwrap();
    let mut line = String::new();
    assert!(qmp.lines.read_line(&mut line).is_err(), "it read what is not there: {line}");
    assert!(base.is_hole(hole), "nobody but a page server fills it");
    let uffd = report["uffd"].as_u64().unwrap();
    let info = fs::read_to_string(format!("/proc/{}/fdinfo/{uffd}", qemu.child.id())).unwrap();
    assert!(info.contains("pending:\t1"), "{info}");
    let features = qemu.fdinfo(uffd, "API:");
    let features = u64::from_str_radix(features.split(':').nth(1).unwrap(), 16).unwrap();
    for (bit, name) in [(3, "EVENT_REMOVE"), (5, "MISSING_SHMEM")] {
        assert_ne!(features & 1 << bit, 0, "{name} is asked for: {features:x}");
    }
}

#[test]
fn without_a_usable_device_it_says_why_and_aborts() {
    let mut qemu = Qemu::start();
    qemu.send(&Base::new(), MEMORY_BYTES, &File::open("/dev/null").unwrap());
    assert_eq!(qemu.report()["error"], "cannot make a userfaultfd: errno 25");
    assert_eq!(wait(&mut qemu.child).signal(), Some(6));
}

#[test]
fn snapshot_of_another_size_is_refused() {
    for (said, bytes) in [(MEMORY_BYTES / 2, MEMORY_BYTES), (MEMORY_BYTES, MEMORY_BYTES * 2)] {
        let mut qemu = Qemu::start();
        let base = Base::new();
        base.writable.set_len(bytes).unwrap();
        qemu.send(&base, said, &device());
        let error = qemu.report()["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with("cannot restore a snapshot of another memory size"), "{error}");
        assert_eq!(wait(&mut qemu.child).signal(), Some(6));
    }
}

#[test]
fn message_without_descriptors_is_refused() {
    let mut qemu = Qemu::start();
    qemu.socket.get_mut().write_all(&MEMORY_BYTES.to_ne_bytes()).unwrap();
    let error = qemu.report()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("cannot receive the snapshot's descriptors"), "{error}");
    assert_eq!(wait(&mut qemu.child).signal(), Some(6));
}

#[test]
fn process_that_nobody_can_restore_any_more_ends() {
    let mut qemu = Qemu::start();
    drop(qemu.qmp()); // it is up
    qemu.socket.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(wait(&mut qemu.child).code(), Some(0));
}

#[test]
fn machine_of_its_own_memory_is_left_alone() {
    let mut qemu = Qemu::with(&[("WRENN_UFFD_MEMORY_FD", None)]);
    drop(qemu.qmp());
    let maps = fs::read_to_string(format!("/proc/{}/maps", qemu.child.id())).unwrap();
    let memory = maps.lines().find(|line| line.contains("/memfd:memory")).unwrap();
    assert!(memory.contains(" rw-s "), "shared, as QEMU asked for: {memory}");
    qemu.child.kill().unwrap();
}

fn device() -> File {
    File::open("/dev/userfaultfd").unwrap()
}

struct Qemu {
    child: Child,
    socket: BufReader<UnixStream>,
    /// The number of QEMU's end of `socket`.
    socket_fd: i32,
    dir: tempfile::TempDir,
}

impl Qemu {
    fn start() -> Self {
        Self::with(&[])
    }

    /// QEMU as the agent starts it, but for its devices; with some of its environment changed.
    fn with(env: &[(&str, Option<&str>)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        chown(dir.path(), Some(UID), Some(UID)).unwrap();
        let memory = inheritable(memory_file(c"memory").into());
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let theirs = inheritable(theirs.into());
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-M", "microvm,memory-backend=ram", "-accel", "tcg", "-cpu", "max", "-m", "64M"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-S"])
            .args(["-incoming", "defer", "-sandbox", SANDBOX])
            .arg("-object")
            .arg(format!("memory-backend-file,id=ram,size=64M,share=on,mem-path={path}"))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", dir.path().join("qmp.sock").display()))
            .env("LD_PRELOAD", library())
            .env("WRENN_UFFD_MEMORY_FD", memory.as_raw_fd().to_string())
            .env("WRENN_UFFD_SOCKET_FD", theirs.as_raw_fd().to_string())
            .current_dir("/")
            .uid(UID)
            .gid(UID)
            .stdin(Stdio::null());
        for (name, value) in env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.spawn().unwrap();
        let socket_fd = theirs.as_raw_fd();
        Self { child, socket: BufReader::new(socket), socket_fd, dir }
    }

    /// What the agent sends.
    fn send(&self, base: &Base, bytes: u64, device: &File) {
        let rights = [base.read_only.as_raw_fd(), device.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&rights)];
        let (socket, bytes) = (self.socket.get_ref().as_raw_fd(), bytes.to_ne_bytes());
        let part = [IoSlice::new(&bytes)];
        sendmsg::<()>(socket, &part, &control, MsgFlags::MSG_NOSIGNAL, None).unwrap();
    }

    /// The line that comes back.
    fn report(&mut self) -> Value {
        let mut line = String::new();
        self.socket.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no report: {line:?}"))
    }

    fn qmp(&self) -> Qmp {
        let until = Instant::now() + DEADLINE;
        let stream = loop {
            match UnixStream::connect(self.dir.path().join("qmp.sock")) {
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

    /// Guest memory as QEMU reads it.
    fn saved(&self, qmp: &mut Qmp, start: u64, len: usize) -> Vec<u8> {
        let path = self.dir.path().join("saved");
        qmp.call(&format!(
            r#"{{"execute":"pmemsave","arguments":{{"val":{start},"size":{len},"filename":"{}"}}}}"#,
            path.display()
        ));
        let mut found = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut found).unwrap();
        found
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

    /// The numbers of its descriptors of something named like this.
    fn descriptors(&self, name: &str) -> Vec<u64> {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let fds = fds.map(|fd| fd.unwrap().path());
        let named = fds.filter(|fd| {
            fs::read_link(fd).is_ok_and(|target| target.to_string_lossy().contains(name))
        });
        named.map(|fd| fd.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect()
    }

    fn fdinfo(&self, fd: u64, field: &str) -> String {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.child.id())).unwrap();
        info.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
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
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
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
