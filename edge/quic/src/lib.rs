//! Which worker, and which process, does a QUIC packet belong to, and how does it get there?
//!
//! ```text
//!             SO_REUSEPORT, by hash of the peer's address
//!  peers ──┬─> worker 0: SteeredSocket ──> quinn endpoint      id says "worker 0"
//!          │        │  ▲
//!          │        ▼  │ lanes (in memory)
//!          └─> worker 1: SteeredSocket ──> quinn endpoint      id says "worker 1"
//!                   │
//!                   └──> Unix datagram sockets ──> workers of older generations that still drain
//! ```
//!
//! One endpoint per worker, since quinn drives an endpoint in one task. A peer that changes its address is hashed to
//! another worker, and after a hand-over the successor reads the sockets; in both cases the connection id
//! ([`CidKey`]) says who has the connection, and the packet is passed on.
//!
//! # Invariants
//!
//! - A UDP socket has one reader at any time; a hand-over ([`handover`]) waits for the last read of the old one.
//! - An edge serves as before until its successor said that it is ready; no failure before that is noticed by peers.
//! - A packet that arrives where it belongs is neither copied, nor locked for, nor allocated for.
//! - What is passed on keeps peer address, local address, congestion marks and boundaries.
//! - Everything that is dropped is counted ([`SteerCounters`]).
//! - All keys come from one installation secret ([`QuicSecrets`]): a restarted edge, or another one of the fleet, can reset
//!   connections that are gone and check tokens it did not give out.
//!
//! # Limits
//!
//! Between workers 1024 packets or 4 MiB wait, for each worker of an elder 256 messages; 8 elders; 1024 descriptors in a
//! parcel. A process has at most 255 workers, and a successor as many as there are UDP sockets in its parcel.
//!
//! Started by the `edge` binary; `edge-proxy`'s workers own an endpoint each.

mod admit;
mod cid;
mod elders;
mod endpoint;
mod forward;
pub mod handover;
mod lane;
mod packet;
mod secrets;
mod shared;
mod sift;
mod socket;
mod steered;

pub use admit::{Admission, AdmissionLimits, Admit, Permit};
pub use cid::{CID_LEN, CidGenerator, CidKey, Owner};
pub use elders::{ELDERS_MAX, Elder, ElderError, Refused};
pub use endpoint::{TransportLimits, WorkerEndpoint, server_config};
pub use forward::ForwardSocket;
pub use secrets::{QuicSecrets, SECRET_MIN, SecretTooShort};
pub use shared::{Shared, SteerCounters};
pub use socket::{BUFFER_BYTES, bind_workers};
pub use steered::SteeredSocket;
