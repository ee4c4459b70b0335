//! Does everybody who waits get a place once, in order, or leave without a trace?

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::sync::Mutex;

use tokio::task::JoinSet;

use super::*;

const KEY: AdmitKey = AdmitKey { function: FunctionId::from_u128(1), team: TeamId::from_u128(2) };

fn limits(function_max: u32, queue_max: u32) -> AdmitLimits {
    AdmitLimits { function_max, team_max: 0, queue_max }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

async fn admit(admission: &Admission, limits: AdmitLimits) -> Result<Permit, Refused> {
    admission.admit(KEY, limits, Instant::now(), soon()).await
}

async fn until_waiting(admission: &Admission, count: usize) {
    while admission.load(KEY.function).1 != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_says_when_it_was_taken() {
    let admission = Admission::new();
    let asked = Instant::now();
    let unlimited = admit(&admission, AdmitLimits::default()).await.unwrap();
    assert_eq!(unlimited.taken_at(), None);
    let mut first = admit(&admission, limits(1, 1)).await.unwrap();
    assert_eq!(first.taken_at(), Some(asked), "at once");
    let after = Duration::from_secs(5);
    let leave = async {
        tokio::time::sleep(after).await;
        first.set_end(Instant::now());
        drop(first);
    };
    let (second, ()) = tokio::join!(admit(&admission, limits(1, 1)), leave);
    assert_eq!(second.unwrap().taken_at(), Some(asked + after), "when the first had left");
    assert_eq!(admission.busy(), 0);
}

#[tokio::test]
async fn without_limits_nothing_is_kept() {
    let admission = Admission::new();
    let _permit = admit(&admission, AdmitLimits::default()).await.unwrap();
    assert_eq!(admission.busy(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_passed_deadline_are_told_apart() {
    let admission = Admission::new();
    let _running = admit(&admission, limits(1, 0)).await.unwrap();
    let full = admit(&admission, limits(1, 0)).await.unwrap_err();
    assert_eq!(full, Refused::QueueFull { retry_after: Duration::from_secs(1) });
    let late = admit(&admission, limits(1, 1)).await.unwrap_err();
    assert!(matches!(late, Refused::QueueTimeout { .. }));
    assert_eq!(admission.load(KEY.function), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn places_go_to_those_who_came_first() {
    let admission = Admission::new();
    let first = admit(&admission, limits(1, 10)).await.unwrap();
    let (order, mut tasks) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
    for number in 0..5 {
        let (admission, order) = (admission.clone(), Arc::clone(&order));
        tasks.spawn({
            let admission = admission.clone();
            async move {
                let _permit = admit(&admission, limits(1, 10)).await.unwrap();
                order.lock().unwrap().push(number);
            }
        });
        until_waiting(&admission, number + 1).await;
    }
    drop(first);
    tasks.join_all().await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(admission.busy(), 0, "idle entries go away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_cancelled_waits_loses_no_place() {
    let admission = Admission::new();
    let mut tasks = JoinSet::new();
    for round in 0..2000_u64 {
        let admission = admission.clone();
        tasks.spawn(async move {
            let wait = Duration::from_micros(round % 97 * 10);
            let held = tokio::time::timeout(wait, admit(&admission, limits(3, 5000))).await;
            assert!(admission.load(KEY.function).0 <= 3);
            tokio::task::yield_now().await;
            drop(held);
        });
    }
    tasks.join_all().await;
    assert_eq!(admission.busy(), 0);
    let all = [(); 3].map(|()| admission.gates.try_enter(Scope::Function(KEY.function), 3));
    assert!(all.iter().all(Option::is_some));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_granted_to_a_dropped_future_goes_on_to_the_next() {
    let admission = Admission::new();
    let running = admit(&admission, limits(1, 10)).await.unwrap();
    let mut gone = Box::pin(admit(&admission, limits(1, 10)));
    assert!(futures_poll(&mut gone).await);
    let mut next = Box::pin(admit(&admission, limits(1, 10)));
    assert!(futures_poll(&mut next).await);
    drop(running);
    drop(gone);
    let _permit = next.await.unwrap();
    assert_eq!(admission.load(KEY.function), (1, 0));
}

/// Polls once; whether it is still pending.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    let once = |cx: &mut std::task::Context<'_>| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
    };
    std::future::poll_fn(once).await
}

#[tokio::test(start_paused = true)]
async fn limits_below_the_use_wait_and_raised_ones_let_in_at_once() {
    let admission = Admission::new();
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(admit(&admission, limits(4, 10)).await.unwrap());
    }
    let mut waiting = Box::pin(admit(&admission, limits(1, 10)));
    assert!(futures_poll(&mut waiting).await);
    running.truncate(1);
    assert!(futures_poll(&mut waiting).await, "one runs, and one is the limit");
    admission.limits_changed(KEY, limits(2, 10));
    let _permit = waiting.await.unwrap();
    let mut lifted = Box::pin(admit(&admission, limits(2, 10)));
    assert!(futures_poll(&mut lifted).await);
    admission.limits_changed(KEY, AdmitLimits::default());
    let _other = lifted.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_teams_limit_holds_over_its_functions() {
    let admission = Admission::new();
    let team = AdmitLimits { function_max: 5, team_max: 1, queue_max: 0 };
    let other = AdmitKey { function: FunctionId::from_u128(9), team: KEY.team };
    let permit = admission.admit(KEY, team, Instant::now(), soon()).await.unwrap();
    assert!(admission.admit(other, team, Instant::now(), soon()).await.is_err());
    assert_eq!(admission.load(other.function), (0, 0), "the function's place went back");
    drop(permit);
    assert!(admission.admit(other, team, Instant::now(), soon()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn waits_are_estimated_from_service_times() {
    let admission = Admission::new();
    let busy = admit(&admission, limits(1, 10)).await.unwrap();
    let mut waiting = Box::pin(admit(&admission, limits(1, 10)));
    assert!(futures_poll(&mut waiting).await);
    tokio::time::advance(Duration::from_secs(8)).await;
    drop(busy);
    let _running = waiting.await.unwrap();
    let Err(Refused::QueueFull { retry_after }) = admit(&admission, limits(1, 0)).await else {
        panic!("there is no queue");
    };
    assert_eq!(retry_after, Duration::from_secs(8));
}

#[tokio::test]
async fn a_host_has_its_own_places() {
    let admission = Admission::new();
    let host = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let first = admission.try_host(KEY.function, host(1), 1).unwrap();
    assert!(admission.try_host(KEY.function, host(1), 1).is_none());
    assert!(admission.try_host(KEY.function, host(2), 1).is_some());
    drop(first);
    assert_eq!(admission.busy(), 0);
    assert!(admission.try_host(KEY.function, host(1), 1).is_some());
}
