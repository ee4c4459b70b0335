//! Which header and trailer fields may be in a message (RFC 9113 8.2, RFC 9114 4.2 and 10.3).

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{Field, Malformed};

/// Fields that belong to an HTTP/1.1 connection, which is none of a message's business here.
#[inline]
#[must_use]
pub fn is_connection_specific(name: &HeaderName) -> bool {
    // Most names are as long as none of these.
    match name.as_str().len() {
        7 => *name == header::UPGRADE,
        10 => *name == header::CONNECTION || name == "keep-alive",
        16 => name == "proxy-connection",
        17 => *name == header::TRANSFER_ENCODING,
        _ => false,
    }
}

/// The fields of a message so far.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// Whether there was one.
    pub(crate) any: bool,
    map: HeaderMap,
    content_length: Option<u64>,
    cookies: Vec<HeaderValue>,
}

impl Fields {
    pub(crate) fn add(&mut self, field: Field) -> Result<(), Malformed> {
        self.any = true;
        let Some(name) = field.header_name() else {
            let upper = field.name().iter().any(u8::is_ascii_uppercase);
            return Err(Malformed(if upper {
                "a name with upper case"
            } else {
                "an illegal name"
            }));
        };
        if is_connection_specific(&name) {
            return Err(Malformed("a connection-specific field"));
        }
        let padded = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if padded(field.value().first()) || padded(field.value().last()) {
            return Err(Malformed("a value with white space around it"));
        }
        let value = field.into_header_value().ok_or(Malformed("an illegal value"))?;
        match name {
            header::TE if !value.as_bytes().eq_ignore_ascii_case(b"trailers") => {
                Err(Malformed("a te that is not `trailers`"))
            }
            header::CONTENT_LENGTH => self.add_content_length(value),
            // A client may split it, for the sake of compression (RFC 9113 8.2.3, RFC 9114 4.2.1).
            header::COOKIE => {
                self.cookies.push(value);
                Ok(())
            }
            _ => {
                self.map.try_append(name, value).map_err(|_| Malformed("too many fields"))?;
                Ok(())
            }
        }
    }

    /// The same length twice is one (RFC 9110 8.6).
    fn add_content_length(&mut self, value: HeaderValue) -> Result<(), Malformed> {
        let length = decimal(value.as_bytes())?;
        match self.content_length {
            None => {
                self.content_length = Some(length);
                self.map.insert(header::CONTENT_LENGTH, value);
                Ok(())
            }
            Some(before) if before == length => Ok(()),
            Some(_) => Err(Malformed("content-lengths that differ")),
        }
    }

    /// All fields, and the content-length among them.
    pub(crate) fn finish(mut self) -> Result<(HeaderMap, Option<u64>), Malformed> {
        if let Some(cookie) = joined(self.cookies)? {
            self.map.insert(header::COOKIE, cookie);
        }
        Ok((self.map, self.content_length))
    }
}

/// A number of digits only, as a content-length has to be (RFC 9110 8.6).
fn decimal(text: &[u8]) -> Result<u64, Malformed> {
    let error = Malformed("a content-length that is no number");
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(error);
    }
    let digit =
        |value: u64, digit: &u8| value.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    text.iter().try_fold(0, digit).ok_or(error)
}

/// The crumbs as the one field that other versions of HTTP have.
fn joined(mut crumbs: Vec<HeaderValue>) -> Result<Option<HeaderValue>, Malformed> {
    if crumbs.len() < 2 {
        return Ok(crumbs.pop());
    }
    let mut all = BytesMut::new();
    // An empty one would leave a space at an end.
    for crumb in crumbs.iter().filter(|crumb| !crumb.is_empty()) {
        if !all.is_empty() {
            all.extend_from_slice(b"; ");
        }
        all.extend_from_slice(crumb.as_bytes());
    }
    let mut value =
        HeaderValue::from_maybe_shared(all.freeze()).map_err(|_| Malformed("an illegal value"))?;
    value.set_sensitive(crumbs.iter().any(HeaderValue::is_sensitive));
    Ok(Some(value))
}
