//! The commands against a server that stands in for the edge.

mod support;

use pool_model::SandboxId;
use serde_json::json;
use support::{Fake, Seen, json as answer, wrenn};

fn function(name: &str) -> serde_json::Value {
    json!({
        "id": format!("fn_{}", "0".repeat(25)), "name": name, "version": 3,
        "template": format!("tpl_{}", "0".repeat(25)),
        "snapshot": format!("snap_{}", "1".repeat(25)),
        "port": 8000, "start": "python3 main.py", "ready_path": "/", "timeout_ms": 30000,
        "created_at": "2026-11-22T10:00:00Z", "updated_at": "2026-11-22T10:00:00Z",
        "url": format!("https://{name}.fn.wrenn.localhost:8443"),
        "pool": { "min_warm": 1, "max_warm": 8, "idle_ttl_ms": 600_000 },
    })
}

fn capsule(state: &str) -> serde_json::Value {
    json!({
        "id": SandboxId::from_u128(7), "state": state,
        "template": format!("tpl_{}", "0".repeat(25)),
        "created_at": "2026-11-22T10:00:00Z", "expires_at": "2026-11-22T11:00:00Z",
        "on_timeout": "kill", "internet": true, "metadata": {}, "generation": 4,
        "memory_mib": 256, "url_pattern": "https://{port}-x.wrenn.localhost:8443",
    })
}

#[tokio::test]
async fn listing_is_a_table_for_people_and_an_array_for_programs() {
    let fake = Fake::start(|_| answer(200, json!({ "items": [function("hello")] }))).await;
    let table = fake.wrenn(&["function", "ls"]).await;
    assert_eq!(table.code, 0, "{table:?}");
    assert!(table.stdout.starts_with("FUNCTION"), "{table:?}");
    assert!(table.stdout.contains("1..8"), "{table:?}");
    let listed = fake.wrenn(&["--json", "function", "ls"]).await.json();
    assert_eq!(listed[0]["name"], "hello");
    let seen = &fake.seen()[0];
    assert_eq!(seen.path, "/v1/functions");
    assert_eq!(seen.headers["x-api-key"], "wr_secret");
}

#[tokio::test]
async fn ls_shows_functions_and_sandboxes() {
    let fake = Fake::start(|request: &Seen| match request.path.as_str() {
        "/v1/functions" => answer(200, json!({ "items": [function("hello")] })),
        _ => answer(200, json!({ "items": [capsule("paused")] })),
    })
    .await;
    let both = fake.wrenn(&["ls", "--json"]).await.json();
    assert_eq!(both["functions"][0]["version"], 3);
    assert_eq!(both["sandboxes"][0]["state"], "paused");
    let text = fake.wrenn(&["ls"]).await.stdout;
    assert!(text.contains("hello") && text.contains("paused"), "{text}");
}

#[tokio::test]
async fn refusal_is_told_with_code_and_request_id_and_ends_with_status_one() {
    let refused = json!({
        "code": "function_not_found", "message": "no function `nope`", "request_id": "req_42",
    });
    let fake = Fake::start(move |_| answer(404, &refused)).await;
    let ran = fake.wrenn(&["function", "get", "nope"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("function_not_found: no function `nope`"), "{ran:?}");
    assert!(ran.stderr.contains("req_42"), "{ran:?}");
    let ran = fake.wrenn(&["--json", "pool", "get", "nope"]).await;
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["code"], "function_not_found");
    assert_eq!(error["request_id"], "req_42");
}

#[tokio::test]
async fn exec_passes_output_and_status_on() {
    let events = [
        json!({ "type": "start", "pid": 9 }),
        json!({ "type": "stdout", "data": "one\n" }),
        json!({ "type": "stderr", "data": "oops" }),
        json!({ "type": "stdout", "data": "dHdvCg==", "encoding": "base64" }),
        json!({ "type": "exit", "code": 7 }),
    ];
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    let fake = Fake::start(move |_| answer(200, &lines)).await;
    let id = SandboxId::from_u128(7).to_string();
    let ran = fake.wrenn(&["sandbox", "exec", &id, "--user", "root", "--", "ls", "-l"]).await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (7, "one\ntwo\n", "oops"));
    let sent: serde_json::Value = serde_json::from_slice(&fake.seen()[0].body).unwrap();
    assert_eq!(sent["args"], json!(["ls", "-l"]));
    assert_eq!(sent["user"], "root");
    let ran = fake.wrenn(&["--json", "sandbox", "exec", &id, "-c", "ls | wc"]).await;
    assert_eq!((ran.code, ran.stdout.lines().count()), (7, 5), "{ran:?}");
}

#[tokio::test]
async fn exec_that_cannot_run_is_told_apart_from_one_that_fails() {
    let event = json!({ "type": "error", "code": "sandbox_gone", "message": "it died" });
    let fake = Fake::start(move |_| answer(200, format!("{event}\n"))).await;
    let id = SandboxId::from_u128(7).to_string();
    let ran = fake.wrenn(&["sandbox", "exec", &id, "true"]).await;
    assert_eq!(ran.code, 125);
    assert!(ran.stderr.contains("sandbox_gone: it died"), "{ran:?}");
}

