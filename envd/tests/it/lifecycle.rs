//! Init, quiesce and access.

use std::{fs, time::Duration};

use envd_api::{EnvdError, Init, ProcessEvent, Signal, Start};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::fixture::{Change, PATIENCE, TestGuest, eventually, init, shell};

fn changes(guest: &TestGuest) -> Vec<Change> {
    std::mem::take(&mut guest.system.changes.lock().unwrap())
}

#[tokio::test]
async fn init_sets_everything_and_is_idempotent() {
    let guest = TestGuest::start().await;
    let now = init("a", 1);
    for _ in 0..2 {
        let health = guest.client.init(&now).await.unwrap();
        assert_eq!(health.version.as_deref(), Some(envd::VERSION));
        // The clock is right as it is, so it is left alone.
        assert_eq!(changes(&guest), [Change::Entropy(64), Change::Hostname("host-a".into())]);
    }
}

#[tokio::test]
async fn clock_is_set_only_when_it_is_off() {
    let guest = TestGuest::start().await;
    for (generation, off) in [(1, 3600), (2, -3600)] {
        let there = Timestamp::now() + SignedDuration::from_secs(off);
        let init = Init { timestamp: there, ..init("a", generation) };
        guest.client.init(&init).await.unwrap();
        let Some(Change::Clock(set)) = changes(&guest).pop() else { panic!("clock was not set") };
        let late = set.duration_since(there);
        assert!(late >= SignedDuration::ZERO && late < SignedDuration::from_secs(5), "{late:?}");
    }
}

#[tokio::test]
async fn replays_are_refused_and_change_nothing() {
    let guest = TestGuest::start().await;
    let first = init("a", 5);
    guest.client.init(&first).await.unwrap();
    changes(&guest);
    let earlier = first.timestamp - SignedDuration::from_secs(1);
    let replays = [
        Init { timestamp: earlier, ..first.clone() },
        Init { generation: 4, timestamp: Timestamp::now(), ..first.clone() },
        init("b", 9),
    ];
    for replay in replays {
        let error = guest.client.init(&replay).await.unwrap_err();
        assert_eq!(error.status(), Some(409), "{error}");
    }
    assert_eq!(changes(&guest), []);
    assert_eq!(guest.shell("echo -n $E2B_SANDBOX_ID").await.stdout, b"a");
}

#[tokio::test]
async fn bad_inits_are_refused_and_quote_no_secret() {
    let guest = TestGuest::start().await;
    let bad = [
        Init { entropy: vec![1; 31], ..init("a", 1) },
        Init { hostname: "a b".into(), ..init("a", 1) },
        Init { access_token: Some(String::new()), ..init("a", 1) },
    ];
    for bad in bad {
        assert_eq!(guest.client.init(&bad).await.unwrap_err().status(), Some(400));
    }
    let body = r#"{"timestamp":"2026-01-01T00:00:00Z","entropy":"top-secret"}"#;
    let answer = guest.post("/init", "", body).await;
    assert!(answer.starts_with("HTTP/1.1 400") && !answer.contains("secret"), "{answer}");
    assert_eq!(changes(&guest), []);
}

#[tokio::test]
async fn failed_step_is_named_and_keeps_the_guest_frozen() {
    let guest = TestGuest::start().await;
    let sleeper = guest.client.start(&Start::new("sleep", ["30"])).await.unwrap();
    guest.client.quiesce().await.unwrap();
    *guest.system.refuse_hostname.lock().unwrap() = true;
    let error = guest.client.init(&init("a", 1)).await.unwrap_err();
    assert_eq!(error.status(), Some(500));
    assert!(error.to_string().contains("can't set the host name: "), "{error}");
    assert!(guest.cgroup.read("cgroup.events").contains("frozen 1"));
    *guest.system.refuse_hostname.lock().unwrap() = false;
    guest.client.init(&init("a", 1)).await.unwrap();
    assert!(guest.cgroup.read("cgroup.events").contains("frozen 0"));
    drop(sleeper);
}

