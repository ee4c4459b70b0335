//! Simulates sizing policies over synthetic traces: what would each have cost, and whom would it
//! have kept waiting?
//!
//! Discrete events in virtual time, deterministic by seed. `trace` makes arrivals, `engine`
//! runs one `policy` over them, `frontier` sweeps the policies' knobs and compares them at
//! equal memory, `report` prints it.

mod engine;
mod frontier;
mod knative;
mod outcome;
mod policy;
mod report;
mod trace;

pub use engine::{Setup, run};
pub use frontier::{Comparison, Point, Verdict, compare, interpolate, refine, sweep};
pub use knative::{Knative, KnativeRule};
pub use outcome::Outcome;
pub use policy::{Family, PolicyKind, Sizer};
pub use report::{Section, frontier_table, summary_table, usual_table, verdict_line};
pub use trace::{Arrival, Kind, Random, Trace};
