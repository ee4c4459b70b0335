//! Whether a request may go on: authentication, limits, queues, breakers.
//!
//! ```text
//! connections -> ip -> cors -> auth | traffic -> rate -> admission -> breaker, retry -> upstream
//! ```
//!
//! # Invariants
//!
//! - A policy that says nothing costs a branch: no lock, no allocation.
//! - There is no global lock: state lives in maps of many shards, and no lock is held over an await.
//! - Secrets are compared in constant time and never shown by `Debug` or in an error.
//! - Dropping a future or a guard gives back what it held.
//!
//! # Limits
//!
//! Every map has a bound: rate buckets and breakers evict what tells least; places in queues,
//! connections and flights live only as long as someone holds them.

mod admission;
mod auth;
mod breaker;
mod connections;
mod cors;
mod ip;
mod keys;
mod rate;
mod retry;
mod shards;
mod singleflight;
mod traffic;

pub use admission::{Admission, AdmitKey, AdmitLimits, HostPermit, Permit, Refused};
pub use auth::{
    AuthError, Authenticator, Claims, Credential, Identity, JwksConfig, JwksError, JwtError, Keys,
    KeysUnavailable, RequestHead, SignedUrlError, SigningSecret, sign, verify,
};
pub use breaker::{Breaker, BreakerConfig, Breakers, Decision, State};
pub use connections::{ConnectionGuard, Connections};
pub use cors::{CorsAnswer, CorsDecision, decide, preflight};
pub use ip::{ClientNet, allowed, is_private};
pub use keys::{OurHasher, OurKeys};
pub use rate::{Limited, Quota, RateKey, Rates};
pub use retry::{RetryBudget, RetryBudgets};
pub use singleflight::{FlightError, SingleFlight};
pub use traffic::{TrafficDecision, TrafficToken, admit_traffic};