#[tokio::test]
async fn token_guards_everything_but_health() {
    let guest = TestGuest::start().await;
    let open = guest.client.clone();
    let secret = Init { access_token: Some("s3cret".into()), ..init("a", 1) };
    open.init(&secret).await.unwrap();
    assert!(open.health().await.is_ok());
    let wrong = open.clone().with_token("wrong");
    for client in [&open, &wrong] {
        for error in [
            client.metrics().await.map(drop).unwrap_err(),
            client.list().await.map(drop).unwrap_err(),
            client.start(&shell("true")).await.map(drop).unwrap_err(),
            client.quiesce().await.unwrap_err(),
            client.init(&secret).await.map(drop).unwrap_err(),
            client.read_file("/etc/passwd", None, 10).await.map(drop).unwrap_err(),
            client.extract_archive("x", None, "x".into()).await.unwrap_err(),
        ] {
            assert_eq!(error.status(), Some(401), "{error}");
        }
    }
    let right = open.clone().with_token("s3cret");
    assert!(right.metrics().await.is_ok() && right.list().await.is_ok());
    // A new token, given by who has the old one; then without one, which keeps it.
    right.init(&Init { access_token: Some("next".into()), ..init("a", 2) }).await.unwrap();
    assert_eq!(right.list().await.unwrap_err().status(), Some(401));
    let next = open.clone().with_token("next");
    next.init(&init("a", 3)).await.unwrap();
    assert!(next.list().await.is_ok() && open.list().await.is_err());
}

#[tokio::test]
async fn signed_address_opens_one_file() {
    let guest = TestGuest::start().await;
    fs::write(guest.home.join("f"), "signed").unwrap();
    let secret = Init { access_token: Some("tok".into()), ..init("a", 1) };
    guest.client.init(&secret).await.unwrap();
    // printf 'f:read:user:tok' | sha256sum | xxd -r -p | base64 | tr -d =
    let good = "v1_dylAq23cajGI0BkGk05CELeyWhynck3wGDKgBX6poRE";
    let quoted = good.replace('+', "%2B").replace('/', "%2F");
    let answer = guest.get(&format!("/files?path=f&username=user&signature={quoted}"), "").await;
    assert!(answer.ends_with("\r\n\r\nsigned"), "{answer}");
    for (query, words) in [
        ("path=f&username=user".to_owned(), "missing signature query parameter"),
        (format!("path=g&username=user&signature={quoted}"), "invalid signature"),
        (format!("path=f&signature={quoted}"), "invalid signature"),
    ] {
        let answer = guest.get(&format!("/files?{query}"), "").await;
        let body = format!("{{\"code\":401,\"message\":\"{words}\"}}");
        assert!(answer.starts_with("HTTP/1.1 401") && answer.ends_with(&body), "{answer}");
    }
}

#[tokio::test]
async fn quiesce_freezes_processes_and_init_thaws_them_last() {
    let guest = TestGuest::start().await;
    let line = "while :; do echo $((i++)) > tick; sleep 0.01; done";
    let stream = guest.client.start(&shell(line)).await.unwrap();
    let tick = || fs::read_to_string(guest.home.join("tick")).unwrap_or_default();
    eventually("it ticks", || !tick().is_empty()).await;
    guest.client.quiesce().await.unwrap();
    assert!(guest.cgroup.read("cgroup.events").contains("frozen 1"));
    let frozen_at = tick();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(tick(), frozen_at);
    // Twice is as good as once.
    guest.client.quiesce().await.unwrap();
    guest.client.init(&init("clone", 1)).await.unwrap();
    eventually("it ticks again", || tick() != frozen_at).await;
    let listed = guest.client.list().await.unwrap();
    assert_eq!(listed[0].pid, stream.pid(), "processes survive");
    guest.client.signal(stream.pid(), Signal::Kill).await.unwrap();
}

