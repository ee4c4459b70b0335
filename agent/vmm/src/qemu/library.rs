//! Our end of the socket to the library that is preloaded into QEMU (`qemu-uffd`).
//!
//! One message goes there, with base memory and the device that userfaultfds are made from; one
//! line comes back. QEMU is not in a guest's hands before, yet the line is limited and checked.

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest},
    net::UnixStream,
};

use crate::vmm::BaseMemory;

/// The device that makes userfaultfds which handle the kernel's own faults too.
pub(crate) const USERFAULTFD: &str = "/dev/userfaultfd";

/// Longest report of the library, bytes.
const REPORT_MAX: u64 = 4096;

/// The one line that the library writes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Report {
    /// Guest memory is mapped and registered; numbers of descriptors in QEMU's process.
    Mapped { uffd: i32, addr: u64, len: u64, base: i32 },
    /// It is not, and the process ends.
    Failed { error: String },
}

/// Why there is no report.
#[derive(Debug)]
pub(crate) enum NoReport {
    /// The socket closed without a word: QEMU is ending.
    Closed,
    /// It said something else.
    Unreadable(serde_json::Error),
    /// Sending failed.
    Io(io::Error),
}

/// The connection, for as long as the process is blank.
#[derive(Debug)]
pub(crate) struct Library(UnixStream);

impl Library {
    /// A connection, and the library's end of it.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self(UnixStream::from_std(ours)?), theirs.into()))
    }

    /// Sends base memory and waits for the library to have mapped it.
    ///
    /// Not cancel-safe: the library may have mapped it.
    pub(crate) async fn map(self, base: BaseMemory, device: OwnedFd) -> Result<Report, NoReport> {
        match self.send(&base, &device).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            sent => sent.map_err(NoReport::Io)?,
        }
        let mut line = Vec::new();
        let mut stream = BufReader::new(self.0).take(REPORT_MAX);
        let read = stream.read_until(b'\n', &mut line).await;
        if read.is_err() || !line.ends_with(b"\n") {
            return Err(NoReport::Closed);
        }
        serde_json::from_slice(&line).map_err(NoReport::Unreadable)
    }

    async fn send(&self, base: &BaseMemory, device: &OwnedFd) -> io::Result<()> {
        let message = base.bytes.to_ne_bytes();
        let rights = [base.fd.as_raw_fd(), device.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&rights)];
        let sent = self
            .0
            .async_io(Interest::WRITABLE, || {
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                let bytes = [IoSlice::new(&message)];
                sendmsg::<()>(self.0.as_raw_fd(), &bytes, &control, flags, None)
                    .map_err(io::Error::from)
            })
            .await?;
        // An empty socket takes eight bytes at once, or none.
        if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}
