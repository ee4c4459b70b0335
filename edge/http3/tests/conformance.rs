//! What RFC 9114, and RFC 9204, 9218 and 9220 as far as they are implemented, demand of a server, rule
//! by rule: the section, what a client sends, what has to come.
//!
//! Not in these tables, because no client can bring it about or see it:
//!
//! - RFC 9114 3.1 and 3.2 (ALPN, server name) are the endpoint's, which this crate is given.
//! - RFC 9114 4.6, 7.2.5 (pushes): none is ever promised, so what a server must keep to when it pushes
//!   has no place to be broken.
//! - RFC 9114 4.3.2, 4.2 for answers, RFC 9204 2.1 and 4.5 for what is encoded: that answers keep the
//!   rules is tested with another implementation as the client (`exchange.rs`) and in the wire's tests.
//! - RFC 9114 5.2 (GOAWAY of the server) and 4.1.1 (rejected requests): `drain.rs`.
//! - RFC 9114 8 (an error may be treated as one of the connection) and 10.5 (limits): `abuse.rs`,
//!   `probe.rs`; the RFC leaves the figures open.
//! - RFC 9114 7.1 for DATA that is cut by a reset: a reset ends a request, whatever it cuts.
//! - RFC 9218 8 and 10 (the order of answers) are recommendations; what is made of them: `exchange.rs`.

mod support;

#[path = "conformance/fields.rs"]
mod fields;
#[path = "conformance/frames.rs"]
mod frames;
#[path = "conformance/qpack.rs"]
mod qpack;
#[path = "conformance/streams.rs"]
mod streams;

use edge_http3::Config;
use support::*;

/// What a client sends.
enum Sent {
    /// A request's stream and FIN.
    Request(Vec<u8>),
    /// On the control stream, after empty SETTINGS.
    Control(Vec<u8>),
    /// Streams in one direction, and no control stream beside them.
    Streams(Vec<Vec<u8>>),
    /// The same, and FIN on the last.
    Finished(Vec<Vec<u8>>),
    /// The same, and the last is reset.
    Reset(Vec<Vec<u8>>),
}

/// What has to come.
#[derive(Clone, Copy)]
enum Due {
    /// An answer with this status, of those that `Outcome::status` knows.
    Status(&'static str),
    /// The request is reset with this code and the connection goes on.
    StreamError(u64),
    /// The connection is closed with this code.
    ConnectionError(u64),
    /// Nothing: the connection goes on.
    Nothing,
}

/// A rule: where it stands, what is sent, what has to come.
type Row = (&'static str, Sent, Due);

async fn check(rows: Vec<Row>) {
    for (rule, sent, due) in rows {
        let server = Server::start(Config::default(), length);
        match sent {
            Sent::Request(bytes) => {
                let raw = server.raw().await;
                let outcome = raw.request(&bytes).await;
                match due {
                    Due::Status(status) => {
                        assert_eq!(outcome.status(), status.as_bytes(), "{rule}")
                    }
                    Due::StreamError(code) => assert_eq!(outcome, Outcome::Reset(code), "{rule}"),
                    Due::ConnectionError(code) => {
                        assert_eq!(outcome, Outcome::Closed(code), "{rule}");
                        continue;
                    }
                    Due::Nothing => panic!("{rule}: a request has an outcome"),
                }
                goes_on(&raw, rule).await;
            }
            Sent::Control(bytes) => {
                let mut raw = server.raw().await;
                raw.control
                    .write_all(&bytes)
                    .await
                    .unwrap_or_else(|error| panic!("{rule}: {error}"));
                connection(&raw, rule, due).await;
            }
            Sent::Streams(streams) => unidirectional(&server, streams, rule, due, |_| ()).await,
            Sent::Finished(streams) => {
                let finish = |stream: &mut quinn::SendStream| drop(stream.finish());
                unidirectional(&server, streams, rule, due, finish).await;
            }
            Sent::Reset(streams) => {
                let reset = |stream: &mut quinn::SendStream| drop(stream.reset(0x10c_u32.into()));
                unidirectional(&server, streams, rule, due, reset).await;
            }
        }
    }
}

async fn unidirectional(
    server: &Server,
    streams: Vec<Vec<u8>>,
    rule: &str,
    due: Due,
    end: fn(&mut quinn::SendStream),
) {
    let quic = server.connect().await;
    let mut open = Vec::new();
    for bytes in streams {
        open.push(open_uni(&quic, &bytes).await);
    }
    if let Some(last) = open.last_mut() {
        // A reset could overtake the stream's type, and says nothing about a stream without one.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        end(last);
    }
    let control = open.pop().unwrap_or_else(|| panic!("{rule}: no stream"));
    connection(&Raw { quic, control }, rule, due).await;
}

/// Checks what becomes of a connection.
async fn connection(raw: &Raw, rule: &str, due: Due) {
    match due {
        Due::ConnectionError(code) => assert_eq!(raw.closed().await, code, "{rule}"),
        Due::Nothing => {
            goes_on(raw, rule).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            goes_on(raw, rule).await;
        }
        Due::Status(_) | Due::StreamError(_) => panic!("{rule}: no request is sent"),
    }
}

async fn goes_on(raw: &Raw, rule: &str) {
    let outcome = raw.request(&headers(&GET)).await;
    assert!(matches!(outcome, Outcome::Answer(_)), "{rule}: the next request had {outcome:?}");
    assert_eq!(outcome.status(), b"200", "{rule}");
}

/// A request of these fields.
fn request(fields: &[(&str, &str)]) -> Sent {
    Sent::Request(headers(fields))
}

/// A GET with more fields.
fn get(more: &[(&str, &str)]) -> Sent {
    request(&[&GET[..], more].concat())
}

/// A GET and more frames.
fn get_then(frames: &[Vec<u8>]) -> Sent {
    Sent::Request([headers(&GET), frames.concat()].concat())
}
