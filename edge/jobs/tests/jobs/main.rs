//! Invocations that nobody waits for, on a real database and by real sockets.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod nothing_lost;
mod queue;
mod support;
