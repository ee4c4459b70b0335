//! Processes that wait for a snapshot.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{fs::FileExt, net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use agent_vmm::{
    AdoptError, BaseMemory, CaptureError, Exit, MachineRecord, MemoryRecord, MemoryReport,
    OnMemory, PageSink, Vmm, VmmError, capture_memory,
};
use nix::{
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::Signal,
    },
    unistd::Pid,
};
use pool_model::SandboxId;
use tokio::sync::oneshot;

use crate::{
    fixture::{Fixture, attached, base_memory, counts_beyond, exists, runs_as, until},
    guest,
};

/// For restores that must not get as far.
fn never() -> OnMemory {
    Box::new(|report: MemoryReport| panic!("memory was mapped: {report:?}"))
}

#[tokio::test]
async fn blank_holds_no_memory_and_has_nothing_of_a_snapshot() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let blank = fixture.blank().await;
    let record = blank.record();
    assert_eq!(record.memory, MemoryRecord::Blank { bytes: guest::MEMORY_BYTES });
    assert!(blank.prepared_in() > Duration::ZERO);
    for target in open_files(&record) {
        assert!(!target.contains("userfaultfd") && !target.contains("wrenn-base"), "{target}");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = std::fs::read_to_string(format!("/proc/{}/smaps", record.pid)).unwrap();

    let restored = blank.restore(snapshot.base(), snapshot.state(), attached()).await.unwrap();
    let machine = restored.machine;
    let MemoryRecord::Clone { addr, .. } = machine.record().memory else { panic!("no clone") };
    let kib_of_memory = field(&before, addr, "Size");
    assert_eq!(kib_of_memory, guest::MEMORY_BYTES >> 10, "it was reserved where it is now");
    assert_eq!(field(&before, addr, "Rss"), 0, "nothing had been written to it");
    for target in open_files(&machine.record()) {
        assert!(!target.starts_with("/dev/userfaultfd"), "it could make another userfaultfd");
    }
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn blank_that_was_idle_for_long_is_restored_right() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let blank = fixture.blank().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begun = Instant::now();
    let restored = blank.restore(snapshot.base(), snapshot.state(), attached()).await.unwrap();
    let (timings, took) = (restored.timings, begun.elapsed());
    assert_eq!(timings.prepare, Duration::ZERO);
    assert!(timings.memory + timings.state_load <= timings.total && timings.total <= took);
    let machine = restored.machine;
    assert_eq!(guest::count(&machine.record()), snapshot.count);
    machine.resume().await.unwrap();
    counts_beyond(&*machine, snapshot.count + 1100).await;
    machine.pause().await.unwrap();
    fixture.save(&*machine, Some(&snapshot)).await; // which checks all of the trail
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn blanks_are_restored_from_one_base_at_the_same_time() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let (first, second) = tokio::join!(fixture.blank(), fixture.blank());
    let (first, second) = tokio::join!(
        first.restore(snapshot.base(), snapshot.state(), attached()),
        second.restore(snapshot.base(), snapshot.state(), attached()),
    );
    let (first, second) = (first.unwrap().machine, second.unwrap().machine);
    first.resume().await.unwrap();
    counts_beyond(&*first, snapshot.count + 50).await;
    assert_eq!(guest::count(&second.record()), snapshot.count);
    second.resume().await.unwrap();
    counts_beyond(&*second, snapshot.count + 50).await;
    assert!(snapshot.base_is_untouched());
    for machine in [first, second] {
        machine.kill().await.unwrap();
    }
}

#[tokio::test]
async fn restore_of_a_killed_blank_says_that_it_is_dead() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let blank = fixture.blank().await;
    let pid = blank.record().pid;
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(blank.exited().await, Exit::Signal(libc::SIGKILL));
    let failed = blank.restore(snapshot.base(), snapshot.state(), never()).await.unwrap_err();
    assert!(matches!(failed, VmmError::Died { .. }), "{failed}");
    assert!(failed.to_string().contains("signal 9"), "{failed}");

    // Killed in passing: nobody has noticed yet.
    let blank = fixture.blank().await;
    nix::sys::signal::kill(Pid::from_raw(blank.record().pid), Signal::SIGKILL).unwrap();
    let failed = blank.restore(snapshot.base(), snapshot.state(), never()).await.unwrap_err();
    assert!(matches!(failed, VmmError::Died { .. }), "{failed}");
}

