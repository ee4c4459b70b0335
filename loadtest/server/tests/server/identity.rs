//! Answers are for who asked, unless they are to be mixed up.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::{
    client::{ALL, Client, Proto},
    start,
};

/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Of a million times `a` (FIPS 180-2, B.3).
const MILLION: &str = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

fn nonce(path: &str, nonce: &str) -> Request<Bytes> {
    Request::get(path).header("x-loadtest-nonce", nonce).body(Bytes::new()).unwrap()
}

async fn json(client: &mut Client, request: Request<Bytes>) -> Value {
    let answer = client.send(request).await;
    assert_eq!(answer.header("content-type"), "application/json");
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn root_is_ok_whatever_is_sent() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        for body in [Bytes::new(), Bytes::from(vec![b'a'; 100_000]), Bytes::new()] {
            let request = Request::post("/").body(body).unwrap();
            let answer = client.send(request).await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, "ok\n"), "{proto:?}");
        }
        let head = Request::builder().method(Method::HEAD).uri("/bytes?n=200000");
        let answer = client.send(head.body(Bytes::new()).unwrap()).await;
        assert_eq!((answer.header("content-length"), answer.text()), ("200000", ""), "{proto:?}");
    }
}

#[tokio::test]
async fn echoes_have_nonce_length_and_digest() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        let echo = json(&mut client, nonce("/echo", "n-1")).await;
        assert_eq!(echo, json!({ "nonce": "n-1", "body_bytes": 0, "sha256": EMPTY }), "{proto:?}");
        let request = Request::put("/echo").body(vec![b'a'; 1_000_000].into()).unwrap();
        let echo = json(&mut client, request).await;
        let expected = json!({ "nonce": null, "body_bytes": 1_000_000, "sha256": MILLION });
        assert_eq!(echo, expected, "{proto:?}");
    }
}

#[tokio::test]
async fn every_so_manyth_has_the_nonce_of_an_earlier_one() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        for at in 0..6 {
            let own = format!("{proto:?}-{at}");
            let echo = json(&mut client, nonce("/mixup?every=3", &own)).await;
            let expected = if at % 3 == 2 { format!("{proto:?}-{}", at - 1) } else { own };
            assert_eq!(echo["nonce"], expected);
        }
    }
}

#[tokio::test]
async fn sandboxes_are_new_unless_they_are_to_be_reused() {
    let server = start().await;
    let mut seen = BTreeSet::new();
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        for _ in 0..40 {
            let answer = client.send(nonce("/sandbox", "mine")).await;
            let id = answer.header("x-wrenn-sandbox").to_owned();
            assert!(id.starts_with("sb_") && seen.insert(id.clone()), "{proto:?}: {id}");
            assert!(answer.text().contains("\"nonce\":\"mine\""), "{answer:?}");
            let timing = answer.header("server-timing");
            assert_eq!(timing, "route;dur=0.05, lease;dur=0.02, restore;dur=100, upstream;dur=1");
        }
    }
    let mut client = Client::new(&server, Proto::ClearH1).await;
    let mut is_new = Vec::new();
    for _ in 0..6 {
        let answer = client.get("/sandbox?reuse=3").await;
        is_new.push(seen.insert(answer.header("x-wrenn-sandbox").to_owned()));
    }
    assert_eq!(is_new, [true, true, false, true, true, false]);
}
