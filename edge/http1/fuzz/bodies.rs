//! What has to hold for any bytes that a peer sends: the same outcome however they were cut, no
//! panic, no hang, and an answer to each request that is understood.

use std::time::Duration;

use bytes::Bytes;
use edge_http1::{
    BoxError,
    client::{self, Sending},
    fuzzing,
    server::{self, Config, Counters, RecvBody},
};
use edge_testing::{Peer, block_on};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Cuts of an input: small ones, and all at once.
const STEPS: [usize; 5] = [1, 2, 3, 17, usize::MAX];

/// The head of a request.
pub(crate) fn requests(data: &[u8]) {
    let whole = fuzzing::request(data, usize::MAX);
    for step in STEPS {
        assert_eq!(fuzzing::request(data, step), whole, "in pieces of {step}");
    }
    if let Some((end, _)) = &whole {
        assert!(*end <= data.len() && data[..*end].ends_with(b"\n"));
        assert_eq!(fuzzing::request(&data[..*end], 1), whole, "what follows does not matter");
    }
}

/// A chunked body.
pub(crate) fn chunked(data: &[u8]) {
    let whole = fuzzing::chunked(data, usize::MAX);
    for step in STEPS {
        assert_eq!(fuzzing::chunked(data, step), whole, "in pieces of {step}");
    }
    if let Some((content, true)) = whole {
        let size = format!("{:x}\r\n", content.len());
        let again = match content.len() {
            0 => b"0\r\n\r\n".to_vec(),
            _ => [size.as_bytes(), &content, b"\r\n0\r\n\r\n"].concat(),
        };
        assert_eq!(fuzzing::chunked(&again, 5), Some((content, true)), "written and read again");
    }
}

/// A server that answers a client's request.
pub(crate) fn answers(data: &[u8]) {
    let _ = fuzzing::response(data);
    let outcomes = STEPS.map(|step| block_on(answered(data, step)));
    for outcome in &outcomes {
        assert_eq!(*outcome, outcomes[0]);
    }
}

/// Status, content, and whether the connection may be used again; or that it failed.
async fn answered(data: &[u8], step: usize) -> Option<(StatusCode, Option<Vec<u8>>)> {
    let connection = client::Connection::new(Peer::new(data, step));
    let upgrade = data.first().is_some_and(|byte| byte % 2 == 0);
    let mut request = Request::get("/").header("host", "h");
    if upgrade {
        request = request.header("upgrade", "x");
    }
    let (parts, body) = request.body(Empty::<Bytes>::new()).ok()?.into_parts();
    let sending = Sending {
        fields: b"",
        deadline: Instant::now() + Duration::from_secs(60),
        hold_body_until: None,
        on_interim: &mut |interim| assert!(interim.status().is_informational()),
    };
    let response = connection.send(&parts, body, sending).await.ok()?;
    let status = response.status();
    let body = response.into_body().collect().await.ok();
    Some((status, body.map(|body| body.to_bytes().to_vec())))
}

/// A client of the server.
pub(crate) fn server(data: &[u8]) {
    let outcomes = STEPS.map(|step| block_on(served(data, step)));
    for outcome in &outcomes {
        assert_eq!(*outcome, outcomes[0]);
    }
}

type Asked = (String, Option<Vec<u8>>);

/// What the service saw.
async fn served(data: &[u8], step: usize) -> Vec<Asked> {
    let (seen, mut asked) = tokio::sync::mpsc::channel(1024);
    let (config, counters) = (Config::default(), Counters::default());
    let service = |request: Request<RecvBody>| {
        let seen = seen.clone();
        async move {
            let (parts, body) = request.into_parts();
            let said = format!("{} {} {:?}", parts.method, parts.uri, parts.headers);
            let upgrade = http_body::Body::size_hint(&body).exact().is_none()
                && parts.headers.contains_key("upgrade")
                && !parts.headers.contains_key("transfer-encoding");
            if upgrade {
                let _ = seen.try_send((said, None)); // full: it does not matter
                return switching(body);
            }
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            let _ = seen.try_send((said, body)); // full: it does not matter
            let full = Full::new(Bytes::from_static(b"ok")).map_err(|never| match never {});
            Response::new(full.boxed_unsync())
        }
    };
    let io = Peer::new(data, step);
    let drain = CancellationToken::new();
    let serving = server::serve(io, Bytes::new(), &config, &counters, service, drain);
    let _ = serving.await; // that it ends is what counts
    drop(seen);
    let mut all = Vec::new();
    while let Some(one) = asked.recv().await {
        all.push(one);
    }
    all
}

fn switching(body: RecvBody) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response
}
