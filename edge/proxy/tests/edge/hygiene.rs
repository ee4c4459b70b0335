//! What crosses the edge is what should: forged fields don't, loops end, hosts are the right ones.

use http::{HeaderName, HeaderValue, Request, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use edge_proxy::{Body, ProxyProtocol};

use crate::{
    client::{ALL, Client, ENCRYPTED, Proto, code, get, seen, text},
    raw,
    stack::{Setup, Stack, function, sandbox},
};

fn with(mut request: Request<Body>, fields: &[(&'static str, &str)]) -> Request<Body> {
    for (name, value) in fields {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().append(HeaderName::from_static(name), value);
    }
    request
}

const SPOOFED: [(&str, &str); 7] = [
    ("x-forwarded-for", "203.0.113.9"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "evil.test"),
    ("x-forwarded-prefix", "/evil"),
    ("x-real-ip", "203.0.113.9"),
    ("forwarded", "for=203.0.113.9"),
    ("x-forwarded-user", "root"),
];

#[tokio::test]
async fn strangers_say_nothing_about_where_they_come_from() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let asked = with(get(&function("hello"), "/seen"), &SPOOFED[..6]);
        let headers = seen(&mut client, asked).await["headers"].clone();
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1", "{proto:?}");
        assert_eq!(headers["x-real-ip"], "127.0.0.1");
        assert_eq!(headers["x-forwarded-host"], function("hello"));
        let scheme = if proto == Proto::Plain { "http" } else { "https" };
        assert_eq!(headers["x-forwarded-proto"], scheme);
        let host = function("hello");
        let forwarded = format!("for=127.0.0.1;host=\"{host}\";proto={scheme}");
        assert_eq!(headers["forwarded"], forwarded);
        assert!(headers["x-forwarded-prefix"].is_null());
    }
}

fn trusts_loopback(setup: &mut Setup) {
    setup.trust.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    let stack = Stack::set_up(trusts_loopback).await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let asked = with(get(&function("hello"), "/seen"), &SPOOFED[..6]);
        let headers = seen(&mut client, asked).await["headers"].clone();
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 127.0.0.1", "{proto:?}");
        assert_eq!(headers["x-real-ip"], "203.0.113.9");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "evil.test");
        let forwarded = headers["forwarded"].as_str().unwrap();
        assert!(forwarded.starts_with("for=203.0.113.9, for=127.0.0.1;"), "{forwarded}");
        assert!(headers["x-forwarded-prefix"].is_null(), "that is the edge's own");
    }
}

#[tokio::test]
async fn ids_and_hop_by_hop_fields_are_the_edges_own() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let mut asked = with(
            get(&function("hello"), "/seen"),
            &[
                ("x-request-id", "forged"),
                ("x-wrenn-token", "forged"),
                ("x-wrenn-target", "sandbox/other"),
                ("wrenn-trigger", "cron/x"),
                ("via", "1.1 before"),
            ],
        );
        if matches!(proto, Proto::Plain | Proto::H1) {
            asked = with(
                asked,
                &[
                    ("connection", "keep-alive, x-once"),
                    ("x-once", "1"),
                    ("proxy-authorization", "Basic x"),
                    ("keep-alive", "5"),
                ],
            );
        }
        let response = client.send(asked).await;
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        let headers = &body["headers"];
        assert!(id.starts_with("req_"), "{id}");
        assert_eq!(headers["x-request-id"], id.as_str());
        assert_eq!(headers["x-wrenn-request-id"], id.as_str());
        for gone in ["x-once", "proxy-authorization", "keep-alive", "wrenn-trigger", "connection"] {
            assert!(headers[gone].is_null(), "{proto:?} {gone}: {body}");
        }
        assert_eq!(headers["via"], "1.1 wrenn", "the last of them: {body}");
    }
}

