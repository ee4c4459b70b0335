//! The edge's data plane: a request comes in over HTTP/1.1, HTTP/2 or HTTP/3 and goes out to an agent.
//!
//! ```text
//! TCP  --h1--------------+
//! TLS  --h1 | h2 (ALPN)--+--> head --> resolve --> guards --> agent's proxy listener (h1, h2c)
//! QUIC --h3--------------+               \------------------> the API service
//! ```
//!
//! # Invariants
//!
//! - All three protocols become one `http::Request` with a streaming body and share one path from there.
//! - A host name is parsed once ([`Domain::parse`]); past that a [`Target`] is proof of well-formedness.
//! - Nothing is buffered: bodies stream both ways and a slow reader slows the writer.
//! - A request is sent again only if no byte of it can have been seen.
//! - A client that goes away takes its upstream request with it; an upstream that dies mid-body
//!   resets only that stream.
//! - Header values, bodies and tokens are never logged.
//!
//! # Limits
//!
//! All in [`Limits`]: connections, streams, header bytes, waits. Full means a clear refusal.
//!
//! The `edge` binary binds it ([`Edge::bind`]) with the control plane's [`Routes`] and API service.

mod body;
mod config;
mod error;
mod finish;
mod gateway;
mod guard;
mod head;
mod headers;
mod inside;
mod interim;
mod late_end;
mod listen;
mod pace;
mod pages;
mod replay;
mod request_body;
mod resolve;
mod route;
mod routes;
mod upstream;

pub use body::{Body, BoxError};
pub use config::{EdgeListenConfig, Limits, ProxyProtocol, TrustConfig};
pub use error::EdgeError;
pub use gateway::{ApiService, ClientInfo, Protocol, api_service};
pub use inside::{Inside, InsideError};
pub use listen::{BindError, BoundEdge, Drained, Edge, Parts, Running};
pub use route::{Domain, HostError, Target};
pub use routes::{
    AgentEndpoint, AgentToken, FunctionRoute, RouteError, Routes, SandboxRoute, Submission,
    SubmitError, Submitted, TagRoute, VersionRoute,
};
