//! Does the caller of a private port show the sandbox's traffic token, and what must the guest not
//! see of it?

mod cookie;
mod query;

use std::{fmt, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderValue, Uri, header};

/// The header field that carries the token.
const HEADER: &str = "x-wrenn-traffic-token";
/// The cookie that carries it.
const COOKIE: &str = "wrenn-traffic";
/// The query parameter that carries it.
const PARAMETER: &str = "wrenn-traffic-token";
/// Longest token.
const TOKEN_BYTES_MAX: usize = 256;
/// Longest life of the cookie.
const COOKIE_AGE_MAX: Duration = Duration::from_hours(24);

/// A sandbox's secret for its private ports. `Debug` doesn't show it.
#[derive(Clone)]
pub struct TrafficToken(Box<str>);

impl TrafficToken {
    /// Takes the token: 1 to 256 characters of `A-Z a-z 0-9 - _ . ~`, so that it stands in a
    /// header, a cookie and a query as it is; `None` for anything else.
    #[must_use]
    pub fn new(token: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        let good = (1..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(plain);
        good.then(|| Self(token.into()))
    }

    /// Whether `given` is the token, in constant time but for the length.
    #[must_use]
    pub fn matches(&self, given: &[u8]) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), given).is_ok()
    }
}

impl fmt::Debug for TrafficToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficToken(..)")
    }
}

/// What becomes of a request to a private port.
#[derive(Debug)]
pub enum TrafficDecision {
    /// It may go on, without what carried the token.
    Pass {
        /// The path and query for the guest, if it differs from the request's.
        path_and_query: Option<String>,
    },
    /// Answer 303 (See Other) with these, so that the token leaves the address bar.
    SetCookie {
        /// `Location`: the same URL without the token, as a path.
        location: HeaderValue,
        /// `Set-Cookie`.
        cookie: HeaderValue,
    },
    /// It may not go on.
    Refuse,
}

/// Decides about a request to a private port and takes the token out of `headers`, also if it is
/// wrong. `tls` says whether the client came over TLS; the cookie lives for `age`, at most a day.
///
/// A good header or cookie wins over a query parameter, which is taken out then. Requests whose
/// method is not safe to repeat as GET (`redirect` false) pass with the parameter taken out.
#[must_use]
pub fn admit_traffic(
    token: &TrafficToken,
    uri: &Uri,
    headers: &mut HeaderMap,
    redirect: bool,
    tls: bool,
    age: Duration,
) -> TrafficDecision {
    let by_header = take_header(token, headers);
    let by_cookie = cookie::take(token, headers);
    let cleaned = uri.query().and_then(|text| query::take(token, text));
    let path_and_query = cleaned.as_ref().map(|cleaned| rebuilt(uri, cleaned.rest.as_deref()));
    if by_header || by_cookie {
        return TrafficDecision::Pass { path_and_query };
    }
    match (cleaned, path_and_query) {
        (Some(cleaned), Some(path)) if cleaned.good => {
            if redirect {
                redirection(token, &path, tls, age)
            } else {
                TrafficDecision::Pass { path_and_query: Some(path) }
            }
        }
        _ => TrafficDecision::Refuse,
    }
}

fn take_header(token: &TrafficToken, headers: &mut HeaderMap) -> bool {
    let http::header::Entry::Occupied(entry) = headers.entry(HEADER) else { return false };
    let (_, mut values) = entry.remove_entry_mult();
    values.any(|value| token.matches(value.as_bytes()))
}

fn rebuilt(uri: &Uri, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{}?{query}", uri.path()),
        None => uri.path().to_owned(),
    }
}

fn redirection(token: &TrafficToken, path: &str, tls: bool, age: Duration) -> TrafficDecision {
    // `//host` would lead elsewhere; `/.//host` is the same path and stays here.
    let leads_away = path.starts_with("//") || path.starts_with("/\\");
    let location = if leads_away { format!("/.{path}") } else { path.to_owned() };
    let secure = if tls { "; Secure" } else { "" };
    let age = age.min(COOKIE_AGE_MAX).as_secs();
    let cookie =
        format!("{COOKIE}={}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}", token.0);
    match (HeaderValue::from_str(&location), HeaderValue::from_str(&cookie)) {
        (Ok(location), Ok(mut cookie)) => {
            cookie.set_sensitive(true);
            TrafficDecision::SetCookie { location, cookie }
        }
        _ => TrafficDecision::Refuse,
    }
}

#[cfg(test)]
mod tests;
