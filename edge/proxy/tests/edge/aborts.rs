//! A stream that is given up, by its client or by its guest, ends alone.

use std::time::Duration;

use bytes::Bytes;
use edge_proxy::{Body, BoxError};
use http_body_util::{BodyExt as _, channel::Channel};
use tokio::time::timeout;

use crate::{
    by_hand::{ByHand, Step},
    client::{ALL, Client, Proto, get, post, text},
    stack::{Stack, function},
};

/// Longest wait for what is to come.
const PATIENCE: Duration = Duration::from_secs(20);
const SHARED: [Proto; 2] = [Proto::H2, Proto::H3];

/// Begins an answer that ends when the test says so.
async fn other(client: &mut Client) -> Body {
    let mut body = client.send(get(&function("hello"), "/two-steps")).await.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    body
}

async fn ends(stack: &Stack, other: Body, proto: Proto) {
    stack.agent.go.notify_one();
    let rest = timeout(PATIENCE, other.collect()).await.expect("it goes on");
    assert_eq!(rest.expect("it lives").to_bytes(), "two", "{proto:?}");
}

#[tokio::test]
async fn an_answer_that_its_client_gives_up_ends_at_the_guest_and_alone() {
    let stack = Stack::start().await;
    for proto in SHARED {
        let mut client = Client::new(&stack, proto).await;
        let other = other(&mut client).await;
        let mut given_up = client.send(get(&function("hello"), "/silent")).await.into_body();
        assert!(given_up.frame().await.unwrap().is_ok());
        drop(given_up);
        stack.agent.wait_for_abort("/silent").await;
        ends(&stack, other, proto).await;
        assert_eq!(client.send(get(&function("hello"), "/seen")).await.status(), 200, "{proto:?}");
    }
}

#[tokio::test]
async fn a_request_given_up_before_its_answer_ends_at_the_guest_and_alone() {
    let stack = Stack::start().await;
    for proto in SHARED {
        let mut client = Client::new(&stack, proto).await;
        let other = other(&mut client).await;
        let hanging = client.send(get(&function("hello"), "/hang"));
        assert!(timeout(Duration::from_millis(300), hanging).await.is_err());
        stack.agent.wait_for_abort("/hang").await;
        ends(&stack, other, proto).await;
    }
}

#[tokio::test]
async fn an_upload_that_its_client_breaks_off_never_looks_complete_to_the_guest() {
    let stack = Stack::start().await;
    for proto in SHARED {
        let mut client = Client::new(&stack, proto).await;
        let other = other(&mut client).await;
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(4);
        sender.send_data(Bytes::from_static(b"part")).await.unwrap();
        let request = post(&function("hello"), "/echo", body.boxed_unsync());
        let mut echoed = client.send(request).await.into_body();
        assert_eq!(echoed.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
        sender.abort("the client gave up".into());
        stack.agent.wait_for_abort("/echo").await;
        let rest = timeout(PATIENCE, echoed.collect()).await.expect("no hang");
        assert!(rest.is_err(), "{proto:?}: nor does the answer");
        ends(&stack, other, proto).await;
    }
}

#[tokio::test]
async fn an_answer_that_its_guest_breaks_off_ends_alone() {
    let stack = Stack::start().await;
    for proto in SHARED {
        let mut client = Client::new(&stack, proto).await;
        let other = other(&mut client).await;
        let broken = client.send(get(&function("hello"), "/die")).await.into_body();
        let broken = timeout(PATIENCE, broken.collect()).await.expect("no hang");
        assert!(broken.is_err(), "{proto:?}: a cut answer looked complete");
        ends(&stack, other, proto).await;
        assert_eq!(client.send(get(&function("hello"), "/seen")).await.status(), 200, "{proto:?}");
    }
}

#[tokio::test]
async fn an_answer_before_the_requests_end_arrives_and_the_rest_is_not_waited_for() {
    const EARLY: &[Step] = &[
        Step::Read(4),
        Step::Say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 6\r\n\r\nenough"),
        Step::Wait,
    ];
    for proto in ALL {
        let agent = ByHand::start(|_| EARLY).await;
        let stack = Stack::set_up(|setup| {
            setup.agents.insert("early", vec![agent.address]);
        })
        .await;
        let mut client = Client::new(&stack, proto).await;
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(4);
        sender.send_data(Bytes::from(vec![b'x'; 64])).await.unwrap();
        let answer = client.send(post(&function("early"), "/", body.boxed_unsync())).await;
        assert_eq!(answer.status(), 413, "{proto:?}");
        assert_eq!(text(answer).await, "enough", "{proto:?}");
        drop(sender);
    }
}
