//! The data plane on real sockets: three protocols in front, a fake agent behind.

#![allow(clippy::unwrap_used)] // the helpers of these tests fail by panicking, as tests do

mod aborts;
mod access;
mod agent;
mod asking;
mod breaker;
mod bulk;
mod by_hand;
mod client;
mod drain;
mod failures;
mod grpc;
mod guest;
mod hygiene;
mod interim;
mod limits;
mod pattern;
mod policies;
mod protocols;
mod rates;
mod raw;
mod remembered;
mod retries;
mod stack;
mod streaming;
mod tunnels;
