//! The wire as E2B's clients speak it: Connect with JSON, by hand.

use std::time::Duration;

use envd_api::Start;
use serde_json::{Value, json};

use crate::fixture::TestGuest;

const PING: &str = "keepalive-ping-interval: 1\r\n";

fn envelope(message: &Value) -> String {
    let text = message.to_string();
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    // Test messages are short, so the length is a text of low bytes.
    format!("\0{}{text}", std::str::from_utf8(&length).unwrap())
}

/// All messages of a streamed answer, and the trailer.
fn messages(answer: &[u8]) -> (Vec<Value>, Value) {
    let mut rest = answer;
    let mut all = Vec::new();
    loop {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let message: Value = serde_json::from_slice(&rest[5..5 + length]).unwrap();
        if rest[0] == 2 {
            return (all, message);
        }
        all.push(message);
        rest = &rest[5 + length..];
    }
}

/// The body of an HTTP/1.1 answer in chunks.
fn dechunked(answer: &str) -> Vec<u8> {
    let (head, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    let mut body = Vec::new();
    loop {
        let (length, after) = rest.split_once("\r\n").unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&after.as_bytes()[..length]);
        rest = &after[length + 2..];
    }
}

async fn stream(
    guest: &TestGuest,
    method: &str,
    headers: &str,
    message: &Value,
) -> (Vec<Value>, Value) {
    let headers = format!(
        "content-type: application/connect+json\r\nconnect-protocol-version: 1\r\n{headers}"
    );
    let answer =
        guest.post(&format!("/process.Process/{method}"), &headers, &envelope(message)).await;
    messages(&dechunked(&answer))
}

