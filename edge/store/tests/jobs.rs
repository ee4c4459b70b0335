//! Invocations that nobody waits for, on disk: claims, leases, fences, ends, and what is forgotten.

#![allow(clippy::unwrap_used, reason = "fixtures may fail loudly")]

mod support;

use std::time::Duration;

use edge_store::{
    Answer, End, InvocationId, InvocationRecord, InvocationSource, InvocationState as State,
    NewInvocation, WebhookState,
};
use jiff::{SignedDuration, Timestamp};
use pool_model::{FunctionId, TeamId};
use support::TestDb;

const TEAM: TeamId = TeamId::from_u128(1);
const FUNCTION: FunctionId = FunctionId::from_u128(1);
const LEASE: Duration = Duration::from_secs(10);
const TTL_S: i64 = 60;

#[tokio::test]
async fn what_is_submitted_survives_a_restart_byte_by_byte() {
    let db = queue().await;
    let id = db.submit(0).await;
    let store = db.reopen().await;
    let found = store.invocation(TEAM, id).await.unwrap().unwrap();
    assert_eq!((found.state, found.attempts, found.path.as_str()), (State::Queued, 0, "/in?a=b"));
    assert!(store.invocation(TeamId::from_u128(2), id).await.unwrap().is_none(), "another team's");
    let (_, request) = store.claim_invocations(at(0), LEASE, 1).await.unwrap().remove(0);
    assert_eq!(request.body, [0, 255, b'"']);
    assert_eq!(request.headers, [("x-odd".to_owned(), vec![0xff, b'a'])]);
}

#[tokio::test]
async fn those_that_are_due_are_claimed_in_order_and_once() {
    let db = queue().await;
    let (late, early, future) = (db.submit(2).await, db.submit(1).await, db.submit(9).await);
    assert_eq!(db.store.next_invocation_due().await.unwrap(), Some(at(1)));
    assert_eq!(db.claim(2).await.iter().map(|c| c.id).collect::<Vec<_>>(), [early, late]);
    assert!(db.claim(3).await.is_empty());
    assert_eq!(db.state(future).await, State::Queued);
    assert_eq!(db.store.next_invocation_due().await.unwrap(), Some(at(9)));
    let full = db.store.submit_invocation(&new(at(3)), 1).await.unwrap();
    assert!(!full, "one waits already; those that run don't count");
}

#[tokio::test]
async fn a_lease_that_is_over_lets_another_in_and_keeps_the_first_out() {
    let db = queue().await;
    let id = db.submit(0).await;
    let first = db.claim(0).await.remove(0);
    assert!(db.store.renew_claim(&first, at(20)).await.unwrap());
    assert!(db.claim(19).await.is_empty(), "it was renewed");
    let second = db.claim(20).await.remove(0);
    assert_eq!((second.attempts, second.claims), (2, 2));

    assert!(!db.store.renew_claim(&first, at(99)).await.unwrap());
    assert!(!db.end(&first, End::Succeeded, Some(&answer(200)), 21).await);
    assert_eq!(db.state(id).await, State::Running, "what the first says changes nothing");
    assert!(db.end(&second, End::Succeeded, Some(&answer(201)), 22).await);
    assert!(!db.end(&second, End::Dead, None, 23).await, "it ends once");
    let done = db.store.invocation(TEAM, id).await.unwrap().unwrap();
    assert_eq!((done.state, done.status), (State::Succeeded, Some(201)));
    let kept = db.store.invocation_answer(TEAM, id).await.unwrap().unwrap();
    assert_eq!(kept.body, b"answer");
}

#[tokio::test]
async fn a_runner_lost_in_the_last_attempt_leaves_a_dead_letter_that_can_be_retried() {
    let db = queue().await;
    let id = db.submit(0).await;
    for s in [0, 10] {
        assert_eq!(db.claim(s).await.len(), 1, "attempt at {s}");
    }
    assert!(db.store.retry_invocation(TEAM, id, at(15)).await.unwrap().is_none(), "not dead");
    assert!(db.claim(20).await.is_empty());
    let dead = db.store.invocation(TEAM, id).await.unwrap().unwrap();
    assert_eq!((dead.state, dead.attempts, dead.finished_at), (State::Dead, 2, Some(at(20))));
    assert_eq!(dead.webhook_state, Some(WebhookState::Due));
    let other = TeamId::from_u128(2);
    assert!(db.store.retry_invocation(other, id, at(30)).await.unwrap().is_none());
    let again = db.store.retry_invocation(TEAM, id, at(30)).await.unwrap().unwrap();
    assert_eq!((again.state, again.attempts, again.expires_at), (State::Queued, 0, None));
    assert_eq!((again.webhook_state, again.next_attempt_at), (None, at(30)));
    assert_eq!(db.claim(30).await.len(), 1);
}

