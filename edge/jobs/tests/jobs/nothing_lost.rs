//! Minutes and results that an unlucky moment must not cost anyone.

use std::time::Duration;

use crate::support::{Bed, policy};
use edge_jobs::Clock;
use edge_store::{Answer, End, InvocationRecord};
use jiff::{SignedDuration, Timestamp};

const LEASE: Duration = Duration::from_secs(60);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// An invocation with a webhook, claimed.
async fn claimed(bed: &Bed) -> InvocationRecord {
    let mut policy = policy();
    policy.result_ttl_s = 60;
    policy.webhook = Some("https://example.org/".into());
    bed.submit(policy, "x").await.unwrap();
    claim(bed).await
}

async fn claim(bed: &Bed) -> InvocationRecord {
    let mut claims = bed.store.claim_invocations(Timestamp::now(), LEASE, 1).await.unwrap();
    claims.remove(0).0
}

#[tokio::test]
async fn an_entry_set_half_a_minute_before_it_is_due_fires_once() {
    let bed = Bed::new().await;
    let clock = Clock::new(bed.jobs.clone());
    clock.tick(at("2026-01-05T08:59:00.005Z")).await.unwrap();
    bed.schedule(r#"{"cron":[{"name":"a","schedule":"0 9 * * *"}]}"#).await; // at 08:59:30
    let mut made = Vec::new();
    for minute in ["2026-01-05T09:00:00.005Z", "2026-01-05T09:01:00.005Z"] {
        made.push(clock.tick(at(minute)).await.unwrap());
    }
    assert_eq!(made, [1, 0]);
}

#[tokio::test]
async fn an_entry_set_in_its_own_minute_does_not_fire_for_it() {
    let bed = Bed::new().await;
    let clock = Clock::new(bed.jobs.clone());
    clock.tick(at("2026-01-05T09:00:00.005Z")).await.unwrap();
    bed.schedule(r#"{"cron":[{"name":"a","schedule":"0 9 * * *"}]}"#).await; // at 09:00:30
    assert_eq!(clock.tick(at("2026-01-05T09:01:00.005Z")).await.unwrap(), 0);
}

#[tokio::test]
async fn a_result_is_not_forgotten_while_it_is_still_to_be_posted() {
    let bed = Bed::new().await;
    let claim = claimed(&bed).await;
    let now = Timestamp::now();
    assert!(bed.store.end_attempt(&claim, End::Succeeded, None, None, now).await.unwrap());
    let later = now + SignedDuration::from_secs(61);
    assert_eq!(bed.store.expire_invocations(later, 10).await.unwrap(), 0);
}

#[tokio::test]
async fn the_last_answer_stays_when_a_later_attempt_has_none() {
    let bed = Bed::new().await;
    let first = claimed(&bed).await;
    let now = Timestamp::now();
    let busy = Answer { status: 503, headers: vec![], body: b"busy".to_vec(), truncated: true };
    let again = End::Again(now);
    bed.store.end_attempt(&first, again, Some(&busy), Some("503"), now).await.unwrap();
    let last = claim(&bed).await;
    bed.store.end_attempt(&last, End::Dead, None, Some("unreachable"), now).await.unwrap();
    let record = bed.store.invocation(bed.team, last.id).await.unwrap().unwrap();
    assert_eq!((record.status, record.truncated), (Some(503), true));
    assert_eq!(record.error.as_deref(), Some("unreachable"));
    let answer = bed.store.invocation_answer(bed.team, last.id).await.unwrap().unwrap();
    assert_eq!(answer.body, b"busy");
}
