//! What is captured of real machines' memory.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use agent_vmm::{
    BaseMemory, CaptureError, Machine, MachineRecord, MemoryRecord, PageSink, capture_memory,
    clone_usage,
};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::{
    fixture::{Fixture, attached, counts_beyond},
    guest,
};

const PAGE: usize = 4096;
/// What the guest never touches; it is zero in every snapshot.
const UNUSED_FROM: u64 = 24 << 20;

/// Lays pages over what was there before; fails after some.
struct Overlay {
    bytes: Vec<u8>,
    pages: u64,
    zero_pages: u64,
    pages_max: u64,
}

impl Overlay {
    fn over(bytes: Vec<u8>) -> Self {
        Self { bytes, pages: 0, zero_pages: 0, pages_max: u64::MAX }
    }

    fn over_nothing() -> Self {
        Self::over(vec![0; usize::try_from(guest::MEMORY_BYTES).unwrap()])
    }
}

impl PageSink for Overlay {
    fn put(&mut self, page: u64, content: &[u8]) -> io::Result<()> {
        self.pages += (content.len() / PAGE) as u64;
        if self.pages > self.pages_max {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let start = usize::try_from(page).unwrap() * PAGE;
        self.bytes[start..start + content.len()].copy_from_slice(content);
        let zeroes = content.chunks(PAGE).filter(|page| page.iter().all(|&byte| byte == 0));
        self.zero_pages += zeroes.count() as u64;
        Ok(())
    }
}

/// All of a machine's memory, as a debugger sees it.
fn memory_of(record: &MachineRecord) -> Vec<u8> {
    let (path, at) = match record.memory {
        MemoryRecord::Owned { fd, .. } => (format!("fd/{fd}"), 0),
        MemoryRecord::Clone { addr, .. } => ("mem".to_owned(), addr),
        MemoryRecord::Blank { .. } => panic!("a blank has no memory"),
    };
    let mut bytes = vec![0; usize::try_from(record.memory.bytes()).unwrap()];
    let file = File::open(format!("/proc/{}/{path}", record.pid)).unwrap();
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

async fn stop(fixture: &Fixture, machine: &dyn Machine) {
    machine.pause().await.unwrap();
    machine.save_state(File::create(fixture.dir.path().join("state")).unwrap()).await.unwrap();
}

#[tokio::test]
async fn booted_machine_is_captured_as_its_memory_is() {
    let fixture = Fixture::new().await;
    let machine = fixture.counting().await;
    stop(&fixture, &*machine).await;
    let (captured, image) =
        capture_memory(&machine.record(), Overlay::over_nothing()).await.unwrap();
    assert!(image.bytes == memory_of(&machine.record()));
    assert_eq!((captured.own_pages, captured.same_pages), (image.pages, 0));
    assert!(image.pages < guest::MEMORY_BYTES / 4096 / 2, "holes were captured: {captured:?}");
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn clone_over_its_base_is_captured_as_its_memory_is() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let machine = fixture.running_clone(&snapshot).await;
    counts_beyond(&*machine, snapshot.count + 1100).await;
    stop(&fixture, &*machine).await;
    let record = machine.record();
    let before = clone_usage(&record).unwrap();
    let sink = Overlay::over(snapshot.memory.to_vec());
    let (captured, image) = capture_memory(&record, sink).await.unwrap();
    println!("{captured:?}");
    assert_eq!(clone_usage(&record).unwrap(), before, "the capture mapped pages");
    assert!(image.bytes == memory_of(&record));
    assert_eq!(captured.own_pages, before.private_bytes / 4096);
    assert_eq!(captured.own_pages - captured.same_pages, image.pages);
    assert!(image.zero_pages > 0, "the guest had turned pages to zeroes");
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn page_that_nobody_has_seen_is_not_asked_for() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let used = usize::try_from(UNUSED_FROM).unwrap();
    assert!(snapshot.memory[used..].iter().all(|&byte| byte == 0));
    // No page server answers here: whoever touched a hole would wait for ever, or fail.
    let base = File::from(memfd_create(c"wrenn-base", MFdFlags::MFD_CLOEXEC).unwrap());
    base.write_all_at(&snapshot.memory[..used], 0).unwrap();
    base.set_len(guest::MEMORY_BYTES).unwrap();
    let read_only = File::open(format!("/proc/self/fd/{}", base.as_raw_fd())).unwrap();
    let memory = BaseMemory { fd: read_only.into(), bytes: guest::MEMORY_BYTES };
    let blank = fixture.blank().await;
    let restored = blank.restore(memory, snapshot.state(), attached()).await.unwrap();
    let machine = restored.machine;
    machine.resume().await.unwrap();
    counts_beyond(&*machine, snapshot.count + 10).await;
    stop(&fixture, &*machine).await;
    let sink = Overlay::over(snapshot.memory.to_vec());
    let (_, image) = capture_memory(&machine.record(), sink).await.unwrap();
    guest::check(&image.bytes);
    let hole = nix::unistd::lseek(&base, 0, nix::unistd::Whence::SeekHole).unwrap();
    assert_eq!(u64::try_from(hole).unwrap(), UNUSED_FROM, "a page came into base memory");
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn machine_is_good_after_a_sink_that_failed() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let machine = fixture.running_clone(&snapshot).await;
    counts_beyond(&*machine, snapshot.count + 100).await;
    stop(&fixture, &*machine).await;
    let sink = Overlay { pages_max: 20, ..Overlay::over(snapshot.memory.to_vec()) };
    let failed = capture_memory(&machine.record(), sink).await.map(drop).unwrap_err();
    assert!(matches!(failed, CaptureError::NoSpace { page: 1.., .. }), "{failed}");
    let count = guest::count(&machine.record());
    machine.resume().await.unwrap();
    counts_beyond(&*machine, count + 100).await;
    machine.pause().await.unwrap();
    fixture.save(&*machine, Some(&snapshot)).await; // which checks all of the trail
    machine.kill().await.unwrap();
}
