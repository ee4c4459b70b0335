//! What has to hold for any bytes that a client sends: the connection ends or waits for no longer than
//! its limits, nothing panics, and what is written back is bounded.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use edge_http2::{BoxError, Config, Counters, RecvBody, serve};
use edge_testing::{Peer, block_on};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use tokio_util::sync::CancellationToken;

/// An answer's content.
const ANSWER: &[u8] = b"ok";
/// Most that is written back for a byte that was read: a whole answer for a head of a few bytes.
const WRITTEN_PER_BYTE: usize = 64;

/// A client of the server, its preface included.
pub(crate) fn server(data: &[u8]) {
    for step in [1, 7, usize::MAX] {
        let peer = Peer::new(data, step);
        let written = peer.taken();
        block_on(served(peer, data.len()));
        let (written, most) = (written.load(Relaxed), 4096 + data.len() * WRITTEN_PER_BYTE);
        assert!(written <= most, "{written} bytes");
    }
}

async fn served(peer: Peer, bytes: usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let service = move |request: Request<RecvBody>| {
        seen.fetch_add(1, Relaxed);
        answer(request)
    };
    let (config, counters) = (Arc::new(Config::default()), Arc::new(Counters::default()));
    let served = serve(peer, config, counters, service, CancellationToken::new()).await;
    if let Ok(ended) = served {
        assert_eq!(ended.requests, asked.load(Relaxed) as u64, "each reached the service once");
    }
    // A head has a frame of nine bytes and at least a field.
    assert!(asked.load(Relaxed) <= bytes / 10);
}

async fn answer(request: Request<RecvBody>) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let interim = request.body().interim();
    let hints = Response::builder().status(103).body(());
    let _ = hints.map(|hints| interim.send(hints)); // the client may be gone
    let (parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Response::new(body.map_err(Into::into).boxed_unsync());
    }
    let _ = body.collect().await; // the client may give it up
    Response::new(Full::from(ANSWER).map_err(|never| match never {}).boxed_unsync())
}
