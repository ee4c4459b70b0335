//! Invocations that nobody waits for: a queue on disk, who works it off, webhooks, the clock.
//!
//! ```text
//! Jobs::submit --> store <-- Clock (a minute of a schedule becomes an invocation)
//!                    |
//!                 Runner --Invoke--> the gateway's own path
//!                    |
//!                 Poster --https---> webhook (the result, signed)
//!                    |
//!                 sweep: forgets what expired, cancels what waits for deleted functions
//! ```
//!
//! # Invariants
//!
//! - What was acknowledged is on disk, and is attempted at least once. It may be attempted more
//!   often than its attempts were counted as failed: an edge that is killed in the middle of one
//!   can't tell.
//! - Two runners, also of two edges on one database, never run the same invocation at once, unless
//!   one of them was cut off from the database for longer than its lease.
//! - A minute of a schedule makes one invocation at most, whoever asks how often.
//! - A webhook is connected to at an address that was checked, never at one that a name leads to
//!   when it is asked again.
//! - Bodies, header values and secrets are never logged.
//!
//! # Limits
//!
//! A request's body is at most [`BODY_BYTES_MAX`], its fields [`HEADERS_BYTES_MAX`]; an answer's
//! body is cut at [`ANSWER_BYTES_MAX`], and fields of it over [`HEADERS_BYTES_MAX`] are left out.
//! Invocations at a time: [`RunnerConfig::concurrency_max`]; posts: 8.
//!
//! # The clock
//!
//! Five fields, read by croner: names of days and months, ranges, steps, `L`, `#` and `W` are known,
//! and day of month and day of week are alternatives if both are set. When clocks go forward, an
//! entry with a fixed hour and minute whose time is skipped fires at the first minute after the gap,
//! one with wildcards does not fire for what is skipped. When they go back, the former fires once,
//! the latter in both passes. A minute that was missed by less than [`MAKE_UP`] (the edge was down)
//! is made up for, once for all of them; older ones are skipped.

mod attempt;
mod backoff;
mod clock;
mod runner;
mod schedule;
mod submit;
mod sweep;
mod webhook;

pub use attempt::{Invocation, Invoke, InvokeError, Outcome};
pub use clock::{Clock, MAKE_UP, TRIGGER_HEADER};
pub use runner::{Runner, RunnerConfig};
pub use schedule::{BadSchedule, Timetable, check_schedule};
pub use submit::{ANSWER_BYTES_MAX, BODY_BYTES_MAX, HEADERS_BYTES_MAX, Jobs, SubmitError, Target};
pub use sweep::sweep_forever;
pub use webhook::{Poster, PosterConfig, SIGNATURE_HEADER, Secrets, signature};
