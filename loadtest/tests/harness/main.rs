//! The harness against a server whose behaviour is known: what it measures, what it notices, what
//! it refuses. Real sockets, real threads; no test fails because a machine is slow.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod calibration;
mod chaos;
mod checks;
mod command;
mod loads;
mod peer;
