//! Versions, domains and invocations against a server that stands in for the edge.

mod support;

use serde_json::{Value, json};
use support::{Fake, Seen, json as answer};

fn function(tags: &Value) -> Value {
    json!({
        "id": format!("fn_{}", "0".repeat(25)), "name": "hello", "version": 3,
        "template": format!("tpl_{}", "0".repeat(25)),
        "snapshot": format!("snap_{}", "1".repeat(25)),
        "port": 8000, "start": "./run", "ready_path": "/", "timeout_ms": 30000,
        "created_at": "2026-11-22T10:00:00Z", "updated_at": "2026-11-22T10:00:00Z",
        "url": "https://hello.fn.wrenn.localhost:8443",
        "pool": { "min_warm": 1 }, "tags": tags,
    })
}

fn canary(weight: u32) -> Value {
    let url = "https://hello--canary.fn.wrenn.localhost:8443";
    json!([{ "tag": "canary", "version": 2, "weight": weight, "url": url }])
}

fn domain(verified: bool) -> Value {
    let at = verified.then_some("2026-11-22T10:00:00Z");
    let mut domain = json!({
        "domain": "shop.example.org", "function": "hello",
        "record": { "name": "_wrenn-challenge.shop.example.org", "value": "wrenn-verify=abc" },
        "created_at": "2026-11-22T10:00:00Z",
    });
    if let Some(at) = at {
        domain["verified_at"] = at.into();
    }
    domain
}

fn sent(seen: &Seen) -> (&str, &str, Value) {
    let body = serde_json::from_slice(&seen.body).unwrap_or(Value::Null);
    (seen.method.as_str(), &seen.path, body)
}

#[tokio::test]
async fn tags_promotions_and_splits_are_sent_as_said() {
    let fake = Fake::start(|request: &Seen| match request.method.as_str() {
        "DELETE" => answer(204, ""),
        _ => answer(200, function(&canary(10))),
    })
    .await;
    let set = fake.wrenn(&["tag", "set", "hello", "canary", "2"]).await;
    assert_eq!(set.stdout, "version 2 at https://hello--canary.fn.wrenn.localhost:8443\n");
    let table = fake.wrenn(&["tag", "ls", "hello"]).await.stdout;
    assert!(table.starts_with("TAG") && table.contains("canary  2"), "{table}");
    assert_eq!(fake.wrenn(&["tag", "rm", "hello", "canary"]).await.code, 0);
    fake.wrenn(&["promote", "hello", "2"]).await;
    fake.wrenn(&["promote", "hello", "2", "--tag"]).await;
    let promoted = fake.wrenn(&["promote", "hello", "canary"]).await;
    assert!(promoted.stdout.contains("hello version 3"), "{promoted:?}");
    let split = fake.wrenn(&["split", "hello", "canary=10", "stable=90"]).await;
    assert_eq!(split.stdout, "hello: canary=10\n");
    fake.wrenn(&["split", "hello", "--none"]).await;
    let seen = fake.seen();
    let tag = "/v1/functions/hello/tags/canary";
    let (promote, split) = ("/v1/functions/hello/promote", "/v1/functions/hello/split");
    let shares = json!([{ "tag": "canary", "weight": 10 }, { "tag": "stable", "weight": 90 }]);
    assert_eq!(sent(&seen[0]), ("PUT", tag, json!({ "version": 2 })));
    assert_eq!(sent(&seen[2]), ("DELETE", tag, Value::Null));
    assert_eq!(sent(&seen[3]), ("POST", promote, json!({ "version": 2 })));
    assert_eq!(sent(&seen[4]), ("POST", promote, json!({ "tag": "2" })));
    assert_eq!(sent(&seen[5]), ("POST", promote, json!({ "tag": "canary" })));
    assert_eq!(sent(&seen[6]), ("PUT", split, shares));
    assert_eq!(sent(&seen[7]), ("PUT", split, json!([])));
}

#[tokio::test]
async fn what_cannot_be_meant_never_reaches_the_server() {
    let fake = Fake::start(|_| answer(200, "{}")).await;
    for args in [
        &["tag", "set", "hello", "A", "2"][..],
        &["tag", "set", "hello", "a"],
        &["promote", "hello", "A b"],
        &["split", "hello"],
        &["split", "hello", "a"],
        &["split", "hello", "a=1001"],
        &["split", "hello", "a=1", "--none"],
        &["sign", "hello", "--expires-s=0"],
        &["sign", "hello", "--expires-s=2592001"],
        &["invocation", "set", "hello"],
    ] {
        let ran = fake.wrenn(args).await;
        assert_eq!(ran.code, 64, "{args:?}: {ran:?}");
    }
    assert_eq!(fake.seen().len(), 0);
}

