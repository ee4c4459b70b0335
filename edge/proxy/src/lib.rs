//! The edge's data plane: a request comes in over HTTP/1.1, HTTP/2 or HTTP/3 and goes out to an agent.
//!
//! ```text
//! TCP  --h1--------------+
//! TLS  --h1 | h2 (ALPN)--+--> head check --> route --> agent's proxy listener (h1)
//! QUIC --h3--------------+                     \-----> the API service (api.<domain>)
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

mod access;
mod body;
mod config;
mod error;
mod gateway;
mod head;
mod headers;
mod listen;
mod route;
mod routes;
mod tls;
mod tunnel;
mod upstream;

pub use body::{Body, BoxError};
pub use config::{EdgeListenConfig, Limits};
pub use error::EdgeError;
pub use gateway::{ApiService, ClientInfo, Protocol, api_service};
pub use listen::{BindError, BoundEdge, Drained, Edge};
pub use route::{Domain, HostError, Target};
pub use routes::{AgentEndpoint, AgentToken, FunctionRoute, RouteError, Routes, SandboxRoute};
pub use tls::{TlsError, TlsSource};
