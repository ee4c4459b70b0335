//! What a terminal shows: while a test runs, and at its end.

mod block;
mod line;
mod summary;

pub use block::Live;
pub use summary::summary;
