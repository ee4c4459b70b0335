//! An edge that goes tells its clients in the words of their protocol, lets them end what they have
//! begun, and cuts what does not end.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    asking::Asking,
    by_hand::{ByHand, FINE, Step},
    client::{ALL, Client, ENCRYPTED, Proto, get, quic_connect, text, tls_stream},
    raw,
    stack::{Stack, function},
};

/// Longest wait for what is to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// An edge, and an agent whose every answer waits for the test.
async fn waiting() -> (Stack, ByHand) {
    let agent = ByHand::start(|_| &[Step::Wait, FINE]).await;
    let stack = Stack::set_up(|setup| {
        setup.agents.insert("asked", vec![agent.address]);
    });
    (stack.await, agent)
}

/// Waits until nobody is let in any more.
async fn begun(stack: &Stack) {
    let trying = async { while TcpStream::connect(stack.https).await.is_ok() {} };
    timeout(PATIENCE, trying).await.expect("listeners close");
}

#[tokio::test]
async fn requests_that_were_begun_are_answered() {
    for proto in ENCRYPTED {
        let (mut stack, agent) = waiting().await;
        let mut client = Client::new(&stack, proto).await;
        let asking = tokio::spawn(async move {
            let answer = client.send(get(&function("asked"), "/")).await;
            (answer.status().as_u16(), text(answer).await, client)
        });
        agent.asked(1).await;
        stack.cancel.cancel();
        begun(&stack).await;
        agent.go.notify_one();
        let (status, text, client) = asking.await.unwrap();
        assert_eq!((status, text.as_str()), (200, "fine"), "{proto:?}");
        drop(client);
        assert_eq!(stack.drained().await.cut, 0, "{proto:?}");
    }
}

#[tokio::test]
async fn over_http1_the_last_answer_says_close_and_the_connection_ends() {
    for proto in [Proto::Plain, Proto::H1] {
        let (mut stack, agent) = waiting().await;
        let mut asking = Asking::start(&stack, proto, &function("asked"), &[], 0).await;
        agent.asked(1).await;
        stack.cancel.cancel();
        begun(&stack).await;
        agent.go.notify_one();
        let (status, fields) = asking.next().await;
        assert_eq!((status, &fields["connection"]), (200, &"close".parse().unwrap()), "{proto:?}");
        assert_eq!(asking.text().await, "fine", "{proto:?}");
        assert_eq!(stack.drained().await.cut, 0, "{proto:?}: it ended by itself");
    }
}

/// Without TLS's last word (RFC 8446 6.1) a client could not tell an end from a cut by somebody else: the
/// read would be an error.
#[tokio::test]
async fn over_http1_an_idle_connection_ends_with_a_close_notify() {
    let mut stack = Stack::start().await;
    let mut io = tls_stream(&stack, b"http/1.1").await;
    let request = format!("GET /sized?5 HTTP/1.1\r\nhost: {}\r\n\r\n", function("hello"));
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"xxxxx") {
        let read = timeout(PATIENCE, io.read_buf(&mut answer)).await.unwrap().unwrap();
        assert!(read > 0, "{answer:?}");
    }
    stack.cancel.cancel();
    let rest = timeout(PATIENCE, io.read(&mut [0; 16])).await.expect("it ends");
    assert_eq!(rest.expect("a close_notify"), 0);
    drop(io);
    assert_eq!(stack.drained().await.cut, 0);
}

