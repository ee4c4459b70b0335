//! What the proxy needs of a guest: a way in, and word of its end.

use std::{io, time::Duration};

use pool_model::{Port, SandboxId};
use tokio::net::TcpStream;

use super::links::Links;
use crate::guest::{Ending, Guest};

/// A guest, as the proxy sees it.
#[async_trait::async_trait]
pub(super) trait Reach: Send + Sync + 'static {
    /// Whose it is.
    fn sandbox(&self) -> SandboxId;
    /// Connections kept into it.
    fn links(&self) -> &Links;
    /// Opens a connection to one of its ports.
    async fn dial(&self, port: Port, limit: Duration) -> io::Result<TcpStream>;
    /// How it ended, if it did.
    fn ending(&self) -> Option<Ending>;
    /// Resolves when it has ended.
    async fn ended(&self) -> Ending;
}

#[async_trait::async_trait]
impl Reach for Guest {
    fn sandbox(&self) -> SandboxId {
        self.sandbox
    }

    fn links(&self) -> &Links {
        Guest::links(self)
    }

    async fn dial(&self, port: Port, limit: Duration) -> io::Result<TcpStream> {
        Guest::dial(self, port, limit).await
    }

    fn ending(&self) -> Option<Ending> {
        Guest::ending(self)
    }

    async fn ended(&self) -> Ending {
        Guest::ended(self).await
    }
}
