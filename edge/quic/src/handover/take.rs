//! How does a successor take over from the running edge?

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::message::{Message, VERSION};
use super::parcel::{Parcel, check};
use super::wire::{Channel, WireError};

/// How long the running edge may take to stop reading.
const RELEASE: Duration = Duration::from_secs(10);

/// What was taken, and the way to say that it can be used.
#[derive(Debug)]
pub struct Taken {
    /// Sockets, secrets, elders.
    pub parcel: Parcel,
    /// To be called once everything is built. Dropping it calls the hand-over off.
    pub ready: ReadyHandle,
}

/// Says that the successor can serve.
#[derive(Debug)]
#[must_use = "the running edge goes on serving until it hears that its successor is ready"]
pub struct ReadyHandle(Channel);

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// No edge runs there: bind the sockets instead.
    #[error("no edge is running")]
    NobodyThere,
    /// The running edge does not speak our version.
    #[error("the running edge speaks version {version} of the hand-over: {reason}")]
    Refused {
        /// In its words.
        reason: String,
        /// What it speaks.
        version: u32,
    },
    /// It went away or broke the protocol.
    #[error("the running edge did not hand over: {0}")]
    Wire(#[from] WireError),
    /// It took too long.
    #[error("the running edge did not answer in time")]
    TooLate,
}

/// Asks the edge that listens at `path` for its sockets, all within `within`.
///
/// Dropping the future leaves the running edge as it was.
///
/// # Errors
///
/// [`TakeError`]; only [`TakeError::NobodyThere`] means that the addresses are free.
pub async fn take(path: &Path, within: Duration) -> Result<Taken, TakeError> {
    timeout(within, ask(path)).await.unwrap_or(Err(TakeError::TooLate))
}

async fn ask(path: &Path) -> Result<Taken, TakeError> {
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => TakeError::NobodyThere,
        _ => TakeError::Wire(error.into()),
    })?;
    let mut channel = Channel::new(stream)?;
    channel.send(&Message::Hello { speaks: vec![VERSION] }).await?;
    let manifest = match channel.recv().await? {
        Message::Parcel(manifest) => manifest,
        Message::Refused { reason, version } => return Err(TakeError::Refused { reason, version }),
        _ => return Err(WireError::OutOfOrder.into()),
    };
    check(&manifest)?;
    let fds = channel.recv_descriptors(manifest.descriptors()).await?;
    let parcel = Parcel::assemble(manifest, fds)?;
    Ok(Taken { parcel, ready: ReadyHandle(channel) })
}

impl ReadyHandle {
    /// Says that the successor can serve, and waits until the running edge has stopped reading.
    ///
    /// # Errors
    ///
    /// If it does not say that it stopped: then it may still read, or be gone, and this process must not use the
    /// sockets. Drop them and [`take`] again; if it is gone that says [`TakeError::NobodyThere`].
    pub async fn ready(mut self) -> Result<(), TakeError> {
        let released = async {
            self.0.send(&Message::Ready).await?;
            match self.0.recv().await? {
                Message::Released => Ok(()),
                _ => Err(WireError::OutOfOrder.into()),
            }
        };
        timeout(RELEASE, released).await.unwrap_or(Err(TakeError::TooLate))
    }
}
