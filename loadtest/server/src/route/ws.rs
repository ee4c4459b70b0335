//! A WebSocket that repeats what it is told.

use std::{sync::Arc, time::Duration};

use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt as _, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{Refusal, value};
use crate::{
    body::{Inbound, Outbound, full},
    query::Query,
    state::State,
};

/// The most of one message.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// The longest silence.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// The longest for the upgrade, and for one message to be taken.
const SEND_WAIT: Duration = Duration::from_secs(30);

/// `/ws`: agrees to a WebSocket (RFC 6455, so HTTP/1.1 only).
pub(super) fn accept(
    mut request: Request<Inbound>,
    query: Option<&str>,
    state: &Arc<State>,
) -> Result<Response<Outbound>, Refusal> {
    Query::parse(query, &[])?;
    let headers = request.headers();
    let has = |name, wanted: &str| {
        let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        value.is_some_and(|value| value.split(',').any(|v| v.trim().eq_ignore_ascii_case(wanted)))
    };
    let asked = has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (true, true, Some(key)) = (asked, has(header::SEC_WEBSOCKET_VERSION, "13"), key) else {
        return Err(Refusal::Handshake("expected a WebSocket handshake, version 13, by HTTP/1.1"));
    };
    let upgrade = hyper::upgrade::on(&mut request);
    state.tasks.spawn(echo(upgrade, Arc::clone(state)));
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, value(&key));
    Ok(response)
}

/// Until the other side closes, breaks the protocol or falls silent.
async fn echo(upgrade: OnUpgrade, state: Arc<State>) {
    let Ok(Ok(io)) = timeout(SEND_WAIT, upgrade).await else { return };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let io = TokioIo::new(io);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    // Pings and closes are answered by the library, while the next message is waited for.
    while let Ok(Some(Ok(message))) = timeout(IDLE_MAX, socket.next()).await {
        if !message.is_text() && !message.is_binary() {
            continue;
        }
        state.released().await;
        if !matches!(timeout(SEND_WAIT, socket.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
    // TLS has its own goodbye. If it can't be said the connection is gone already.
    let _ = timeout(SEND_WAIT, socket.get_mut().shutdown()).await;
}
