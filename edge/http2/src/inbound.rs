//! What a client's frames do (RFC 9113 5, 6).

mod heads;

use std::sync::Arc;

use bytes::Bytes;
use heads::{Partial, WRONG_LENGTH};

use crate::{
    BodyError, Counters,
    inbox::Inbox,
    input::Input,
    limits::{Excess, Limits},
    link::{Core, Link},
    streams::Known,
    wire::{
        Code, Header,
        frame::{HEADER_BYTES, MAX_31_BITS, flag, kind, number, put_header, put_number, put_ping},
        hpack::{Decoder, HpackError},
        settings,
    },
};

/// What our own PINGs say, so that their answers are known.
pub(crate) const OPAQUE: [u8; 8] = *b"wrenn-h2";

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client broke a rule.
    Protocol(Code, &'static str),
    /// The client went over a bound.
    Excess(Excess),
}

impl From<Excess> for Fault {
    fn from(excess: Excess) -> Self {
        Self::Excess(excess)
    }
}

impl From<HpackError> for Fault {
    fn from(error: HpackError) -> Self {
        Self::Protocol(Code::COMPRESSION_ERROR, error.0)
    }
}

const fn broken(reason: &'static str) -> Fault {
    Fault::Protocol(Code::PROTOCOL_ERROR, reason)
}

const fn wrong_length() -> Fault {
    Fault::Protocol(Code::FRAME_SIZE_ERROR, "a frame has a wrong length")
}

/// A request that is to be served.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: u32,
    pub(crate) head: edge_fields::RequestHead,
    pub(crate) inbox: Option<Arc<Inbox>>,
}

/// The reading side of a connection.
#[derive(Debug)]
pub(crate) struct Inbound {
    decoder: Decoder,
    pub(crate) limits: Limits,
    partial: Option<Partial>,
    /// The client's first SETTINGS have come.
    pub(crate) began: bool,
    /// Our PING was answered.
    pub(crate) pong: bool,
    /// No stream is opened any more.
    pub(crate) closing: bool,
}

