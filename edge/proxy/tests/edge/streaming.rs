//! Bodies flow both ways, whole and without waiting for their end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_proxy::BoxError;
use http_body::Body as _;
use http_body_util::{BodyExt, channel::Channel};
use tokio::time::timeout;

use crate::{
    client::{ALL, Client, ENCRYPTED, get, post, text},
    pattern::{PATTERN_BYTES, check, large, pattern},
    stack::{Stack, function},
};

/// More than the kernel buffers on the way there and back: four connections of up to 36 MiB, where
/// `tcp_rmem` is generous.
const KERNEL_MAX_BYTES: usize = 256 * 1024 * 1024;
const LARGE_BYTES: usize = 50 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_mebibytes_go_up_and_come_down_byte_for_byte() {
    let stack = Stack::start().await;
    for proto in ENCRYPTED {
        let mut client = Client::new(&stack, proto).await;
        let started = Instant::now();
        let response = client.send(post(&function("hello"), "/echo", large(LARGE_BYTES))).await;
        assert_eq!(response.status(), 200);
        assert_eq!(check(response.into_body()).await, Ok(LARGE_BYTES), "{proto:?}");
        eprintln!("{proto:?}: 50 MiB there and back in {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn first_chunk_of_an_answer_arrives_before_the_last_exists() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let mut body = client.send(get(&function("hello"), "/two-steps")).await.into_body();
        let frame = timeout(Duration::from_secs(5), body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "one", "{proto:?}");
        stack.agent.go.notify_one();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "two", "{proto:?}");
    }
}

#[tokio::test]
async fn first_chunk_of_a_request_is_echoed_before_the_last_is_sent() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(4);
        sender.send_data(Bytes::from_static(b"ping")).await.unwrap();
        let request = post(&function("hello"), "/echo", body.boxed_unsync());
        let mut answer = client.send(request).await.into_body();
        let first = timeout(Duration::from_secs(5), answer.frame()).await.unwrap();
        assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "ping", "{proto:?}");
        sender.send_data(Bytes::from_static(b"pong")).await.unwrap();
        drop(sender);
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "pong", "{proto:?}");
    }
}

#[tokio::test]
async fn slow_reader_slows_the_writer() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let mut sent = 0_usize;
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
        let request = post(&function("hello"), "/echo", body.boxed_unsync());
        sender.send_data(pattern()).await.unwrap();
        let answer = client.send(request).await;
        // Nobody reads the answer: everything in between fills up, then sending must stall.
        let stalled = loop {
            match timeout(Duration::from_secs(1), sender.send_data(pattern())).await {
                Ok(result) => result.unwrap(),
                Err(_) => break true,
            }
            sent += PATTERN_BYTES;
            if sent > KERNEL_MAX_BYTES {
                break false;
            }
        };
        assert!(stalled, "{proto:?}: {sent} bytes were taken unread");
        drop(answer);
    }
}

#[tokio::test]
async fn known_length_is_kept() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let response = client.send(get(&function("hello"), "/seen")).await;
        assert!(response.body().size_hint().exact().is_some() || proto == crate::client::Proto::H3);
        assert!(response.headers().contains_key("content-length"), "{proto:?}");
        assert!(text(response).await.contains("\"method\":\"GET\""));
    }
}

#[tokio::test]
async fn events_arrive_one_by_one_and_end_with_their_reader() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let answer = client.send(get(&function("hello"), "/sse")).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream", "{proto:?}");
        assert!(!answer.headers().contains_key("content-length"), "{proto:?}");
        let mut events = answer.into_body();
        for number in 0..3 {
            let event = timeout(Duration::from_secs(5), events.frame()).await.expect("an event");
            let event = event.unwrap().unwrap().into_data().unwrap();
            assert_eq!(event, format!("id: {number}\ndata: event\n\n"), "{proto:?}");
            let early = timeout(Duration::from_millis(20), events.frame()).await;
            assert!(early.is_err(), "{proto:?}: there is no event yet");
            if number < 2 {
                stack.agent.go.notify_one();
            }
        }
        drop((events, client));
        stack.agent.wait_for_abort("/sse").await;
    }
}

#[tokio::test]
async fn a_part_of_an_answer_is_passed_on_as_one() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let whole = client.send(get(&function("hello"), "/range")).await;
        assert_eq!((whole.status(), text(whole).await.len()), (200.try_into().unwrap(), 26));
        let mut asked = get(&function("hello"), "/range");
        asked.headers_mut().insert("range", http::HeaderValue::from_static("bytes=3-5"));
        let part = client.send(asked).await;
        assert_eq!(part.status(), 206, "{proto:?}");
        assert_eq!(part.headers()["content-range"], "bytes 3-5/26");
        assert_eq!(part.headers()["content-length"], "3", "{proto:?}");
        assert_eq!(text(part).await, "def", "{proto:?}");
        let mut beyond = get(&function("hello"), "/range");
        beyond.headers_mut().insert("range", http::HeaderValue::from_static("bytes=30-40"));
        assert_eq!(client.send(beyond).await.status(), 416, "{proto:?}");
    }
}
