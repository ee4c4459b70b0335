//! The warm pool: sandboxes restored before their request comes, each lent to one holder at a time.
//!
//! ```text
//!            lease()                          restore() / renew() / destroy()
//! caller ──────────────► Pool (one task per function) ──────────────► Driver (the agent)
//!        ◄────────────── Lease, a guard: its end is the sandbox's end
//! ```
//!
//! Pure, each with its properties tested: [`slot`] is the state machine, [`policy`] says how many to
//! start or give up, [`sizing`] and [`schedule`] how many to have, [`budget`] how pools share a host,
//! [`breaker`] whether to try at all, [`wheel`] which timers are due. The pool's task carries
//! decisions out through a [`Driver`]. This crate knows no VMM and no network.
//!
//! # Invariants
//!
//! - A sandbox serves one lease and dies, unless its function opted into sequential reuse. Even then
//!   it serves one holder at a time, at most `max_requests` of them, and each next one only after
//!   the last said that its request ended cleanly and the driver found the sandbox healthy.
//! - Waiters are served in the order they came.
//! - Nothing waits without a deadline: a lease that cannot be had is refused with the reason.
//! - No sandbox is lost: the end of a lease always reaches the task, and a task that ends tells
//!   every sandbox's own task to destroy it.
//!
//! # Limits
//!
//! [`QUEUE_LEN`] commands and [`WAITERS_MAX`] waiting leases per function; more are refused.

mod actor;
pub mod breaker;
pub mod budget;
mod driver;
pub mod histogram;
mod lease;
mod member;
pub mod policy;
pub mod schedule;
mod series;
pub mod sizing;
pub mod slot;
mod stats;
pub mod wheel;

pub use actor::{Pool, QUEUE_LEN, WAITERS_MAX};
pub use breaker::BreakerState;
pub use budget::Want;
pub use driver::{Cause, Driver, ReapReason, Restored};
pub use histogram::Histogram;
pub use lease::{Lease, LeaseError};
pub use policy::{BadPolicy, Policy};
pub use series::Sample;
pub use stats::{RestoreStep, Stats};
