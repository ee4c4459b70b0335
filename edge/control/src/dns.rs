//! Asks the domain name system for TXT records: the one question that proves whose a domain is.

mod client;
mod wire;

use std::{fmt, net::SocketAddr};

use async_trait::async_trait;

pub use client::Resolver;

/// Finds TXT records.
#[async_trait]
pub trait TxtLookup: fmt::Debug + Send + Sync + 'static {
    /// The texts of a name, each record's parts put together; none if there is no such name or it
    /// has no such records. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`LookupError`] if nobody could say.
    async fn txt(&self, name: &str) -> Result<Vec<String>, LookupError>;
}

/// Why nobody could say which TXT records a name has.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Nobody is there to be asked.
    #[error("no name server is configured")]
    NoServer,
    /// It can't be a name.
    #[error("`{name}` cannot be asked for")]
    BadName {
        /// What it was.
        name: String,
    },
    /// The configuration can't be read.
    #[error("the name servers' addresses cannot be read")]
    Config(#[source] std::io::Error),
    /// No server answered in time with something that could be used.
    #[error("no name server could say; the last asked was {server}: {reason}")]
    Failed {
        /// Which server was asked last.
        server: SocketAddr,
        /// What became of it.
        reason: String,
    },
}
