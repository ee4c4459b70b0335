//! Event streams of pools, read by the API's own client and as they are on the wire.

use std::time::Duration;

use agent_api::v1;
use edge_api::{PoolEvent, PoolEvents};
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use pool_model::ErrorCode;

use crate::edge::{TestEdge, code, hello};

/// Longest that anything of these tests may take.
const PATIENCE: Duration = Duration::from_secs(20);
const QUICK: Option<Duration> = Some(Duration::from_millis(200));

#[tokio::test]
async fn a_pool_is_followed_through_trouble_to_its_functions_end() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    edge.agent.state().stats.series = vec![v1::PoolSample::default()];
    let mut events = edge.client().pool_events(Some(&function.name), QUICK).await.unwrap();
    let PoolEvent::Stats(pool) = next(&mut events).await else { panic!("expected stats first") };
    let stats = pool.stats.unwrap();
    assert_eq!((pool.function, pool.policy.min_warm), (function.name.clone(), 2));
    assert_eq!((stats.warm, stats.series.len()), (2, 0), "without its series");

    edge.agent.fail("get_pool", ErrorCode::AgentUnavailable);
    let trouble = until(&mut events, |event| matches!(event, PoolEvent::Error(_))).await;
    let PoolEvent::Error(trouble) = trouble else { unreachable!() };
    assert_eq!(trouble.code, "agent_unavailable");
    edge.agent.heal();
    edge.agent.state().stats.warm = 7;
    until(&mut events, |event| warm(event) == Some(7)).await;

    edge.client().delete_function(&function.name).await.unwrap();
    // One of the same name is another function.
    edge.client().deploy(&hello(), &code()).await.unwrap();
    let end = until(&mut events, |event| matches!(event, PoolEvent::End(_))).await;
    assert_eq!(end, PoolEvent::End(edge_api::PoolEnd { function: function.name }));
    let after = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!(after, None, "the stream has ended");
}

#[tokio::test]
async fn all_pools_are_followed_as_they_come_and_go() {
    let edge = TestEdge::start().await;
    let mut events = edge.client().pool_events(None, QUICK).await.unwrap();
    let mut others = edge.other_client().pool_events(None, QUICK).await.unwrap();
    // Begun without a single pool: new ones appear.
    let first = edge.client().deploy(&hello(), &code()).await.unwrap();
    let mut config = hello();
    config.name = "world".parse().unwrap();
    let second = edge.client().deploy(&config, &code()).await.unwrap();
    for function in [&first, &second] {
        until(&mut events, |event| named(event) == Some(function.name.as_str())).await;
    }
    edge.agent.fail("list_pools", ErrorCode::DeadlineExceeded);
    until(&mut events, |event| matches!(event, PoolEvent::Error(_))).await;
    // Who goes meanwhile is told of all the same, and the stream outlives it.
    edge.client().delete_function(&first.name).await.unwrap();
    until(&mut events, |event| matches!(event, PoolEvent::End(end) if end.function == first.name))
        .await;
    edge.agent.heal();
    let next = until(&mut events, |event| matches!(event, PoolEvent::Stats(_))).await;
    assert_eq!(named(&next), Some("world"));
    let quiet = tokio::time::timeout(Duration::from_millis(500), others.next()).await;
    assert!(quiet.is_err(), "another team's are not seen: {quiet:?}");
}

#[tokio::test]
async fn events_are_server_sent_events_at_the_pace_asked_for() {
    let edge = TestEdge::start().await;
    edge.client().deploy(&hello(), &code()).await.unwrap();
    let request = Request::get("/v1/pools/hello/events?interval_ms=300")
        .header("host", edge.address.to_string())
        .header("x-api-key", edge.key.expose());
    let stream = tokio::net::TcpStream::connect(edge.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let begun = tokio::time::Instant::now();
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let mut response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert!(response.headers().contains_key("x-request-id"));
    let mut text = String::new();
    while text.matches("\n\n").count() < 3 {
        let frame = tokio::time::timeout(PATIENCE, response.frame()).await.unwrap();
        let data = frame.unwrap().unwrap().into_data().unwrap();
        text.push_str(std::str::from_utf8(&data).unwrap());
    }
    assert!(begun.elapsed() >= Duration::from_millis(590), "two intervals between three events");
    for event in text.trim_end().split("\n\n") {
        let (name, data) = event.split_once('\n').unwrap();
        assert_eq!(name, "event: stats");
        let data: serde_json::Value =
            serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&data["function"], &data["max_warm"]), (&"hello".into(), &8.into()));
    }
    connection.abort();
}

#[tokio::test]
async fn streams_are_counted_and_a_place_is_free_once_its_client_left() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(edge.client().pool_events(None, None).await.unwrap());
    }
    let refused = edge.client().pool_events(Some(&function.name), None).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NoCapacity), "{refused}");
    drop(open.pop());
    let asked = async {
        while edge.client().pool_events(None, None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the place should become free");
}

#[tokio::test]
async fn a_shutdown_ends_the_streams() {
    let edge = TestEdge::start().await;
    let slow = Some(Duration::from_secs(60));
    let mut events = edge.client().pool_events(None, slow).await.unwrap();
    edge.control.close_streams();
    let ended = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!(ended, None);
    let mut late = edge.client().pool_events(None, slow).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, late.next()).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_stream_that_can_not_be_is_refused_before_it_begins() {
    let edge = TestEdge::start().await;
    edge.client().deploy(&hello(), &code()).await.unwrap();
    for (path, code, part) in [
        ("/v1/pools/none/events", "function_not_found", "`none`"),
        ("/v1/pools/None/events", "invalid_argument", "function name"),
        ("/v1/pools/hello/events?interval_ms=199", "invalid_argument", "200 to 60000"),
        ("/v1/pools/events?interval_ms=60001", "invalid_argument", "200 to 60000"),
        ("/v1/pools/events?interval_ms=soon", "invalid_argument", "interval_ms"),
        ("/v1/pools/events?every=1", "invalid_argument", "every"),
    ] {
        let error = edge.refusal(Method::GET, path, "").await;
        assert_eq!(error.code, code, "{path}");
        assert!(error.message.contains(part), "{path}: {error:?}");
    }
    let stranger = crate::edge::client(edge.address, &edge_store::ApiKey::generate());
    let error = stranger.pool_events(None, None).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Unauthorized), "{error}");
    let hello = "hello".parse().unwrap();
    let error = edge.other_client().pool_events(Some(&hello), None).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::FunctionNotFound), "{error}");
}

async fn next(events: &mut PoolEvents) -> PoolEvent {
    let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    event.expect("the stream should go on")
}

/// Reads on to an event that is as wanted.
async fn until(events: &mut PoolEvents, wanted: impl Fn(&PoolEvent) -> bool) -> PoolEvent {
    let read = async {
        loop {
            let event = next(events).await;
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the event should come")
}

fn named(event: &PoolEvent) -> Option<&str> {
    match event {
        PoolEvent::Stats(pool) => Some(pool.function.as_str()),
        _ => None,
    }
}

fn warm(event: &PoolEvent) -> Option<u32> {
    match event {
        PoolEvent::Stats(pool) => pool.stats.as_ref().map(|stats| stats.warm),
        _ => None,
    }
}
