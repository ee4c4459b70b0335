//! HTTP/3 and QPACK as bytes: what goes over a stream, without the streams.
//!
//! ```text
//! bytes --FrameReader--> Event::Headers --decode_request--> RequestHead
//!                        Event::Data    --decode_trailers-> HeaderMap
//!                        Event::Settings, PriorityUpdate, ... (control stream)
//! http::response::Parts --response_frame--> bytes of a HEADERS frame
//! ```
//!
//! # Invariants
//!
//! - Nothing here reads, writes or waits; every function is a step over bytes at hand.
//! - What a reader yields depends on the bytes alone, never on how they were cut into chunks.
//! - No reader holds more than its limit, whatever a frame announces: DATA passes through without a
//!   copy, unknown frames are counted and dropped, the rest is refused when its length is known.
//! - After an error a reader yields that error again, and nothing else.
//! - An error knows its [`Code`] and whether it ends the stream or the connection.
//!
//! # How a connection uses it
//!
//! - One [`FrameReader`] for each request and one for the peer's control stream, past the stream's
//!   type. It keeps the order of frames: the second [`Event::Headers`] of a request is its trailers,
//!   SETTINGS come first and once. After a head that [is a CONNECT](RequestHead::is_connect) call
//!   [`FrameReader::tunnel`].
//! - [`FrameError::TooLarge`] and [`HeadError::is_over_limit`] of a head are for a 431 answer.
//! - The sum of DATA has to be compared with [`RequestHead::content_length`] by whoever counts it,
//!   a stream id of PRIORITY_UPDATE with the streams that the client may open.

pub mod code;
pub mod frame;
pub mod fuzzing;
pub mod head;
pub mod priority;
pub mod qpack;
pub mod settings;
pub mod varint;

pub use code::Code;
pub use frame::{Event, FrameError, FrameReader, StreamKind, write_frame_header};
pub use head::{
    HeadError, Protocol, RequestHead, decode_request, decode_trailers, encode_response,
    encode_trailers, response_frame, trailers_frame,
};
pub use priority::Priority;
pub use qpack::streams::{DecoderStream, EncoderStream, StreamError};
pub use settings::{PeerSettings, SettingsError, write_settings};

/// What a peer may make one reader or decoder hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a field section, encoded as well as decoded (names, values and 32 bytes for
    /// each field, RFC 9114 4.2.2). It is what our SETTINGS announce.
    pub field_section_bytes: usize,
    /// Most fields of a section, pseudo-header fields included.
    pub fields: usize,
    /// Most frames in a row that bring nothing: unknown ones, and DATA without a byte.
    pub idle_frames: u32,
}

impl Default for Limits {
    /// 32 KiB and 128 fields to a section; 64 frames without progress.
    fn default() -> Self {
        Self { field_section_bytes: 32 * 1024, fields: 128, idle_frames: 64 }
    }
}
