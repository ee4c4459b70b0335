//! What HEADERS and CONTINUATION do (RFC 9113 6.2, 6.10, 8.1): a request, trailers, or nothing.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Version;

use super::{Fault, Inbound, Opened, broken, wrong_length};
use crate::{
    answer::put_head,
    limits::Excess,
    link::{Core, Link},
    section::{self, Section},
    streams::{Answer, Blocked, Known, Stream},
    window::{RecvWindow, SendWindow},
    wire::{
        Code, Header,
        frame::{MAX_31_BITS, flag, kind, number, put_number},
    },
};

/// What is wrong with a body of another length than announced (RFC 9113 8.1.1).
pub(super) const WRONG_LENGTH: &str = "a body that is not as long as its content-length";

/// A head whose CONTINUATION frames are still to come.
#[derive(Debug)]
pub(super) struct Partial {
    begun: Begun,
    block: BytesMut,
}

/// What a HEADERS frame says beside its block.
#[derive(Debug, Clone, Copy)]
struct Begun {
    stream: u32,
    ends: bool,
    /// RFC 7540 5.3.1: its priority makes it depend on itself.
    on_itself: bool,
}

impl Inbound {
    pub(super) fn headers(
        &mut self,
        core: &mut Core,
        header: &Header,
        payload: &[u8],
        link: &Link,
    ) -> Result<Option<Opened>, Fault> {
        let stream = header.stream;
        if stream.is_multiple_of(2) {
            return Err(broken("HEADERS on a stream that no client opens"));
        }
        let content = header.unpadded(payload);
        let content = content.map_err(|code| Fault::Protocol(code, "padding is wrong"))?;
        let mut block = &payload[content];
        let mut on_itself = false;
        if header.has(flag::PRIORITY) {
            let Some((first, rest)) = block.split_at_checked(5) else { return Err(wrong_length()) };
            on_itself = number(&first[..4]).is_ok_and(|on| on & MAX_31_BITS == stream);
            block = rest;
        }
        let begun = Begun { stream, ends: header.has(flag::END_STREAM), on_itself };
        if header.has(flag::END_HEADERS) {
            return self.section(core, begun, Bytes::copy_from_slice(block), link);
        }
        self.partial = Some(Partial { begun, block: block.into() });
        Ok(None)
    }

    pub(super) fn continuation(
        &mut self,
        core: &mut Core,
        header: &Header,
        payload: &[u8],
        link: &Link,
    ) -> Result<Option<Opened>, Fault> {
        let partial = self.partial.as_mut();
        let Some(partial) = partial.filter(|partial| partial.begun.stream == header.stream) else {
            return Err(broken("a CONTINUATION of nothing"));
        };
        partial.block.extend_from_slice(payload);
        // Encoded it is hardly ever larger than decoded.
        if partial.block.len() > section::most_bytes(&link.config) {
            return Err(Excess::HeadBytes.into());
        }
        if !header.has(flag::END_HEADERS) {
            return Ok(None);
        }
        match self.partial.take() {
            Some(partial) => self.section(core, partial.begun, partial.block.freeze(), link),
            None => Ok(None),
        }
    }

    /// A whole field block has come: a head, trailers, or something that is for nobody.
    fn section(
        &mut self,
        core: &mut Core,
        begun: Begun,
        block: Bytes,
        link: &Link,
    ) -> Result<Option<Opened>, Fault> {
        let id = begun.stream;
        match core.streams.known(id) {
            Known::Idle => self.request(core, begun, block, link),
            Known::Open => self.trailers(core, begun, block, link).map(|()| None),
            known => {
                // It counts for the blocks that follow.
                self.decoder.decode(block, |_| {})?;
                match known {
                    Known::ResetByUs => Ok(None),
                    Known::ResetByClient => {
                        self.refuse(core, id, Code::STREAM_CLOSED, link).map(|()| None)
                    }
                    _ => Err(broken("a stream's number is smaller than one before")),
                }
            }
        }
    }

    fn request(
        &mut self,
        core: &mut Core,
        begun: Begun,
        block: Bytes,
        link: &Link,
    ) -> Result<Option<Opened>, Fault> {
        let id = begun.stream;
        let section = section::request(&mut self.decoder, block, &link.config)?;
        core.streams.pass_over(id);
        if self.closing {
            // Our GOAWAY has said so: what belongs to it is passed over.
            core.streams.remember(id, Known::ResetByUs);
            return Ok(None);
        }
        let none = |()| None;
        if core.streams.len() >= link.config.max_concurrent_streams as usize {
            return self.refuse(core, id, Code::REFUSED_STREAM, link).map(none);
        }
        let head = match section {
            Section::TooLarge => {
                answer_too_large(core, id, begun.ends);
                self.limits.reset(&link.config)?; // it costs us what a reset does
                return Ok(None);
            }
            Section::Malformed(reason) => return self.malformed(core, id, reason, link).map(none),
            Section::Good(fields) => match fields.finish(Version::HTTP_2) {
                Ok(head) => head,
                Err(error) => return self.malformed(core, id, error.0, link).map(none),
            },
        };
        let left = head.content_length;
        if begun.on_itself {
            return self.malformed(core, id, "a stream depends on itself", link).map(none);
        }
        if begun.ends && left.is_some_and(|left| left > 0) {
            return self.malformed(core, id, WRONG_LENGTH, link).map(none);
        }
        let inbox = (!begun.ends).then(Arc::default);
        core.streams.open(Stream {
            id,
            slot: None,
            send: SendWindow::new(core.stream_window),
            recv: RecvWindow::new(link.config.stream_window_bytes),
            answer: Answer::Waiting,
            blocked: Blocked::No,
            interims: 0,
            received: begun.ends,
            left,
            inbox: inbox.clone(),
        });
        Ok(Some(Opened { id, head, inbox }))
    }

    fn trailers(
        &mut self,
        core: &mut Core,
        begun: Begun,
        block: Bytes,
        link: &Link,
    ) -> Result<(), Fault> {
        let id = begun.stream;
        let section = section::trailers(&mut self.decoder, block, &link.config)?;
        let Some(stream) = core.streams.get(id) else { return Ok(()) };
        if stream.received {
            return self.wrong(core, id, Code::STREAM_CLOSED, "HEADERS after the end", link);
        }
        if !begun.ends {
            return self.malformed(core, id, "trailers that are not the end", link);
        }
        if stream.left.is_some_and(|left| left > 0) {
            return self.malformed(core, id, WRONG_LENGTH, link);
        }
        let trailers = match section {
            Section::TooLarge => return self.malformed(core, id, "trailers are too large", link),
            Section::Malformed(reason) => return self.malformed(core, id, reason, link),
            Section::Good(fields) => match fields.finish() {
                Ok(trailers) => trailers,
                Err(error) => return self.malformed(core, id, error.0, link),
            },
        };
        if let Some(inbox) = &stream.inbox {
            inbox.end(Some(trailers));
        }
        core.end_request(id);
        Ok(())
    }
}

/// RFC 6585 5. The client may go on sending a body that nobody wants.
fn answer_too_large(core: &mut Core, id: u32, ends: bool) {
    let mut answer = http::Response::new(());
    *answer.status_mut() = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    put_head(core, id, &answer.into_parts().0, Some(0), true);
    if !ends {
        put_number(core.out.tail(), kind::RST_STREAM, id, Code::NO_ERROR.0);
        core.streams.remember(id, Known::ResetByUs);
    }
}
