//! Checks a request's head before anything is done with it, and says which host it asks for.
//!
//! Stricter than the protocol libraries: what two parsers could read differently is refused.

use http::{HeaderMap, HeaderName, Method, Request, Version, header, uri::Authority};

use crate::error::EdgeError;

/// Header fields that HTTP/2 and HTTP/3 forbid (RFC 9113 8.2.2, RFC 9114 4.2).
const CONNECTION_SPECIFIC: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Checks the head and returns the authority it names.
pub(crate) fn check<B>(request: &Request<B>, max_header_bytes: u32) -> Result<String, EdgeError> {
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > max_header_bytes as usize {
        return Err(EdgeError::HeadersTooLarge { limit_bytes: max_header_bytes });
    }
    if request.method() == Method::CONNECT {
        return Err(malformed("CONNECT is not served"));
    }
    let path = request.uri().path();
    let is_asterisk = path == "*" && request.method() == Method::OPTIONS;
    if !path.starts_with('/') && !is_asterisk {
        return Err(malformed("the path does not start with a slash"));
    }
    check_framing(headers)?;
    match request.version() {
        Version::HTTP_2 | Version::HTTP_3 => check_connection_specific(headers)?,
        _ => check_transfer_encoding(headers)?,
    }
    authority(request)
}

/// One Host, and the same as the target's authority where there is one.
fn authority<B>(request: &Request<B>) -> Result<String, EdgeError> {
    let host = single(request.headers(), &header::HOST, "there is more than one Host")?;
    let in_target = request.uri().authority().map(Authority::as_str);
    let h1 = !matches!(request.version(), Version::HTTP_2 | Version::HTTP_3);
    match (in_target, host) {
        (Some(target), Some(host)) if !target.eq_ignore_ascii_case(host) => {
            Err(malformed("Host differs from the request's authority"))
        }
        (Some(_), None) if h1 => Err(malformed("Host is missing")),
        (Some(target), _) => Ok(target.to_owned()),
        (None, Some(host)) => Ok(host.to_owned()),
        (None, None) => Err(malformed("Host is missing")),
    }
}

fn check_framing(headers: &HeaderMap) -> Result<(), EdgeError> {
    let length = single(headers, &header::CONTENT_LENGTH, "there is more than one Content-Length")?;
    let Some(length) = length else { return Ok(()) };
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(malformed("both Content-Length and Transfer-Encoding are given"));
    }
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    if digits && length.parse::<u64>().is_ok() {
        Ok(())
    } else {
        Err(malformed("Content-Length is not a number"))
    }
}

fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), EdgeError> {
    let coding =
        single(headers, &header::TRANSFER_ENCODING, "there is more than one Transfer-Encoding")?;
    match coding {
        Some(coding) if !coding.eq_ignore_ascii_case("chunked") => {
            Err(malformed("Transfer-Encoding is not `chunked`"))
        }
        _ => Ok(()),
    }
}

fn check_connection_specific(headers: &HeaderMap) -> Result<(), EdgeError> {
    if CONNECTION_SPECIFIC.iter().any(|name| headers.contains_key(*name)) {
        return Err(malformed("a connection-specific header field is present"));
    }
    match headers.get(header::TE) {
        Some(te) if te != "trailers" => Err(malformed("TE is not `trailers`")),
        _ => Ok(()),
    }
}

fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    twice: &'static str,
) -> Result<Option<&'a str>, EdgeError> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed(twice));
    }
    first.to_str().map(Some).map_err(|_| malformed("a header value is not ASCII"))
}

fn malformed(reason: &'static str) -> EdgeError {
    EdgeError::Malformed { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn host_rules_hold_for_each_protocol() {
        let h1 = Version::HTTP_11;
        let ok = [
            (h1, "/", vec![("host", "a")]),
            (h1, "http://a/", vec![("host", "A")]),
            (Version::HTTP_2, "https://a/", vec![]),
            (Version::HTTP_3, "https://a/", vec![("host", "a")]),
        ];
        for (version, uri, headers) in ok {
            let authority = check(&request(version, uri, &headers), 1024).unwrap();
            assert!(authority.eq_ignore_ascii_case("a"));
        }
        let refused = [
            (h1, "/", vec![]),
            (h1, "/", vec![("host", "a"), ("host", "a")]),
            (h1, "http://a/", vec![("host", "b")]),
            (h1, "http://a/", vec![]),
            (Version::HTTP_2, "https://a/", vec![("host", "b")]),
            (Version::HTTP_3, "/", vec![]),
        ];
        for (version, uri, headers) in refused {
            assert!(check(&request(version, uri, &headers), 1024).is_err(), "{uri} {headers:?}");
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let refused = [
            (Version::HTTP_11, vec![("content-length", "5"), ("transfer-encoding", "chunked")]),
            (Version::HTTP_11, vec![("transfer-encoding", "chunked, chunked")]),
            (Version::HTTP_11, vec![("transfer-encoding", "gzip")]),
            (Version::HTTP_11, vec![("content-length", "5"), ("content-length", "5")]),
            (Version::HTTP_11, vec![("content-length", "+5")]),
            (Version::HTTP_3, vec![("connection", "close")]),
            (Version::HTTP_3, vec![("transfer-encoding", "chunked")]),
            (Version::HTTP_3, vec![("te", "gzip")]),
        ];
        for (version, mut headers) in refused {
            headers.push(("host", "a"));
            assert!(check(&request(version, "/", &headers), 1024).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn large_heads_are_refused_with_their_own_code() {
        let large = "x".repeat(2000);
        let head = request(Version::HTTP_11, "/", &[("host", "a"), ("x", &large)]);
        let error = check(&head, 1024).unwrap_err();
        assert_eq!(error.code().1.as_u16(), 431);
    }
}