#[tokio::test]
async fn what_goes_in_a_circle_ends() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let around = |times: usize| vec!["1.1 wrenn"; times].join(", ");
        let asked = with(get(&function("hello"), "/seen"), &[("via", &around(15))]);
        assert_eq!(client.send(asked).await.status(), 200, "{proto:?}");
        let asked = with(get(&function("hello"), "/seen"), &[("via", &around(16))]);
        let answer = code(client.send(asked).await).await;
        assert_eq!(answer, (508, "loop_detected".to_owned()), "{proto:?}");
    }
}

#[tokio::test]
async fn another_host_than_the_connections_is_misdirected() {
    let stack = Stack::set_up(|setup| setup.trust.strict_sni = true).await;
    for proto in ENCRYPTED {
        let mut client = Client::new(&stack, proto).await;
        for good in [function("hello"), function("HELLO") + ":8443"] {
            let answer = client.send(get(&good, "/seen")).await;
            assert_eq!(answer.status(), 200, "{proto:?} {good}");
            text(answer).await;
        }
        for bad in [function("spread"), "api.wrenn.localhost".to_owned(), sandbox(80)] {
            let answer = code(client.send(get(&bad, "/seen")).await).await;
            assert_eq!(answer, (421, "misdirected_request".to_owned()), "{proto:?} {bad}");
        }
        assert_eq!(client.send(get(&function("hello"), "/seen")).await.status(), 200);
    }
    let mut plain = Client::new(&stack, Proto::Plain).await;
    assert_eq!(plain.send(get(&function("hello"), "/seen")).await.status(), 200);
}

async fn location(client: &mut Client, host: &str, path: &str, to: &str) -> String {
    let response = client.send(with(get(host, path), &[("x-to", to)])).await;
    assert_eq!(response.status(), 302, "{host}{path} to {to}");
    response.headers()[header::LOCATION].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn redirects_to_a_guests_own_address_lead_back_through_the_edge() {
    let stack = Stack::start().await;
    for proto in ALL {
        let scheme = if proto == Proto::Plain { "http" } else { "https" };
        let mut client = Client::new(&stack, proto).await;
        let hello = function("hello") + ":8443";
        for own in ["http://localhost/x?y", "http://127.0.0.1:8080/x?y", "http://[::1]:1/x?y"] {
            let to = location(&mut client, &hello, "/redirect", own).await;
            assert_eq!(to, format!("{scheme}://{hello}/x?y"), "{proto:?} {own}");
        }
        for stays in ["/x", "https://example.org/x", "x/y"] {
            assert_eq!(location(&mut client, &hello, "/redirect", stays).await, stays);
        }
        let port = sandbox(8000) + ":8443";
        let to = location(&mut client, &port, "/redirect", "http://localhost:9000/x").await;
        assert_eq!(to, format!("{scheme}://{}:8443/x", sandbox(9000)), "{proto:?}");
        let to = location(&mut client, &port, "/redirect", "http://localhost:8000/x").await;
        assert_eq!(to, format!("{scheme}://{port}/x"), "{proto:?}");
        let root = "wrenn.localhost";
        let to = location(&mut client, root, "/fn/hello/redirect", "/x").await;
        assert_eq!(to, "/fn/hello/x", "{proto:?}");
        let to = location(&mut client, root, "/fn/hello/redirect", "http://localhost/x").await;
        assert_eq!(to, format!("{scheme}://{root}/fn/hello/x"), "{proto:?}");
    }
}

#[tokio::test]
async fn cookies_stay_apart_outwards_and_come_together_inwards() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let response = client.send(get(&function("hello"), "/cookies")).await;
        let cookies: Vec<_> = response.headers().get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; Path=/", "b=2; Path=/"], "{proto:?}");
        text(response).await;
        let asked = with(get(&function("hello"), "/seen"), &[("cookie", "a=1"), ("cookie", "b=2")]);
        assert_eq!(seen(&mut client, asked).await["headers"]["cookie"], "a=1; b=2", "{proto:?}");
    }
}

#[tokio::test]
async fn strict_transport_is_said_over_tls_only() {
    let stack = Stack::set_up(|setup| setup.trust.hsts_max_age_s = 600).await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let response = client.send(get(&function("hello"), "/seen")).await;
        let said = response.headers().get(header::STRICT_TRANSPORT_SECURITY);
        let expected = (proto != Proto::Plain).then_some("max-age=600; includeSubDomains");
        assert_eq!(said.map(|said| said.to_str().unwrap()), expected, "{proto:?}");
    }
}

