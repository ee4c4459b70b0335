//! What HPACK and QPACK spell alike: numbers and strings, one after the other (RFC 7541 5, RFC 9204 4.1).

use bytes::{Buf as _, Bytes, BytesMut};

use crate::{
    huffman,
    integer::{self, Overflow},
};

/// A block can't be decoded, and why: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Undecodable(pub &'static str);

/// What is left of a block. Beside its bytes it holds at most 8/5 as many for what is Huffman coded.
#[derive(Debug)]
pub struct Block {
    rest: Bytes,
    scratch: BytesMut,
}

impl Block {
    /// A block from its beginning.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes, scratch: BytesMut::new() }
    }

    /// The next byte; `None` at the end.
    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Reads a number in the low `prefix` (1 to 8) bits of the next byte and in what follows.
    ///
    /// # Errors
    ///
    /// [`Undecodable`].
    #[inline]
    pub fn integer(&mut self, prefix: u32) -> Result<u64, Undecodable> {
        match integer::decode(&self.rest, prefix) {
            Ok(Some((value, bytes))) => {
                self.rest.advance(bytes);
                Ok(value)
            }
            Ok(None) => Err(Undecodable("it is cut short")),
            Err(Overflow) => Err(Undecodable("an integer is too large")),
        }
    }

    /// Reads a string whose length has `prefix` bits, after one that says whether it is Huffman code.
    ///
    /// # Errors
    ///
    /// [`Undecodable`].
    pub fn string(&mut self, prefix: u32) -> Result<Bytes, Undecodable> {
        let first = self.first().ok_or(Undecodable("it is cut short"))?;
        let coded = first & (1 << prefix) != 0;
        let len = self.integer(prefix)?;
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= self.rest.len())
            .ok_or(Undecodable("a string is cut short"))?;
        let bytes = self.rest.split_to(len);
        if !coded {
            return Ok(bytes);
        }
        if self.scratch.capacity() == 0 {
            // Once for all strings: what is left can't decode to more.
            self.scratch.reserve((bytes.len() + self.rest.len()) * 8 / 5 + 1);
        }
        huffman::decode(&bytes, &mut self.scratch)
            .map_err(|_| Undecodable("a string is no huffman code"))?;
        Ok(self.scratch.split().freeze())
    }
}