#[tokio::test]
async fn over_http2_goaway_names_the_last_stream_and_that_one_is_answered() {
    let (mut stack, agent) = waiting().await;
    let mut io = tls_stream(&stack, b"h2").await;
    io.write_all(&raw::h2_start(&function("asked"), "/")).await.unwrap();
    agent.asked(1).await;
    stack.cancel.cancel();
    begun(&stack).await;
    let mut last_streams = Vec::new();
    let mut body = Vec::new();
    let reading = async {
        while let Some((kind, flags, stream, payload)) = raw::h2_frame(&mut io).await {
            match kind {
                0 => {
                    assert_eq!(stream, 1);
                    body.extend(payload);
                    if flags & 1 == 1 {
                        body.push(b'.');
                    }
                }
                3 => panic!("stream {stream} was reset: {payload:?}"),
                7 => {
                    assert_eq!(payload[4..8], [0; 4], "NO_ERROR");
                    last_streams.push(payload[..4].to_vec());
                    if last_streams.len() == 2 {
                        assert!(body.is_empty(), "the answer does not exist yet");
                        agent.go.notify_one();
                    }
                }
                _ => {}
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("the connection ends");
    // First that no more should come, with none refused; then which was the last one.
    assert_eq!(last_streams[..2], [vec![0x7f, 0xff, 0xff, 0xff], vec![0, 0, 0, 1]]);
    assert!(body.starts_with(b"fine") && body.ends_with(b"."), "whole: {body:?}");
    drop(io);
    assert_eq!(stack.drained().await.cut, 0);
}

#[tokio::test]
async fn over_http3_goaway_comes_twice_and_what_was_accepted_is_answered() {
    let (mut stack, agent) = waiting().await;
    let (endpoint, connection) = quic_connect(&stack).await;
    let mut ours = connection.open_uni().await.unwrap();
    ours.write_all(&[0x00, 0x04, 0x00]).await.unwrap(); // control stream, empty SETTINGS
    let head = raw::h3_head(&function("asked"), "GET", "/");
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&head).await.unwrap();
    send.finish().unwrap();
    agent.asked(1).await;
    let mut control = timeout(PATIENCE, connection.accept_uni()).await.unwrap().unwrap();
    let mut kind = [0];
    control.read_exact(&mut kind).await.unwrap();
    assert_eq!(kind, [0], "the first one is the control stream");
    stack.cancel.cancel();
    let (mut unread, mut ids) = (BytesMut::new(), Vec::new());
    while ids.len() < 2 {
        while let Some((kind, payload)) = raw::h3_frame(&mut unread) {
            if kind == 7 {
                ids.push(payload.to_vec());
            }
        }
        if ids.len() < 2 {
            let chunk = timeout(PATIENCE, control.read_chunk(1024, true)).await.unwrap();
            unread.extend_from_slice(&chunk.unwrap().expect("it stays open").bytes);
        }
    }
    // First that no more should come, with none refused; then which is the first to be refused.
    let nobody = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc];
    assert_eq!(ids, [nobody, vec![4]]);
    let (mut late, mut refused) = connection.open_bi().await.unwrap();
    let _ = late.write_all(&head).await; // it may be stopped already
    let error = timeout(PATIENCE, refused.read(&mut [0; 16])).await.unwrap().unwrap_err();
    let rejected = quinn::ReadError::Reset(0x10b_u32.into());
    assert_eq!(error, rejected, "H3_REQUEST_REJECTED: it may be sent again elsewhere");
    agent.go.notify_one();
    let answer = timeout(PATIENCE, recv.read_to_end(64 * 1024)).await.unwrap().unwrap();
    assert!(answer.ends_with(b"fine"), "{answer:?}");
    let closed = timeout(PATIENCE, connection.closed()).await.unwrap();
    let quinn::ConnectionError::ApplicationClosed(closed) = closed else { panic!("{closed}") };
    assert_eq!(closed.error_code, 0x100_u32.into(), "H3_NO_ERROR");
    assert_eq!((stack.drained().await.cut, agent.requests()), (0, 1));
    endpoint.close(0_u32.into(), b"");
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_and_counted() {
    const GRACE: Duration = Duration::from_millis(1500);
    let mut stack = Stack::set_up(|setup| setup.grace = GRACE).await;
    let mut asking = JoinSet::new();
    for proto in ALL {
        for path in ["/two-steps", "/silent"] {
            let mut client = Client::new(&stack, proto).await;
            let answer = client.send(get(&function("hello"), path)).await;
            asking.spawn(async move {
                let whole = http_body_util::BodyExt::collect(answer.into_body()).await;
                drop(client);
                (proto, path, whole.is_ok())
            });
        }
    }
    let begin = Instant::now();
    stack.cancel.cancel();
    begun(&stack).await;
    stack.agent.go.notify_waiters(); // half of them end
    let drained = stack.drained().await;
    assert!(begin.elapsed() >= GRACE, "the time was given");
    assert_eq!(drained.cut, ALL.len(), "those that did not end");
    while let Some(ended) = timeout(PATIENCE, asking.join_next()).await.expect("all are told") {
        let (proto, path, whole) = ended.unwrap();
        assert_eq!(whole, path == "/two-steps", "{proto:?} {path}");
    }
    for _ in ALL {
        stack.agent.wait_for_abort("/silent").await;
    }
}
