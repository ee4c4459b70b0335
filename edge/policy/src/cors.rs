//! May a browser's script of another origin do this (the Fetch standard's CORS protocol)?

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use pool_model::Cors;

/// What the edge answers a preflight with, status 204.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsAnswer {
    /// Whether the origin is allowed what it asked for; the browser refuses if not.
    pub allowed: bool,
    /// The answer's header fields.
    pub headers: HeaderMap,
}

/// What stands in the headers of an ordinary response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsDecision {
    origin: Option<HeaderValue>,
    vary: bool,
    credentials: bool,
    expose: Option<HeaderValue>,
}

/// Answers a preflight; `None` if the request is none (Fetch: `OPTIONS` with `Origin` and
/// `Access-Control-Request-Method`) and goes on to the guest. Access to private networks is never
/// granted.
#[must_use]
pub fn preflight(cors: &Cors, method: &Method, request: &HeaderMap) -> Option<CorsAnswer> {
    if method != Method::OPTIONS {
        return None;
    }
    let origin = request.get(header::ORIGIN)?;
    let wanted = request.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let mut headers = HeaderMap::new();
    headers.insert(
        header::VARY,
        HeaderValue::from_static(
            "origin, access-control-request-method, access-control-request-headers",
        ),
    );
    let allowed = origin_allowed(cors, origin)
        && method_allowed(cors, wanted)
        && request_headers_allowed(cors, request);
    if allowed {
        grant(cors, origin, wanted, request, &mut headers);
    }
    Some(CorsAnswer { allowed, headers })
}

/// Decides what the response to an ordinary request says; `None` if there is nothing to say.
#[must_use]
pub fn decide(cors: &Cors, request: &HeaderMap) -> Option<CorsDecision> {
    let any = cors.origins.iter().any(|origin| origin == "*") && !cors.credentials;
    let origin = request.get(header::ORIGIN).filter(|origin| origin_allowed(cors, origin));
    if any && origin.is_none() {
        return None;
    }
    let expose = origin.and_then(|_| list(&cors.expose_headers));
    let origin = if any { Some(HeaderValue::from_static("*")) } else { origin.cloned() };
    Some(CorsDecision {
        credentials: cors.credentials && origin.is_some(),
        origin,
        vary: !any,
        expose,
    })
}

impl CorsDecision {
    /// Writes the decision over whatever the guest said about CORS. `Vary` of the guest stays.
    pub fn apply(&self, response: &mut HeaderMap) {
        for name in OURS {
            response.remove(name);
        }
        if let Some(origin) = &self.origin {
            response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(expose) = &self.expose {
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
        if self.vary && !varies_by_origin(response) {
            response.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }
}

/// The response fields that the edge answers for.
const OURS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
];

fn grant(
    cors: &Cors,
    origin: &HeaderValue,
    wanted: &HeaderValue,
    request: &HeaderMap,
    headers: &mut HeaderMap,
) {
    let any = cors.origins.iter().any(|origin| origin == "*") && !cors.credentials;
    let origin = if any { HeaderValue::from_static("*") } else { origin.clone() };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    // What was asked for and is allowed is answered by name: `*` has no meaning with credentials.
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
    for asked in request.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.append(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    if cors.credentials {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age_s));
}

fn origin_allowed(cors: &Cors, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    cors.origins.iter().any(|pattern| matches(pattern, origin, cors.credentials))
}

/// `*` (never with credentials), `scheme://*.domain[:port]` (any depth below the domain) or an
/// exact origin. `null` is every sandboxed frame's origin: only `*` speaks of it, or its own name
/// without credentials.
fn matches(pattern: &str, origin: &str, credentials: bool) -> bool {
    if pattern == "*" {
        return !credentials;
    }
    if origin == "null" {
        return pattern == "null" && !credentials;
    }
    let Some((scheme, domain)) = pattern.split_once("://*.") else { return pattern == origin };
    let Some((origin_scheme, host)) = origin.split_once("://") else { return false };
    let below = host.strip_suffix(domain).and_then(|label| label.strip_suffix('.'));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    scheme == origin_scheme
        && !domain.is_empty()
        && below.is_some_and(|labels| !labels.is_empty() && labels.bytes().all(plain))
}

fn method_allowed(cors: &Cors, wanted: &HeaderValue) -> bool {
    // The simple ones need no listing (Fetch: CORS-safelisted method); names are case-sensitive.
    let wanted = wanted.as_bytes();
    let named =
        |method: &String| method.as_bytes() == wanted || (method == "*" && !cors.credentials);
    matches!(wanted, b"GET" | b"HEAD" | b"POST") || cors.methods.iter().any(named)
}

fn request_headers_allowed(cors: &Cors, request: &HeaderMap) -> bool {
    // A wildcard never covers `authorization` (Fetch: CORS non-wildcard request-header name).
    let allowed = |name: &str| {
        cors.headers.iter().any(|listed| {
            let wild = listed == "*" && !cors.credentials;
            listed.eq_ignore_ascii_case(name)
                || (wild && !name.eq_ignore_ascii_case("authorization"))
        }) || SAFELISTED.iter().any(|safe| safe.eq_ignore_ascii_case(name))
    };
    request.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter().all(|value| {
        let Ok(value) = value.to_str() else { return false };
        value.split(',').map(str::trim).filter(|name| !name.is_empty()).all(allowed)
    })
}

/// Names that need no listing (Fetch: CORS-safelisted request-header). Browsers ask about
/// `content-type` only for values that are not simple, so that one has to be listed.
const SAFELISTED: [&str; 3] = ["accept", "accept-language", "content-language"];

fn list(names: &[String]) -> Option<HeaderValue> {
    if names.is_empty() { None } else { HeaderValue::from_str(&names.join(", ")).ok() }
}

fn varies_by_origin(response: &HeaderMap) -> bool {
    response.get_all(header::VARY).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value
            .split(',')
            .map(str::trim)
            .any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
    })
}

#[cfg(test)]
mod tests;