#[tokio::test]
async fn domains_are_claimed_with_the_record_to_set_and_verified() {
    let fake = Fake::start(|request: &Seen| match request.path.as_str() {
        path if path.ends_with("/verify") => answer(200, domain(true)),
        _ if request.method == "GET" => answer(200, json!({ "items": [domain(false)] })),
        _ if request.method == "DELETE" => answer(204, ""),
        _ => answer(201, domain(false)),
    })
    .await;
    let added = fake.wrenn(&["domain", "add", "hello", "shop.example.org"]).await.stdout;
    let record = "_wrenn-challenge.shop.example.org TXT \"wrenn-verify=abc\"";
    assert!(added.contains(record) && added.contains("wrenn domain verify hello"), "{added}");
    let verified = fake.wrenn(&["domain", "verify", "hello", "shop.example.org"]).await;
    assert_eq!(verified.stdout, "shop.example.org leads to hello\n", "{verified:?}");
    let listed = fake.wrenn(&["domain", "ls", "hello"]).await.stdout;
    assert!(listed.contains("shop.example.org  no"), "{listed}");
    fake.wrenn(&["domain", "rm", "hello", "shop.example.org"]).await;
    let seen = fake.seen();
    let all = "/v1/functions/hello/domains";
    let body = json!({ "domain": "shop.example.org" });
    assert_eq!(sent(&seen[0]), ("POST", all, body));
    assert_eq!(seen[1].path, format!("{all}/shop.example.org/verify"));
    assert_eq!(sent(&seen[3]).0, "DELETE");

    let refused = json!({ "code": "domain_unverified", "message": "no", "request_id": "req_1" });
    let fake = Fake::start(move |_| answer(409, &refused)).await;
    let ran = fake.wrenn(&["domain", "verify", "hello", "shop.example.org"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("domain_unverified"), "{ran:?}");
}

#[tokio::test]
async fn signing_prints_the_url_and_nothing_else() {
    let signed = json!({ "url": "https://x/?s=1", "expires_at": "2026-11-22T10:00:00Z" });
    let fake = Fake::start(move |_| answer(200, &signed)).await;
    let args = ["sign", "hello", "/a?b=c", "--method=GET", "--expires-s=60"];
    let ran = fake.wrenn(&args).await;
    assert_eq!(ran.stdout, "https://x/?s=1\n");
    assert!(ran.stderr.contains("good until 2026-11-22T10:00:00Z"), "{ran:?}");
    let body = json!({ "method": "GET", "path": "/a?b=c", "expires_s": 60 });
    assert_eq!(sent(&fake.seen()[0]), ("POST", "/v1/functions/hello/sign", body));
}

#[tokio::test]
async fn a_policy_is_read_from_either_kind_of_file() {
    let fake = Fake::start(|request: &Seen| match request.method.as_str() {
        "GET" => answer(200, json!({ "queue_max": 7 })),
        _ => answer(200, String::from_utf8_lossy(&request.body)),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("--file={}", path.display())
    };
    let toml = file("a.toml", "queue_max = 5\n[[auth]]\nkind = 'key'\n");
    let set = fake.wrenn(&["--json", "invocation", "set", "hello", &toml]).await.json();
    assert_eq!((&set["queue_max"], &set["auth"]), (&json!(5), &json!([{ "kind": "key" }])));
    let json = file("b.json", r#"{"queue_max":6}"#);
    let set = fake.wrenn(&["--json", "invocation", "set", "hello", &json]).await.json();
    assert_eq!(set["queue_max"], 6);
    assert_eq!(sent(&fake.seen()[0]).0, "PUT");
    let page = fake.wrenn(&["invocation", "get", "hello"]).await.stdout;
    assert!(page.contains("\"queue_max\": 7"), "{page}");

    for (name, text, part) in [
        ("c.toml", "queues = 1", "queues"),
        ("d.json", r#"{"queues":1}"#, "queues"),
        ("e.json", "queue_max = 5", "expected"),
    ] {
        let ran = fake.wrenn(&["invocation", "set", "hello", &file(name, text)]).await;
        assert!(ran.code == 64 && ran.stderr.contains(part), "{name}: {ran:?}");
    }
    let lost = fake.wrenn(&["invocation", "set", "hello", "--file=/nowhere.toml"]).await;
    assert_eq!(lost.code, 1, "{lost:?}");
    assert_eq!(fake.seen().len(), 3);
}
