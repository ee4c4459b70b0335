//! Requests that have no body and say so late: in HTTP/2 and HTTP/3 the end of a request may come in
//! a frame, or a packet, of its own.
//!
//! Sent on at once, such a GET would reach the guest as one with a chunked body, which many servers
//! for HTTP/1.1 refuse, or leave unread and take for the next request.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{header, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::body::{Body, BoxError, ClientBody};

/// How long the end is waited for. A client that sends no body sends the end with the head, or right
/// after it.
const PATIENCE: Duration = Duration::from_millis(20);

/// The request's body; none if it turns out within a moment that it has none.
///
/// Waits only where a body would be unusual: the method is safe, no length and no expectation was
/// announced, and it is no tunnel (which the caller knows).
pub(crate) async fn settle(parts: &Parts, body: ClientBody) -> ClientBody {
    let ClientBody::Any(mut body) = body else { return body };
    let announced = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::EXPECT];
    if !parts.method.is_safe() || announced.iter().any(|name| parts.headers.contains_key(name)) {
        return ClientBody::Any(body);
    }
    match timeout(PATIENCE, body.frame()).await {
        Err(_) => ClientBody::Any(body),
        Ok(None) => ClientBody::Empty,
        Ok(Some(first)) => {
            ClientBody::Any(BodyExt::boxed_unsync(Resumed { first: Some(first), rest: body }))
        }
    }
}

/// A body of which one frame was read.
struct Resumed {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    rest: Body,
}

impl HttpBody for Resumed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.first.is_none() { self.rest.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::channel::Channel;

    use super::*;

    async fn settled(request: Request<Body>) -> ClientBody {
        let (parts, body) = request.into_parts();
        settle(&parts, ClientBody::new(body)).await
    }

    #[tokio::test]
    async fn an_end_that_comes_a_moment_later_is_no_body() {
        let (sender, body) = Channel::<Bytes, BoxError>::new(1);
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            drop(sender);
        });
        let body = settled(Request::get("/").body(body.boxed_unsync()).unwrap()).await;
        assert!(matches!(body, ClientBody::Empty));
    }

    #[tokio::test]
    async fn bytes_that_come_are_kept() {
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(2);
        sender.send_data(Bytes::from_static(b"one")).await.unwrap();
        sender.send_data(Bytes::from_static(b"two")).await.unwrap();
        drop(sender);
        let body = settled(Request::get("/").body(body.boxed_unsync()).unwrap()).await;
        assert_eq!(body.boxed().collect().await.unwrap().to_bytes(), "onetwo");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_a_moment_or_where_a_body_is_usual() {
        let started = tokio::time::Instant::now();
        let (_sender, body) = Channel::<Bytes, BoxError>::new(1);
        let body = settled(Request::get("/").body(body.boxed_unsync()).unwrap()).await;
        assert!(matches!(body, ClientBody::Any(_)));
        assert!(started.elapsed() <= 2 * PATIENCE);
        let started = tokio::time::Instant::now();
        for request in [Request::post("/"), Request::get("/").header("content-length", "5")] {
            let (_sender, body) = Channel::<Bytes, BoxError>::new(1);
            settled(request.body(body.boxed_unsync()).unwrap()).await;
        }
        assert!(started.elapsed() < PATIENCE);
    }
}
