//! What was read and not yet understood: at most one frame.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use crate::wire::{
    Code, Header,
    frame::{HEADER_BYTES, PAYLOAD_MAX_BYTES},
};

/// Bytes asked for at once while little is expected: most heads fit.
const READ_SMALL_BYTES: usize = 2 * 1024;
/// Bytes asked for at once while much comes: a frame, and the next one's header.
const READ_LARGE_BYTES: usize = 2 * PAYLOAD_MAX_BYTES;
/// Less is copied: it would hold the buffer that it came in.
const COPY_MAX_BYTES: usize = 4 * 1024;

/// The bytes of a connection that come in.
#[derive(Debug, Default)]
pub(crate) struct Input {
    buf: BytesMut,
    /// The last read brought all that there was room for.
    much: bool,
}

impl Input {
    /// Reads more. 0: the client sends no more. While nothing is there no buffer is held: a
    /// connection may be silent for hours.
    pub(crate) fn poll_fill<I: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<usize>> {
        if self.buf.capacity() == 0 {
            return self.poll_first(cx, io);
        }
        let room = if self.much { READ_LARGE_BYTES } else { READ_SMALL_BYTES };
        if self.buf.capacity() - self.buf.len() < room / 2 {
            self.buf.reserve(room);
        }
        let room = self.buf.capacity() - self.buf.len();
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(io), cx, &mut self.buf))?;
        self.much = read == room || (self.much && read >= READ_SMALL_BYTES);
        Poll::Ready(Ok(read))
    }

    /// Reads by way of the stack.
    fn poll_first<I: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ_SMALL_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        let read = read.filled();
        self.buf.reserve(READ_SMALL_BYTES);
        self.buf.extend_from_slice(read);
        self.much = read.len() == READ_SMALL_BYTES;
        Poll::Ready(Ok(read.len()))
    }

    /// What is there.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Passes over bytes that are there.
    #[inline]
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.buf.advance(bytes);
    }

    /// The header of the next frame, once the whole frame is there. The error: it is too large.
    #[inline]
    pub(crate) fn frame(&self) -> Result<Option<Header>, Code> {
        let Some(header) = self.buf.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::parse(header);
        if header.length > PAYLOAD_MAX_BYTES {
            return Err(Code::FRAME_SIZE_ERROR);
        }
        Ok((self.buf.len() >= HEADER_BYTES + header.length).then_some(header))
    }

    /// The payload of the frame that is there.
    #[inline]
    pub(crate) fn payload(&self, header: &Header) -> &[u8] {
        &self.buf[HEADER_BYTES..HEADER_BYTES + header.length]
    }

    /// Takes the frame that is there, and of its payload the content of DATA.
    pub(crate) fn take_data(&mut self, header: &Header) -> Result<Bytes, Code> {
        let content = header.unpadded(self.payload(header))?;
        let after = header.length - content.end;
        self.buf.advance(HEADER_BYTES + content.start);
        let data = if content.len() > COPY_MAX_BYTES {
            self.buf.split_to(content.len()).freeze()
        } else {
            let data = Bytes::copy_from_slice(&self.buf[..content.len()]);
            self.buf.advance(content.len());
            data
        };
        self.buf.advance(after);
        Ok(data)
    }

    /// Gives the memory back while nothing is expected soon.
    pub(crate) fn shrink(&mut self) {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
            self.much = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::wire::frame::{flag, kind, put_header};

    #[tokio::test]
    async fn frames_are_whole_however_they_come_and_no_buffer_is_held_in_silence() {
        let mut sent = BytesMut::new();
        for size in [0, 5, COPY_MAX_BYTES + 1, PAYLOAD_MAX_BYTES] {
            put_header(&mut sent, size, kind::DATA, 0, 1);
            sent.extend_from_slice(&vec![7; size]);
        }
        for step in [1, 1000, 100_000] {
            let (mut peer, mut io) = tokio::io::duplex(step);
            let (mut input, mut got) = (Input::default(), Vec::new());
            let bytes = sent.clone();
            let writing = async move { peer.write_all(&bytes).await.unwrap() };
            let reading = async {
                loop {
                    while let Some(header) = input.frame().unwrap() {
                        got.push(input.take_data(&header).unwrap());
                    }
                    input.shrink();
                    if poll_fn(|cx| input.poll_fill(cx, &mut io)).await.unwrap() == 0 {
                        break;
                    }
                }
            };
            tokio::join!(writing, reading);
            let sizes: Vec<usize> = got.iter().map(Bytes::len).collect();
            assert_eq!(sizes, [0, 5, COPY_MAX_BYTES + 1, PAYLOAD_MAX_BYTES]);
            assert!(got.iter().flatten().all(|byte| *byte == 7));
            assert_eq!(input.buf.capacity(), READ_SMALL_BYTES, "that of the last, empty read");
        }
    }

    #[test]
    fn large_frames_are_refused_by_their_header_and_padding_is_no_content() {
        let mut input = Input::default();
        input.buf.extend_from_slice(&[0, 0x40, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(input.frame(), Err(Code::FRAME_SIZE_ERROR));
        let mut input = Input::default();
        put_header(&mut input.buf, 6, kind::DATA, flag::PADDED, 1);
        input.buf.extend_from_slice(b"\x02abc\0");
        assert_eq!(input.frame(), Ok(None));
        input.buf.extend_from_slice(b"\0next");
        let header = input.frame().unwrap().unwrap();
        assert_eq!(input.take_data(&header).unwrap(), "abc");
        assert_eq!(input.bytes(), b"next");
    }
}
