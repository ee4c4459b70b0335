//! The chunked coding, read (RFC 9112 7.1).

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

use crate::decode::{BodyFault, Decoded};

/// Longest chunk-size line, extensions included.
const LINE_MAX_BYTES: usize = 256;
/// Most digits of a size: more would not fit into 64 bits.
const DIGITS_MAX: usize = 16;
/// Most bytes of extensions in one body: they are read for nothing.
const EXTENSIONS_MAX_BYTES: usize = 16 * 1024;
/// Most trailer fields.
const TRAILERS_MAX: usize = 64;
/// Most bytes of trailers.
const TRAILERS_MAX_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// Reads chunks out of a buffer as they come.
#[derive(Debug)]
pub(crate) struct Chunked {
    step: Step,
    extension_bytes: usize,
}

impl Chunked {
    pub(crate) const fn new() -> Self {
        Self { step: Step::Size, extension_bytes: 0 }
    }

    /// Takes the next piece out of `buf`.
    pub(crate) fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, BodyFault> {
        loop {
            match self.step {
                Step::Size => {
                    match take_line(buf, LINE_MAX_BYTES, "a chunk-size line is too long")? {
                        None => return Ok(Decoded::More),
                        Some(line) => self.step = self.size(&line)?,
                    }
                }
                Step::Data(left) => {
                    if buf.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
                    let left = left - take as u64;
                    self.step = if left == 0 { Step::DataEnd } else { Step::Data(left) };
                    return Ok(Decoded::Data(buf.split_to(take).freeze()));
                }
                Step::DataEnd => {
                    if buf.len() < 2 {
                        return Ok(Decoded::More);
                    }
                    if &buf[..2] != b"\r\n" {
                        return Err(BodyFault::Malformed("a chunk's data does not end with CRLF"));
                    }
                    buf.advance(2);
                    self.step = Step::Size;
                }
                Step::Trailers => return self.trailers(buf),
                Step::Done => return Ok(Decoded::End),
            }
        }
    }

    fn size(&mut self, line: &Bytes) -> Result<Step, BodyFault> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits == 0 || digits > DIGITS_MAX {
            return Err(BodyFault::Malformed("a chunk size is not 1 to 16 hexadecimal digits"));
        }
        let rest = &line[digits..];
        // chunk-ext = *( BWS ";" BWS name [ "=" value ] ); nothing else may follow the size.
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if !rest.is_empty() && rest.get(blank) != Some(&b';') {
            return Err(BodyFault::Malformed(
                "a chunk size is followed by something else than `;`",
            ));
        }
        if rest.iter().any(|byte| *byte == b'\r' || (*byte < b' ' && *byte != b'\t')) {
            return Err(BodyFault::Malformed("a chunk extension has control characters"));
        }
        self.extension_bytes += rest.len();
        if self.extension_bytes > EXTENSIONS_MAX_BYTES {
            return Err(BodyFault::Malformed("too many bytes of chunk extensions"));
        }
        let size = line[..digits].iter().fold(0_u64, |size, digit| {
            (size << 4) | u64::from((*digit as char).to_digit(16).unwrap_or(0))
        });
        Ok(if size == 0 { Step::Trailers } else { Step::Data(size) })
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Decoded, BodyFault> {
        if buf.len() >= 2 && &buf[..2] == b"\r\n" {
            buf.advance(2);
            self.step = Step::Done;
            return Ok(Decoded::End);
        }
        let Some(end) = memchr::memmem::find(buf, b"\r\n\r\n") else {
            return if buf.len() >= TRAILERS_MAX_BYTES + 4 {
                Err(BodyFault::Malformed("the trailers are too large"))
            } else {
                Ok(Decoded::More)
            };
        };
        if end > TRAILERS_MAX_BYTES {
            return Err(BodyFault::Malformed("the trailers are too large"));
        }
        let block = buf.split_to(end + 4).freeze();
        self.step = Step::Done;
        parse_fields(&block).map(Decoded::Trailers)
    }
}

fn take_line(
    buf: &mut BytesMut,
    max: usize,
    too_long: &'static str,
) -> Result<Option<Bytes>, BodyFault> {
    let Some(end) = memchr(b'\n', buf) else {
        return if buf.len() > max { Err(BodyFault::Malformed(too_long)) } else { Ok(None) };
    };
    if end > max {
        return Err(BodyFault::Malformed(too_long));
    }
    if end == 0 || buf[end - 1] != b'\r' {
        return Err(BodyFault::Malformed("a line ends with a bare LF"));
    }
    let mut line = buf.split_to(end + 1).freeze();
    line.truncate(end - 1);
    Ok(Some(line))
}

fn parse_fields(block: &Bytes) -> Result<HeaderMap, BodyFault> {
    if crate::head::has_bare_lf(block) {
        return Err(BodyFault::Malformed("a trailer line ends with a bare LF"));
    }
    let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let malformed = BodyFault::Malformed("the trailers are malformed");
    let parsed = match httparse::parse_headers(block, &mut fields) {
        Ok(httparse::Status::Complete((_, parsed))) => parsed,
        _ => return Err(malformed),
    };
    let mut map = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(block.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(BodyFault::Malformed("the trailers are malformed"));
        };
        // RFC 9110 6.5.1: what frames or routes a message may not come after it.
        if !is_forbidden(&name) {
            map.append(name, value);
        }
    }
    Ok(map)
}

/// Fields that mean nothing, or mischief, behind a body.
fn is_forbidden(name: &HeaderName) -> bool {
    use http::header;
    [
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::HOST,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
    ]
    .contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` fed in pieces of `step` bytes.
    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, Option<HeaderMap>), BodyFault> {
        let mut chunked = Chunked::new();
        let mut buf = BytesMut::new();
        let (mut data, mut trailers) = (Vec::new(), None);
        let mut pieces = input.chunks(step);
        loop {
            match chunked.decode(&mut buf)? {
                Decoded::Data(piece) => data.extend_from_slice(&piece),
                Decoded::Trailers(map) => trailers = Some(map),
                Decoded::End => return Ok((data, trailers)),
                Decoded::More => match pieces.next() {
                    Some(piece) => buf.extend_from_slice(piece),
                    None => return Err(BodyFault::Truncated),
                },
            }
        }
    }

    #[test]
    fn chunks_come_out_whatever_the_pieces() {
        let input = b"5\r\nhello\r\n06;a=b\r\n world\r\n0\r\nx-sum: 1\r\nhost: evil\r\n\r\n";
        for step in [1, 2, 3, 7, 100] {
            let (data, trailers) = decode(input, step).unwrap();
            assert_eq!(data, b"hello world", "{step}");
            let trailers = trailers.unwrap();
            assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &HeaderValue::from_static("1")));
        }
    }

    #[test]
    fn tricks_are_refused() {
        let tricks: [&[u8]; 13] = [
            b"\r\n",
            b"g\r\n",
            b"-5\r\n",
            b"+5\r\n",
            b"0x5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"10000000000000000\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"0\r\na b: c\r\n\r\n",
        ];
        for trick in tricks {
            let error = decode(trick, 3).unwrap_err();
            assert!(matches!(error, BodyFault::Malformed(_)), "{trick:?} {error:?}");
        }
        let long = [b"5;".as_slice(), &[b'a'; 300], b"\r\n"].concat();
        assert!(matches!(decode(&long, 9), Err(BodyFault::Malformed(_))));
        assert!(matches!(decode(b"5\r\nhel", 9), Err(BodyFault::Truncated)));
    }
}
