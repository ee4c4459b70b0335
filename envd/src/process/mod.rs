//! User processes: started here, followed by any number of clients, ended by signals.
//!
//! ```text
//! Start --spawn--> child --stdout/stderr--> pumps --> fanout --> subscriber queues --> streams
//!                    `------exit----------> supervise ---------> end (kept for 30 s)
//! ```
//!
//! # Invariants
//!
//! - A stream is: one start, data, one end; the end comes after all data of the pipes.
//! - A client that leaves ends nothing. A slow client slows the process, it loses nothing.
//! - A signal goes through a pidfd, so never to a stranger that got the same id.
//!
//! # Limits
//!
//! 1024 processes; 64 subscribers each; 16 chunks of 32 KiB queued per subscriber; an end is kept
//! for 30 s, and 1024 ends at most.

mod fanout;
mod service;
mod spawn;
mod status;
mod stream;
mod table;

pub(crate) use service::service;
pub(crate) use table::Processes;
