//! Speaks HTTP as a load test has to: every protocol, every phase timed, no more work than needed.
//!
//! ```text
//! Origin + Protocol --> Connection --Request--> Answer     (or Incoming, piece by piece)
//!    |                                   `----> Events     (server-sent)
//!    `----------------> WebSocket                 (or on a Connection of HTTP/2)
//! ```
//!
//! # Invariants
//!
//! - A black box: nothing here knows how an edge or an agent works, only what HTTP is.
//! - Every connection passes the [`Guard`] after its name was looked up.
//! - Every wait has a deadline; nothing is retried, reused after an error or hidden.
//! - HTTP/1.1 is read strictly: what two readers could understand differently is an error.
//!
//! # Decision: an HTTP/1.1 client of our own
//!
//! One core with 64 connections to an nginx on the other one: wrk sent 149,700 requests per
//! second, hyper's client driven in the caller's task 133,200, this way of reading and writing
//! 155,400 (medians of three, in turn). hyper was more than a tenth behind wrk, and its
//! leniency would hide what a gateway does wrong. To be revisited if that gap closes.

mod answer;
mod connection;
mod dial;
mod error;
mod events;
mod guard;
mod h1;
mod http2;
mod origin;
mod quic;
mod request;
mod timing;
mod tunnel;
mod upload;
mod websocket;

pub use answer::{Answer, CallTimes, Incoming};
pub use connection::{Connection, Opened};
pub use dial::OpenTimes;
pub use error::CallError;
pub use events::{Event, Events};
pub use guard::Guard;
pub use loadtest_model::Protocol;
pub use origin::{Origin, trusting};
pub use request::Request;
pub use timing::ServerTiming;
pub use websocket::{Message, WebSocket};
