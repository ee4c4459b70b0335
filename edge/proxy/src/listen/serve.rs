//! One path for all protocols: a listener's request goes to the worker, its answer back.

use std::sync::Arc;

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{life::Lifecycle, limits::ListenerConfigs};
use crate::{
    body::ClientBody,
    gateway::{ClientInfo, Incoming, Protocol, Worker},
    interim::Interim,
};

/// Serves HTTP/1.1 on a connection.
pub(super) async fn h1<I>(
    io: I,
    client: ClientInfo,
    worker: &Arc<Worker>,
    configs: &ListenerConfigs,
    life: &Lifecycle,
) where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = |request: Request<edge_http1::server::RecvBody>| {
        let interim = Interim::H1(request.body().interim());
        let incoming = Incoming { request: request.map(ClientBody::new), interim, connect: None };
        worker.serve(&client, incoming)
    };
    let (config, counters) = (&configs.h1, &*configs.h1_counters);
    let read_ahead = bytes::Bytes::new();
    let drain = life.drain.clone();
    let served = edge_http1::server::serve(io, read_ahead, config, counters, service, drain).await;
    if let Err(error) = served {
        log_end(&client, &error);
    }
}

/// Serves HTTP/2 on a connection.
pub(super) async fn h2<I>(
    io: I,
    client: ClientInfo,
    worker: Arc<Worker>,
    configs: &ListenerConfigs,
    life: &Lifecycle,
) where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let client = Arc::new(ClientInfo { protocol: Protocol::H2, ..client });
    let of_requests = Arc::clone(&client);
    let service = move |mut request: Request<edge_http2::RecvBody>| {
        let (worker, client) = (Arc::clone(&worker), Arc::clone(&of_requests));
        let connect = request.extensions_mut().remove::<edge_http2::Protocol>();
        let interim = Interim::H2(request.body().interim());
        let incoming = Incoming {
            request: request.map(ClientBody::new),
            interim,
            connect: connect.map(|protocol| protocol.as_str().to_owned()),
        };
        worker.serve_boxed(client, incoming)
    };
    let (config, counters) = (Arc::clone(&configs.h2), Arc::clone(&configs.h2_counters));
    let drain = life.drain.clone();
    if let Err(error) = edge_http2::serve(io, config, counters, service, drain).await {
        log_end(&client, &error);
    }
}

/// Serves HTTP/3 on a connection.
pub(super) async fn h3(
    connection: quinn::Connection,
    client: ClientInfo,
    worker: Arc<Worker>,
    configs: &ListenerConfigs,
    life: &Lifecycle,
) {
    let client = Arc::new(client);
    let of_requests = Arc::clone(&client);
    let service = move |mut request: Request<edge_http3::RecvBody>| {
        let (worker, client) = (Arc::clone(&worker), Arc::clone(&of_requests));
        let connect = request.extensions_mut().remove::<edge_http3::Protocol>();
        let interim = Interim::H3(request.body().interim());
        let incoming = Incoming {
            request: request.map(ClientBody::new),
            interim,
            connect: connect.map(|protocol| protocol.as_str().to_owned()),
        };
        worker.serve_boxed(client, incoming)
    };
    let config = Arc::clone(&configs.h3);
    let drain = life.drain.clone().cancelled_owned();
    if let Err(error) = edge_http3::serve(connection, config, service, drain).await {
        log_end(&client, &error);
    }
}

fn log_end(client: &ClientInfo, error: &(dyn std::error::Error + 'static)) {
    let protocol = client.protocol.as_str();
    tracing::debug!(peer = %client.peer, protocol, error, "connection ended early");
}

/// A refusal of a head, in the shape of every other error.
pub(super) fn refusal(refusal: edge_http1::server::Refusal) -> Response<bytes::Bytes> {
    use edge_http1::server::Refusal;
    let code = match refusal {
        Refusal::Malformed(_) | Refusal::TargetTooLong => "invalid_argument",
        Refusal::HeadTimeout => "request_timeout",
        Refusal::HeadTooLarge => "headers_too_large",
        Refusal::UnknownCoding | Refusal::Version => "not_implemented",
    };
    let text = serde_json::json!({
        "code": code, "message": refusal.to_string(), "request_id": serde_json::Value::Null,
    });
    let mut response = Response::new(bytes::Bytes::from(text.to_string()));
    *response.status_mut() = refusal.status();
    let fields = response.headers_mut();
    let kind = http::HeaderValue::from_static("application/json");
    fields.insert(http::header::CONTENT_TYPE, kind);
    fields.insert(crate::headers::ERROR, http::HeaderValue::from_static(code));
    response
}
