//! The data plane on real sockets: three protocols in front, a fake agent behind.

#![allow(clippy::unwrap_used)] // the helpers of these tests fail by panicking, as tests do

mod agent;
mod client;
mod failures;
mod limits;
mod protocols;
mod raw;
mod stack;
mod streaming;
