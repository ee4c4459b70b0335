//! RFC 9113 8: which requests are malformed.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use crate::{
    raw::{
        Case, DATA, END_HEADERS, END_STREAM, HEADERS, PROTOCOL, Told, case, fields, frame, head,
        post, try_all,
    },
    support::{Server, report},
};

const MALFORMED: Told = Told::Stream(1, PROTOCOL);

/// A request of these fields alone.
fn plain(what: &'static str, list: &[(&str, &str)], told: Told) -> Case {
    case(what, frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(list)), told)
}

/// A good request with these fields besides.
fn with(what: &'static str, more: &[(&str, &str)], told: Told) -> Case {
    case(what, frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", more)), told)
}

#[tokio::test]
async fn fields_are_as_8_2_says() {
    let server = Server::start(report).await;
    try_all(
        &server,
        vec![
            with("8.2 a plain field", &[("x-mine", "1")], Told::Answer(1)),
            with("8.2.1 upper case", &[("X-Mine", "1")], MALFORMED),
            with("8.2.1 an empty name", &[("", "1")], MALFORMED),
            with("8.2.1 a space in a name", &[("a b", "1")], MALFORMED),
            with("8.2.1 a colon in a name", &[("a:b", "1")], MALFORMED),
            with("8.2.1 LF in a value", &[("x", "a\nb")], MALFORMED),
            with("8.2.1 CR in a value", &[("x", "a\rb")], MALFORMED),
            with("8.2.1 NUL in a value", &[("x", "a\0b")], MALFORMED),
            with("8.2.1 a value that begins with a space", &[("x", " a")], MALFORMED),
            with("8.2.1 a value that ends with a tab", &[("x", "a\t")], MALFORMED),
            with("8.2.2 connection", &[("connection", "keep-alive")], MALFORMED),
            with("8.2.2 keep-alive", &[("keep-alive", "1")], MALFORMED),
            with("8.2.2 proxy-connection", &[("proxy-connection", "close")], MALFORMED),
            with("8.2.2 transfer-encoding", &[("transfer-encoding", "chunked")], MALFORMED),
            with("8.2.2 upgrade", &[("upgrade", "h2c")], MALFORMED),
            with("8.2.2 te", &[("te", "trailers, deflate;q=0.5")], MALFORMED),
            with("8.2.2 te: trailers is fine", &[("te", "trailers")], Told::Answer(1)),
        ],
    )
    .await;
}

#[tokio::test]
async fn pseudo_fields_are_as_8_3_says() {
    let (method, scheme) = ((":method", "GET"), (":scheme", "http"));
    let (path, authority) = ((":path", "/"), (":authority", "h"));
    let server = Server::start(report).await;
    try_all(
        &server,
        vec![
            plain("8.3 all four", &[method, scheme, path, authority], Told::Answer(1)),
            plain("8.3 an unknown one", &[method, scheme, path, authority, (":x", "1")], MALFORMED),
            plain(
                "8.3 one of answers",
                &[method, scheme, path, authority, (":status", "200")],
                MALFORMED,
            ),
            plain("8.3 behind a field", &[method, scheme, authority, ("x", "1"), path], MALFORMED),
            plain("8.3.1 no :method", &[scheme, path, authority], MALFORMED),
            plain("8.3.1 no :scheme", &[method, path, authority], MALFORMED),
            plain("8.3.1 no :path", &[method, scheme, authority], MALFORMED),
            plain("8.3.1 no :path, no :authority", &[method, scheme, ("host", "h")], MALFORMED),
            plain("8.3.1 an empty :path", &[method, scheme, (":path", ""), authority], MALFORMED),
            plain(
                "8.3.1 a relative :path",
                &[method, scheme, (":path", "a"), authority],
                MALFORMED,
            ),
            plain("8.3.1 a fragment", &[method, scheme, (":path", "/a#b"), authority], MALFORMED),
            plain(
                "8.3.1 `*` but not OPTIONS",
                &[method, scheme, (":path", "*"), authority],
                MALFORMED,
            ),
            plain(
                "8.3.1 `*` of OPTIONS",
                &[(":method", "OPTIONS"), scheme, (":path", "*"), authority],
                Told::Answer(1),
            ),
            plain("8.3.1 two :methods", &[method, method, scheme, path, authority], MALFORMED),
            plain("8.3.1 two :schemes", &[method, scheme, scheme, path, authority], MALFORMED),
            plain("8.3.1 two :paths", &[method, scheme, path, path, authority], MALFORMED),
            plain(
                "8.3.1 two :authoritys",
                &[method, scheme, path, authority, authority],
                MALFORMED,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn authorities_and_connects_are_as_8_3_1_and_8_5_say() {
    let (method, scheme) = ((":method", "GET"), (":scheme", "http"));
    let (path, authority) = ((":path", "/"), (":authority", "h"));
    let server = Server::start(report).await;
    try_all(
        &server,
        vec![
            plain("8.3.1 userinfo", &[method, scheme, path, (":authority", "a@h")], MALFORMED),
            plain(
                "8.3.1 a path in :authority",
                &[method, scheme, path, (":authority", "h/x")],
                MALFORMED,
            ),
            plain("8.3.1 host alone", &[method, scheme, path, ("host", "h")], Told::Answer(1)),
            plain(
                "8.3.1 host alike",
                &[method, scheme, path, authority, ("host", "h")],
                Told::Answer(1),
            ),
            plain(
                "8.3.1 host that differs",
                &[method, scheme, path, authority, ("host", "i")],
                MALFORMED,
            ),
            plain(
                "8.3.1 two hosts",
                &[method, scheme, path, ("host", "h"), ("host", "h")],
                MALFORMED,
            ),
            plain("8.5 CONNECT", &[(":method", "CONNECT"), (":authority", "h:1")], Told::Answer(1)),
            plain("8.5 CONNECT with :path", &[(":method", "CONNECT"), authority, path], MALFORMED),
            plain(
                "8.5 CONNECT with :scheme",
                &[(":method", "CONNECT"), authority, scheme],
                MALFORMED,
            ),
            plain("8.5 CONNECT without :authority", &[(":method", "CONNECT")], MALFORMED),
            plain(
                "8441 4 :protocol without CONNECT",
                &[method, scheme, path, authority, (":protocol", "x")],
                MALFORMED,
            ),
            plain(
                "8441 4 :protocol without :path",
                &[(":method", "CONNECT"), scheme, authority, (":protocol", "x")],
                MALFORMED,
            ),
            plain(
                "8441 4 :protocol without :authority",
                &[(":method", "CONNECT"), scheme, path, (":protocol", "x")],
                MALFORMED,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn messages_are_as_8_1_says() {
    let server = Server::start(report).await;
    let body = |flags, data: &str| frame(DATA, flags, 1, data.as_bytes());
    let trailers =
        |list: &[(&str, &str)], flags| frame(HEADERS, END_HEADERS | flags, 1, &fields(list));
    try_all(
        &server,
        vec![
            case(
                "8.1 trailers",
                [post(1), body(0, "x"), trailers(&[("x", "1")], END_STREAM)].concat(),
                Told::Answer(1),
            ),
            case(
                "8.1 a second head without END_STREAM",
                [post(1), body(0, "x"), trailers(&[("x", "1")], 0)].concat(),
                MALFORMED,
            ),
            case(
                "8.1 a pseudo-field in trailers",
                [post(1), body(0, "x"), trailers(&[(":method", "GET")], END_STREAM)].concat(),
                MALFORMED,
            ),
            case(
                "8.1 upper case in trailers",
                [post(1), body(0, "x"), trailers(&[("X", "1")], END_STREAM)].concat(),
                MALFORMED,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn lengths_are_as_8_1_1_says() {
    let server = Server::start(report).await;
    let open =
        |length| frame(HEADERS, END_HEADERS, 1, &head("POST", &[("content-length", length)]));
    let body = |flags, data: &str| frame(DATA, flags, 1, data.as_bytes());
    try_all(
        &server,
        vec![
            case(
                "8.1.1 a right content-length",
                [open("2"), body(0, "x"), body(END_STREAM, "y")].concat(),
                Told::Answer(1),
            ),
            case(
                "8.1.1 content-length too large",
                [open("5"), body(END_STREAM, "four")].concat(),
                MALFORMED,
            ),
            case(
                "8.1.1 content-length too small",
                [open("3"), body(END_STREAM, "four")].concat(),
                MALFORMED,
            ),
            case(
                "8.1.1 too small, of many frames",
                [open("3"), body(0, "tw"), body(END_STREAM, "tw")].concat(),
                MALFORMED,
            ),
            case(
                "8.1.1 content-length of nothing",
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    &head("POST", &[("content-length", "5")]),
                ),
                MALFORMED,
            ),
            case("8.1.1 no number", [open("five"), body(END_STREAM, "12345")].concat(), MALFORMED),
            case("8.1.1 a sign", [open("+5"), body(END_STREAM, "12345")].concat(), MALFORMED),
            case(
                "8.1.1 two that differ",
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &head("POST", &[("content-length", "5"), ("content-length", "6")]),
                ),
                MALFORMED,
            ),
        ],
    )
    .await;
}
