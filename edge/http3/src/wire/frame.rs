//! Which frames a stream carries (RFC 9114 7), read step by step from whatever chunks arrive.

mod error;
#[cfg(test)]
mod tests;

pub use error::FrameError;

use bytes::{Buf, Bytes, BytesMut};

use super::{Limits, PeerSettings, settings, varint};

/// DATA (RFC 9114 7.2.1).
pub const DATA: u64 = 0x0;
/// HEADERS (RFC 9114 7.2.2).
pub const HEADERS: u64 = 0x1;
/// CANCEL_PUSH (RFC 9114 7.2.3).
pub const CANCEL_PUSH: u64 = 0x3;
/// SETTINGS (RFC 9114 7.2.4).
pub const SETTINGS: u64 = 0x4;
/// PUSH_PROMISE (RFC 9114 7.2.5).
pub const PUSH_PROMISE: u64 = 0x5;
/// GOAWAY (RFC 9114 7.2.6).
pub const GOAWAY: u64 = 0x7;
/// MAX_PUSH_ID (RFC 9114 7.2.7).
pub const MAX_PUSH_ID: u64 = 0xd;
/// PRIORITY_UPDATE for a request stream (RFC 9218 7.2).
pub const PRIORITY_UPDATE: u64 = 0xf_0700;
/// PRIORITY_UPDATE for a push (RFC 9218 7.2).
pub const PRIORITY_UPDATE_PUSH: u64 = 0xf_0701;

/// Most bytes of a PRIORITY_UPDATE: an id and a priority that nobody writes longer.
const PRIORITY_UPDATE_BYTES_MAX: usize = 512;

/// Most bytes of a frame's type and length.
const HEADER_BYTES_MAX: usize = 2 * varint::MAX_BYTES;

/// Which stream of a client it is, and so which frames it may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// A request: HEADERS, any number of DATA, perhaps HEADERS again for the trailers.
    Request,
    /// The control stream, after its type: SETTINGS, then what concerns the connection.
    Control,
}

/// What a [`FrameReader`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The payload of a HEADERS frame: the request's head the first time, then its trailers.
    Headers(Bytes),
    /// Bytes of a DATA frame, never empty, as they came.
    Data(Bytes),
    /// A DATA frame is over. Empty ones give only this.
    DataEnd,
    /// The peer's SETTINGS.
    Settings(PeerSettings),
    /// The peer's GOAWAY with a push id, not larger than the one before.
    GoAway(u64),
    /// The peer's MAX_PUSH_ID, not smaller than the one before.
    MaxPushId(u64),
    /// PRIORITY_UPDATE for a request stream.
    PriorityUpdate {
        /// The stream: one that a client can open for a request. Whether it is within the limits
        /// that the client was given has still to be checked.
        stream_id: u64,
        /// A priority as in the header field, see [`Priority::parse`](super::Priority::parse).
        value: Bytes,
    },
}

/// Where in a frame the reader is.
#[derive(Debug, Clone, Copy)]
enum State {
    Header,
    Data { left: u64 },
    Skip { left: u64 },
    Collect { ty: u64, bytes: usize },
}

/// What has been on the stream so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Nothing but unknown frames.
    Start,
    /// The first HEADERS or SETTINGS.
    Open,
    /// The head of a CONNECT: nothing but DATA follows (RFC 9114 4.4).
    Tunnel,
    /// The trailers: no known frame follows.
    Trailers,
}

/// Reads the frames of one stream. [`push`](Self::push) a chunk, then call
/// [`next_event`](Self::next_event) until it gives `None`; at the stream's end call
/// [`finish`](Self::finish).
///
/// Beside the chunk it holds at most [`Limits::field_section_bytes`] (request stream) or 1 KiB
/// (control stream), and grows to that only as bytes arrive.
#[derive(Debug)]
pub struct FrameReader {
    kind: StreamKind,
    limits: Limits,
    input: Bytes,
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    payload: BytesMut,
    state: State,
    order: Order,
    idle_frames: u32,
    go_away: Option<u64>,
    max_push_id: Option<u64>,
    failed: Option<FrameError>,
}

impl FrameReader {
    /// A reader at a stream's first frame: past the type of the stream, if it has one.
    #[must_use]
    pub fn new(kind: StreamKind, limits: Limits) -> Self {
        Self {
            kind,
            limits,
            input: Bytes::new(),
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            payload: BytesMut::new(),
            state: State::Header,
            order: Order::Start,
            idle_frames: 0,
            go_away: None,
            max_push_id: None,
            failed: None,
        }
    }

    /// Takes the next chunk. What is left of the one before, should it not have been read to its
    /// end, is copied in front of it.
    pub fn push(&mut self, chunk: Bytes) {
        if self.input.is_empty() {
            self.input = chunk;
        } else {
            self.input = [&self.input[..], &chunk[..]].concat().into();
        }
    }

