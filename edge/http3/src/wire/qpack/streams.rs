//! What a peer may say on its QPACK encoder and decoder streams (RFC 9204 4.3, 4.4) when there is no
//! dynamic table.

use edge_fields::integer::{self, Overflow};

use crate::wire::Code;

/// Why a QPACK stream is refused; it ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer's encoder does what a capacity of 0 rules out.
    #[error("the qpack encoder stream {0}")]
    Encoder(&'static str),
    /// The peer's decoder acknowledges what was never sent.
    #[error("the qpack decoder stream {0}")]
    Decoder(&'static str),
}

impl StreamError {
    /// The code to close the connection with.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Encoder(_) => Code::QPACK_ENCODER_STREAM_ERROR,
            Self::Decoder(_) => Code::QPACK_DECODER_STREAM_ERROR,
        }
    }
}

/// Instructions that are nothing but a number. At most [`integer::MAX_BYTES`] are held.
#[derive(Debug, Default)]
struct Instructions {
    held: [u8; integer::MAX_BYTES],
    len: usize,
}

impl Instructions {
    /// Takes one byte. Gives the instruction's first byte and its number once it is whole.
    fn push(&mut self, byte: u8, prefix: u32) -> Result<Option<(u8, u64)>, Overflow> {
        self.held[self.len] = byte;
        self.len += 1;
        let Some((value, _)) = integer::decode(&self.held[..self.len], prefix)? else {
            return Ok(None);
        };
        self.len = 0;
        Ok(Some((self.held[0], value)))
    }

    /// The first byte of the instruction that `byte` belongs to.
    fn first(&self, byte: u8) -> u8 {
        if self.len == 0 { byte } else { self.held[0] }
    }
}

/// Reads the peer's encoder stream: all that it may do is to set the capacity to the 0 that it is.
#[derive(Debug, Default)]
pub struct EncoderStream {
    instructions: Instructions,
    failed: Option<StreamError>,
}

impl EncoderStream {
    /// Takes the next bytes, after the type of the stream.
    ///
    /// # Errors
    ///
    /// [`StreamError::Encoder`], from then on the same.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        bytes.iter().try_for_each(|byte| self.take(*byte)).inspect_err(|e| self.failed = Some(*e))
    }

    /// How many bytes are held.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.instructions.len
    }

    fn take(&mut self, byte: u8) -> Result<(), StreamError> {
        // 001: Set Dynamic Table Capacity. All others fill the table, or repeat what is in it.
        if self.instructions.first(byte) >> 5 != 0b001 {
            return Err(StreamError::Encoder("inserts into a table of capacity 0"));
        }
        match self.instructions.push(byte, 5) {
            Ok(None | Some((_, 0))) => Ok(()),
            Ok(Some(_)) => Err(StreamError::Encoder("sets a capacity above the limit of 0")),
            Err(Overflow) => Err(StreamError::Encoder("has an integer that is too large")),
        }
    }
}

/// Reads the peer's decoder stream. As our encoder inserts nothing, there is nothing to count or to
/// acknowledge (RFC 9204 4.4.1); cancellations change nothing and are read over.
#[derive(Debug, Default)]
pub struct DecoderStream {
    instructions: Instructions,
    failed: Option<StreamError>,
}

impl DecoderStream {
    /// Takes the next bytes, after the type of the stream.
    ///
    /// # Errors
    ///
    /// [`StreamError::Decoder`], from then on the same.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        bytes.iter().try_for_each(|byte| self.take(*byte)).inspect_err(|e| self.failed = Some(*e))
    }

    /// How many bytes are held.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.instructions.len
    }

    fn take(&mut self, byte: u8) -> Result<(), StreamError> {
        match self.instructions.first(byte) {
            0b1000_0000.. => {
                return Err(StreamError::Decoder("acknowledges what needs no acknowledgement"));
            }
            0b0100_0000..0b1000_0000 => {} // Stream Cancellation
            _ => return Err(StreamError::Decoder("counts inserts that were never made")),
        }
        match self.instructions.push(byte, 6) {
            Ok(_) => Ok(()),
            Err(Overflow) => Err(StreamError::Decoder("has an integer that is too large")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_of_0_is_taken_and_any_other_refused() {
        let mut stream = EncoderStream::default();
        stream.push(&[0x20, 0x20]).unwrap();
        stream.push(&[0x20]).unwrap();
        let error = stream.push(&[0x21]).unwrap_err();
        assert_eq!(error.code(), Code::QPACK_ENCODER_STREAM_ERROR);
        assert_eq!(stream.push(&[0x20]), Err(error), "it stays refused");
        // RFC 9204 B.2 sets 220.
        let mut stream = EncoderStream::default();
        stream.push(&[0x3f]).unwrap();
        assert_eq!(stream.buffered_bytes(), 1);
        stream.push(&[0xbd, 0x01]).unwrap_err();
    }

    #[test]
    fn every_insertion_is_refused_at_its_first_byte() {
        for first in [0x00, 0x1f, 0x40, 0x7f, 0x80, 0xc0, 0xff] {
            let error = EncoderStream::default().push(&[first]).unwrap_err();
            assert!(matches!(error, StreamError::Encoder(_)), "{first:#x}");
        }
    }

    #[test]
    fn cancellations_are_read_over() {
        let mut stream = DecoderStream::default();
        // Stream 8 cancelled; a long id cancelled, in two pieces.
        stream.push(&[0x48, 0x7f]).unwrap();
        stream.push(&[0x80, 0x01, 0x41]).unwrap();
        assert_eq!(stream.buffered_bytes(), 0);
    }

    #[test]
    fn counting_inserts_and_acknowledging_sections_are_refused() {
        for first in [0x00, 0x01, 0x3f, 0x80, 0x84, 0xff] {
            let error = DecoderStream::default().push(&[first]).unwrap_err();
            assert_eq!(error.code(), Code::QPACK_DECODER_STREAM_ERROR);
        }
    }

    #[test]
    fn integers_without_end_are_refused() {
        assert!(EncoderStream::default().push(&[0x3f; 1]).is_ok());
        let endless = [[0x3f].as_slice(), &[0x80; 20]].concat();
        assert!(EncoderStream::default().push(&endless).is_err());
        assert!(DecoderStream::default().push(&[0x7f; 1]).is_ok());
        let endless = [[0x7f].as_slice(), &[0x80; 20]].concat();
        assert!(DecoderStream::default().push(&endless).is_err());
    }
}
