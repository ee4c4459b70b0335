//! The guest daemon over real sockets, with real processes, files and cgroups.
//!
//! Setting the clock and the host name is watched through a seam here, as the machine isn't ours;
//! the real thing is tested in a virtual machine by the end-to-end tests.

#![allow(clippy::unwrap_used)] // helpers of tests fail their test

mod archive;
mod daemon;
mod files;
mod fixture;
mod lifecycle;
mod process;
mod wire;