async fn unary(guest: &TestGuest, method: &str, message: &Value) -> (String, Value) {
    let headers = "content-type: application/json\r\n";
    let answer =
        guest.post(&format!("/process.Process/{method}"), headers, &message.to_string()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn start_speaks_json_as_the_sdks_expect() {
    let guest = TestGuest::start().await;
    let start = json!({
        "process": {"cmd": "/bin/sh", "args": ["-c", "echo hi; exit 2"], "envs": {}},
        "stdin": false, "someLaterField": 1
    });
    let (events, trailer) = stream(&guest, "Start", "", &start).await;
    let pid = &events[0]["event"]["start"]["pid"];
    assert!(pid.as_u64().unwrap() > 0);
    assert_eq!(events[1], json!({"event": {"data": {"stdout": "aGkK"}}}));
    let end =
        json!({"exitCode": 2, "exited": true, "status": "exit status 2", "error": "exit status 2"});
    assert_eq!(events[2], json!({"event": {"end": end}}));
    assert_eq!((events.len(), trailer), (3, json!({})));
    // Its end can still be asked for; what it wrote is not told again.
    let (events, _) = stream(&guest, "Connect", "", &json!({"process": {"pid": pid}})).await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["event"]["end"], end);
}

#[tokio::test]
async fn good_end_leaves_out_what_is_zero() {
    let guest = TestGuest::start().await;
    let (events, _) = stream(&guest, "Start", "", &json!({"process": {"cmd": "true"}})).await;
    assert_eq!(events[1]["event"]["end"], json!({"exited": true, "status": "exit status 0"}));
}

#[tokio::test]
async fn errors_before_the_first_event_come_in_the_trailer() {
    let guest = TestGuest::start().await;
    let nobody = "authorization: Basic bm9ib2R5LWhlcmU6\r\n";
    let (events, trailer) =
        stream(&guest, "Start", nobody, &json!({"process": {"cmd": "true"}})).await;
    assert!(events.is_empty());
    assert_eq!(trailer["error"]["code"], "unauthenticated");
    assert_eq!(trailer["error"]["message"], "invalid username: 'nobody-here'");
    let pty = json!({"process": {"cmd": "true"}, "pty": {"size": {"cols": 80, "rows": 24}}});
    let (_, trailer) = stream(&guest, "Start", "", &pty).await;
    assert_eq!(trailer["error"]["code"], "unimplemented");
    let (_, trailer) = stream(&guest, "Connect", "", &json!({"process": {"pid": 1}})).await;
    assert_eq!(trailer["error"]["code"], "not_found");
}

#[tokio::test]
async fn silence_is_broken_by_keepalives() {
    let guest = TestGuest::start().await;
    let start = json!({"process": {"cmd": "sleep", "args": ["2.5"]}});
    let (events, _) = stream(&guest, "Start", PING, &start).await;
    let keepalives = events.iter().filter(|e| e["event"].get("keepalive").is_some()).count();
    assert_eq!((keepalives, events.len()), (2, 4), "{events:?}");
}

#[tokio::test]
async fn deadline_header_ends_stream_and_process() {
    let guest = TestGuest::start().await;
    let start = json!({"process": {"cmd": "sleep", "args": ["30"]}, "tag": "late"});
    let (events, trailer) = stream(&guest, "Start", "connect-timeout-ms: 300\r\n", &start).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(trailer["error"]["code"], "deadline_exceeded");
    // A moment later it is gone for the others, too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (status, body) = unary(&guest, "List", &json!({})).await;
    assert_eq!((&status[..], body), ("HTTP/1.1 200 OK", json!({})));
    let (events, _) = stream(&guest, "Connect", "", &json!({"process": {"tag": "late"}})).await;
    assert_eq!(events[1]["event"]["end"]["status"], "signal: killed");
}

#[tokio::test]
async fn unary_calls_answer_with_the_codes_of_the_contract() {
    let guest = TestGuest::start().await;
    let start = Start {
        tag: Some("cat".into()),
        stdin: envd_api::Stdin::Open,
        ..Start::new("cat", [""; 0])
    };
    let process = guest.client.start(&start).await.unwrap();
    let cat = json!({"tag": "cat"});
    let (_, listed) = unary(&guest, "List", &json!({})).await;
    assert_eq!(listed["processes"][0]["config"]["cmd"], "cat");
    assert_eq!(listed["processes"][0]["tag"], "cat");
    let cases = [
        ("SendInput", json!({"process": cat, "input": {"stdin": "aGkK"}}), "200 OK"),
        ("SendInput", json!({"process": cat, "input": {"pty": "aGkK"}}), "500"),
        ("Update", json!({"process": cat, "pty": {"size": {"cols": 1, "rows": 1}}}), "500"),
        ("SendSignal", json!({"process": cat, "signal": 2}), "501"),
        ("SendSignal", json!({"process": {"pid": 1}, "signal": "SIGNAL_SIGTERM"}), "404"),
        ("CloseStdin", json!({"process": cat}), "200 OK"),
        ("CloseStdin", json!({}), "400"),
        ("NoSuchMethod", json!({}), "404"),
    ];
    for (method, message, status) in cases {
        let (line, body) = unary(&guest, method, &message).await;
        assert!(line.starts_with(&format!("HTTP/1.1 {status}")), "{method}: {line} {body}");
        assert_eq!(body.get("code").is_none(), status == "200 OK", "{body}");
    }
    assert_eq!(process.output(100).await.unwrap().stdout, b"hi\n");
}

#[tokio::test]
async fn input_can_be_streamed_over_one_call() {
    let guest = TestGuest::start().await;
    let start = Start { stdin: envd_api::Stdin::Open, ..Start::new("cat", [""; 0]) };
    let process = guest.client.start(&start).await.unwrap();
    let body = [
        json!({"start": {"process": {"pid": process.pid()}}}),
        json!({"data": {"input": {"stdin": "b25lIA=="}}}),
        json!({"keepalive": {}}),
        json!({"data": {"input": {"stdin": "dHdv"}}}),
    ];
    let body: String = body.iter().map(envelope).collect();
    let headers = "content-type: application/connect+json\r\n";
    let answer = guest.post("/process.Process/StreamInput", headers, &body).await;
    let (replies, trailer) = messages(&dechunked(&answer));
    assert_eq!((replies, trailer), (vec![json!({})], json!({})));
    guest.client.close_stdin(process.pid()).await.unwrap();
    assert_eq!(process.output(100).await.unwrap().stdout, b"one two");
    let unnamed = envelope(&json!({"data": {"input": {"stdin": "dHdv"}}}));
    let answer = guest.post("/process.Process/StreamInput", headers, &unnamed).await;
    assert_eq!(messages(&dechunked(&answer)).1["error"]["code"], "invalid_argument");
}