impl Inbound {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            decoder: Decoder::new(),
            limits,
            partial: None,
            began: false,
            pong: false,
            closing: false,
        }
    }

    /// Takes the frame that is there. Some: a request begins with it.
    pub(crate) fn frame(
        &mut self,
        header: &Header,
        input: &mut Input,
        link: &Link,
    ) -> Result<Option<Opened>, Fault> {
        if !self.began && header.kind != kind::SETTINGS {
            return Err(broken("the connection does not begin with SETTINGS"));
        }
        self.limits.frame(header, &link.config)?;
        if self.partial.is_some() && header.kind != kind::CONTINUATION {
            return Err(broken("a head is interrupted"));
        }
        let mut core = link.lock();
        if header.kind == kind::DATA {
            let data = input.take_data(header);
            let data = data.map_err(|code| Fault::Protocol(code, "padding is wrong"))?;
            self.data(&mut core, header, data, link)?;
            return Ok(None);
        }
        let payload = input.payload(header);
        let opened = match header.kind {
            kind::HEADERS => self.headers(&mut core, header, payload, link)?,
            kind::CONTINUATION => self.continuation(&mut core, header, payload, link)?,
            kind => {
                match kind {
                    kind::RST_STREAM => reset(&mut core, header, payload)?,
                    kind::SETTINGS => self.settings(&mut core, header, payload)?,
                    kind::PING => self.ping(&mut core, header, payload)?,
                    kind::WINDOW_UPDATE => self.window_update(&mut core, header, payload, link)?,
                    kind::PRIORITY => self.priority(&mut core, header, payload, link)?,
                    kind::GOAWAY if header.stream != 0 => return Err(broken("GOAWAY on a stream")),
                    kind::GOAWAY if header.length < 8 => return Err(wrong_length()),
                    kind::PUSH_PROMISE => return Err(broken("a client does not push")),
                    _ => {}
                }
                None
            }
        };
        drop(core);
        input.advance(HEADER_BYTES + header.length);
        Ok(opened)
    }

    fn data(
        &mut self,
        core: &mut Core,
        header: &Header,
        data: Bytes,
        link: &Link,
    ) -> Result<(), Fault> {
        let (id, flow) = (header.stream, header.length);
        if id == 0 {
            return Err(broken("DATA on stream 0"));
        }
        let too_much = "more DATA than the window allows";
        if !core.recv.take(flow) {
            return Err(Fault::Protocol(Code::FLOW_CONTROL_ERROR, too_much));
        }
        let Some(stream) = core.streams.get(id) else {
            core.release(flow);
            return match core.streams.known(id) {
                Known::Idle => Err(broken("DATA on an idle stream")),
                Known::ResetByUs => Ok(()),
                _ => self.refuse(core, id, Code::STREAM_CLOSED, link),
            };
        };
        if stream.received {
            core.release(flow);
            return self.wrong(core, id, Code::STREAM_CLOSED, "DATA after the end", link);
        }
        if !stream.recv.take(flow) {
            core.release(flow);
            return self.wrong(core, id, Code::FLOW_CONTROL_ERROR, too_much, link);
        }
        let ends = header.has(flag::END_STREAM);
        if let Some(left) = &mut stream.left {
            match left.checked_sub(data.len() as u64) {
                Some(rest) if rest == 0 || !ends => *left = rest,
                _ => {
                    core.release(flow);
                    return self.malformed(core, id, WRONG_LENGTH, link);
                }
            }
        }
        let read = stream.inbox.clone();
        let padding = flow - data.len();
        match &read {
            Some(inbox) if !data.is_empty() => {
                inbox.push(data);
                core.release_of(id, padding);
            }
            // Nobody reads it: the client may go on sending to others, but not here.
            _ => core.release(flow),
        }
        if ends {
            if let Some(inbox) = read {
                inbox.end(None);
            }
            core.end_request(id);
        }
        Ok(())
    }

    fn settings(&mut self, core: &mut Core, header: &Header, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(broken("SETTINGS on a stream"));
        }
        if header.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(wrong_length()) };
        }
        let change = settings::read(payload);
        let change = change.map_err(|code| Fault::Protocol(code, "SETTINGS are wrong"))?;
        core.tell_no_table |= change.smaller_table;
        if let Some(window) = change.window
            && !core.change_windows(window)
        {
            let reason = "SETTINGS make a window too large";
            return Err(Fault::Protocol(Code::FLOW_CONTROL_ERROR, reason));
        }
        put_header(core.out.tail(), 0, kind::SETTINGS, flag::ACK, 0);
        self.began = true;
        Ok(())
    }

    fn ping(&mut self, core: &mut Core, header: &Header, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(broken("PING on a stream"));
        }
        let opaque: [u8; 8] = payload.try_into().map_err(|_| wrong_length())?;
        if header.has(flag::ACK) {
            self.pong |= opaque == OPAQUE;
        } else {
            put_ping(core.out.tail(), flag::ACK, opaque);
        }
        Ok(())
    }

    fn window_update(
        &mut self,
        core: &mut Core,
        header: &Header,
        payload: &[u8],
        link: &Link,
    ) -> Result<(), Fault> {
        let by = number(payload).map_err(|_| wrong_length())? & MAX_31_BITS;
        let too_large = "a window is too large";
        let id = header.stream;
        if id == 0 {
            return match by {
                0 => Err(broken("a window is widened by nothing")),
                _ if core.send.change(by.into()) => Ok(()),
                _ => Err(Fault::Protocol(Code::FLOW_CONTROL_ERROR, too_large)),
            };
        }
        match core.streams.known(id) {
            Known::Idle => Err(broken("WINDOW_UPDATE on an idle stream")),
            Known::Open if by == 0 => {
                let reason = "a window is widened by nothing";
                self.wrong(core, id, Code::PROTOCOL_ERROR, reason, link)
            }
            Known::Open if !core.widen(id, by) => {
                self.wrong(core, id, Code::FLOW_CONTROL_ERROR, too_large, link)
            }
            _ => Ok(()),
        }
    }

    /// Deprecated (RFC 9113 5.3.2): its form is checked, no more.
    fn priority(
        &mut self,
        core: &mut Core,
        header: &Header,
        payload: &[u8],
        link: &Link,
    ) -> Result<(), Fault> {
        let id = header.stream;
        if id == 0 {
            return Err(broken("PRIORITY on stream 0"));
        }
        match core.streams.known(id) {
            _ if payload.len() == 5 => Ok(()),
            // An idle stream can't be reset (RFC 9113 6.4).
            Known::Idle => Err(wrong_length()),
            Known::Open => {
                self.wrong(core, id, Code::FRAME_SIZE_ERROR, "PRIORITY has a wrong length", link)
            }
            _ => Ok(()),
        }
    }

    /// A message breaks a rule (RFC 9113 8.1.1).
    fn malformed(
        &mut self,
        core: &mut Core,
        id: u32,
        reason: &'static str,
        link: &Link,
    ) -> Result<(), Fault> {
        tracing::debug!(reason, "a request is malformed");
        Counters::count(&link.counters.malformed);
        self.wrong(core, id, Code::PROTOCOL_ERROR, reason, link)
    }

    /// Ends a stream for what the client did in it.
    fn wrong(
        &mut self,
        core: &mut Core,
        id: u32,
        code: Code,
        reason: &'static str,
        link: &Link,
    ) -> Result<(), Fault> {
        core.reset(id, code, BodyError::Malformed(reason));
        Ok(self.limits.reset(&link.config)?)
    }

    /// Refuses what was sent on a stream that is not open.
    fn refuse(&mut self, core: &mut Core, id: u32, code: Code, link: &Link) -> Result<(), Fault> {
        put_number(core.out.tail(), kind::RST_STREAM, id, code.0);
        core.streams.remember(id, Known::ResetByUs);
        Ok(self.limits.reset(&link.config)?)
    }
}

fn reset(core: &mut Core, header: &Header, payload: &[u8]) -> Result<(), Fault> {
    let id = header.stream;
    let code = Code(number(payload).map_err(|_| wrong_length())?);
    if id == 0 || core.streams.known(id) == Known::Idle {
        return Err(broken("RST_STREAM on an idle stream"));
    }
    if let Some(stream) = core.streams.remove(id) {
        core.streams.remember(id, Known::ResetByClient);
        core.close(&stream, BodyError::Reset { code });
    }
    Ok(())
}
