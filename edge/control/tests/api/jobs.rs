//! Invocations that nobody waits for, as their owner sees, retries and removes them.

use std::time::Duration;

use edge_api::InvocationPolicy;
use edge_store::{
    Answer, End, InvocationId, InvocationRecord, InvocationSource, NewInvocation, Store,
};
use http::{Method, StatusCode};
use jiff::Timestamp;
use pool_model::{ErrorCode, FunctionId, TeamId};

use crate::edge::{TestEdge, code, hello};

#[tokio::test]
async fn an_invocation_is_seen_with_its_answer_by_its_team_only() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let id = submit(edge.control.store(), function.id).await;
    let queued = edge.client().job(&id).await.unwrap();
    assert_eq!((queued.state.as_str(), queued.source.as_str()), ("queued", "async"));
    assert_eq!((&queued.function, queued.path.as_str()), (&function.name, "/in"));
    assert!(queued.result.is_none() && queued.next_attempt_at.is_some());

    finish(edge.control.store(), End::Succeeded, 404).await;
    let done = edge.client().job(&id).await.unwrap();
    assert_eq!((done.state.as_str(), done.status, done.attempts), ("succeeded", Some(404), 1));
    assert!(done.expires_at.is_some() && done.next_attempt_at.is_none());
    let result = done.result.unwrap();
    assert_eq!((result.body.as_str(), result.truncated), ("AP8=", false));
    assert_eq!(result.headers, [("a".to_owned(), "b".to_owned())]);

    let other = edge.other_client();
    for refused in [
        other.job(&id).await.unwrap_err(),
        other.retry_job(&id).await.unwrap_err(),
        other.remove_job(&id).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Some(ErrorCode::InvocationNotFound), "{refused}");
    }
    for refused in [
        other.invocations(&function.name, None, None, 10).await.unwrap_err(),
        other.cron(&function.name).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Some(ErrorCode::FunctionNotFound), "{refused}");
    }
    assert_eq!(edge.client().job(&id).await.unwrap().state, "succeeded", "nobody touched it");
}

#[tokio::test]
async fn what_is_not_there_or_no_id_is_refused() {
    let edge = TestEdge::start().await;
    let nobody = InvocationId::generate(Timestamp::now());
    for (method, path) in [
        (Method::GET, format!("/v1/invocations/{nobody}")),
        (Method::DELETE, format!("/v1/invocations/{nobody}")),
        (Method::POST, format!("/v1/invocations/{nobody}/retry")),
    ] {
        let refused = edge.refusal(method.clone(), &path, "").await;
        assert_eq!(refused.code, "invocation_not_found", "{method} {path}: {refused:?}");
    }
    for path in ["/v1/functions/nobody/invocations", "/v1/functions/nobody/cron"] {
        let refused = edge.refusal(Method::GET, path, "").await;
        assert_eq!(refused.code, "function_not_found", "{path}: {refused:?}");
    }
    let refused = edge.refusal(Method::GET, "/v1/invocations/7", "").await;
    assert!(refused.message.contains("inv_"), "{refused:?}");
}

#[tokio::test]
async fn only_a_dead_letter_can_be_retried() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let id = submit(edge.control.store(), function.id).await;
    let refused = edge.client().retry_job(&id).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Conflict), "{refused}");

    finish(edge.control.store(), End::Dead, 500).await;
    let dead = edge.client().job(&id).await.unwrap();
    assert_eq!((dead.state.as_str(), dead.attempts), ("dead", 1));
    let again = edge.client().retry_job(&id).await.unwrap();
    assert_eq!((again.state.as_str(), again.attempts), ("queued", 0));
    assert!(again.next_attempt_at.is_some() && again.finished_at.is_none());
    finish(edge.control.store(), End::Succeeded, 200).await;
    let refused = edge.client().retry_job(&id).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Conflict), "{refused}");
}

