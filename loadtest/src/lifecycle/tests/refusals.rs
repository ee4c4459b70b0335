//! What E2B's API may answer instead, and what no API answers.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

use super::{
    PATIENCE, kind, life, lives, message, nonce,
    plane::{Call, Flaw, KEY, Plane},
};
use crate::lifecycle::Life;

#[tokio::test]
async fn refusals_are_counted_by_status() {
    for (call, status, body, step) in [
        (Call::Create, 429, r#"{"code":429,"message":"too many"}"#, "create"),
        (Call::Create, 503, "no capacity", "create"),
        (Call::Data, 502, r#"{"sandboxId":"x","message":"was not found","code":502}"#, "exec"),
        (Call::Pause, 409, r#"{"code":409,"message":"already paused"}"#, "pause"),
        (Call::Connect, 500, "", "resume"),
    ] {
        let plane = Plane::start(Flaw::Answers(call, status, body, u32::MAX)).await;
        let lives = lives(plane.address, KEY);
        let outcome = lives.live(&life(), &nonce("refused")).await;
        assert_eq!(kind(&outcome), format!("status_{status}"), "{call:?}");
        assert!(message(&outcome).contains(&format!("{step}: refused")), "{}", message(&outcome));
        let left = lives.settle(PATIENCE).await;
        assert_eq!((left.orphans_total, left.unfinished), (0, 0), "{left:?}");
        assert_eq!(plane.ids().await, [""; 0], "{call:?}");
    }
}

#[tokio::test]
async fn wrong_key_and_unknown_template_are_refused() {
    let plane = Plane::start(Flaw::None).await;
    let outcome = lives(plane.address, "e2b_00").live(&life(), &nonce("key")).await;
    assert_eq!(kind(&outcome), "status_401");
    assert!(message(&outcome).contains("invalid API key"), "{}", message(&outcome));
    let life = Life { template: Some("other".to_owned()), ..life() };
    let outcome = lives(plane.address, KEY).live(&life, &nonce("template")).await;
    assert_eq!(kind(&outcome), "status_404");
    assert!(message(&outcome).contains("template not found"), "{}", message(&outcome));
    assert_eq!(plane.created(), 0);
}

#[tokio::test]
async fn answers_of_another_kind_say_what_was_expected() {
    let sandbox = r#"{"templateID":"t","sandboxID":"i1","clientID":"c","envdVersion":"0.6.13"}"#;
    for (call, status, body, wanted, words) in [
        (Call::Create, 201, "<html>", "create_failed", "expected the JSON of E2B's API"),
        (Call::Create, 200, sandbox, "create_failed", "expected status [201], got 200"),
        (Call::Create, 201, r#"{"sandboxID":"../x"}"#, "create_failed", "expected the id"),
        (Call::Data, 200, "<html>", "exec_failed", "expected a stream of application/connect"),
        (Call::Pause, 200, "{}", "pause_failed", "expected status [204], got 200"),
        (Call::Connect, 200, sandbox, "resume_failed", "expected status [201], got 200"),
        (Call::Connect, 201, sandbox, "resume_failed", "got \"i1\""),
    ] {
        let plane = Plane::start(Flaw::Answers(call, status, body, u32::MAX)).await;
        let lives = lives(plane.address, KEY);
        let outcome = lives.live(&life(), &nonce("garbage")).await;
        assert_eq!(kind(&outcome), wanted, "{call:?} {body}: {}", message(&outcome));
        assert!(message(&outcome).contains(words), "{}", message(&outcome));
        assert_eq!(lives.settle(PATIENCE).await.orphans_total, 0);
        assert_eq!(plane.ids().await, [""; 0], "{call:?}");
    }
}

#[tokio::test]
async fn no_listener_is_a_failed_connect_and_leaves_nothing_to_look_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let lives = lives(address, KEY);
    let outcome = lives.live(&life(), &nonce("nobody")).await;
    assert_eq!(kind(&outcome), "connect", "{}", message(&outcome));
    assert_eq!(lives.settle(PATIENCE).await.orphans_total, 0);
}

#[tokio::test]
async fn server_that_breaks_off_leaves_a_doubt_that_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            break_off(stream).await;
        }
    });
    let lives = lives(address, KEY);
    let life = Life { timeout: Duration::from_secs(60), ..life() };
    let outcome = lives.live(&life, &nonce("broken")).await;
    assert!(outcome.failure.is_some());
    assert_ne!(kind(&outcome), "timeout", "{}", message(&outcome));
    let left = lives.settle(PATIENCE).await;
    assert_eq!(left.orphans_total, 1);
    assert!(left.orphans[0].contains(&nonce("broken")), "{left:?}");
    server.abort();
}

async fn break_off(mut stream: TcpStream) {
    // Half an answer, once it has asked.
    let _ = stream.readable().await;
    let _ = stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n{").await;
}