#[tokio::test]
async fn quiesced_guest_answers_health_and_init_only_and_forgets_secrets() {
    let guest = TestGuest::start().await;
    let mut secret = Init { access_token: Some("tok".into()), ..init("a", 1) };
    secret.env_vars.insert("KEY".into(), "hidden".into());
    guest.client.init(&secret).await.unwrap();
    let client = guest.client.clone().with_token("tok");
    client.quiesce().await.unwrap();
    assert!(client.health().await.is_ok());
    for error in [
        client.list().await.map(drop).unwrap_err(),
        client.metrics().await.map(drop).unwrap_err(),
        client.read_file("f", None, 1).await.map(drop).unwrap_err(),
        client.start(&shell("true")).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.status(), Some(503), "{error}");
    }
    let answer = guest.get("/metrics", "").await;
    assert!(answer.ends_with("{\"code\":503,\"message\":\"sandbox is quiesced\"}"), "{answer}");
    // Another sandbox takes over without knowing the old token.
    guest.client.init(&init("b", 1)).await.unwrap();
    let env = guest.shell("echo -n $KEY $E2B_SANDBOX_ID").await.stdout;
    assert_eq!(env, b"b");
}

async fn keep_alive(guest: &TestGuest) -> TcpStream {
    let mut stream = TcpStream::connect(guest.address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 204");
    stream
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn connections_from_before_a_snapshot_do_not_outlive_it() {
    let guest = TestGuest::start().await;
    let mut idle = keep_alive(&guest).await;
    let mut stream = guest.client.start(&Start::new("sleep", ["30"])).await.unwrap();
    // The call itself wants to stay, and is told to go.
    let mut caller = TcpStream::connect(guest.address).await.unwrap();
    let request = b"POST /quiesce HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    caller.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, caller.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 204") && answer.contains("connection: close"), "{answer}");
    assert!(is_closed(&mut idle).await);
    let event = timeout(PATIENCE, stream.next()).await.unwrap();
    assert!(matches!(event, Some(Err(_))), "{event:?}");
    // One that came in between is closed by the init.
    let mut between = keep_alive(&guest).await;
    guest.client.init(&init("clone", 1)).await.unwrap();
    assert!(is_closed(&mut between).await);
    let mut after = keep_alive(&guest).await;
    assert!(timeout(Duration::from_millis(100), after.read_u8()).await.is_ok_and(|b| b.is_ok()));
}

#[tokio::test]
async fn caller_that_hangs_up_does_not_cut_a_quiesce_in_half() {
    let guest = TestGuest::start().await;
    let mut caller = TcpStream::connect(guest.address).await.unwrap();
    let request = b"POST /quiesce HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    caller.write_all(request).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(caller);
    eventually("it is frozen", || guest.cgroup.read("cgroup.events").contains("frozen 1")).await;
    guest.client.init(&init("a", 1)).await.unwrap();
    assert_eq!(guest.shell("echo -n on").await.stdout, b"on");
}

#[tokio::test]
async fn concurrent_inits_end_with_the_newest() {
    let guest = TestGuest::start().await;
    let inits = (1..=8).map(|generation| {
        let client = guest.client.clone();
        async move { client.init(&init("a", generation)).await.map(|_| generation) }
    });
    let done = futures::future::join_all(inits).await;
    for result in &done {
        assert!(result.as_ref().err().is_none_or(|e| e.status() == Some(409)), "{result:?}");
    }
    assert!(done.iter().any(|result| matches!(result, Ok(8))));
    assert_eq!(guest.client.init(&init("a", 7)).await.unwrap_err().status(), Some(409));
}

#[tokio::test]
async fn unreachable_guest_is_told_apart_from_a_refusal() {
    let guest = TestGuest::start().await;
    let (client, address) = (guest.client.clone(), guest.address);
    drop(guest);
    for _ in 0..500 {
        if TcpStream::connect(address).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(client.health().await, Err(EnvdError::Unreachable { .. })));
    assert!(matches!(client.list().await, Err(EnvdError::Unreachable { .. })));
    let started = client.start(&shell("true")).await.map(|_| ProcessEvent::Keepalive);
    assert!(matches!(started, Err(EnvdError::Unreachable { .. })), "{started:?}");
}