    /// Says that the head was a CONNECT: from here on only DATA may follow (RFC 9114 4.4).
    pub fn tunnel(&mut self) {
        self.order = Order::Tunnel;
    }

    /// Forgets the frames so far that brought nothing: for a stream without an end they are counted
    /// anew every second.
    pub fn forget_idle(&mut self) {
        self.idle_frames = 0;
    }

    /// How many bytes are held beside the chunk at hand.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.payload.len() + self.header_bytes
    }

    /// What comes next, or `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError`], from then on the same.
    pub fn next_event(&mut self) -> Result<Option<Event>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.advance().inspect_err(|error| self.failed = Some(*error))
    }

    /// Says that the stream ended, after [`next_event`](Self::next_event) gave `None`.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] inside of a frame, [`FrameError::Incomplete`] for a request without
    /// a head, or the error before. (That a control stream ends at all is for the caller to refuse.)
    pub fn finish(&self) -> Result<(), FrameError> {
        let between = matches!(self.state, State::Header) && self.header_bytes == 0;
        match self.failed {
            Some(error) => Err(error),
            None if !between || !self.input.is_empty() => Err(FrameError::Truncated),
            None if self.kind == StreamKind::Request && self.order == Order::Start => {
                Err(FrameError::Incomplete)
            }
            None => Ok(()),
        }
    }

    fn advance(&mut self) -> Result<Option<Event>, FrameError> {
        loop {
            match self.state {
                State::Header => {
                    if !self.read_header()? {
                        return Ok(None);
                    }
                }
                State::Data { left: 0 } => {
                    self.state = State::Header;
                    return Ok(Some(Event::DataEnd));
                }
                State::Skip { left: 0 } => self.state = State::Header,
                State::Data { left } => {
                    let Some((chunk, left)) = self.take(left) else { return Ok(None) };
                    self.state = State::Data { left };
                    self.idle_frames = 0;
                    return Ok(Some(Event::Data(chunk)));
                }
                State::Skip { left } => {
                    let Some((_, left)) = self.take(left) else { return Ok(None) };
                    self.state = State::Skip { left };
                }
                State::Collect { ty, bytes } => {
                    let Some(payload) = self.collect(bytes) else { return Ok(None) };
                    self.state = State::Header;
                    self.idle_frames = 0;
                    return self.complete(ty, payload).map(Some);
                }
            }
        }
    }

    /// Reads a frame's type and length. Says whether both were there.
    fn read_header(&mut self) -> Result<bool, FrameError> {
        let before = self.header_bytes;
        let taken = self.input.len().min(HEADER_BYTES_MAX - before);
        self.header[before..before + taken].copy_from_slice(&self.input[..taken]);
        let known = &self.header[..before + taken];
        let Some((ty, ty_bytes)) = varint::decode(known) else {
            self.input.clear();
            self.header_bytes = before + taken;
            return Ok(false);
        };
        self.check_type(ty)?;
        let Some((length, length_bytes)) = varint::decode(&known[ty_bytes..]) else {
            self.input.clear();
            self.header_bytes = before + taken;
            return Ok(false);
        };
        self.input.advance(ty_bytes + length_bytes - before);
        self.header_bytes = 0;
        self.begin(ty, length)?;
        Ok(true)
    }

    /// Whether this frame may be here, before its length is known.
    fn check_type(&self, ty: u64) -> Result<(), FrameError> {
        if self.kind == StreamKind::Control && self.order == Order::Start && ty != SETTINGS {
            return Err(FrameError::MissingSettings(ty));
        }
        let allowed = match (self.kind, ty) {
            // Types of HTTP/2 that have no place in HTTP/3 (RFC 9114 7.2.8).
            (_, 0x2 | 0x6 | 0x8 | 0x9 | PUSH_PROMISE) => false,
            (StreamKind::Request, HEADERS) => matches!(self.order, Order::Start | Order::Open),
            (StreamKind::Request, DATA) => matches!(self.order, Order::Open | Order::Tunnel),
            (StreamKind::Control, SETTINGS) => self.order == Order::Start,
            (StreamKind::Request, SETTINGS | CANCEL_PUSH | GOAWAY | MAX_PUSH_ID)
            | (StreamKind::Request, PRIORITY_UPDATE | PRIORITY_UPDATE_PUSH)
            | (StreamKind::Control, DATA | HEADERS) => false,
            _ => true,
        };
        if allowed { Ok(()) } else { Err(FrameError::Unexpected(ty)) }
    }

    /// Goes on to the payload of a frame that may be here, if its length is acceptable.
    fn begin(&mut self, ty: u64, length: u64) -> Result<(), FrameError> {
        self.state = match ty {
            DATA => State::Data { left: length },
            HEADERS => {
                let limit = self.limits.field_section_bytes;
                let bytes = within(length, limit)
                    .ok_or(FrameError::TooLarge { announced: length, limit })?;
                self.order = if self.order == Order::Start { Order::Open } else { Order::Trailers };
                State::Collect { ty, bytes }
            }
            SETTINGS => {
                self.order = Order::Open;
                State::Collect { ty, bytes: bounded(ty, length, settings::PAYLOAD_BYTES_MAX)? }
            }
            CANCEL_PUSH | GOAWAY | MAX_PUSH_ID => {
                let bytes = within(length, varint::MAX_BYTES).ok_or(FrameError::Malformed(ty))?;
                State::Collect { ty, bytes }
            }
            PRIORITY_UPDATE | PRIORITY_UPDATE_PUSH => {
                State::Collect { ty, bytes: bounded(ty, length, PRIORITY_UPDATE_BYTES_MAX)? }
            }
            _ => State::Skip { left: length },
        };
        let brings_nothing = match self.state {
            State::Data { left } => left == 0,
            State::Skip { .. } => true,
            State::Header | State::Collect { .. } => false,
        };
        if brings_nothing {
            self.idle_frames += 1;
            if self.idle_frames > self.limits.idle_frames {
                return Err(FrameError::Idle(self.idle_frames));
            }
        }
        Ok(())
    }

    /// Up to `left` bytes of the chunk, and how many are left after them.
    fn take(&mut self, left: u64) -> Option<(Bytes, u64)> {
        if self.input.is_empty() {
            return None;
        }
        let bytes = within(left, self.input.len()).unwrap_or(self.input.len());
        let chunk = self.input.split_to(bytes);
        Some((chunk, left - bytes as u64))
    }

    /// The whole payload of `bytes` bytes once it is there; without a copy if one chunk has it.
    fn collect(&mut self, bytes: usize) -> Option<Bytes> {
        let missing = bytes - self.payload.len();
        if self.payload.is_empty() && self.input.len() >= bytes {
            return Some(self.input.split_to(bytes));
        }
        let chunk = self.input.split_to(missing.min(self.input.len()));
        self.payload.extend_from_slice(&chunk);
        (self.payload.len() == bytes).then(|| std::mem::take(&mut self.payload).freeze())
    }

    /// What the whole payload of a frame says.
    fn complete(&mut self, ty: u64, payload: Bytes) -> Result<Event, FrameError> {
        let id = || varint::decode_whole(&payload).ok_or(FrameError::Malformed(ty));
        match ty {
            HEADERS => Ok(Event::Headers(payload)),
            SETTINGS => Ok(Event::Settings(PeerSettings::decode(&payload)?)),
            GOAWAY => {
                let id = id()?;
                if self.go_away.is_some_and(|before| id > before) {
                    return Err(FrameError::Id { ty, id });
                }
                self.go_away = Some(id);
                Ok(Event::GoAway(id))
            }
            MAX_PUSH_ID => {
                let id = id()?;
                if self.max_push_id.is_some_and(|before| id < before) {
                    return Err(FrameError::Id { ty, id });
                }
                self.max_push_id = Some(id);
                Ok(Event::MaxPushId(id))
            }
            // We never promise a push, so there is none to cancel (RFC 9114 7.2.3).
            CANCEL_PUSH => Err(FrameError::Id { ty, id: id()? }),
            _ => priority_update(ty, payload),
        }
    }
}

/// The target and the value of a PRIORITY_UPDATE (RFC 9218 7.2).
fn priority_update(ty: u64, mut payload: Bytes) -> Result<Event, FrameError> {
    let (id, id_bytes) = varint::decode(&payload).ok_or(FrameError::Malformed(ty))?;
    // Client-initiated and bidirectional is what requests are; pushes are never promised.
    if ty != PRIORITY_UPDATE || id % 4 != 0 {
        return Err(FrameError::Id { ty, id });
    }
    payload.advance(id_bytes);
    Ok(Event::PriorityUpdate { stream_id: id, value: payload })
}

/// `length` as what can be held, if it is at most `limit`.
fn within(length: u64, limit: usize) -> Option<usize> {
    usize::try_from(length).ok().filter(|length| *length <= limit)
}

fn bounded(ty: u64, length: u64, limit: usize) -> Result<usize, FrameError> {
    within(length, limit).ok_or(FrameError::Oversized { ty, announced: length })
}

/// Writes a frame's type and length; its payload of `length` bytes has to follow.
pub fn write_frame_header(ty: u64, length: u64, out: &mut BytesMut) {
    varint::encode(ty, out);
    varint::encode(length, out);
}
