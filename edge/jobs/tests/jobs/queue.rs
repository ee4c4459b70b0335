//! The queue on real SQLite files, with real servers as webhooks: good paths, crashes, refusals.

use std::{sync::atomic::Ordering, time::Duration};

use crate::support::{Bed, Hook, policy};
use edge_jobs::{BODY_BYTES_MAX, Clock, HEADERS_BYTES_MAX, SubmitError};
use edge_store::{InvocationState as State, WebhookState};
use http::Request;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_submitted_is_invoked_and_its_answer_kept() {
    let bed = Bed::new().await;
    let running = bed.run(|_| Ok((200, "hello")));
    let id = bed.submit(policy(), "body").await.unwrap();
    let done = bed.wait_for(id, State::Succeeded).await;
    assert_eq!((done.status, done.attempts, done.truncated), (Some(200), 1, false));
    let answer = bed.store.invocation_answer(bed.team, id).await.unwrap().unwrap();
    assert_eq!(answer.body, b"hello");
    assert_eq!(running.seen.lock().unwrap()[0], "POST /in?a=b body");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_failures_are_tried_again_and_the_last_one_is_a_dead_letter() {
    let bed = Bed::new().await;
    let running = bed.run(|n| if n < 3 { Ok((503, "busy")) } else { Ok((404, "no")) });
    let id = bed.submit(policy(), "").await.unwrap();
    let done = bed.wait_for(id, State::Succeeded).await;
    assert_eq!((done.status, done.attempts), (Some(404), 3), "a 404 is a result");
    running.stop().await;

    let running = bed.run(|_| Ok((500, "broken")));
    let id = bed.submit(policy(), "").await.unwrap();
    let dead = bed.wait_for(id, State::Dead).await;
    assert_eq!((dead.status, dead.attempts), (Some(500), 3));
    assert!(dead.error.unwrap().contains("500"));
    running.stop().await;
    let now = jiff::Timestamp::now();
    bed.store.retry_invocation(bed.team, id, now).await.unwrap().unwrap();
    let running = bed.run(|_| Ok((200, "")));
    bed.wait_for(id, State::Succeeded).await;
    assert!(bed.store.retry_invocation(bed.team, id, now).await.unwrap().is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_body_that_panics_its_attempts_harms_no_other() {
    let bed = Bed::new().await;
    let running = bed.run(|_| Ok((200, "")));
    let poison = bed.submit(policy(), "panic").await.unwrap();
    let good = bed.submit(policy(), "good").await.unwrap();
    bed.wait_for(good, State::Succeeded).await;
    let dead = bed.wait_for(poison, State::Dead).await;
    assert_eq!((dead.status, dead.attempts), (None, 3));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_runner_held_is_run_again_after_its_lease() {
    let bed = Bed::new().await;
    let running = bed.run(|_| Ok((200, "")));
    let id = bed.submit(policy(), "hang").await.unwrap();
    bed.wait_for(id, State::Running).await;
    running.kill();
    let next = bed.run(|_| Ok((200, "")));
    // `hang` hangs for the first runner only: the second sees another attempt.
    let done = bed.wait_for(id, State::Succeeded).await;
    assert_eq!((done.attempts, done.claims), (2, 2));
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_stops_gives_back_what_does_not_end() {
    let bed = Bed::new().await;
    let running = bed.run(|_| Ok((200, "")));
    let id = bed.submit(policy(), "hang").await.unwrap();
    bed.wait_for(id, State::Running).await;
    running.stop().await;
    let back = bed.store.invocation(bed.team, id).await.unwrap().unwrap();
    assert_eq!((back.state, back.attempts), (State::Queued, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runners_never_run_the_same_one_at_once() {
    let bed = Bed::new().await;
    let (one, two) = (bed.run(|_| Ok((200, ""))), bed.run(|_| Ok((200, ""))));
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(bed.submit(policy(), "slow").await.unwrap());
    }
    for id in ids {
        let done = bed.wait_for(id, State::Succeeded).await;
        assert_eq!((done.attempts, done.claims), (1, 1));
    }
    let seen = [&one, &two].map(|runner| runner.seen.lock().unwrap().len());
    assert_eq!(seen[0] + seen[1], 60);
    assert!(one.most.load(Ordering::SeqCst) <= 4 && two.most.load(Ordering::SeqCst) <= 4);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn too_many_and_too_large_ones_are_refused() {
    let bed = Bed::new().await;
    let tight = pool_model::AsyncPolicy { pending_max: 2, ..policy() };
    bed.submit(tight.clone(), "").await.unwrap();
    bed.submit(tight.clone(), "").await.unwrap();
    let full = bed.submit(tight, "").await.unwrap_err();
    assert!(matches!(full, SubmitError::Full { pending_max: 2 }), "{full:?}");
    let (parts, ()) = Request::post("/").body(()).unwrap().into_parts();
    let large = vec![0; BODY_BYTES_MAX + 1].into();
    let refused = bed.jobs.submit(&bed.target(policy()), &parts, &large).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Body { .. }), "{refused:?}");
    let field = "x".repeat(HEADERS_BYTES_MAX);
    let (parts, ()) = Request::post("/").header("a", field).body(()).unwrap().into_parts();
    let refused = bed.jobs.submit(&bed.target(policy()), &parts, &b""[..].into()).await;
    assert!(matches!(refused, Err(SubmitError::Headers { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_the_signed_result_also_if_it_fails_at_first() {
    let bed = Bed::new().await;
    let hook = Hook::start(|n| if n < 2 { 500 } else { 204 }).await;
    let running = bed.run(|_| Ok((200, "hello")));
    let with = pool_model::AsyncPolicy { webhook: Some(hook.url()), ..policy() };
    let id = bed.submit(with, "").await.unwrap();
    let done = bed.wait_for_post(id, WebhookState::Delivered).await;
    assert_eq!(done.webhook_attempts, 3);
    let (signature, body) = hook.seen.lock().unwrap().last().unwrap().clone();
    let secret = bed.store.signing_secret(bed.function).await.unwrap().unwrap();
    let at = signature.split(['=', ',']).nth(1).unwrap().parse().unwrap();
    assert_eq!(signature, edge_jobs::signature(secret.expose(), at, &body));
    let message: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(message["id"], id.to_string());
    assert_eq!((&message["status"], &message["body"]), (&200.into(), &"aGVsbG8=".into()));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_webhooks_are_given_up_and_redirects_are_not_followed() {
    let bed = Bed::new().await;
    let running = bed.run(|_| Ok((200, "")));
    let (broken, away) = (Hook::start(|_| 500).await, Hook::start(|_| 307).await);
    let slow = Hook::start(|_| 0).await;
    for (to, tries, part) in [
        (broken.url(), 3, "500"),
        (away.url(), 3, "307"),
        (slow.url(), 3, "within"),
        ("http://10.0.0.1/".to_owned(), 1, "private"),
    ] {
        let with = pool_model::AsyncPolicy { webhook: Some(to.clone()), ..policy() };
        let id = bed.submit(with, "").await.unwrap();
        let failed = bed.wait_for_post(id, WebhookState::Failed).await;
        let error = failed.webhook_error.unwrap();
        assert!(failed.webhook_attempts == tries && error.contains(part), "{to}: {error}");
        assert_eq!(failed.state, State::Succeeded, "the result is there all the same");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_minute_fires_once_also_with_two_clocks_and_over_restarts() {
    let bed = Bed::new().await;
    bed.schedule(r#"{"cron":[{"name":"five","schedule":"*/5 * * * *","path":"/tick"}]}"#).await;
    let (one, two) = (Clock::new(bed.jobs.clone()), Clock::new(bed.jobs.clone()));
    let at = |minute: u32, second: u32| {
        format!("2026-05-01T12:{minute:02}:{second:02}Z").parse().unwrap()
    };
    assert_eq!(one.tick(at(1, 0)).await.unwrap(), 0, "seen for the first time");
    assert_eq!(one.tick(at(4, 59)).await.unwrap(), 0);
    let both = (one.tick(at(5, 0)).await.unwrap(), two.tick(at(5, 0)).await.unwrap());
    assert_eq!(both, (1, 0));
    assert_eq!(Clock::new(bed.jobs.clone()).tick(at(9, 0)).await.unwrap(), 0);
    // Down from 12:09 on: 12:10 to 12:25 were missed, of which one is made up for.
    assert_eq!(one.tick(at(27, 0)).await.unwrap(), 1);
    assert_eq!(two.tick(at(27, 30)).await.unwrap(), 0);
    let fires = bed.store.cron_fires(Some(bed.function)).await.unwrap();
    assert_eq!(fires[0].last_fired, Some(at(25, 0)));
    let made = bed.store.invocations(bed.function, None, None, 10).await.unwrap();
    assert_eq!(made.len(), 2);
    assert_eq!((made[0].source.as_str(), made[0].path.as_str()), ("cron", "/tick"));

    // Missed by more than ten minutes: skipped.
    bed.schedule(r#"{"cron":[{"name":"five","schedule":"0 13 * * *"}]}"#).await;
    assert_eq!(one.tick(at(30, 0)).await.unwrap(), 0, "another schedule begins anew");
    let late = "2026-05-01T13:11:00Z".parse().unwrap();
    assert_eq!(one.tick(late).await.unwrap(), 0);
    bed.schedule(r#"{"cron":[]}"#).await;
    one.tick(late).await.unwrap();
    assert!(bed.store.cron_fires(None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_deleted_function_is_cancelled_and_old_results_go() {
    let bed = Bed::new().await;
    let id = bed.submit(policy(), "").await.unwrap();
    bed.store.remove_function(bed.team, "hello").await.unwrap().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let every = Duration::from_millis(20);
    let sweeping = tokio::spawn(edge_jobs::sweep_forever(bed.store.clone(), every, stop.clone()));
    let gone = bed.wait_for(id, State::Cancelled).await;
    assert!(gone.error.unwrap().contains("deleted") && gone.expires_at.is_some());
    let late = gone.expires_at.unwrap();
    assert_eq!(bed.store.expire_invocations(late, 10).await.unwrap(), 1);
    assert!(bed.store.invocation(bed.team, id).await.unwrap().is_none());
    stop.cancel();
    sweeping.await.unwrap();
}
