//! What a capture hands on, with this process in a machine's place.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use super::*;
use crate::sys::test_mapping::Mapping;
use nix::{sys::memfd, unistd::ftruncate};
use pool_model::SandboxId;
use std::os::fd::{AsRawFd, OwnedFd};

const PAGES: usize = 2048;

/// Remembers pages; fails at the page it is told.
#[derive(Debug, Default)]
struct Pages {
    got: Vec<(u64, u8)>,
    fail_at: Option<(u64, io::ErrorKind)>,
}

impl PageSink for Pages {
    fn put(&mut self, page: u64, content: &[u8]) -> io::Result<()> {
        assert!(
            !content.is_empty() && content.len() <= CHUNK && content.len().is_multiple_of(PAGE)
        );
        for (number, content) in (page..).zip(content.chunks(PAGE)) {
            assert!(self.got.last().is_none_or(|&(last, _)| last < number), "not ascending");
            assert!(content.iter().all(|&byte| byte == content[0]), "page {number} is torn");
            if let Some((_, kind)) = self.fail_at.filter(|&(at, _)| at == number) {
                return Err(kind.into());
            }
            self.got.push((number, content[0]));
        }
        Ok(())
    }
}

fn memory() -> OwnedFd {
    let fd = memfd::memfd_create(c"capture-test", memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    ftruncate(&fd, (PAGES * PAGE).try_into().unwrap()).unwrap();
    fd
}

fn put(file: &OwnedFd, page: usize, byte: u8) {
    let at = (page * PAGE).try_into().unwrap();
    assert_eq!(nix::sys::uio::pwrite(file, &[byte; PAGE], at).unwrap(), PAGE);
}

fn record(memory: MemoryRecord) -> MachineRecord {
    let pid = std::process::id().try_into().unwrap();
    MachineRecord {
        sandbox: SandboxId::from_u128(1),
        pid,
        start_ticks: process::start_ticks(pid).unwrap(),
        memory,
        qmp_socket: "/nowhere".into(),
        dir: "/nowhere".into(),
    }
}

fn clone_of(base: &OwnedFd, mapping: &Mapping) -> MachineRecord {
    let Range { start, end } = mapping.addresses();
    let base_fd = base.as_raw_fd();
    record(MemoryRecord::Clone { uffd_fd: -1, base_fd, addr: start, len: end - start })
}

#[tokio::test]
async fn booted_memory_is_what_exists_of_it() {
    let memory = memory();
    let full = [0, 1, 2, 700, 701, PAGES - 1];
    full.iter().for_each(|&page| put(&memory, page, 9));
    put(&memory, 702, 0);
    let bytes = (PAGES * PAGE) as u64;
    let record = record(MemoryRecord::Owned { fd: memory.as_raw_fd(), bytes });
    let (captured, sink) = capture_memory(&record, Pages::default()).await.unwrap();
    let expected = [(0, 9), (1, 9), (2, 9), (700, 9), (701, 9), (702, 0), (PAGES as u64 - 1, 9)];
    assert_eq!(sink.got, expected);
    assert_eq!((captured.own_pages, captured.memory_bytes), (7, bytes));
}

#[tokio::test]
async fn clone_gives_what_it_wrote_less_what_the_base_holds() {
    let base = memory();
    (0..1000).for_each(|page| put(&base, page, 5));
    put(&base, 30, 0);
    let clone = Mapping::of(&base);
    assert_eq!(clone.touch(3), 5, "read, not written");
    clone.fill(10, 6);
    clone.fill(11, 5); // what the base holds
    clone.fill(12, 6);
    clone.fill(20, 0); // turned to zeroes
    clone.fill(30, 0); // zeroes over zeroes
    (600..1000).for_each(|page| clone.fill(page, 7)); // more than one read
    for method in [Method::Scan, Method::Entries] {
        let capture = Capture {
            record: clone_of(&base, &clone),
            sink: Pages::default(),
            captured: Captured::default(),
        };
        let (captured, sink) = capture.run(method).unwrap();
        let mut expected = vec![(10, 6), (12, 6), (20, 0), (30, 0)];
        expected.extend((600..1000).map(|page| (page, 7)));
        assert_eq!(sink.got, expected, "{method:?}");
        assert_eq!((captured.own_pages, captured.same_pages), (405, 1), "{method:?}");
    }
}

#[tokio::test]
async fn hole_in_the_base_is_not_taken_for_zeroes() {
    let base = memory();
    let clone = Mapping::of(&base);
    clone.fill(40, 0);
    let hole = i64::try_from(40 * PAGE).unwrap();
    let punch = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
        | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
    nix::fcntl::fallocate(&base, punch, hole, PAGE.try_into().unwrap()).unwrap();
    let base_file = File::from(base.try_clone().unwrap());
    assert_eq!(seek(&base_file, 0, Whence::SeekData).unwrap(), None, "the base is all hole");
    let record = clone_of(&base, &clone);
    let (captured, sink) = capture_memory(&record, Pages::default()).await.unwrap();
    assert_eq!(sink.got, [(40, 0)], "the base's page may hold anything");
    assert_eq!(captured.same_pages, 0);
}

#[tokio::test]
async fn sink_that_fails_in_the_middle_ends_the_capture() {
    let base = memory();
    let clone = Mapping::of(&base);
    (100..900).for_each(|page| clone.fill(page, 8));
    let failed = async |kind| {
        let sink = Pages { fail_at: Some((500, kind)), ..Pages::default() };
        capture_memory(&clone_of(&base, &clone), sink).await.unwrap_err()
    };
    let full = failed(io::ErrorKind::StorageFull).await;
    assert!(matches!(full, CaptureError::NoSpace { page: 356..=500, .. }), "{full}");
    assert_eq!(full.blame(), crate::Blame::Capacity);
    let broken = failed(io::ErrorKind::BrokenPipe).await;
    assert!(matches!(broken, CaptureError::Io { step: "hand its pages on", .. }), "{broken}");
}

#[tokio::test]
async fn swapped_page_counts() {
    let base = memory();
    let clone = Mapping::of(&base);
    clone.fill(77, 3);
    if !clone.swap_out(77) {
        println!("skipped: this host swaps nothing out");
        return;
    }
    let (_, sink) = capture_memory(&clone_of(&base, &clone), Pages::default()).await.unwrap();
    assert_eq!(sink.got, [(77, 3)]);
}

#[tokio::test]
async fn wrong_size_and_wrong_process_are_refused() {
    let base = memory();
    let clone = Mapping::of(&base);
    let mut record = clone_of(&base, &clone);
    record.start_ticks += 1;
    let other = capture_memory(&record, Pages::default()).await.unwrap_err();
    assert!(matches!(other, CaptureError::Io { step: "find the process", .. }), "{other}");
    ftruncate(&base, PAGE.try_into().unwrap()).unwrap();
    let record = clone_of(&base, &clone);
    let small = capture_memory(&record, Pages::default()).await.unwrap_err();
    assert!(matches!(small, CaptureError::Size { found: 4096, .. }), "{small}");
}
