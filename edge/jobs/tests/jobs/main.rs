//! Invocations that nobody waits for, on a real database and by real sockets.

mod nothing_lost;
mod queue;
mod support;
