//! What a request's pseudo-header fields ask for (RFC 9113 8.3.1, 8.5; RFC 8441 4; RFC 9114 4.3.1, 4.4;
//! RFC 9220 3).

use std::net::Ipv6Addr;

use bytes::Bytes;
use http::{
    HeaderMap, Method, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::{Field, Malformed};

/// The pseudo-header fields so far.
#[derive(Debug, Default)]
pub(crate) struct Pseudo {
    method: Option<Bytes>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
}

impl Pseudo {
    pub(crate) fn add(&mut self, field: Field) -> Result<(), Malformed> {
        let slot = match field.name() {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            b":status" => return Err(Malformed("`:status` in a request")),
            _ => return Err(Malformed("an unknown pseudo-header field")),
        };
        if slot.is_some() {
            return Err(Malformed("a pseudo-header field twice"));
        }
        *slot = Some(field.into_value_bytes());
        Ok(())
    }

    /// The method, the target and what an extended CONNECT asks for.
    pub(crate) fn target(
        self,
        headers: &HeaderMap,
    ) -> Result<(Method, Uri, Option<Box<str>>), Malformed> {
        let method = self.method.as_deref().ok_or(Malformed("`:method` is missing"))?;
        let method = Method::from_bytes(method).map_err(|_| Malformed("`:method` is no token"))?;
        let protocol = self.protocol.as_deref().map(token).transpose()?;
        if method == Method::CONNECT && protocol.is_none() {
            let uri = self.connect(headers)?;
            return Ok((method, uri, None));
        }
        if method != Method::CONNECT && protocol.is_some() {
            return Err(Malformed("`:protocol` without CONNECT"));
        }
        if protocol.is_some() && self.authority.is_none() {
            return Err(Malformed("`:protocol` without `:authority`"));
        }
        let uri = self.uri(&method, headers)?;
        Ok((method, uri, protocol))
    }

    fn connect(self, headers: &HeaderMap) -> Result<Uri, Malformed> {
        if self.scheme.is_some() || self.path.is_some() {
            return Err(Malformed("CONNECT with `:scheme` or `:path`"));
        }
        if self.authority.is_none() {
            return Err(Malformed("CONNECT without `:authority`"));
        }
        let authority = authority(self.authority, headers)?;
        if authority.port().is_none() {
            return Err(Malformed("CONNECT without a port"));
        }
        Ok(Uri::from(authority))
    }

    fn uri(self, method: &Method, headers: &HeaderMap) -> Result<Uri, Malformed> {
        let scheme = scheme(self.scheme.as_deref().ok_or(Malformed("`:scheme` is missing"))?)?;
        let path = self.path.ok_or(Malformed("`:path` is missing"))?;
        let path = path_and_query(path, method)?;
        let authority = authority(self.authority, headers)?;
        Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(path)
            .build()
            .map_err(|_| Malformed("the target is no URI"))
    }
}

fn token(text: &[u8]) -> Result<Box<str>, Malformed> {
    let is_tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    match std::str::from_utf8(text) {
        Ok(name) if !text.is_empty() && text.iter().all(is_tchar) => Ok(name.into()),
        _ => Err(Malformed("`:protocol` is no token")),
    }
}

fn scheme(text: &[u8]) -> Result<Scheme, Malformed> {
    if text.eq_ignore_ascii_case(b"https") {
        Ok(Scheme::HTTPS)
    } else if text.eq_ignore_ascii_case(b"http") {
        Ok(Scheme::HTTP)
    } else {
        let is_scheme_byte = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
        let well_formed =
            text.first().is_some_and(u8::is_ascii_alphabetic) && text.iter().all(is_scheme_byte);
        let scheme = Scheme::try_from(text).ok().filter(|_| well_formed);
        scheme.ok_or(Malformed("`:scheme` is no scheme"))
    }
}

/// A path from the root, or `*` for OPTIONS; without a fragment, which is never sent.
fn path_and_query(path: Bytes, method: &Method) -> Result<PathAndQuery, Malformed> {
    let is_asterisk = *method == Method::OPTIONS && path[..] == b"*"[..];
    if path.first() != Some(&b'/') && !is_asterisk {
        return Err(Malformed("`:path` does not begin with a slash"));
    }
    if !path.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(Malformed("`:path` has an illegal byte"));
    }
    PathAndQuery::from_maybe_shared(path).map_err(|_| Malformed("`:path` has an illegal byte"))
}

/// Which host is asked for: `:authority`, or `host` in its place; if there are both, the same.
fn authority(pseudo: Option<Bytes>, headers: &HeaderMap) -> Result<Authority, Malformed> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Malformed("`host` twice"));
    }
    let authority = match (pseudo, host) {
        (Some(pseudo), Some(host)) if !pseudo.eq_ignore_ascii_case(host.as_bytes()) => {
            return Err(Malformed("`host` differs from `:authority`"));
        }
        (Some(pseudo), _) => pseudo,
        (None, Some(host)) => Bytes::copy_from_slice(host.as_bytes()),
        (None, None) => return Err(Malformed("neither `:authority` nor `host`")),
    };
    if authority.contains(&b'@') {
        return Err(Malformed("userinfo in the authority"));
    }
    let error = Malformed("the authority is no host with perhaps a port");
    if !is_host_and_port(&authority) {
        return Err(error);
    }
    Authority::from_maybe_shared(authority).map_err(|_| error)
}

/// A name that isn't empty or an IPv6 address in brackets, and a port, if there is one, of 16 bits.
/// (Which bytes a name may have is left to [`Authority`], which takes brackets anywhere.)
fn is_host_and_port(authority: &[u8]) -> bool {
    if authority.first() == Some(&b'[') {
        return is_ipv6_and_port(authority);
    }
    let is_end = |byte: &u8| matches!(byte, b':' | b'[' | b']');
    match authority.iter().position(is_end) {
        None => !authority.is_empty(),
        Some(end) => end > 0 && authority[end] == b':' && is_port(&authority[end + 1..]),
    }
}

fn is_ipv6_and_port(authority: &[u8]) -> bool {
    let Ok(authority) = std::str::from_utf8(authority) else { return false };
    let Some((address, after)) = authority[1..].split_once(']') else { return false };
    address.parse::<Ipv6Addr>().is_ok()
        && (after.is_empty()
            || after.strip_prefix(':').is_some_and(|port| is_port(port.as_bytes())))
}

fn is_port(text: &[u8]) -> bool {
    let digits = text.iter().all(u8::is_ascii_digit);
    digits && std::str::from_utf8(text).is_ok_and(|text| text.parse::<u16>().is_ok())
}
