//! One request: its head is read, then the service has it.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use quinn::{ReadError, RecvStream, SendStream};
use tokio::time::timeout;

use crate::{
    BodyError, BoxError, Counters, RecvBody,
    exchange::Exchange,
    link::{Link, varint},
    priority,
    recv_body::CHUNK_BYTES,
    respond::{Answering, Asked},
    wire::{
        Code, Event, FrameError, FrameReader, HeadError, RequestHead, StreamKind, decode_request,
    },
};

/// Why a request does not reach the service.
enum Refusal {
    /// The head did not come in time.
    Late,
    /// It breaks a rule: the stream is reset.
    Malformed(Code),
    /// The client gave it up.
    Reset,
    /// The answer is 431.
    TooLarge,
    /// The connection has been closed.
    Closed,
}

/// Serves one request to its end.
pub(crate) async fn serve<S, F, B>(
    link: Arc<Link>,
    send: SendStream,
    mut recv: RecvStream,
    service: S,
) where
    S: Fn(Request<RecvBody>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let exchange = Arc::new(Exchange::new());
    let mut reader = FrameReader::new(StreamKind::Request, link.limits);
    let answering = Answering::new(send, Arc::clone(&exchange), Arc::clone(&link));
    let reading = read_head(&link, &mut recv, &mut reader);
    let head = timeout(link.config.head_timeout, reading).await.unwrap_or(Err(Refusal::Late));
    let head = match head {
        Ok(head) => head,
        Err(refusal) => return refuse(&refusal, recv, &exchange, answering).await,
    };
    let tunnel = head.is_connect();
    if tunnel {
        reader.tunnel();
    }
    let asked = Asked {
        is_head: head.parts.method == Method::HEAD,
        is_connect: tunnel,
        priority: priority::of_request(&head.parts.headers),
    };
    let (parts, length) = (head.parts, head.content_length);
    let mut body = RecvBody::new(recv, reader, link, Arc::clone(&exchange), length, tunnel);
    if let Err(error) = poll_fn(|cx| body.look_ahead(cx).into()).await {
        return answering.give_up(code_of(&error));
    }
    answering.run(service(Request::from_parts(parts, body)), asked).await;
}

/// The code for an answer whose request breaks off before the service has it.
const fn code_of(error: &BodyError) -> Code {
    match error {
        BodyError::Malformed(_) => Code::H3_MESSAGE_ERROR,
        BodyError::Frame(error) => error.code(),
        BodyError::Reset { .. } | BodyError::Late | BodyError::Lost => Code::H3_REQUEST_CANCELLED,
    }
}

async fn read_head(
    link: &Link,
    recv: &mut RecvStream,
    reader: &mut FrameReader,
) -> Result<RequestHead, Refusal> {
    loop {
        match reader.next_event() {
            Ok(Some(Event::Headers(payload))) => {
                return decode_request(payload, &link.limits)
                    .map_err(|error| head_error(link, error));
            }
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(error) => return Err(frame_error(link, error)),
        }
        match recv.read_chunk(CHUNK_BYTES, true).await {
            Ok(Some(chunk)) => reader.push(chunk.bytes),
            Ok(None) => {
                let error = reader.finish().err().unwrap_or(FrameError::Incomplete);
                return Err(frame_error(link, error));
            }
            Err(ReadError::Reset(_)) => return Err(Refusal::Reset),
            Err(_) => return Err(Refusal::Closed),
        }
    }
}

fn frame_error(link: &Link, error: FrameError) -> Refusal {
    match error {
        FrameError::TooLarge { .. } => Refusal::TooLarge,
        error if error.is_stream_error() => Refusal::Malformed(error.code()),
        error => {
            link.refuse_frame(error);
            Refusal::Closed
        }
    }
}

fn head_error(link: &Link, error: HeadError) -> Refusal {
    if error.is_over_limit() {
        return Refusal::TooLarge;
    }
    if error.is_connection_error() {
        link.refuse(error.code(), error.to_string());
        return Refusal::Closed;
    }
    tracing::debug!(error = &error as &dyn std::error::Error, "a head was refused");
    Refusal::Malformed(error.code())
}

async fn refuse(refusal: &Refusal, mut recv: RecvStream, exchange: &Exchange, answer: Answering) {
    let counters = answer.link().counters();
    let code = match refusal {
        Refusal::TooLarge => {
            Counters::count(&counters.head_too_large);
            exchange.leave_unread(recv);
            return answer.status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).await;
        }
        Refusal::Malformed(code) => {
            Counters::count(&counters.malformed);
            answer.link().count_provoked();
            *code
        }
        Refusal::Reset => {
            exchange.set_reset(answer.link());
            Code::H3_REQUEST_CANCELLED
        }
        Refusal::Late => {
            Counters::count(&counters.head_late);
            answer.link().count_provoked();
            Code::H3_REQUEST_REJECTED // nothing was processed (RFC 9114 4.1.1)
        }
        Refusal::Closed => Code::H3_REQUEST_CANCELLED,
    };
    let _ = recv.stop(varint(code)); // it may have ended
    answer.give_up(code);
}
