//! The page server: answers page faults of restored guests from their snapshot.
//!
//! ```text
//!      layers: this host, cache, object store
//!                           | verified blocks
//! agent --base, attach--> pager --UFFDIO_COPY--> base memory (memfd, one per snapshot)
//!                           ^  \                        | MAP_PRIVATE
//!                     fault |   `--UFFDIO_WAKE--> VMM <-'
//! ```
//!
//! One session and one thread per clone; base memory is filled in units of a stored block or a
//! window of zeroes, once for all clones. What earlier restores touched is filled ahead of faults.
//!
//! # Invariants
//!
//! - A fault is answered from the snapshot or its guest is killed; it is never left waiting
//!   while this process lives, and never answered wrongly.
//! - A page of base memory exists only with its complete content: it is filled before it is
//!   put into the memfd, by `UFFDIO_COPY` on the pager's own mapping. So the death of the pager
//!   at any instruction leaves each page either whole or absent, and a successor that
//!   finds the memfd again (through a VMM that has it open) needs to trust nothing else.
//! - What is filled has the digest that its layer's index names; damage kills, or is fetched again.
//! - No allocation and no log line between reading a fault and waking who waits, for blocks that
//!   this host or its cache has; any other block has `fault_deadline_ms`.
//! - Nothing that a VMM holds is trusted: its memfd must be one that a pager made for that
//!   snapshot, its fault addresses must lie in the attached range.
//!
//! # Limits
//!
//! `max_clones` sessions, `max_bases` bases, `prefetch_threads` threads, 64 connections, 64 KiB per
//! message, 16 faults read per turn. Every client call has a deadline.

mod base;
mod client;
mod config;
mod error;
mod histogram;
mod image;
mod limits;
mod memory;
mod pagemap;
mod pager;
mod plan;
mod prefetch;
mod process;
mod protocol;
mod refusal;
mod server;
mod session;
pub mod sys;
mod totals;
mod wire;
mod working;

pub use client::{PagerClient, PagerError};
pub use config::PagerConfig;
pub use histogram::{Histogram, LATENCY_BUCKETS};
pub use limits::{HugePages, Limits, UnknownHugePages};
pub use process::start_ticks;
pub use protocol::{Attach, BaseStats, CloneStats, Population, RefusalCode, Stats, Totals};
pub use server::{BindError, Server, Stopper};
