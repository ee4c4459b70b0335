//! What pseudo-header fields may say (RFC 9114 4.3, 4.4; RFC 9220).

use super::*;

#[test]
fn each_pseudo_header_field_is_given_once() {
    for name in [":method", ":scheme", ":authority", ":path"] {
        let value = GET.iter().find(|field| field.0 == name).unwrap().1;
        refused(request(&[&GET[..], &[(name, value)]].concat()), "twice");
        refused(request(&[&GET[..], &[(name, "/evil")]].concat()), "twice");
    }
    refused(request(&[&WEBSOCKET[..], &[(":protocol", "websocket")]].concat()), "twice");
}

#[test]
fn pseudo_header_fields_come_first() {
    refused(request(&[("accept", "*/*"), GET[0], GET[1], GET[2], GET[3]]), "after a header field");
    refused(request(&[GET[0], GET[1], GET[2], ("accept", "*/*"), GET[3]]), "after a header field");
    request(&[GET[3], GET[2], GET[1], GET[0], ("accept", "*/*")]).unwrap();
}

#[test]
fn unknown_pseudo_header_fields_and_those_of_responses_are_refused() {
    refused(request(&[&GET[..], &[(":status", "200")]].concat()), "`:status`");
    for name in [":unknown", ":", ":Path", ":path "] {
        refused(request(&[&GET[..], &[(name, "x")]].concat()), "unknown pseudo-header");
    }
}

#[test]
fn method_scheme_and_path_are_needed_and_not_empty() {
    refused(request(&but(&GET, ":method", None)), "`:method` is missing");
    refused(request(&but(&GET, ":scheme", None)), "`:scheme` is missing");
    refused(request(&but(&GET, ":path", None)), "`:path` is missing");
    refused(request(&but(&GET, ":method", Some(""))), "`:method`");
    refused(request(&but(&GET, ":scheme", Some(""))), "`:scheme`");
    refused(request(&but(&GET, ":path", Some(""))), "`:path`");
}

#[test]
fn methods_are_tokens_and_schemes_are_schemes() {
    for method in ["GE T", "GET\r\n", "G\0T", "(GET)"] {
        refused(request(&but(&GET, ":method", Some(method))), "`:method`");
    }
    assert_eq!(request(&but(&GET, ":method", Some("PURGE"))).unwrap().parts.method, "PURGE");
    for scheme in ["ht tp", "https:", "https://a", "1a", "\u{e4}"] {
        refused(request(&but(&GET, ":scheme", Some(scheme))), "`:scheme`");
    }
    let upper = request(&but(&GET, ":scheme", Some("HTTPS"))).unwrap();
    assert_eq!(upper.parts.uri.scheme_str(), Some("https"));
    let http = request(&but(&GET, ":scheme", Some("http"))).unwrap();
    assert_eq!(http.parts.uri, "http://a.test/x?y");
}

#[test]
fn paths_begin_with_a_slash_or_are_an_asterisk_for_options() {
    for path in ["x", "?y", "https://b.test/", "*"] {
        refused(request(&but(&GET, ":path", Some(path))), "slash");
    }
    for path in ["/a b", "/a\r\nx: y", "/a\0", "/a#b", "/\u{e4}", "/a\t", "/\u{7f}"] {
        refused(request(&but(&GET, ":path", Some(path))), "illegal byte");
    }
    let options = but(&GET, ":method", Some("OPTIONS"));
    let asterisk = request(&but(&options, ":path", Some("*"))).unwrap();
    assert_eq!(asterisk.parts.uri.path(), "*");
    refused(request(&but(&options, ":path", Some("*/"))), "slash");
    for path in ["//a", "/", "/a%20b?c=d&e=%00", "/?", "/a{b}|c"] {
        let head = request(&but(&GET, ":path", Some(path))).unwrap();
        assert_eq!(head.parts.uri.path_and_query().unwrap(), path);
    }
}