#[tokio::test]
async fn sandbox_is_created_as_asked_and_its_url_printed() {
    let fake = Fake::start(|_| answer(200, capsule("running"))).await;
    let args = ["sandbox", "create", "--timeout-s=60", "--no-internet", "--env=A=b=c"];
    let created = fake.wrenn(&args).await;
    let id = SandboxId::from_u128(7).to_string();
    assert_eq!(created.stdout.trim(), id);
    let sent: serde_json::Value = serde_json::from_slice(&fake.seen()[0].body).unwrap();
    assert_eq!((&sent["timeout_s"], &sent["internet"]), (&json!(60), &json!(false)));
    assert_eq!(sent["env"]["A"], "b=c");
    let url = fake.wrenn(&["sandbox", "url", &id, "8000"]).await;
    assert_eq!(url.stdout.trim(), "https://8000-x.wrenn.localhost:8443");
}

#[tokio::test]
async fn pool_set_sends_only_what_was_given() {
    let pool = json!({ "function": "hello", "min_warm": 2, "max_warm": 8, "idle_ttl_ms": 1000 });
    let fake = Fake::start(move |_| answer(200, &pool)).await;
    let set = fake.wrenn(&["--json", "pool", "set", "hello", "--min-warm", "2"]).await;
    assert_eq!(set.json()["min_warm"], 2);
    let seen = &fake.seen()[0];
    assert_eq!((seen.method.as_str(), &seen.body[..]), ("PATCH", &br#"{"min_warm":2}"#[..]));
    assert_eq!(fake.wrenn(&["pool", "set", "hello"]).await.code, 64);
}

#[tokio::test]
async fn deploy_sends_config_and_code() {
    let fake = Fake::start(|_| answer(201, function("hi"))).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("main.py"), "print(1)").unwrap();
    std::fs::write(dir.path().join("wrenn.toml"), "name='hello'\nstart='python3 main.py'").unwrap();
    let code = dir.path().to_str().unwrap();
    let ran = fake.wrenn(&["deploy", code, "--name", "hi", "--min-warm=2"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("hi version 3"), "{ran:?}");
    assert!(ran.stderr.contains("packing") && ran.stderr.contains("deploying hi"), "{ran:?}");
    let body = fake.seen()[0].body.clone();
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains(r#""name":"hi""#) && text.contains(r#""min_warm":2"#), "{text}");
    assert!(body.windows(3).any(|bytes| bytes == b"\x1f\x8b\x08"), "a gzip is in it");
}

#[tokio::test]
async fn invoke_speaks_all_three_protocols() {
    let fake = Fake::start(|request: &Seen| {
        http::Response::builder()
            .status(200)
            .header("x-wrenn-sandbox", "sb_1")
            .header("server-timing", "lease;dur=0.1")
            .body(format!("{} {}", request.method, request.path).into())
            .unwrap()
    })
    .await;
    for version in ["1.1", "2", "3"] {
        let args = ["invoke", "hello", "--http", version, "--path", "/a?b=1", "--data", "xyz"];
        let ran = fake.wrenn(&[&args[..], &["--header", "x-one: 1", "--json"]].concat()).await;
        assert_eq!(ran.code, 0, "{version}: {ran:?}");
        let got = ran.json();
        assert_eq!((&got["http"], &got["body"]), (&json!(version), &json!("POST /a?b=1")));
        assert_eq!(got["sandbox"], "sb_1");
        let seen = fake.seen().pop().unwrap();
        assert_eq!(seen.host, format!("hello.fn.wrenn.localhost:{}", fake.port), "{version}");
        assert_eq!((&seen.body[..], &seen.headers["x-one"]), (&b"xyz"[..], &"1".parse().unwrap()));
        assert!(!seen.headers.contains_key("x-api-key"), "the key is the API's only");
    }
}

#[tokio::test]
async fn invoke_repeats_and_reports_failures_by_its_status() {
    let fake = Fake::start(|_| answer(503, "{}")).await;
    for version in ["1.1", "2", "3"] {
        let args = ["--json", "invoke", "hello", "--repeat=3", "--http", version];
        let ran = fake.wrenn(&args).await;
        assert_eq!((ran.code, ran.stdout.lines().count()), (1, 3), "{ran:?}");
    }
    assert_eq!(fake.seen().len(), 9);
}

#[tokio::test]
async fn bad_arguments_end_with_status_sixty_four() {
    for args in [&["frobnicate"][..], &["sandbox", "get", "sb_x"], &["invoke", "Not-A-Name"]] {
        assert_eq!(wrenn(args).await.code, 64, "{args:?}");
    }
    assert_eq!(wrenn(&["--help"]).await.code, 0);
    let lost = wrenn(&["--api-url", "https://api.example.test", "ls"]).await;
    assert_eq!(lost.code, 64, "no key was given: {lost:?}");
}
