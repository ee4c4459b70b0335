//! Real QEMU processes and a guest of a hundred bytes.
//!
//! Needs root, `qemu-system-x86_64` and `/dev/userfaultfd`; needs no image and no network.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blank;
mod booted;
mod bucket;
mod capture;
mod chaos;
mod clones;
mod damage;
mod failures;
mod fixture;
mod full;
mod guest;
mod paged;
mod pattern;
mod remote;
mod tap;
