//! Where the bytes of an HTTP/1.1 body are (RFC 9112, sections 6 and 7).
//!
//! Pure: it is shown what has come and says how much of it is framing and how much is body.

use super::head::{Framing, HEAD_MAX_BYTES, Violation};

/// Most bytes of a chunk's first line, its extensions included.
const CHUNK_LINE_MAX_BYTES: usize = 4096;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Bytes of framing, to be thrown away.
    pub(super) skip: usize,
    /// Bytes of the body, behind those.
    pub(super) data: usize,
}

/// How far a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of the line, or the trailers, that has begun.
    line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    /// Before a chunk's size, of which so many digits came.
    Size {
        size: u64,
        digits: u8,
    },
    /// White space after a size: an extension has to follow.
    Space {
        size: u64,
    },
    /// In a chunk's extensions.
    Extension {
        size: u64,
    },
    /// Before the line feed after a chunk's size.
    SizeFeed {
        size: u64,
    },
    Chunk(u64),
    ChunkReturn,
    ChunkFeed,
    /// At the start of a trailer, or of the blank line.
    TrailerStart,
    /// In a trailer, before or behind its colon.
    Trailer {
        colon: bool,
    },
    TrailerFeed,
    LastFeed,
    Over,
}

impl Decoder {
    pub(super) const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Over,
            Framing::Length(bytes) => State::Length(bytes),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, line: 0 }
    }

    /// Whether nothing more belongs to the body.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The connection ended: whether the body did, too.
    pub(super) fn end(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Over;
        }
        self.is_over()
    }

    /// Finds the next bytes of the body in what has come. They count as taken. With no data and
    /// the body not over, more has to come.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Piece, Violation> {
        let mut skip = 0;
        loop {
            let rest = &bytes[skip..];
            match self.state {
                State::Over => return Ok(Piece { skip, data: 0 }),
                State::UntilClose => return Ok(Piece { skip, data: rest.len() }),
                State::Length(left) => {
                    let (data, left) = take(left, rest.len());
                    self.state = if left == 0 { State::Over } else { State::Length(left) };
                    return Ok(Piece { skip, data });
                }
                State::Chunk(left) => {
                    let (data, left) = take(left, rest.len());
                    self.state = if left == 0 { State::ChunkReturn } else { State::Chunk(left) };
                    return Ok(Piece { skip, data });
                }
                _ => {}
            }
            let Some(byte) = rest.first() else { return Ok(Piece { skip, data: 0 }) };
            self.state = self.step(*byte)?;
            skip += 1;
        }
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, Violation> {
        use State as S;
        self.line += 1;
        Ok(match (self.state, byte) {
            (S::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // 15 digits are an exbibyte: no sum of them overflows.
                if digits == 15 {
                    return Err(Violation::BadChunkSize);
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                S::Size { size: size * 16 + digit, digits: digits + 1 }
            }
            (S::Size { digits: 0, .. }, _) => return Err(Violation::BadChunkSize),
            (S::Size { size, .. } | S::Space { size }, b' ' | b'\t') => {
                self.line_fits(CHUNK_LINE_MAX_BYTES, Violation::BadChunkSize)?;
                S::Space { size }
            }
            (S::Size { size, .. } | S::Space { size }, b';') => S::Extension { size },
            (S::Size { size, .. } | S::Extension { size }, b'\r') => S::SizeFeed { size },
            (S::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.line_fits(CHUNK_LINE_MAX_BYTES, Violation::BadChunkSize)?;
                S::Extension { size }
            }
            (S::SizeFeed { size }, b'\n') => {
                self.line = 0;
                if size == 0 { S::TrailerStart } else { S::Chunk(size) }
            }
            (S::ChunkReturn, b'\r') => S::ChunkFeed,
            (S::ChunkFeed, b'\n') => {
                self.line = 0;
                S::Size { size: 0, digits: 0 }
            }
            (S::ChunkReturn | S::ChunkFeed, _) => return Err(Violation::BadChunkEnd),
            (S::TrailerStart, b'\r') => S::LastFeed,
            (S::TrailerStart, b':' | b' ' | b'\t') => return Err(Violation::BadTrailer),
            (S::TrailerStart, b'!'..=b'~') => S::Trailer { colon: false },
            (S::Trailer { colon: false }, b':') => S::Trailer { colon: true },
            (S::Trailer { colon: true }, b'\r') => S::TrailerFeed,
            (S::Trailer { colon }, b'\t' | b' '..=b'~' | 0x80..)
                if colon || byte.is_ascii_graphic() =>
            {
                self.line_fits(HEAD_MAX_BYTES, Violation::HeadTooLarge)?;
                S::Trailer { colon }
            }
            (S::TrailerFeed, b'\n') => {
                // All trailers together have one limit.
                self.line_fits(HEAD_MAX_BYTES, Violation::HeadTooLarge)?;
                S::TrailerStart
            }
            (S::LastFeed, b'\n') => S::Over,
            (S::Size { .. } | S::Space { .. } | S::Extension { .. } | S::SizeFeed { .. }, _) => {
                return Err(Violation::BadChunkSize);
            }
            _ => return Err(Violation::BadTrailer),
        })
    }

    fn line_fits(&self, max: usize, otherwise: Violation) -> Result<(), Violation> {
        if self.line > max { Err(otherwise) } else { Ok(()) }
    }
}