#[tokio::test]
async fn what_waits_is_cancelled_what_runs_stays_and_what_is_finished_goes() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let store = edge.control.store();
    let id = submit(store, function.id).await;
    edge.client().remove_job(&id).await.unwrap();
    assert_eq!(edge.client().job(&id).await.unwrap().state, "cancelled");
    edge.client().remove_job(&id).await.unwrap();
    let gone = edge.client().job(&id).await.unwrap_err();
    assert_eq!(gone.code(), Some(ErrorCode::InvocationNotFound));

    let id = submit(store, function.id).await;
    let running = claim(store).await;
    let refused = edge.client().remove_job(&id).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Conflict), "{refused}");
    end(store, &running, End::Succeeded, 200).await;
    let path = format!("/v1/invocations/{id}");
    assert_eq!(edge.call(Method::DELETE, &path, "").await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn lists_come_newest_first_by_state_and_in_pages() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let store = edge.control.store();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(submit(store, function.id).await);
        tokio::time::sleep(Duration::from_millis(2)).await; // ids sort by milliseconds
    }
    edge.client().remove_job(&ids[1]).await.unwrap();
    let list = async |state, before, limit| {
        let found = edge.client().invocations(&function.name, state, before, limit).await.unwrap();
        found.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, 2).await, [&*ids[2], &*ids[1]]);
    assert_eq!(list(None, Some(ids[1].as_str()), 2).await, [&*ids[0]]);
    assert_eq!(list(Some("cancelled"), None, 9).await, [&*ids[1]]);
    assert!(list(Some("dead"), None, 9).await.is_empty());
    for (query, field) in [
        ("state=lost", "state"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("before=7", "before"),
    ] {
        let path = format!("/v1/functions/hello/invocations?{query}");
        let refused = edge.refusal(Method::GET, &path, "").await;
        assert_eq!(refused.code, "invalid_argument", "{query}: {refused:?}");
        assert!(refused.message.contains(field), "{query}: {refused:?}");
    }
}

#[tokio::test]
async fn schedules_are_told_with_their_next_and_last_minute() {
    let edge = TestEdge::start().await;
    let name = edge.client().deploy(&hello(), &code()).await.unwrap();
    assert_eq!(edge.client().cron(&name.name).await.unwrap(), []);
    let policy: InvocationPolicy = serde_json::from_str(
        r#"{"cron":[{"name":"a","schedule":"*/5 * * * *"},
            {"name":"b","schedule":"0 9 * * *","timezone":"Europe/Berlin"}]}"#,
    )
    .unwrap();
    edge.client().set_invocation(&name.name, &policy).await.unwrap();
    let before = Timestamp::now();
    let told = edge.client().cron(&name.name).await.unwrap();
    let names: Vec<_> = told.iter().map(|c| (c.name.as_str(), c.timezone.as_str())).collect();
    assert_eq!(names, [("a", "UTC"), ("b", "Europe/Berlin")]);
    for cron in &told {
        assert!(cron.next_at.unwrap() > before && cron.last_at.is_none(), "{cron:?}");
    }

    // What the clock does.
    let jobs = edge_jobs::Jobs::new(edge.control.store().clone());
    let clock = edge_jobs::Clock::new(jobs);
    clock.tick(before).await.unwrap();
    let due = told[0].next_at.unwrap();
    clock.tick(due).await.unwrap();
    assert_eq!(edge.client().cron(&name.name).await.unwrap()[0].last_at, Some(due));
    let made = edge.client().invocations(&name.name, None, None, 10).await.unwrap();
    assert!(made.iter().any(|job| job.source == "cron"), "{made:?}");
}

async fn submit(store: &Store, function: FunctionId) -> String {
    let at = Timestamp::now();
    let new = NewInvocation {
        id: InvocationId::generate(at),
        team: TeamId::from_u128(1),
        function,
        name: "hello".to_owned(),
        tag: None,
        source: InvocationSource::Async,
        method: "POST".to_owned(),
        path: "/in".to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        attempts_max: 3,
        backoff_ms: 1000,
        result_ttl_ms: 60_000,
        webhook: None,
        at,
    };
    assert!(store.submit_invocation(&new, 10).await.unwrap());
    new.id.to_string()
}

async fn claim(store: &Store) -> InvocationRecord {
    let lease = Duration::from_secs(600);
    store.claim_invocations(Timestamp::now(), lease, 1).await.unwrap().remove(0).0
}

async fn end(store: &Store, claim: &InvocationRecord, end: End, status: u16) {
    let headers = vec![("a".to_owned(), b"b".to_vec())];
    let answer = Answer { status, headers, body: vec![0, 255], truncated: false };
    let ended = store.end_attempt(claim, end, Some(&answer), None, Timestamp::now()).await;
    assert!(ended.unwrap());
}

/// What a runner does with the one that waits.
async fn finish(store: &Store, how: End, status: u16) {
    let claimed = claim(store).await;
    end(store, &claimed, how, status).await;
}
