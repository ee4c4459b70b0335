//! The words of the house: typed ids, states and units that every crate shares.
//!
//! # Invariants
//!
//! - No I/O, no clock, no async runtime: everything here is a value.
//! - An id is parsed once, at the border; past it a typed id is proof of well-formedness.
//!
//! # Limits
//!
//! An id is 128 random bits, written as exactly 25 base36 digits (`36^25 > 2^128`), so that
//! `<port>-<id>` stays within the 63 bytes of a DNS label.

mod base36;
mod chain;
mod code;
mod id;
mod invocation;
mod invocation_check;
mod state;
mod tuning;

pub use chain::chain;
pub use code::{ErrorCode, UnknownCode};
pub use id::{
    BadId, FunctionId, HostId, IdText, RequestId, SandboxId, SnapshotId, TeamId, TemplateId,
};
pub use invocation::{
    AppProtocol, AsyncPolicy, Auth, Cors, Cron, InvocationPolicy, JwtAuth, Rate, TagWeight,
    TrafficPolicy,
};
pub use state::{BadPort, Generation, OnTimeout, Port, SandboxState};
pub use tuning::{BadTuning, Day, POOL_MAX, PoolPolicy, Prefetch, Reuse, Schedule, TimeOfDay};