#[tokio::test]
async fn an_attempt_can_be_put_off_or_given_back() {
    let db = queue().await;
    let id = db.submit(0).await;
    let claim = db.claim(0).await.remove(0);
    assert!(db.end(&claim, End::Again(at(5)), Some(&answer(503)), 1).await);
    assert!(db.claim(4).await.is_empty());
    let claim = db.claim(5).await.remove(0);
    assert_eq!(claim.attempts, 2);
    assert!(db.end(&claim, End::GivenBack, None, 6).await);
    let back = db.store.invocation(TEAM, id).await.unwrap().unwrap();
    assert_eq!((back.state, back.attempts, back.claims), (State::Queued, 1, 2));
}

#[tokio::test]
async fn what_waits_can_be_cancelled_and_what_is_finished_removed() {
    let db = queue().await;
    let (id, other) = (db.submit(0).await, TeamId::from_u128(2));
    assert!(!db.store.remove_invocation(TEAM, id).await.unwrap(), "it waits");
    assert!(!db.store.cancel_invocation(other, id, at(1)).await.unwrap());
    assert!(db.store.cancel_invocation(TEAM, id, at(1)).await.unwrap());
    assert!(!db.store.cancel_invocation(TEAM, id, at(1)).await.unwrap(), "it was");
    assert!(db.claim(2).await.is_empty());
    assert!(!db.store.remove_invocation(other, id).await.unwrap());
    assert!(db.store.remove_invocation(TEAM, id).await.unwrap());
    assert!(db.store.invocation(TEAM, id).await.unwrap().is_none());

    let id = db.submit(3).await;
    db.claim(3).await;
    assert!(!db.store.cancel_invocation(TEAM, id, at(4)).await.unwrap(), "it runs");
    assert!(!db.store.remove_invocation(TEAM, id).await.unwrap());
}

#[tokio::test]
async fn results_are_forgotten_when_their_time_is_over_and_nothing_else_is() {
    let db = queue().await;
    let (done, waiting) = (db.submit(0).await, db.submit(5).await);
    let claim = db.claim(0).await.remove(0);
    assert!(db.end(&claim, End::Succeeded, Some(&answer(200)), 1).await);
    assert_eq!(db.store.expire_invocations(at(TTL_S), 9).await.unwrap(), 0);
    let after = at(1 + TTL_S);
    assert_eq!(db.store.expire_invocations(after, 9).await.unwrap(), 0, "it is to be posted");
    let [(post, _)] = &db.store.claim_posts(after, LEASE, 9).await.unwrap()[..] else { panic!() };
    let posted =
        db.store.end_post(done, post.webhook_attempts, WebhookState::Delivered, None, None);
    posted.await.unwrap();
    assert_eq!(db.store.expire_invocations(at(1 + TTL_S), 9).await.unwrap(), 1);
    assert!(db.store.invocation(TEAM, done).await.unwrap().is_none());
    assert_eq!(db.store.expire_invocations(at(999_999), 9).await.unwrap(), 0);
    assert_eq!(db.state(waiting).await, State::Queued);
}

#[tokio::test]
async fn what_waits_for_a_deleted_function_is_cancelled() {
    let db = queue().await;
    let (running, waiting) = (db.submit(0).await, db.submit(5).await);
    let claim = db.claim(0).await.remove(0);
    assert_eq!(db.store.cancel_orphans(at(1)).await.unwrap(), 0, "its function is there");
    db.store.remove_function(TEAM, "hello").await.unwrap().unwrap();
    assert_eq!(db.store.cancel_orphans(at(2)).await.unwrap(), 1);
    assert_eq!(db.state(waiting).await, State::Cancelled);
    assert_eq!(db.state(running).await, State::Running, "it may end");
    assert!(db.end(&claim, End::Succeeded, Some(&answer(200)), 3).await);
}

#[tokio::test]
async fn lists_are_newest_first_in_pages_and_by_state() {
    let db = queue().await;
    let ids = [db.submit(1).await, db.submit(2).await, db.submit(3).await];
    db.claim(1).await;
    let list = async |state, before, limit| {
        let found = db.store.invocations(FUNCTION, state, before, limit).await.unwrap();
        found.iter().map(|record| record.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, 2).await, [ids[2], ids[1]]);
    assert_eq!(list(None, Some(ids[1]), 2).await, [ids[0]]);
    assert_eq!(list(Some(State::Queued), None, 9).await, [ids[2], ids[1]]);
    assert_eq!(list(Some(State::Running), None, 9).await, [ids[0]]);
}

/// So many seconds after some time.
fn at(s: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap() + SignedDuration::from_secs(s)
}

fn answer(status: u16) -> Answer {
    Answer { status, headers: Vec::new(), body: b"answer".to_vec(), truncated: false }
}

