//! How does a running edge pass its sockets to its successor, without a moment in which nobody listens?
//!
//! ```text
//! successor                      running edge
//!     | ---- hello {speaks} --------> |   checks uid and version
//!     | <--- parcel, descriptors ---- |   keeps serving
//!     |      (builds its workers)     |
//!     | ---- ready -----------------> |   stops accepting, stops reading UDP
//!     | <--- released --------------- |   drains
//!     |      (starts reading)         |
//! ```
//!
//! Until `ready` every failure leaves the running edge serving as if nothing had happened. Between `ready` and
//! `released` packets wait in the sockets' buffers; so there is never more than one reader of a UDP socket.
//! Frames are a length (u32, big endian) and JSON; descriptors follow in messages of their own (`SCM_RIGHTS`).
//!
//! The successor has to use **every** UDP socket of the parcel (one worker each), since the kernel goes on spreading
//! packets over all of them for as long as the old edge holds its own copies.

mod give;
mod message;
mod parcel;
mod take;
mod wire;

pub use give::{Committed, Handover, HandoverError, Offer};
pub use parcel::{Named, Parcel};
pub use take::{ReadyHandle, TakeError, Taken, take};
pub use wire::WireError;

/// Most descriptors in one parcel.
pub const DESCRIPTORS_MAX: usize = 1024;
/// Most bytes of secrets in one parcel.
pub const SECRETS_MAX: usize = 64 << 10;