#[tokio::test]
async fn quic_is_announced_at_its_public_port() {
    let stack = Stack::set_up(|setup| setup.trust.quic_public_port = Some(443)).await;
    let mut client = Client::new(&stack, Proto::H2).await;
    let response = client.send(get(&function("hello"), "/seen")).await;
    assert_eq!(response.headers()["alt-svc"], "h3=\":443\"; ma=86400");
}

#[tokio::test]
async fn plain_http_leads_to_https() {
    for (port, to) in [(443, ""), (8443, ":8443")] {
        let stack = Stack::set_up(|setup| setup.trust.redirect_to_https = Some(port)).await;
        let mut client = Client::new(&stack, Proto::Plain).await;
        for path in ["/seen?a=b", "/.well-known/acme-challenge/unknown"] {
            let response = client.send(get(&(function("hello") + ":80"), path)).await;
            assert_eq!(response.status(), 308);
            let location = response.headers()["location"].to_str().unwrap();
            assert_eq!(location, format!("https://{}{to}{path}", function("hello")));
        }
        let mut client = Client::new(&stack, Proto::H2).await;
        assert_eq!(client.send(get(&function("hello"), "/seen")).await.status(), 200);
    }
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.2 5000 443\r\n";
const V2: &[u8] = &[
    b'\r', b'\n', b'\r', b'\n', 0, b'\r', b'\n', b'Q', b'U', b'I', b'T', b'\n', 0x21, 0x11, 0, 12,
    192, 0, 2, 7, 192, 0, 2, 2, 0x13, 0x88, 1, 187,
];

/// What a plain connection that begins with `header` is answered.
async fn behind(stack: &Stack, header: &[u8]) -> String {
    let host = function("hello");
    let request = format!("GET /seen HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    raw::exchange(stack.http, &[header, request.as_bytes()].concat()).await
}

#[tokio::test]
async fn proxy_headers_are_believed_of_the_trusted_only() {
    let says = |proxy_protocol, trusted| {
        Stack::set_up(move |setup| {
            setup.trust.proxy_protocol = proxy_protocol;
            if trusted {
                trusts_loopback(setup);
            }
        })
    };
    let client = "\"x-real-ip\":\"192.0.2.7\"";
    for mode in [ProxyProtocol::Trusted, ProxyProtocol::Required] {
        let stack = says(mode, true).await;
        for header in [V1, V2] {
            let answer = behind(&stack, header).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(client), "{answer}");
        }
        assert_eq!(behind(&stack, b"").await, "", "{mode:?}: without one it is closed");
    }
    let off = says(ProxyProtocol::Off, true).await;
    assert!(behind(&off, V1).await.starts_with("HTTP/1.1 400 "));
    let stranger = says(ProxyProtocol::Trusted, false).await;
    let answer = behind(&stranger, b"").await;
    assert!(answer.contains("\"x-real-ip\":\"127.0.0.1\""), "{answer}");
    assert!(behind(&stranger, V1).await.starts_with("HTTP/1.1 400 "), "a stranger's is no header");
    let required = says(ProxyProtocol::Required, false).await;
    assert_eq!(behind(&required, V1).await, "", "strangers are closed");
}

#[tokio::test]
async fn a_proxy_header_comes_before_the_tls_handshake() {
    let stack = Stack::set_up(|setup| {
        setup.trust.proxy_protocol = ProxyProtocol::Required;
        trusts_loopback(setup);
    })
    .await;
    let mut stream = TcpStream::connect(stack.https).await.unwrap();
    stream.write_all(V2).await.unwrap();
    let mut stream = crate::client::tls_over(&stack, stream, b"http/1.1").await;
    let host = function("hello");
    let request = format!("GET /seen HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\"x-real-ip\":\"192.0.2.7\""), "{answer}");
}
