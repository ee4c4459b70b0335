//! The page server: answers page faults of restored guests from their snapshot.
//!
//! ```text
//! agent --base, attach--> pager --UFFDIO_COPY--> base memory (memfd, one per snapshot)
//!                           ^  \                        | MAP_PRIVATE
//!                     fault |   `--UFFDIO_WAKE--> VMM <-'
//! ```
//!
//! One session and one thread per clone; base memory is filled in blocks, once for all clones.
//!
//! # Invariants
//!
//! - A fault is answered from the snapshot or its guest is killed; it is never left waiting
//!   while this process lives, and never answered wrongly.
//! - A page of base memory exists only with its complete content: it is filled before it is
//!   put into the memfd, by `UFFDIO_COPY` on the pager's own mapping. So the death of the pager
//!   at any instruction leaves each page either whole or absent, and a successor that
//!   finds the memfd again (through a VMM that has it open) needs to trust nothing else.
//! - No allocation and no log line between reading a fault and installing its page.
//! - Nothing that a VMM holds is trusted: its memfd must be one that a pager made for that
//!   snapshot, its fault addresses must lie in the attached range.
//!
//! # Limits
//!
//! `max_clones` sessions, `max_bases` bases, 64 connections, 64 KiB per message, 16 faults read
//! per turn. Every client call has a deadline.

mod base;
mod client;
mod config;
mod pager;
mod process;
mod protocol;
mod server;
mod session;
pub mod sys;
mod wire;

pub use client::{PagerClient, PagerError};
pub use config::PagerConfig;
pub use process::start_ticks;
pub use protocol::{Attach, BaseStats, CloneStats, Population, RefusalCode, Stats};
pub use server::{BindError, Limits, Server, Stopper};
