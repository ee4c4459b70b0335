//! `wrenn pool` against a server that stands in for the edge.

mod support;

use bytes::Bytes;
use serde_json::{Value, json};
use support::{Fake, Seen, json as answer};

fn pool(name: &str) -> Value {
    json!({
        "function": name, "min_warm": 2, "max_warm": 8, "idle_ttl_ms": 1000,
        "stats": {
            "warm": 3, "target": 4, "hits": 3, "misses": 1, "hit_rate": 0.75, "breaker": "closed",
            "steps": [{ "name": "vmm", "count": 1, "p50_ms": 1.5, "p99_ms": 2.5 }],
            "memory": { "base_bytes": 1 << 20 },
        },
    })
}

#[tokio::test]
async fn set_sends_every_setting_that_was_given_and_no_other() {
    let fake = Fake::start(|_| answer(200, pool("hello"))).await;
    let flags = [
        "--max-age-ms=60000",
        "--burst=2",
        "--refill-concurrency=3",
        "--prefetch=none",
        "--reuse=sequential",
        "--max-requests=10",
        "--memory-budget-mib=512",
        "--schedule=mon-tue 08:00-18:00 =5",
        "--schedule",
        "22:00-02:00 =1",
    ];
    let set = fake.wrenn(&[&["pool", "set", "hello"], &flags[..]].concat()).await;
    assert_eq!(set.code, 0, "{set:?}");
    assert!(set.stdout.contains("pool of hello"), "{set:?}");
    fake.wrenn(&["pool", "set", "hello", "--no-schedule"]).await;
    let seen = fake.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("PATCH", "/v1/pools/hello"));
    let sent: Value = serde_json::from_slice(&seen[0].body).unwrap();
    let expected = json!({
        "max_age_ms": 60000, "burst": 2, "refill_concurrency": 3, "prefetch": "none",
        "reuse": "sequential", "max_requests": 10, "memory_budget_mib": 512,
        "schedule": [
            { "days": ["mon", "tue"], "from": "08:00", "until": "18:00", "min_warm": 5 },
            { "from": "22:00", "until": "02:00", "min_warm": 1 },
        ],
    });
    assert_eq!(sent, expected);
    assert_eq!(&seen[1].body[..], br#"{"schedule":[]}"#);
}

#[tokio::test]
async fn bad_flags_never_reach_the_server_and_its_refusals_are_told() {
    let refusal = json!({ "code": "over_budget", "message": "12 GiB of 8", "request_id": "req_1" });
    let fake = Fake::start(move |_| answer(422, &refusal)).await;
    for args in [
        &["set", "hello"][..],
        &["set", "hello", "--schedule=mon 08:00 =5"],
        &["set", "hello", "--no-schedule", "--schedule=08:00-09:00 =5"],
        &["set", "hello", "--reuse=always"],
        &["prewarm", "hello", "0"],
        &["prewarm", "hello"],
        &["drain"],
        &["watch", "hello", "--interval-ms=100"],
    ] {
        let ran = fake.wrenn(&[&["pool"], args].concat()).await;
        assert_eq!(ran.code, 64, "{args:?}: {ran:?}");
    }
    assert_eq!(fake.seen().len(), 0);
    for args in [&["set", "hello", "--burst=1"][..], &["prewarm", "hello", "1"], &["watch"]] {
        let ran = fake.wrenn(&[&["pool"], args].concat()).await;
        assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains("over_budget: 12 GiB of 8"), "{args:?}: {ran:?}");
    }
}

