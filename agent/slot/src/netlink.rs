//! Just enough netlink: build a message, send it, wait for the kernel's answer.
//!
//! A socket belongs to the network namespace that its thread was in when it was opened, for ever;
//! that is what makes this usable for several namespaces from one thread.
//!
//! # Limits
//!
//! Every answer is waited for at most [`REPLY_TIMEOUT`]. Messages are native-endian, as on the wire.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// The kernel answers in microseconds; seconds pass only while another holder of the
/// configuration lock destroys hundreds of interfaces.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Room for one datagram of a dump: the kernel uses at most 32 KiB.
const RECEIVE_BYTES: usize = 64 << 10;

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Replace what is there.
pub(crate) const REPLACE: u16 = 0x100;
/// Fail if it is there.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// Make it if it is not there.
pub(crate) const CREATE: u16 = 0x400;

/// A message under construction.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of type `kind` whose fixed part is `body` (a multiple of 4 bytes).
    pub(crate) fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]); // length, known when sent
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]); // sequence, known when sent; port, the kernel's to fill
        bytes.extend_from_slice(body);
        Self { bytes }
    }

    /// Appends an attribute.
    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
        self
    }

    /// Appends a NUL-terminated string attribute.
    pub(crate) fn text(mut self, kind: u16, value: &str) -> Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
        self
    }

    /// Appends an attribute that holds `body` and then the attributes which `fill` adds.
    pub(crate) fn nest(mut self, kind: u16, body: &[u8], fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.open(kind | NLA_F_NESTED);
        self.bytes.extend_from_slice(body);
        self = fill(self);
        self.close(start);
        self
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn seal(mut self, sequence: u32, extra_flags: u16) -> io::Result<Vec<u8>> {
        let length = u32::try_from(self.bytes.len()).map_err(io::Error::other)?;
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | extra_flags;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(self.bytes)
    }
}

/// A socket to the kernel of the namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one for links, addresses, routes and neighbours.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// Opens one for connection tracking.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        let seconds = i64::try_from(REPLY_TIMEOUT.as_secs()).map_err(io::Error::other)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(seconds))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends a request and waits until the kernel has done it.
    ///
    /// # Errors
    ///
    /// What the kernel answered, or a timeout.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK, |_, _| ())
    }

    /// Sends a request that is answered by one message, and returns that without its header.
    pub(crate) fn get(&mut self, message: Message) -> io::Result<Vec<u8>> {
        let mut answer = None;
        self.exchange(message, NLM_F_ACK, |_, body| answer = Some(body.to_vec()))?;
        answer.ok_or_else(|| io::Error::other("the kernel answered with nothing"))
    }

    /// Sends a request that is answered by many messages; `each` sees their bodies.
    pub(crate) fn dump(&mut self, message: Message, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.exchange(message, NLM_F_DUMP, |_, body| each(body))
    }

    fn exchange(
        &mut self,
        message: Message,
        flags: u16,
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence += 1;
        let bytes = message.seal(self.sequence, flags)?;
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let received = match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                other => other?,
            };
            let mut rest = &buffer[..received];
            while let Some((header, body, next)) = split_message(rest) {
                rest = next;
                if header.sequence != self.sequence {
                    continue; // the end of an answer that an earlier error cut short
                }
                match header.kind {
                    NLMSG_ERROR | NLMSG_DONE => return outcome(body),
                    kind => each(kind, body),
                }
            }
        }
    }
}

/// The errno at the start of an error or done message: 0 is success, else it is negative.
fn outcome(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) }
}

struct Header {
    kind: u16,
    sequence: u32,
}

/// The first message of `bytes`: header, body, what follows it.
fn split_message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let fixed = bytes.first_chunk::<HEADER_BYTES>()?;
    let length =
        usize::try_from(u32::from_ne_bytes([fixed[0], fixed[1], fixed[2], fixed[3]])).ok()?;
    let body = bytes.get(HEADER_BYTES..length)?;
    let header = Header {
        kind: u16::from_ne_bytes([fixed[4], fixed[5]]),
        sequence: u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
    };
    Some((header, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes in `bytes`, in order; stops at the first that is malformed.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let fixed = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([fixed[0], fixed[1]]));
        let kind = u16::from_ne_bytes([fixed[2], fixed[3]]) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_built_can_be_parsed() {
        let message = Message::new(16, CREATE, &[0; 16])
            .text(3, "tap0")
            .nest(18, &[], |m| m.text(1, "veth").nest(2, &[], |m| m.attr(1, &[7, 8, 9])));
        let bytes = message.seal(5, NLM_F_ACK).unwrap();
        let (header, body, rest) = split_message(&bytes).unwrap();
        assert_eq!((header.kind, header.sequence, rest.len()), (16, 5, 0));
        let top: Vec<_> = attributes(&body[16..]).collect();
        assert_eq!(top[0], (3, b"tap0\0".as_slice()));
        let nested: Vec<_> = attributes(top[1].1).collect();
        assert_eq!((top[1].0, nested[0]), (18, (1, b"veth\0".as_slice())));
        assert_eq!(attributes(nested[1].1).collect::<Vec<_>>(), [(1, [7, 8, 9].as_slice())]);
    }

    #[test]
    fn a_refusal_is_the_kernels_errno() {
        let refused = outcome(&(-libc::ENODEV).to_ne_bytes()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENODEV));
        assert!(outcome(&0_i32.to_ne_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn garbage_is_parsed_without_panic_and_in_finite_time(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            while let Some((_, _, next)) = split_message(rest) {
                prop_assert!(next.len() < rest.len());
                rest = next;
            }
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
