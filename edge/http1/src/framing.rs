//! How is a body's end known from its head, and which heads say it in two ways (RFC 9112 6)?

use http::{HeaderMap, Method, StatusCode, Version, header, request, response};

use crate::{
    decode::Decoder,
    head::{HeadFault, Seen},
};

/// How an answer's body ends (RFC 9112 6.3). `None`: it has none.
pub(crate) fn response_body(
    parts: &response::Parts,
    seen: Seen,
    request: &Method,
) -> Result<Option<Decoder>, HeadFault> {
    let status = parts.status;
    if request == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return Ok(None);
    }
    match (coding(&parts.headers, seen)?, length(&parts.headers, seen)?) {
        (Some(()), _) if parts.version == Version::HTTP_10 => {
            Err(HeadFault::Malformed("HTTP/1.0 has no Transfer-Encoding"))
        }
        (Some(()), Some(_)) => {
            Err(HeadFault::Malformed("both Content-Length and Transfer-Encoding are given"))
        }
        (Some(()), None) => Ok(Some(Decoder::chunked())),
        (None, Some(length)) => Ok(Some(Decoder::Length(length))),
        (None, None) => Ok(Some(Decoder::Close)),
    }
}

/// RFC 9112 6.1 and 6.3: both framings, doubled ones and unknown codings are refused.
pub(crate) fn request_body(parts: &request::Parts, seen: Seen) -> Result<Decoder, HeadFault> {
    match (coding(&parts.headers, seen)?, length(&parts.headers, seen)?) {
        (Some(()), _) if parts.version == Version::HTTP_10 => {
            Err(HeadFault::Malformed("HTTP/1.0 has no Transfer-Encoding"))
        }
        (Some(()), Some(_)) => {
            Err(HeadFault::Malformed("both Content-Length and Transfer-Encoding are given"))
        }
        (Some(()), None) => Ok(Decoder::chunked()),
        (None, length) => Ok(Decoder::Length(length.unwrap_or(0))),
    }
}

fn coding(headers: &HeaderMap, seen: Seen) -> Result<Option<()>, HeadFault> {
    if !seen.coding {
        return Ok(None);
    }
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeadFault::Malformed("there is more than one Transfer-Encoding"));
    }
    if value.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Ok(Some(()));
    }
    let last = value.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
    if last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return Err(HeadFault::Coding);
    }
    Err(HeadFault::Malformed("the last Transfer-Encoding is not `chunked`"))
}

fn length(headers: &HeaderMap, seen: Seen) -> Result<Option<u64>, HeadFault> {
    if !seen.length {
        return Ok(None);
    }
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeadFault::Malformed("there is more than one Content-Length"));
    }
    let digits = value.as_bytes();
    let number = digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        number.checked_mul(10)?.checked_add(digit.into())
    });
    let number = number.filter(|_| !digits.is_empty());
    number.map(Some).ok_or(HeadFault::Malformed("Content-Length is not a number"))
}
