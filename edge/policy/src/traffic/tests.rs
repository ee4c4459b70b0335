//! Does only the token open a private port, and does the guest see nothing of it?

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use super::*;

const AGE: Duration = Duration::from_secs(3600);

fn token() -> TrafficToken {
    TrafficToken::new("t0ken-of-this_sandbox").unwrap()
}

fn ask(uri: &str, fields: &[(&'static str, &str)], tls: bool) -> (TrafficDecision, HeaderMap) {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let decision = admit_traffic(&token(), &uri.parse().unwrap(), &mut headers, true, tls, AGE);
    (decision, headers)
}

#[test]
fn a_header_opens_and_is_taken_out() {
    let (decision, headers) = ask("/a?b", &[(HEADER, "t0ken-of-this_sandbox")], true);
    assert!(matches!(decision, TrafficDecision::Pass { path_and_query: None }));
    assert!(headers.is_empty());
}

#[test]
fn wrong_and_missing_tokens_are_refused_and_do_not_reach_anybody() {
    assert!(matches!(ask("/", &[], true).0, TrafficDecision::Refuse));
    for wrong in ["", "t0ken-of-this_sandbo", "t0ken-of-this_sandboxx", "T0ken-of-this_sandbox"] {
        let cookie = format!("a=1; wrenn-traffic={wrong}");
        let uri = format!("/?wrenn-traffic-token={wrong}");
        let (decision, headers) = ask(&uri, &[(HEADER, wrong), ("cookie", &cookie)], true);
        assert!(matches!(decision, TrafficDecision::Refuse), "{wrong}");
        assert_eq!(headers.get("cookie").unwrap(), "a=1");
        assert!(!headers.contains_key(HEADER));
    }
}

#[test]
fn other_cookies_stay_byte_for_byte() {
    let ours = "wrenn-traffic=t0ken-of-this_sandbox";
    for (before, after) in [
        (format!("a=1;  b=\"x y\"; {ours}"), Some("a=1;  b=\"x y\"")),
        (format!("{ours}; a=1;b=2"), Some("a=1;b=2")),
        (format!("a=1; {ours}; b=2; "), Some("a=1; b=2; ")),
        (ours.to_owned(), None),
        (format!("a=1; {ours}; xwrenn-traffic=3"), Some("a=1; xwrenn-traffic=3")),
    ] {
        let (decision, headers) = ask("/", &[("cookie", &before), ("cookie", "c=3 ")], true);
        assert!(matches!(decision, TrafficDecision::Pass { .. }), "{before}");
        let left: Vec<_> = headers.get_all("cookie").iter().collect();
        let want: Vec<_> = after.into_iter().chain(["c=3 "]).collect();
        assert_eq!(left, want, "{before}");
    }
    let (_, untouched) = ask("/", &[("cookie", ";; odd=; =x")], true);
    assert_eq!(untouched.get("cookie").unwrap(), ";; odd=; =x");
}

#[test]
fn a_query_becomes_a_cookie_and_leaves_the_url() {
    let uri = "/p%20q?x=1&wrenn-traffic-token=t0ken-of-this_sandbox&y=%26";
    let (decision, _) = ask(uri, &[], true);
    let TrafficDecision::SetCookie { location, cookie } = decision else { panic!("a cookie") };
    assert_eq!(location, "/p%20q?x=1&y=%26");
    let want = "wrenn-traffic=t0ken-of-this_sandbox; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; \
                Secure";
    assert_eq!(cookie, want);
    let (plain, _) = ask("/?wrenn-traffic-token=t0ken-of-this_sandbox", &[], false);
    let TrafficDecision::SetCookie { location, cookie } = plain else { panic!("a cookie") };
    assert_eq!(location, "/");
    assert!(!cookie.to_str().unwrap().contains("Secure"));
}

#[test]
fn the_redirect_does_not_lead_to_another_host() {
    let (decision, _) = ask("//evil.test/?wrenn-traffic-token=t0ken-of-this_sandbox", &[], true);
    match decision {
        TrafficDecision::SetCookie { location, .. } => assert_eq!(location, "/.//evil.test/"),
        other => panic!("expected a cookie, got {other:?}"),
    }
}

#[test]
fn a_cookie_and_a_query_together_pass_without_either() {
    let uri = "/?wrenn%2Dtraffic-token=old&z";
    let cookie = ("cookie", "wrenn-traffic=t0ken-of-this_sandbox");
    let (decision, headers) = ask(uri, &[cookie], true);
    let TrafficDecision::Pass { path_and_query } = decision else { panic!("it has the cookie") };
    assert_eq!(path_and_query.as_deref(), Some("/?z"));
    assert!(headers.is_empty());
}

#[test]
fn tokens_that_need_quoting_are_not_tokens() {
    for bad in ["", "a b", "a;b", "a&b", "a\r\nb", &"x".repeat(257)] {
        assert!(TrafficToken::new(bad).is_none(), "{bad:?}");
    }
    assert_eq!(format!("{:?}", token()), "TrafficToken(..)");
}
