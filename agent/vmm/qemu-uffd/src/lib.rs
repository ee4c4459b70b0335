//! Preloaded into QEMU: puts guest memory over base memory and its faults to the page server.
//!
//! ```text
//! QEMU: open(mem-path, O_RDWR) ─► a copy of the base's read-only descriptor
//!       mmap(…, MAP_SHARED, fd) ─► MAP_PRIVATE, registered with a userfaultfd
//!                                      └─► {"uffd":N,"addr":A,"len":L,"base":B} to the agent
//! ```
//!
//! QEMU is told `share=on`, so with `x-ignore-shared` it leaves guest memory out of migration
//! both ways; yet it never holds a descriptor through which it could change base memory.
//!
//! Set by the agent, all numbers of inherited descriptors: `WRENN_UFFD_PATH` (the `mem-path` text),
//! `WRENN_UFFD_BASE_FD`, `WRENN_UFFD_DEV_FD` (of `/dev/userfaultfd`), `WRENN_UFFD_REPORT_FD`.
//! Without `WRENN_UFFD_PATH` every call passes through unchanged.
//!
//! # Invariants
//!
//! - Guest memory is never mapped without its faults being served: on any failure
//!   `{"error":"…"}` is reported and the process aborts.
//! - The device and the report descriptor are closed once memory is registered: a QEMU that a
//!   guest took over can't make another userfaultfd.
//! - The calls made are allowed by `-sandbox on` with every group denied; nothing is allocated.
//!
//! # Limits
//!
//! One mapping per process: QEMU maps a memory backend in one piece, exactly once.

pub mod preload;
mod report;