/// How many of the bytes at hand belong to what is left, and what is left then.
fn take(left: u64, at_hand: usize) -> (usize, u64) {
    let data = usize::try_from(left).map_or(at_hand, |left| left.min(at_hand));
    (data, left - data as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes what comes in these pieces: the body and what is left behind it.
    fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<Vec<u8>>), Violation> {
        let mut decoder = Decoder::new(framing);
        let (mut input, mut body) = (Vec::new(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            while !decoder.is_over() {
                let Piece { skip, data } = decoder.next(&input)?;
                input.drain(..skip);
                body.extend(input.drain(..data));
                if data == 0 {
                    break;
                }
            }
        }
        Ok((body, decoder.is_over().then_some(input)))
    }

    fn chunked(text: &str) -> Result<(String, Option<Vec<u8>>), Violation> {
        let (body, rest) = decode(Framing::Chunked, &[text.as_bytes()])?;
        Ok((String::from_utf8(body).unwrap(), rest))
    }

    #[test]
    fn chunks_are_joined() {
        let (body, rest) =
            chunked("3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\n\r\nHTTP").unwrap();
        assert_eq!((body.as_str(), rest.as_deref()), ("abc0123456789", Some(&b"HTTP"[..])));
        let (body, rest) = chunked("1 \t;x\r\na\r\n0\r\nx-sum: 1\r\ny:\r\n\r\n").unwrap();
        assert_eq!((body.as_str(), rest.as_deref()), ("a", Some(&b""[..])));
        assert_eq!(chunked("5\r\nab").unwrap(), ("ab".to_owned(), None));
    }

    #[test]
    fn malformed_chunks_are_violations() {
        use Violation as V;
        for (text, violation) in [
            ("\r\n", V::BadChunkSize),
            ("x\r\n", V::BadChunkSize),
            ("+1\r\na", V::BadChunkSize),
            ("0x1\r\na", V::BadChunkSize),
            ("1\na\r\n", V::BadChunkSize),
            ("1 \r\na", V::BadChunkSize),
            ("1;a\nb", V::BadChunkSize),
            ("1;a\rb", V::BadChunkSize),
            ("0000000000000001\r\na", V::BadChunkSize),
            ("1\r\nab", V::BadChunkEnd),
            ("1\r\na\n", V::BadChunkEnd),
            ("0\r\n\n", V::BadTrailer),
            ("0\r\nx\r\n", V::BadTrailer),
            ("0\r\n: x\r\n", V::BadTrailer),
            ("0\r\nx y: z\r\n", V::BadTrailer),
        ] {
            assert_eq!(chunked(text), Err(violation), "{text:?}");
        }
        let long = format!("1;{}", "x".repeat(CHUNK_LINE_MAX_BYTES));
        assert_eq!(chunked(&long), Err(V::BadChunkSize));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(HEAD_MAX_BYTES / 6 + 1));
        assert_eq!(chunked(&trailers), Err(V::HeadTooLarge));
    }

    fn cut(bytes: &[u8], at: &[prop::sample::Index]) -> Vec<Vec<u8>> {
        let mut at: Vec<_> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        at.windows(2).map(|ends| bytes[ends[0]..ends[1]].to_vec()).collect()
    }

    fn alike(framing: Framing, bytes: &[u8], at: &[prop::sample::Index]) {
        let pieces = cut(bytes, at);
        let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
        assert_eq!(decode(framing, &pieces), decode(framing, &[bytes]));
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_however_it_is_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend(format!("{:x}\r\n", chunk.len()).bytes());
                wire.extend_from_slice(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\n\r\nnext");
            let whole = decode(Framing::Chunked, &[&wire]);
            prop_assert_eq!(whole, Ok((chunks.concat(), Some(b"next".to_vec()))));
            alike(Framing::Chunked, &wire, &at);
            alike(Framing::Length(7), &wire, &at);
        }

        #[test]
        fn nonsense_is_the_same_however_it_is_cut(
            bytes in prop::collection::vec(prop::sample::select(&b"019aF;:\r\n x\0\xff"[..]), 0..60),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            alike(Framing::Chunked, &bytes, &at);
        }
    }
}