#[tokio::test]
async fn get_and_ls_show_the_numbers_to_people_and_all_to_programs() {
    let fake = Fake::start(|request: &Seen| match request.path.as_str() {
        "/v1/pools" => answer(200, json!({ "items": [pool("hello")] })),
        _ => answer(200, pool("hello")),
    })
    .await;
    let page = fake.wrenn(&["pool", "get", "hello"]).await.stdout;
    for part in ["min warm        2", "75.0 %", "vmm", "base, shared    1.0 MiB", "closed"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let json = fake.wrenn(&["--json", "pool", "get", "hello"]).await.json();
    assert_eq!((&json["stats"]["hit_rate"], &json["reuse"]), (&json!(0.75), &json!("never")));
    let table = fake.wrenn(&["pool", "ls"]).await.stdout;
    let head = table.lines().next().unwrap();
    assert!(head.contains("TARGET") && head.contains("HIT RATE"), "{table}");
    assert!(table.lines().nth(1).unwrap().contains("75.0 %"), "{table}");
}

#[tokio::test]
async fn prewarm_and_drain_say_what_came_of_it() {
    let fake = Fake::start(|request: &Seen| match request.path.as_str() {
        "/v1/pools/hello/drain" => answer(200, json!({ "drained": 3 })),
        _ => answer(200, pool("hello")),
    })
    .await;
    let warmed = fake.wrenn(&["pool", "prewarm", "hello", "5"]).await;
    assert!(warmed.stdout.contains("3 of 4 wanted"), "{warmed:?}");
    let drained = fake.wrenn(&["pool", "drain", "hello"]).await;
    assert_eq!(drained.stdout, "destroyed 3 warm sandboxes of hello\n");
    let drained = fake.wrenn(&["--json", "pool", "drain", "hello"]).await.json();
    assert_eq!(drained, json!({ "drained": 3 }));
    let seen = fake.seen();
    let asked = (seen[0].method.as_str(), seen[0].path.as_str(), &seen[0].body[..]);
    assert_eq!(asked, ("POST", "/v1/pools/hello/prewarm", &br#"{"count":5}"#[..]));
}

#[tokio::test]
async fn watch_prints_an_event_a_line_until_the_function_is_gone() {
    let fake = Fake::start(|request: &Seen| {
        let stats = pool("hello");
        let text = format!(
            ": hello\n\nevent: stats\ndata: {stats}\n\nevent: error\n\
             data: {{\"code\":\"agent_unavailable\",\"message\":\"it does not answer\"}}\n\n\
             event: stats\ndata: {stats}\n\nevent: end\ndata: {{\"function\":\"hello\"}}\n\n"
        );
        assert!(request.path.ends_with("interval_ms=250"), "{}", request.path);
        let response = http::Response::builder().header("content-type", "text/event-stream");
        response.body(Bytes::from(text)).unwrap()
    })
    .await;
    let ran = fake.wrenn(&["pool", "watch", "hello", "--interval-ms=250"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    assert!(lines[0].starts_with("hello  warm 3/4"), "{ran:?}");
    assert!(ran.stderr.contains("it does not answer"), "{ran:?}");
    assert!(ran.stderr.contains("hello was deleted"), "{ran:?}");

    let ran = fake.wrenn(&["--json", "pool", "watch", "hello", "--interval-ms=250"]).await;
    let events: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["stats", "error", "stats", "end"]);
    assert_eq!(events[0]["stats"]["warm"], 3);

    // All pools: one that goes does not end it, but the server's hanging up is told.
    let ran = fake.wrenn(&["pool", "watch", "--interval-ms=250"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("the server ended the stream"), "{ran:?}");
    let paths: Vec<String> = fake.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths[0], "/v1/pools/hello/events?interval_ms=250");
    assert_eq!(paths[2], "/v1/pools/events?interval_ms=250");
}

#[tokio::test]
async fn help_says_units_ranges_and_defaults() {
    let help = support::wrenn(&["pool", "set", "--help"]).await.stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "milliseconds: 1000 to 86400000 (a day) [new functions: 600000]",
        "0 to 1000, at most max-warm [new functions: 1]",
        "1 to 256, or 0 for as many as the host allows [new functions: 0]",
        "MiB: 1 to 1073741824",
        "[new functions: working_set]",
        "'mon-fri 08:00-18:00 =5'",
    ] {
        assert!(help.contains(part), "{part} is not in {help}");
    }
}
