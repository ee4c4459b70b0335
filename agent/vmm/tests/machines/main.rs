//! Real QEMU processes, a real pager, and a guest of a hundred bytes.
//!
//! Needs root, `qemu-system-x86_64` and `/dev/userfaultfd`; needs no image and no network.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod booted;
mod clones;
mod failures;
mod fixture;
mod guest;
mod tap;
