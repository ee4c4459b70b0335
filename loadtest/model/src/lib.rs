//! The words of a load test: what is to be done, what was measured, what it has to be.
//!
//! ```text
//! Plan (TOML, flags) --> loadtest runs it --> RunReport (JSON) --> loadtest-report draws, compares
//!                             |                    ^
//!                             `--> Progress        `-- Budgets (TOML) judge it
//! ```
//!
//! # Invariants
//!
//! - Values only: no clock, no socket, no thread. Whatever is random comes from a given seed.
//! - A report holds the plan it was made by, so that unlike runs can be told from like ones.
//! - No secret is in a report: a plan names the files of keys, never the keys.

pub mod arrival;
mod budget;
mod chain;
mod figure;
mod histogram;
mod plan;
mod plan_check;
pub mod preset;
mod progress;
mod protocol;
mod recovery;
mod run;
mod score;
mod work;

pub use arrival::{BadArrivals, Schedule};
pub use budget::{BadBudgets, Bound, Budget, Budgets, Verdict};
pub use chain::chain;
pub use figure::figure;
pub use histogram::{Histogram, Summary};
pub use plan::{
    Arrivals, BadPlan, ChaosPlan, Fault, Level, Load, Plan, Scenario, SlowProxy, TargetPlan,
};
pub use progress::{Phase, PoolLevel, Progress};
pub use protocol::Protocol;
pub use recovery::{Disturbance, Recovery};
pub use run::{CheckOutcome, Harness, Machine, Part, PoolSample, RunReport, SCHEMA, Tick, names};
pub use score::computesdk_score;
pub use work::{Dialect, Share, Stream, Work};
