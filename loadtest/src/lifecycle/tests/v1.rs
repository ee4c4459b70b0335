//! Refusals of Wrenn's API, and a life on a running stack.

use std::{env, path::PathBuf, sync::Arc};

use edge_api::{Client, Endpoint};
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{PATIENCE, kind, life, message, nonce};
use crate::lifecycle::{Access, Life, Lives, content, dialect};

/// A server that always gives the same answer.
async fn always(status: u16, body: &'static str) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |_| async move {
                Response::builder().status(status).body(Full::new(bytes::Bytes::from(body)))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let url = format!("http://{address}").parse().unwrap();
    Client::new(Endpoint { url, connect: None, tls: None }, "key")
}

#[tokio::test]
async fn refusals_are_counted_by_status() {
    let body = r#"{"code":"rate_limited","message":"slow down","request_id":"r1"}"#;
    for (status, body, wanted, words) in [
        (429, body, "status_429", "create: rate_limited: slow down (request r1)"),
        (503, "<html>", "status_503", "was not understood"),
        (201, "<html>", "create_failed", "was not understood"),
    ] {
        let lives = Lives::new(dialect(Access::V1(always(status, body).await)));
        let outcome = lives.live(&life(), &nonce("v1")).await;
        assert_eq!(kind(&outcome), wanted);
        assert!(message(&outcome).contains(words), "{}", message(&outcome));
        let left = lives.settle(PATIENCE).await;
        // After a clear refusal nothing is looked for.
        assert_eq!(left.orphans_total, u64::from(status != 429), "{left:?}");
    }
}

#[tokio::test]
async fn no_listener_is_a_failed_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let client = Client::new(Endpoint { url, connect: None, tls: None }, "key");
    let lives = Lives::new(dialect(Access::V1(client)));
    let outcome = lives.live(&life(), &nonce("v1-nobody")).await;
    assert_eq!(kind(&outcome), "connect", "{}", message(&outcome));
    assert_eq!(lives.settle(PATIENCE).await.orphans_total, 0);
}

/// The API of a running stack.
fn running() -> Client {
    let dir = PathBuf::from(env::var_os("WRENN_DIR").expect("WRENN_DIR is set"));
    let dev: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("dev.json")).unwrap()).unwrap();
    let text = |name: &str| dev[name].as_str().unwrap().to_owned();
    let key = std::fs::read_to_string(text("key_file")).unwrap();
    let tls = loadtest_wire::trusting(text("ca_file").as_ref()).unwrap();
    let url = text("api_url").parse().unwrap();
    Client::new(Endpoint { url, connect: None, tls: Some(tls) }, &key)
}

#[tokio::test]
#[ignore = "needs a running stack: WRENN_DIR=<its directory>"]
async fn whole_life_on_a_running_stack() {
    let lives = Lives::new(dialect(Access::V1(running())));
    // A file of several pieces.
    let life = Life { file_bytes: 1_000_001, ..life() };
    let outcome = lives.live(&life, &nonce("v1-whole")).await;
    println!("{outcome:#?}");
    assert_eq!(outcome.failure, None);
    let left = lives.settle(PATIENCE).await;
    assert_eq!((left.orphans_total, left.unfinished), (0, 0), "{left:?}");
}

#[tokio::test]
#[ignore = "needs a running stack: WRENN_DIR=<its directory>"]
async fn input_and_the_kill_of_what_was_lost_on_a_running_stack() {
    let client = running();
    let api: Arc<_> = dialect(Access::V1(client.clone()));
    let nonce = nonce("v1-lost");
    let sandbox = api.create(None, &nonce, PATIENCE).await.unwrap();
    let end = api.exec(&sandbox, "cat", Some("in\0put".into())).await.unwrap();
    assert_eq!((end.code, &end.stdout[..]), (0, &b"in\0put"[..]));
    let bytes = content::file("not text", 100);
    assert_eq!(api.exec(&sandbox, "cat", Some(bytes)).await.unwrap_err().kind, "exec_failed");
    api.kill_lost(&nonce).await.unwrap();
    assert_eq!(api.kill(&sandbox).await.unwrap_err().kind, "status_404");
    let capsules = client.capsules().await.unwrap();
    assert!(capsules.iter().all(|capsule| capsule.id.to_string() != sandbox.id));
}
