//! Preloaded into QEMU: reserves guest memory, and puts a snapshot's base memory there later.
//!
//! ```text
//! QEMU: mmap(…, MAP_SHARED, memory file) ─► a private, anonymous reservation; a thread waits
//! agent: length, base memory, /dev/userfaultfd ─► MAP_PRIVATE over the reservation, registered
//!                                      └─► {"uffd":N,"addr":A,"len":L,"base":B} to the agent
//! ```
//!
//! So a QEMU is started before anyone knows which snapshot it will be: nothing is written to guest
//! memory until a device state is loaded. QEMU is told `share=on`, so with `x-ignore-shared` it
//! leaves guest memory out of migration both ways; yet it never holds a descriptor through which
//! it could change base memory. The memory file that QEMU opens stays empty: it has the size that
//! QEMU looks at, and it is where QEMU punches holes when a guest gives pages back.
//!
//! Set by the agent, numbers of inherited descriptors: `WRENN_UFFD_MEMORY_FD` (the memory file),
//! `WRENN_UFFD_SOCKET_FD` (a stream socket). Without the first every call passes through unchanged.
//!
//! # Invariants
//!
//! - Guest memory is never used without its faults being served: on any failure
//!   `{"error":"…"}` is reported, on the socket and in QEMU's log, and the process aborts.
//! - The device and the socket are closed once memory is registered: a QEMU that a guest took
//!   over can't make another userfaultfd.
//! - The calls made are allowed by `-sandbox on` with every group denied.
//! - A process that waits ends when the agent's end of the socket does: nobody else restores it.
//!
//! # Limits
//!
//! One reservation per process: QEMU maps a memory backend in one piece, exactly once.

pub mod preload;
mod report;