fn new(at: Timestamp) -> NewInvocation {
    NewInvocation {
        id: InvocationId::generate(at),
        team: TEAM,
        function: FUNCTION,
        name: "hello".to_owned(),
        tag: None,
        source: InvocationSource::Async,
        method: "POST".to_owned(),
        path: "/in?a=b".to_owned(),
        headers: vec![("x-odd".to_owned(), vec![0xff, b'a'])],
        body: vec![0, 255, b'"'],
        attempts_max: 2,
        backoff_ms: 1000,
        result_ttl_ms: 60_000,
        webhook: Some("https://example.org/".to_owned()),
        at,
    }
}

/// Whatever happens to invocations, as many are taken as the limit leaves room for, and a recount
/// finds nothing to set right.
#[tokio::test]
async fn what_waits_is_known_without_counting_it() {
    let db = queue().await;
    let room = async |max| {
        assert_eq!(db.store.recount_waiting().await.unwrap(), 0);
        let mut taken = 0;
        while db.store.submit_invocation(&new(at(9)), max).await.unwrap() {
            taken += 1;
        }
        assert_eq!(db.store.recount_waiting().await.unwrap(), 0);
        taken
    };
    assert!(!db.store.submit_invocation(&new(at(9)), 0).await.unwrap());
    let ids = [db.submit(0).await, db.submit(1).await, db.submit(2).await];
    assert_eq!(room(4).await, 1);
    let claims = db.claim(2).await;
    assert_eq!(claims.len(), 3);
    assert_eq!(room(4).await, 3, "those that run don't count");
    assert!(db.end(&claims[0], End::Again(at(3)), None, 3).await);
    assert!(db.end(&claims[1], End::GivenBack, None, 3).await);
    assert!(db.end(&claims[2], End::Dead, None, 3).await);
    assert!(!db.end(&claims[0], End::Again(at(3)), None, 3).await, "it has ended");
    assert_eq!(room(7).await, 1, "two wait again");
    assert!(db.store.retry_invocation(TEAM, ids[2], at(4)).await.unwrap().is_some());
    assert_eq!(room(8).await, 0, "and one more");
    assert!(db.store.cancel_invocation(TEAM, ids[2], at(5)).await.unwrap());
    assert_eq!(room(8).await, 1);
    assert_eq!(db.claim(6).await.len(), 2);
    // Their runner is lost: one had its last attempt, the other one runs again and waits no less.
    assert_eq!(db.claim(60).await.len(), 6 + 1);
    assert_eq!(room(8).await, 8);
}

#[tokio::test]
async fn numbers_that_are_wrong_are_set_right() {
    let db = queue().await;
    db.submit(0).await;
    for statement in [
        "UPDATE invocations_waiting SET waiting = 5",
        "DELETE FROM invocations_waiting",
        "INSERT INTO invocations_waiting VALUES ('fn_gone', 3)",
    ] {
        db.run(statement).await;
        assert_eq!(db.store.recount_waiting().await.unwrap(), 1, "{statement}");
        assert_eq!(db.store.recount_waiting().await.unwrap(), 0, "{statement}");
    }
    assert!(!db.store.submit_invocation(&new(at(1)), 1).await.unwrap());
    assert!(db.store.submit_invocation(&new(at(1)), 2).await.unwrap());
}

/// A database with a function.
async fn queue() -> TestDb {
    let db = TestDb::new().await;
    let version = support::version(TEAM, "hello", 1, Timestamp::UNIX_EPOCH);
    db.store.publish(&version).await.unwrap();
    db
}

impl TestDb {
    async fn submit(&self, s: i64) -> InvocationId {
        let new = new(at(s));
        assert!(self.store.submit_invocation(&new, 100).await.unwrap());
        new.id
    }

    async fn claim(&self, s: i64) -> Vec<InvocationRecord> {
        let claimed = self.store.claim_invocations(at(s), LEASE, 100).await.unwrap();
        claimed.into_iter().map(|(record, _)| record).collect()
    }

    async fn end(
        &self,
        claim: &InvocationRecord,
        end: End,
        answer: Option<&Answer>,
        s: i64,
    ) -> bool {
        self.store.end_attempt(claim, end, answer, None, at(s)).await.unwrap()
    }

    async fn state(&self, id: InvocationId) -> State {
        self.store.invocation(TEAM, id).await.unwrap().unwrap().state
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_harms_no_other() {
    let db = queue().await;
    let (bad, good) = (db.submit(0).await, db.submit(1).await);
    db.run(&format!("UPDATE invocations SET body = '###' WHERE id = '{bad}'")).await;

    assert_eq!(db.claim(1).await.iter().map(|c| c.id).collect::<Vec<_>>(), [good]);
    let dead = db.store.invocation(TEAM, bad).await.unwrap().unwrap();
    assert_eq!((dead.state, dead.finished_at), (State::Dead, Some(at(1))));
    assert!(dead.error.as_deref().unwrap().starts_with("it cannot be read"), "{:?}", dead.error);
}
