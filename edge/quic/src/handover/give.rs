//! How does the running edge hand over?

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::message::{Message, VERSION};
use super::parcel::Parcel;
use super::wire::{Channel, WireError};

/// How long a successor may take to introduce itself.
const HELLO: Duration = Duration::from_secs(2);
/// How long sending may take.
const SEND: Duration = Duration::from_secs(5);
/// How long a successor may take to get ready, if the offer does not say otherwise.
const READY: Duration = Duration::from_secs(30);
/// Wait after a failed accept, for instance since there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits for a successor.
#[derive(Debug)]
pub struct Handover {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// A successor that introduced itself and may be given the parcel.
#[derive(Debug)]
pub struct Offer {
    channel: Channel,
    ready: Duration,
}

/// The successor is ready. Stop accepting, stop reading, then say so with [`Self::released`].
#[derive(Debug)]
#[must_use = "the successor waits until it is told that it may read"]
pub struct Committed(Channel);

/// Why nothing was handed over; whoever gets this goes on serving.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The successor went away, broke the protocol, or the parcel is over a limit.
    #[error("the successor did not take over: {0}")]
    Wire(#[from] WireError),
    /// The successor took too long.
    #[error("the successor did not {0} in time")]
    TooLate(&'static str),
}

impl Handover {
    /// Listens at `path` (mode 0600), in place of whoever listened there before: a successor calls this once it serves.
    ///
    /// # Errors
    ///
    /// What the file system says.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn listen(path: &Path) -> io::Result<Self> {
        // Under a name of its own first, so that the known name always leads to somebody who listens.
        let mut own = path.as_os_str().to_owned();
        own.push(format!(".{}", std::process::id()));
        let own = PathBuf::from(own);
        match fs::remove_file(&own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&own)?;
        let renamed = fs::set_permissions(&own, Permissions::from_mode(0o600))
            .and_then(|()| fs::symlink_metadata(&own))
            .and_then(|meta| fs::rename(&own, path).map(|()| meta.ino()));
        let inode = renamed.inspect_err(|_| {
            let _ = fs::remove_file(&own);
        })?;
        Ok(Self { listener, path: path.to_owned(), inode })
    }

    /// The next successor that introduces itself properly; others are logged and sent away.
    ///
    /// Cancel-safe: a successor that is being talked to sees the connection close.
    pub async fn next(&mut self) -> Offer {
        loop {
            let greeted = match self.listener.accept().await {
                Ok((stream, _)) => timeout(HELLO, greet(stream))
                    .await
                    .unwrap_or(Err(HandoverError::TooLate("introduce itself"))),
                Err(error) => {
                    sleep(PAUSE).await;
                    Err(WireError::from(error).into())
                }
            };
            match greeted {
                Ok(channel) => return Offer { channel, ready: READY },
                Err(error) => tracing::warn!(%error, "no hand-over"),
            }
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        // The successor may listen there by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn greet(stream: UnixStream) -> Result<Channel, HandoverError> {
    let mut channel = Channel::new(stream)?;
    let speaks = match channel.recv().await? {
        Message::Hello { speaks } => speaks,
        _ => return Err(WireError::OutOfOrder.into()),
    };
    if !speaks.contains(&VERSION) {
        let reason = format!("this edge hands over by version {VERSION}");
        channel.send(&Message::Refused { reason, version: VERSION }).await?;
        return Err(WireError::OutOfOrder.into());
    }
    Ok(channel)
}

impl Offer {
    /// Gives the successor this long to get ready (30 s if not called).
    #[must_use]
    pub fn ready_within(self, ready: Duration) -> Self {
        Self { ready, ..self }
    }

    /// Sends the parcel and waits until the successor is ready to serve.
    ///
    /// Dropping the future calls the hand-over off, like every error.
    ///
    /// # Errors
    ///
    /// [`HandoverError`]: the parcel is over a limit, the successor went away, broke the protocol or took too long.
    pub async fn give(mut self, parcel: Parcel) -> Result<Committed, HandoverError> {
        timeout(SEND, self.send(&parcel))
            .await
            .map_err(|_| HandoverError::TooLate("receive its parcel"))??;
        // The kernel holds copies for the successor; ours are not needed any more.
        drop(parcel);
        match timeout(self.ready, self.channel.recv()).await {
            Ok(Ok(Message::Ready)) => Ok(Committed(self.channel)),
            Ok(Ok(_)) => Err(WireError::OutOfOrder.into()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(HandoverError::TooLate("get ready")),
        }
    }

    async fn send(&mut self, parcel: &Parcel) -> Result<(), WireError> {
        let manifest = parcel.manifest()?;
        self.channel.send(&Message::Parcel(manifest)).await?;
        self.channel.send_descriptors(&parcel.descriptors()).await
    }
}

impl Committed {
    /// Tells the successor that nobody reads the sockets any more, so that it begins.
    ///
    /// # Errors
    ///
    /// If the successor is gone. Nobody serves then: take the sockets back
    /// ([`SteeredSocket::start_reading`](crate::SteeredSocket::start_reading)).
    pub async fn released(mut self) -> Result<(), HandoverError> {
        timeout(SEND, self.0.send(&Message::Released))
            .await
            .map_err(|_| HandoverError::TooLate("hear that it may begin"))??;
        Ok(())
    }
}
