//! Which fields may be in a head or in trailers (RFC 9114 4.2, 10.3).

use super::*;

fn get_with_bytes(name: &[u8], value: &[u8]) -> Result<RequestHead, HeadError> {
    let mut fields: Vec<_> = GET.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    fields.push((name, value));
    decode_request(section_of_bytes(&fields), &Limits::default())
}

fn trailers(fields: &[Pair<'_>]) -> Result<HeaderMap, HeadError> {
    decode_trailers(section(fields), &Limits::default())
}

#[test]
fn names_are_tokens_in_lower_case() {
    for name in ["Accept", "X-Id", "accepT"] {
        refused(get_with(&[(name, "1")]), "upper case");
    }
    for name in ["", "a b", "a:", "a\r\nb", "a\0", "\u{e4}", "a\t", "(a)", "a\u{7f}"] {
        refused(get_with(&[(name, "1")]), "an illegal name");
    }
    assert_eq!(get_with(&[("x_1.!#$%&'*+-^`|~", "1")]).unwrap().parts.headers.len(), 1);
}

#[test]
fn values_have_no_control_bytes_and_no_space_around_them() {
    for value in ["a\rb", "a\nb", "a\0b", "a\r\nx: y", "\u{7f}", "\u{1}", "a\u{1b}"] {
        refused(get_with(&[("x-a", value)]), "an illegal value");
    }
    for value in [" a", "a ", "\ta", "a\t", " "] {
        refused(get_with(&[("x-a", value)]), "white space");
    }
    for value in [&b""[..], b"a", b"a b\tc", b"\xe4\xff"] {
        assert_eq!(get_with_bytes(b"x-a", value).unwrap().parts.headers["x-a"].as_bytes(), value);
    }
}

#[test]
fn connection_specific_fields_are_refused() {
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        for value in ["", "close", "chunked"] {
            refused(get_with(&[(name, value)]), "connection-specific");
            refused(trailers(&[(name, value)]), "connection-specific");
        }
    }
    for name in ["connectiox", "keep-alivf", "proxy-connectioo", "transfer-encodinh", "upgradf"] {
        get_with(&[(name, "1")]).unwrap();
    }
}

#[test]
fn te_is_nothing_but_trailers() {
    assert_eq!(get_with(&[("te", "trailers")]).unwrap().parts.headers["te"], "trailers");
    for value in ["gzip", "", "trailers, gzip", "trailers;q=1"] {
        refused(get_with(&[("te", value)]), "te");
    }
}

#[test]
fn a_content_length_is_one_number() {
    for (value, length) in [("0", 0), ("0012", 12), ("18446744073709551615", u64::MAX)] {
        assert_eq!(get_with(&[("content-length", value)]).unwrap().content_length, Some(length));
    }
    for value in ["", "+1", "-1", "1.0", "0x1", "1, 1", "1 1", "18446744073709551616", "\u{660}"] {
        refused(get_with(&[("content-length", value)]), "no number");
    }
    let twice = get_with(&[("content-length", "5"), ("content-length", "5")]).unwrap();
    assert_eq!(twice.content_length, Some(5));
    assert_eq!(twice.parts.headers.get_all("content-length").iter().count(), 1);
    refused(get_with(&[("content-length", "5"), ("content-length", "6")]), "differ");
}

#[test]
fn crumbs_of_cookies_are_joined() {
    let one = get_with(&[("cookie", "a=1")]).unwrap();
    assert_eq!(one.parts.headers["cookie"], "a=1");
    let three = get_with(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]);
    let headers = three.unwrap().parts.headers;
    assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    assert_eq!(headers.len(), 2);
    for crumbs in [["", "a=1", ""], ["a=1", "", ""], ["", "", "a=1"]] {
        let headers = get_with(&crumbs.map(|crumb| ("cookie", crumb))).unwrap().parts.headers;
        assert_eq!(headers["cookie"], "a=1", "{crumbs:?}");
    }
    assert_eq!(get_with(&[("cookie", ""), ("cookie", "")]).unwrap().parts.headers["cookie"], "");
}

#[test]
fn other_fields_given_twice_stay_apart_and_in_order() {
    let headers = get_with(&[("x", "1"), ("y", ""), ("x", "2")]).unwrap().parts.headers;
    assert_eq!(headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn secrets_stay_marked() {
    let mut out = BytesMut::from(&section(&GET)[..]);
    write_field(b"authorization", b"basic 1", true, &mut out);
    write_field(b"cookie", b"a=1", true, &mut out);
    write_field(b"cookie", b"b=2", false, &mut out);
    let headers = decode_request(out.freeze(), &Limits::default()).unwrap().parts.headers;
    assert!(headers["authorization"].is_sensitive());
    assert!(headers["cookie"].is_sensitive());
}

#[test]
fn trailers_have_fields_only_and_none_of_the_heads() {
    let fields = trailers(&[("grpc-status", "0"), ("x", "1"), ("x", "2")]).unwrap();
    assert_eq!((fields.len(), &fields["grpc-status"]), (3, &"0".parse().unwrap()));
    assert!(trailers(&[]).unwrap().is_empty());
    for name in [":path", ":status", ":x"] {
        refused(trailers(&[(name, "/")]), "pseudo-header");
    }
    refused(trailers(&[("Grpc-Status", "0")]), "upper case");
    refused(trailers(&[("x", "a\nb")]), "an illegal value");
    refused(trailers(&[("content-length", "1")]), "belongs into the head");
    refused(trailers(&[("host", "a.test")]), "belongs into the head");
}