#[tokio::test]
async fn memory_of_another_size_is_refused_before_it_is_mapped() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let half = || base_memory(&snapshot.memory[..snapshot.memory.len() / 2]);

    let blank = fixture.blank().await;
    let pid = blank.record().pid;
    let base = BaseMemory { fd: half(), bytes: guest::MEMORY_BYTES / 2 };
    let failed = blank.restore(base, snapshot.state(), never()).await.unwrap_err();
    assert!(failed.to_string().contains("check its memory"), "{failed}");
    assert!(!exists(pid), "its process is left");

    // Its size is not what is said of it: past its end there would be no memory.
    let blank = fixture.blank().await;
    let pid = blank.record().pid;
    let base = BaseMemory { fd: half(), bytes: guest::MEMORY_BYTES };
    let failed = blank.restore(base, snapshot.state(), never()).await.unwrap_err();
    assert!(matches!(failed, VmmError::Paging { .. }), "{failed}");
    assert!(failed.to_string().contains("another memory size"), "{failed}");
    assert!(!exists(pid), "its process is left");
}

#[tokio::test]
async fn dropped_blank_leaves_no_process() {
    let fixture = Fixture::new().await;
    let blank = fixture.blank().await;
    let pid = blank.record().pid;
    assert!(exists(pid));
    drop(blank);
    until("its process is left", || !exists(pid)).await;

    let blank = fixture.blank().await;
    let pid = blank.record().pid;
    blank.kill().await.unwrap();
    assert!(!exists(pid));
    blank.kill().await.unwrap(); // does nothing
}

#[tokio::test]
async fn cancelled_preparation_leaves_no_process() {
    let fixture = Fixture::new().await;
    for wait in [0, 2, 5, 10, 20] {
        let spec = fixture.spec();
        let uid = spec.uid;
        let preparing = fixture.qemu.prepare(spec);
        // Whether it was finished does not matter: what it gave is dropped too.
        let _ = tokio::time::timeout(Duration::from_millis(wait), preparing).await;
        tokio::time::sleep(Duration::from_millis(100)).await; // the fork may still come
        until("a process is left", || !runs_as(uid)).await;
    }
}

#[tokio::test]
async fn renamed_blank_answers_on_its_new_socket_path() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let mut blank = fixture.blank().await;
    let (old, new) = (blank.record().dir, fixture.dir.path().join("renamed"));
    std::fs::rename(&old, &new).unwrap();
    let sandbox = SandboxId::from_u128(0xABCD);
    blank.rename(sandbox, new.clone());
    assert_eq!((blank.record().sandbox, blank.record().dir), (sandbox, new.clone()));

    let restored = blank.restore(snapshot.base(), snapshot.state(), attached()).await.unwrap();
    assert_eq!(restored.machine.dir(), new);
    let record = restored.machine.record();
    assert_eq!(record.sandbox, sandbox);
    assert!(record.qmp_socket.starts_with(&new), "{record:?}");
    drop(restored); // and with it the connection
    let machine = fixture.qemu.adopt(&record).await.unwrap();
    machine.resume().await.unwrap();
    counts_beyond(&*machine, snapshot.count + 10).await;
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn blank_is_reaped_but_neither_adopted_nor_captured() {
    struct Nowhere;
    impl PageSink for Nowhere {
        fn put(&mut self, page: u64, _: &[u8]) -> io::Result<()> {
            panic!("page {page} of a blank")
        }
    }

    let fixture = Fixture::new().await;
    let blank = fixture.blank().await;
    let record = blank.record();
    let refused = fixture.qemu.adopt(&record).await.unwrap_err();
    assert!(matches!(refused, AdoptError::Blank { .. }), "{refused}");
    let refused = capture_memory(&record, Nowhere).await.map(drop).unwrap_err();
    assert!(matches!(refused, CaptureError::Io { .. }), "{refused}");
    assert!(exists(record.pid), "it was left alone");
    assert!(fixture.qemu.reap(&record).await.unwrap());
    assert!(!exists(record.pid));
    assert!(!fixture.qemu.reap(&record).await.unwrap(), "it was gone");
}

