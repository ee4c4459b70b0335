//! Do browsers hear what the policy says, and nothing more?

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use super::*;

fn cors(origins: &[&str], credentials: bool) -> Cors {
    Cors {
        origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
        methods: vec!["PUT".to_owned()],
        headers: vec!["X-Trace".to_owned()],
        expose_headers: vec!["x-one".to_owned(), "x-two".to_owned()],
        credentials,
        max_age_s: 600,
    }
}

fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn ask(cors: &Cors, origin: &str, method: &str, headers: &str) -> CorsAnswer {
    let request = fields(&[
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", headers),
        ("access-control-request-private-network", "true"),
    ]);
    preflight(cors, &Method::OPTIONS, &request).unwrap()
}

#[test]
fn a_preflight_is_granted_what_the_policy_lists() {
    let answer = ask(&cors(&["https://a.test"], true), "https://a.test", "PUT", "x-trace, accept");
    let want = fields(&[
        ("vary", "origin, access-control-request-method, access-control-request-headers"),
        ("access-control-allow-origin", "https://a.test"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-trace, accept"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
    ]);
    assert_eq!((answer.allowed, answer.headers), (true, want));
}

#[test]
fn other_origins_methods_and_headers_are_granted_nothing() {
    let cors = cors(&["https://a.test"], false);
    for (origin, method, headers) in [
        ("https://b.test", "PUT", ""),
        ("http://a.test", "PUT", ""),
        ("https://a.test:8443", "PUT", ""),
        ("https://a.test.evil", "PUT", ""),
        ("null", "PUT", ""),
        ("https://a.test", "DELETE", ""),
        ("https://a.test", "put", ""),
        ("https://a.test", "PUT", "x-trace, x-other"),
    ] {
        let answer = ask(&cors, origin, method, headers);
        assert!(!answer.allowed, "{origin} {method} {headers}");
        assert_eq!(answer.headers.len(), 1, "only vary: {:?}", answer.headers);
    }
}

#[test]
fn patterns_cover_what_is_below_and_not_what_looks_like_it() {
    let cors = cors(&["https://*.example.com"], false);
    for good in ["https://a.example.com", "https://a.b.example.com"] {
        assert!(ask(&cors, good, "GET", "").allowed, "{good}");
    }
    for bad in [
        "https://example.com",
        "https://evilexample.com",
        "http://a.example.com",
        "https://a.example.com:444",
        "https://.example.com",
        "https://x@a.example.com",
        "https://evil.test/.example.com",
    ] {
        assert!(!ask(&cors, bad, "GET", "").allowed, "{bad}");
    }
}

#[test]
fn a_star_is_for_everybody_but_not_with_credentials_nor_for_authorization() {
    let mut open = cors(&["*"], false);
    open.headers = vec!["*".to_owned()];
    let answer = ask(&open, "null", "GET", "x-any");
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    assert!(!ask(&open, "https://a.test", "GET", "authorization").allowed);
    assert!(!ask(&cors(&["*"], true), "https://a.test", "GET", "").allowed);
    assert!(!ask(&cors(&["null"], true), "null", "GET", "").allowed);
}

#[test]
fn what_is_no_preflight_goes_on() {
    let cors = cors(&["*"], false);
    let origin = fields(&[("origin", "https://a.test")]);
    assert_eq!(preflight(&cors, &Method::OPTIONS, &origin), None);
    assert_eq!(preflight(&cors, &Method::OPTIONS, &HeaderMap::new()), None);
    let full = fields(&[("origin", "https://a.test"), ("access-control-request-method", "GET")]);
    assert_eq!(preflight(&cors, &Method::GET, &full), None);
}

#[test]
fn responses_vary_by_origin_even_without_one() {
    let cors = cors(&["https://a.test"], true);
    let mut response = fields(&[("vary", "accept"), ("access-control-allow-origin", "*")]);
    decide(&cors, &HeaderMap::new()).unwrap().apply(&mut response);
    assert!(!response.contains_key("access-control-allow-origin"), "the guest's word goes");
    let vary: Vec<_> = response.get_all("vary").iter().collect();
    assert_eq!(vary, ["accept", "origin"]);
    decide(&cors, &fields(&[("origin", "https://a.test")])).unwrap().apply(&mut response);
    assert_eq!(response["access-control-allow-origin"], "https://a.test");
    assert_eq!(response["access-control-allow-credentials"], "true");
    assert_eq!(response["access-control-expose-headers"], "x-one, x-two");
    assert_eq!(response.get_all("vary").iter().count(), 2, "said once");
}
