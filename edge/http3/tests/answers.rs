//! What a service may answer, and what a request's body says after it failed.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use bytes::Bytes;
use edge_http3::{BodyError, BoxError, Config, RecvBody};
use futures::stream;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use support::*;

const INTERNAL_ERROR: Outcome = Outcome::Reset(0x102);

/// Answers as the path says: `/<status>/<content-length>/<pieces of five bytes>`.
fn as_asked(request: Request<RecvBody>) -> Answer {
    let parts: Vec<String> = request.uri().path().split('/').map(str::to_owned).collect();
    let pieces = parts[3].parse().unwrap();
    let body = stream::iter((0..pieces).map(|_| Ok(Frame::data(Bytes::from_static(b"fives")))));
    let mut response = Response::builder().status(parts[1].as_str());
    if parts[2] != "-" {
        response = response.header("content-length", parts[2].as_str());
    }
    let response = response.body(StreamBody::new(body).boxed_unsync()).unwrap();
    Box::pin(std::future::ready(response))
}

#[tokio::test]
async fn an_answer_is_as_long_as_its_own_content_length_or_is_reset() {
    let server = Server::start(Config::default(), as_asked);
    let raw = server.raw().await;
    let rows: [(&str, &str, bool); 12] = [
        ("GET", "/200/10/2", true),
        ("GET", "/200/0/0", true),
        ("GET", "/200/-/3", true),
        ("GET", "/200/11/2", false),
        ("GET", "/200/9/2", false),
        ("GET", "/200/5/0", false),
        ("GET", "/200/0/1", false),
        ("GET", "/200/10/400", false),
        ("GET", "/200/+5/1", false),
        ("GET", "/200/18446744073709551616/1", false),
        ("HEAD", "/200/11/0", true),
        ("GET", "/304/11/0", true),
    ];
    for (method, path, whole) in rows {
        let mut head = GET;
        (head[0].1, head[3].1) = (method, path);
        let outcome = raw.request(&headers(&head)).await;
        match outcome {
            Outcome::Answer(_) => assert!(whole, "{method} {path}"),
            outcome => assert_eq!((outcome, whole), (INTERNAL_ERROR, false), "{method} {path}"),
        }
    }
}

#[tokio::test]
async fn an_interim_status_is_no_final_answer() {
    let server = Server::start(Config::default(), as_asked);
    let raw = server.raw().await;
    for path in ["/100/-/0", "/101/-/0", "/103/-/1", "/199/0/0"] {
        let mut head = GET;
        head[3].1 = path;
        assert_eq!(raw.request(&headers(&head)).await, INTERNAL_ERROR, "{path}");
    }
    let mut head = GET;
    head[3].1 = "/200/-/0";
    assert_eq!(raw.request(&headers(&head)).await.status(), b"200");
}

#[tokio::test]
async fn a_body_that_failed_goes_on_to_fail_and_is_never_at_its_end() {
    let (tell, mut told) = tokio::sync::mpsc::channel(8);
    let service = move |request: Request<RecvBody>| -> Answer {
        let tell = tell.clone();
        Box::pin(async move {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            let again = [body.frame().await, body.frame().await];
            let reset = again.iter().all(|next| {
                matches!(
                    next,
                    Some(Err(BodyError::Reset { code: 0x10c } | BodyError::Malformed(_)))
                )
            });
            let end = (body.is_end_stream(), body.size_hint().exact());
            tell.send((reset, end)).await.unwrap();
            Response::new(full("never seen"))
        })
    };
    let server = Server::start(Config::default(), service);
    let raw = server.raw().await;
    let (mut send, _recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&[headers(&POST), frame(0, b"some")].concat()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    send.reset(0x10c_u32.into()).unwrap();
    let told_by = |got: Option<_>| got.expect("the service lives");
    assert_eq!(told_by(told.recv().await), (true, (false, None)));
    // With an error of the body's own the service may be gone before it can tell; and if not:
    let head = headers(&[&POST[..], &[("content-length", "9")]].concat());
    let (mut send, recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&head).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    send.write_all(&frame(0, b"more than nine bytes")).await.unwrap();
    assert_eq!(outcome(recv).await, Outcome::Reset(0x10e));
    if let Ok(again) = told.try_recv() {
        assert_eq!(again, (true, (false, None)));
    }
}

#[tokio::test]
async fn a_body_made_of_a_wrong_one_is_reset_as_wrong() {
    let echo = |request: Request<RecvBody>| -> Answer {
        let body = request.into_body().map_err(BoxError::from).boxed_unsync();
        Box::pin(std::future::ready(Response::new(body)))
    };
    let server = Server::start(Config::default(), echo);
    let raw = server.raw().await;
    let head = headers(&[&POST[..], &[("content-length", "9")]].concat());
    let (mut send, recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&[&head[..], &frame(0, b"four")].concat()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    send.finish().unwrap();
    assert_eq!(outcome(recv).await, Outcome::Reset(0x10e));
    assert_eq!(count(&server.counters.provoked_resets), 1);
}