#[tokio::test]
async fn disk_may_be_written_until_the_restore() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let spec = fixture.spec();
    let scratch = spec.scratch_disk.clone();
    let blank = fixture.qemu.prepare(spec).await.unwrap();
    let disk = File::options().write(true).open(scratch).unwrap();
    disk.write_all_at(&[0x5A; 4096], 8192).unwrap();
    let restored = blank.restore(snapshot.base(), snapshot.state(), attached()).await.unwrap();
    let record = restored.machine.record();
    let mut console = File::open(format!("/proc/{}/fd/1", record.pid)).unwrap();
    drop(restored); // QEMU talks to one client
    // The connection before is closed by a task, which a blocked thread would keep from running.
    let asking = tokio::task::spawn_blocking(move || read_disk_and_quit(&record.qmp_socket));
    asking.await.unwrap();
    let mut said = String::new();
    console.read_to_string(&mut said).unwrap();
    let wrong = "Pattern verification failed at offset 16384";
    assert!(said.contains("read 4096/4096 bytes at offset 8192"), "{said}");
    assert!(!said.contains("failed at offset 8192"), "{said}");
    assert!(said.contains(wrong), "what is expected matters: {said}");
}

/// Has QEMU compare two blocks of its scratch disk; it prints the result when it ends.
fn read_disk_and_quit(socket: &Path) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    lines.next().unwrap().unwrap(); // the greeting
    let read = |at: u32| {
        let command = format!(r#"qemu-io scratch \"read -P 0x5a {at} 4096\""#);
        format!(
            r#"{{"execute":"human-monitor-command","arguments":{{"command-line":"{command}"}}}}"#
        )
    };
    let capabilities = r#"{"execute":"qmp_capabilities"}"#.to_owned();
    for command in [capabilities, read(8192), read(16384)] {
        stream.write_all(command.as_bytes()).unwrap();
        let answer = lines.find(|line| !line.as_ref().unwrap().contains("\"event\""));
        assert!(answer.unwrap().unwrap().contains("return"), "{command}");
    }
    stream.write_all(br#"{"execute":"quit"}"#).unwrap();
    lines.for_each(drop); // until it is gone
}

#[tokio::test]
async fn base_memory_in_huge_pages_is_mapped_if_the_host_has_them() {
    let fixture = Fixture::new().await;
    let flags = MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
    let base = File::from(memfd_create(c"wrenn-base", flags).unwrap());
    base.set_len(guest::MEMORY_BYTES).unwrap();
    let base = BaseMemory { fd: base.into(), bytes: guest::MEMORY_BYTES };
    let mut spec = fixture.spec();
    spec.huge_pages = true;
    let blank = fixture.qemu.prepare(spec).await.unwrap();
    // No page is there and nobody serves any: it ends when memory is mapped.
    let (smaps_tx, smaps_rx) = oneshot::channel();
    let on_memory: OnMemory = Box::new(move |report: MemoryReport| {
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", report.pid)).unwrap();
        smaps_tx.send((report, smaps)).unwrap();
        Box::pin(std::future::ready(Err("that is all".into())))
    });
    let state = File::open("/dev/null").unwrap();
    let failed = blank.restore(base, state, on_memory).await.unwrap_err();
    match smaps_rx.await {
        Ok((report, smaps)) => {
            assert!(matches!(failed, VmmError::Attach { .. }), "{failed}");
            assert_eq!(report.addr % (2 << 20), 0);
            assert_eq!(field(&smaps, report.addr, "KernelPageSize"), 2 << 10);
        }
        Err(_) => {
            println!("this host has no free huge pages");
            assert!(failed.to_string().contains("cannot map base memory: errno 12"), "{failed}");
        }
    }
    let mut spec = fixture.spec();
    (spec.huge_pages, spec.memory_bytes) = (true, (32 << 20) + 4096);
    let failed = fixture.qemu.prepare(spec).await.unwrap_err();
    assert!(failed.to_string().contains("check its memory"), "{failed}");
}

/// What a process has open.
fn open_files(record: &MachineRecord) -> Vec<String> {
    let files = std::fs::read_dir(format!("/proc/{}/fd", record.pid)).unwrap();
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets.map(|target| target.to_string_lossy().into_owned()).collect()
}

/// A field, in KiB, of the mapping that begins at `addr`.
fn field(smaps: &str, addr: u64, name: &str) -> u64 {
    let start = format!("{addr:x}-");
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
    let line = lines.find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
