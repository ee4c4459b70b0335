//! What programs in guests answer: streams of events, ranges, redirects, gRPC.

use std::sync::Arc;

use bytes::Bytes;
use edge_proxy::{Body, BoxError};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use tokio::sync::Notify;

use crate::agent::{Guard, echo, full};

const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz";

/// One event at once, and one more each time that the test lets it go on.
pub(crate) fn events(go: Arc<Notify>, guard: Guard) -> Response<Body> {
    let events = futures::stream::unfold((0, go, guard), async |(number, go, guard)| {
        if number > 0 {
            go.notified().await;
        }
        let event = Bytes::from(format!("id: {number}\ndata: event\n\n"));
        Some((Ok(Frame::data(event)), (number + 1, go, guard)))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(Box::pin(events))));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// As many bytes as the query says, without saying so before.
pub(crate) fn long(request: &Request<Incoming>) -> Response<Body> {
    let total: usize = request.uri().query().unwrap().parse().unwrap();
    let block = Bytes::from(vec![b'x'; 64 * 1024]);
    let blocks = (0..total).step_by(block.len()).map(move |start| {
        let bytes = block.len().min(total - start);
        Ok::<_, BoxError>(Frame::data(block.slice(..bytes)))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(blocks))))
}

/// The part of the alphabet that `Range: bytes=a-b` names.
pub(crate) fn range(request: &Request<Incoming>) -> Response<Body> {
    let asked = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
    let part = asked.and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let part = part.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let Some((from, to)) = part else { return Response::new(full(ALPHABET)) };
    let Some(text) = ALPHABET.get(from..=to) else {
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        return response;
    };
    let mut response = Response::new(full(text));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let place = format!("bytes {from}-{to}/{}", ALPHABET.len());
    response.headers_mut().insert(header::CONTENT_RANGE, place.parse().unwrap());
    response
}

/// Two cookies: they must not become one.
pub(crate) fn cookies() -> Response<Body> {
    let mut response = Response::new(full("cookies"));
    for cookie in ["a=1; Path=/", "b=2; Path=/"] {
        response.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static(cookie));
    }
    response
}

/// `302` to what `X-To` says.
pub(crate) fn redirect(request: &Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(header::LOCATION, request.headers()["x-to"].clone());
    response
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers
}

/// Answers as a gRPC server does: the status is in the trailers, or in the head if there is no more.
pub(crate) async fn grpc(request: Request<Incoming>, guard: Guard) -> Response<Body> {
    assert_eq!(request.version(), http::Version::HTTP_2, "gRPC is spoken over HTTP/2 only");
    let kind = HeaderValue::from_static("application/grpc");
    let mut response = match request.uri().path() {
        "/grpc/unary" => {
            let te = request.headers().get(header::TE).cloned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let te = te.map_or_else(String::new, |te| te.to_str().unwrap().to_owned());
            let data = Bytes::from(format!("{} bytes, te: {te}", body.len()));
            let frames: [Result<_, BoxError>; 2] =
                [Ok(Frame::data(data)), Ok(Frame::trailers(status("0")))];
            Response::new(BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames))))
        }
        "/grpc/bidi" => {
            let response = echo(request, guard);
            response.map(|body| body.with_trailers(async { Some(Ok(status("0"))) }).boxed_unsync())
        }
        "/grpc/error" => {
            let frames = futures::stream::empty::<Result<Frame<Bytes>, BoxError>>();
            let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
            *response.headers_mut() = status("5");
            let message = HeaderValue::from_static("not%20there");
            response.headers_mut().insert("grpc-message", message);
            response
        }
        _ => {
            std::future::pending::<()>().await;
            drop(guard);
            Response::new(full(""))
        }
    };
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
