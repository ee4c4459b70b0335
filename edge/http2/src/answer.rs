//! One request's answer: from the service to the client, as fast as the client takes it.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use bytes::Bytes;
use edge_fields::is_connection_specific;
use http::{HeaderMap, Method, Response, StatusCode, header, response};
use http_body::Body;
use tokio::time::timeout;

use crate::{
    BodyError, BoxError, Counters,
    link::{Core, Link, Sent},
    streams::Answer,
    wire::{
        Code,
        frame::{flag, kind, put_fields, put_header},
        hpack::{write_field, write_no_table, write_status},
    },
};

/// What of a request says how its answer is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    is_head: bool,
    is_connect: bool,
}

impl Asked {
    pub(crate) fn new(method: &Method) -> Self {
        Self { is_head: method == Method::HEAD, is_connect: method == Method::CONNECT }
    }
}

/// Why an answer is not sent to its end.
enum Fault {
    Body,
    Gone,
    Stalled,
}

/// Runs the service and sends what it answers. A client that resets the stream drops this.
pub(crate) async fn run<F, B>(link: Arc<Link>, id: u32, asked: Asked, service: F)
where
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (parts, body) = service.await.into_parts();
    let none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    let bodyless = asked.is_head || none.contains(&parts.status);
    let tunnel = asked.is_connect && parts.status.is_success();
    let length = body.size_hint().exact().filter(|_| !bodyless && !tunnel);
    let ends = bodyless || (body.is_end_stream() && !tunnel);
    {
        let mut core = link.lock();
        let Some(stream) = core.streams.get(id) else { return };
        stream.answer = Answer::Begun;
        core.begun += 1;
        put_head(&mut core, id, &parts, length, ends);
        if ends {
            return core.end_answer(id);
        }
    }
    drop(parts);
    let fault = match send_body(&link, id, body).await {
        Ok(()) | Err(Fault::Gone) => return,
        Err(fault) => fault,
    };
    let code = match fault {
        Fault::Stalled => {
            Counters::count(&link.counters.write_stalled);
            Code::CANCEL
        }
        Fault::Body | Fault::Gone => Code::INTERNAL_ERROR,
    };
    let mut core = link.lock();
    if let Some(stream) = core.streams.get(id) {
        stream.slot = None; // it ends by itself
        core.reset(id, code, BodyError::Lost);
    }
}

async fn send_body<B>(link: &Link, id: u32, body: B) -> Result<(), Fault>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut body = pin!(body);
    loop {
        let frame = match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            None => {
                let mut core = link.lock();
                if core.streams.get(id).is_some() {
                    put_header(core.out.tail(), 0, kind::DATA, flag::END_STREAM, id);
                    core.end_answer(id);
                }
                return Ok(());
            }
            Some(Err(error)) => {
                let error: BoxError = error.into();
                tracing::debug!(error = &*error, "an answer broke off");
                return Err(Fault::Body);
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(mut data) => {
                let last = body.is_end_stream();
                if send_data(link, id, &mut data, last).await? {
                    return Ok(());
                }
            }
            Err(frame) => {
                let Ok(trailers) = frame.into_trailers() else { continue };
                let mut core = link.lock();
                if core.streams.get(id).is_some() {
                    put_trailers(&mut core, id, &trailers);
                    core.end_answer(id);
                }
                return Ok(());
            }
        }
    }
}

/// Sends what is there as the client takes it. True: the stream has ended with it.
async fn send_data(link: &Link, id: u32, data: &mut Bytes, last: bool) -> Result<bool, Fault> {
    loop {
        let first = link.lock().send_data(id, data, last);
        let sent = if first == Sent::Blocked {
            let before = data.len();
            // The connection runs this again when more may be written; others may, too.
            let more = poll_fn(|_| match link.lock().send_data(id, data, last) {
                Sent::Blocked if data.len() == before => Poll::Pending,
                sent => Poll::Ready(sent),
            });
            timeout(link.config.write_timeout, more).await.map_err(|_| Fault::Stalled)?
        } else {
            first
        };
        match sent {
            Sent::All => return Ok(false),
            Sent::Ended => return Ok(true),
            Sent::Gone => return Err(Fault::Gone),
            Sent::Blocked => {}
        }
    }
}

/// Writes the head of an answer, final or interim, without what belongs to an HTTP/1.1 connection.
/// `length` is written unless the head says one itself.
pub(crate) fn put_head(
    core: &mut Core,
    id: u32,
    parts: &response::Parts,
    length: Option<u64>,
    ends: bool,
) {
    let tell_no_table = std::mem::take(&mut core.tell_no_table);
    put_fields(core.out.tail(), id, ends, |out| {
        if tell_no_table {
            write_no_table(out);
        }
        write_status(parts.status, out);
        let said = write_all(&parts.headers, out);
        if let Some(length) = length.filter(|_| !said) {
            let mut text = itoa::Buffer::new();
            write_field(b"content-length", text.format(length).as_bytes(), false, out);
        }
    });
}

fn put_trailers(core: &mut Core, id: u32, trailers: &HeaderMap) {
    let tell_no_table = std::mem::take(&mut core.tell_no_table);
    put_fields(core.out.tail(), id, true, |out| {
        if tell_no_table {
            write_no_table(out);
        }
        write_all(trailers, out);
    });
}

/// Whether there was a content-length among them.
fn write_all(fields: &HeaderMap, out: &mut bytes::BytesMut) -> bool {
    let mut length = false;
    for (name, value) in fields {
        if is_connection_specific(name) || *name == header::TE {
            continue;
        }
        length |= *name == header::CONTENT_LENGTH;
        write_field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive(), out);
    }
    length
}
