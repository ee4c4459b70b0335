//! How do frames and descriptors travel over the Unix socket?

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::DESCRIPTORS_MAX;
use super::message::Message;

/// Longest frame, in bytes: the secrets in base64, a name for each descriptor, the paths of the elders.
const FRAME_MAX: usize = 1 << 20;
/// Descriptors in one message; the kernel takes 253 (`SCM_MAX_FD`).
const BATCH: usize = 64;

/// What is wrong with what the other side sent, or the way to it.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side went away.
    #[error("the other side went away")]
    Closed,
    /// The socket failed.
    #[error("the hand-over socket failed: {0}")]
    Io(#[source] io::Error),
    /// A frame is longer than allowed.
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// A frame is not what the protocol knows.
    #[error("a frame makes no sense: {0}")]
    Garbage(#[source] serde_json::Error),
    /// A message that does not belong here.
    #[error("a message out of order")]
    OutOfOrder,
    /// More, or fewer, descriptors than announced or allowed.
    #[error("the number of descriptors is wrong or over {DESCRIPTORS_MAX}")]
    Descriptors,
    /// A descriptor is not the kind of socket it is said to be.
    #[error("what was sent as {0:?} is not such a socket")]
    NotASocket(String),
    /// The secrets are too long or not base64.
    #[error("the secrets are too long or garbled")]
    Secrets,
    /// More elders than can be served.
    #[error("too many old generations")]
    Elders,
    /// The other side belongs to another user.
    #[error("the other side is user {0}, not us")]
    Uid(u32),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionReset | UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// One end of a hand-over. None of its methods is cancel-safe: drop the channel after a deadline.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// A channel to a process of this user.
    pub(super) fn new(stream: UnixStream) -> Result<Self, WireError> {
        let uid = stream.peer_cred()?.uid();
        check_uid(uid, nix::unistd::geteuid().as_raw())?;
        Ok(Self(stream))
    }

    pub(super) async fn send(&mut self, message: &Message) -> Result<(), WireError> {
        let body = serde_json::to_vec(message).map_err(WireError::Garbage)?;
        if body.len() > FRAME_MAX {
            return Err(WireError::TooLong(body.len()));
        }
        let len = u32::try_from(body.len()).map_err(|_| WireError::TooLong(body.len()))?;
        self.0.write_all(&len.to_be_bytes()).await?;
        self.0.write_all(&body).await?;
        Ok(())
    }

    /// Descriptors that come with a frame are closed by the kernel, as nobody asks for them.
    pub(super) async fn recv(&mut self) -> Result<Message, WireError> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len).await?;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > FRAME_MAX {
            return Err(WireError::TooLong(len));
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).await?;
        serde_json::from_slice(&body).map_err(WireError::Garbage)
    }

    pub(super) async fn send_descriptors(&self, fds: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        for batch in fds.chunks(BATCH) {
            self.0.async_io(Interest::WRITABLE, || send_batch(&self.0, batch)).await?;
        }
        Ok(())
    }

    /// Exactly `n` descriptors, closed on exec.
    pub(super) async fn recv_descriptors(&self, n: usize) -> Result<Vec<OwnedFd>, WireError> {
        let mut fds = Vec::new();
        while fds.len() < n {
            let before = fds.len();
            let whole =
                self.0.async_io(Interest::READABLE, || recv_batch(&self.0, &mut fds)).await?;
            if !whole || fds.len() == before || fds.len() > n {
                return Err(WireError::Descriptors);
            }
        }
        Ok(fds)
    }
}

fn send_batch(stream: &UnixStream, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(stream, &[IoSlice::new(b"F")], &mut control, flags)?;
    Ok(())
}

/// Adds one message's descriptors to `fds`; false if some were cut off (and closed by the kernel).
fn recv_batch(stream: &UnixStream, fds: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    Ok(!message.flags.contains(ReturnFlags::CTRUNC))
}

fn check_uid(theirs: u32, ours: u32) -> Result<(), WireError> {
    if theirs == ours { Ok(()) } else { Err(WireError::Uid(theirs)) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (a, b) = UnixStream::pair().unwrap();
        (Channel::new(a).unwrap(), Channel::new(b).unwrap())
    }

    /// Whether every copy of the writing end is closed.
    fn all_closed(mut reader: io::PipeReader) -> bool {
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        matches!(io::Read::read(&mut reader, &mut [0; 1]), Ok(0))
    }

    #[tokio::test]
    async fn three_batches_of_descriptors_arrive() {
        let (a, b) = pair();
        let (_reader, writer) = io::pipe().unwrap();
        let fds = vec![writer.as_fd(); BATCH * 2 + 1];
        let (sent, received) =
            tokio::join!(a.send_descriptors(&fds), b.recv_descriptors(fds.len()));
        sent.unwrap();
        assert_eq!(received.unwrap().len(), fds.len());
    }

    #[tokio::test]
    async fn too_many_descriptors_are_an_error_and_closed() {
        let (a, b) = pair();
        let (reader, writer) = io::pipe().unwrap();
        a.send_descriptors(&[writer.as_fd(); 5]).await.unwrap();
        drop(writer);
        assert!(matches!(b.recv_descriptors(3).await, Err(WireError::Descriptors)));
        assert!(all_closed(reader));
    }

    #[tokio::test]
    async fn too_few_descriptors_and_an_end_are_an_error_and_closed() {
        let (a, b) = pair();
        let (reader, writer) = io::pipe().unwrap();
        a.send_descriptors(&[writer.as_fd(); 2]).await.unwrap();
        drop((writer, a));
        assert!(matches!(b.recv_descriptors(3).await, Err(WireError::Closed)));
        assert!(all_closed(reader));
    }

    #[tokio::test]
    async fn descriptors_nobody_asked_for_are_closed() {
        let (a, mut b) = pair();
        let (reader, writer) = io::pipe().unwrap();
        a.send_descriptors(&[writer.as_fd()]).await.unwrap();
        drop((writer, a));
        assert!(matches!(b.recv().await, Err(WireError::Closed)));
        assert!(all_closed(reader));
    }

    #[tokio::test]
    async fn garbage_half_frames_and_long_ones_are_errors() {
        for (bytes, half) in [(&b"\0\0\0\x04what"[..], false), (b"\0\0\0\x04{", true)] {
            let (mut a, mut b) = pair();
            a.0.write_all(bytes).await.unwrap();
            drop(a);
            let error = b.recv().await.unwrap_err();
            assert_eq!(matches!(error, WireError::Closed), half, "{error}");
        }
        let (mut a, mut b) = pair();
        a.0.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert!(matches!(b.recv().await, Err(WireError::TooLong(_))));
    }

    #[test]
    fn another_user_is_refused() {
        assert!(check_uid(1000, 1000).is_ok());
        assert!(matches!(check_uid(1001, 1000), Err(WireError::Uid(1001))));
        assert!(matches!(check_uid(0, 1000), Err(WireError::Uid(0))));
    }
}