#[test]
fn authority_and_host_name_one_host() {
    get_with(&[("host", "a.test")]).unwrap();
    get_with(&[("host", "A.test")]).unwrap();
    refused(get_with(&[("host", "b.test")]), "differs");
    refused(get_with(&[("host", "a.test:443")]), "differs");
    refused(get_with(&[("host", "a.test"), ("host", "a.test")]), "`host` twice");
    let none = but(&GET, ":authority", None);
    refused(request(&none), "neither");
    let host = [&none[..], &[("host", "b.test:8443")]].concat();
    assert_eq!(request(&host).unwrap().parts.uri, "https://b.test:8443/x?y");
    let userinfo = [&none[..], &[("host", "u@b.test")]].concat();
    refused(request(&userinfo), "userinfo");
}

#[test]
fn authorities_are_a_host_with_perhaps_a_port() {
    for bad in [
        "",
        ":443",
        "a.test:",
        "a.test:x",
        "a.test:65536",
        "a.test:+1",
        "a.test:1:2",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[x]",
        "[]",
        ":1[::1]:4",
        "a[::1]",
        "a]:1",
        "a test",
        "a.test/x",
        "a.test?x",
        "a.test#x",
        "a\0",
        "\u{e4}.test",
        "a.test,b.test",
    ] {
        let result = request(&but(&GET, ":authority", Some(bad)));
        // A comma is allowed in a registered name (RFC 3986 3.2.2): no host of ours has one.
        if bad.contains(',') {
            result.unwrap();
        } else {
            refused(result, "the authority");
        }
    }
    for user in ["user@a.test", "user:pass@a.test", "@a.test"] {
        refused(request(&but(&GET, ":authority", Some(user))), "userinfo");
    }
    for good in ["a.test:443", "127.0.0.1:0", "[::1]", "[::1]:65535", "xn--4ca.test"] {
        let head = request(&but(&GET, ":authority", Some(good))).unwrap();
        assert_eq!(head.parts.uri.authority().unwrap(), good);
    }
}

#[test]
fn connect_has_a_host_with_a_port_and_nothing_else() {
    let head = request(&CONNECT).unwrap();
    assert!(head.is_connect());
    assert_eq!(head.parts.uri, "a.test:443");
    assert!(head.parts.extensions.get::<Protocol>().is_none());
    refused(request(&[&CONNECT[..], &[(":scheme", "https")]].concat()), "CONNECT with");
    refused(request(&[&CONNECT[..], &[(":path", "/")]].concat()), "CONNECT with");
    refused(request(&but(&CONNECT, ":authority", None)), "CONNECT without");
    refused(request(&[CONNECT[0], ("host", "a.test:443")]), "CONNECT without");
    refused(request(&but(&CONNECT, ":authority", Some("a.test"))), "CONNECT without a port");
    refused(request(&[&CONNECT[..], &[("host", "b.test:443")]].concat()), "differs");
    refused(request(&[&CONNECT[..], &[("content-length", "0")]].concat()), "content-length");
}

#[test]
fn extended_connect_has_a_whole_target() {
    let head = request(&WEBSOCKET).unwrap();
    assert!(head.is_connect());
    assert_eq!(head.parts.uri, "https://a.test/chat");
    assert_eq!(head.parts.extensions.get::<Protocol>().unwrap().as_str(), "websocket");
    for name in [":scheme", ":path"] {
        refused(request(&but(&WEBSOCKET, name, None)), "is missing");
    }
    let host = [&but(&WEBSOCKET, ":authority", None)[..], &[("host", "a.test")]].concat();
    refused(request(&host), "without `:authority`");
    for protocol in ["", "web socket", "a/b", "web\0"] {
        refused(request(&but(&WEBSOCKET, ":protocol", Some(protocol))), "no token");
    }
    let get = [&GET[..], &[(":protocol", "websocket")]].concat();
    refused(request(&get), "`:protocol` without CONNECT");
}
