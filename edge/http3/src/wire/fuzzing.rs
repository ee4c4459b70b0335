//! What the fuzz targets need of this module: all of it.

pub use super::{
    Code, DecoderStream, EncoderStream, Event, FrameError, FrameReader, HeadError, Limits,
    PeerSettings, Priority, Protocol, RequestHead, SettingsError, StreamError, StreamKind, code,
    decode_request, decode_trailers, encode_response, encode_trailers, frame, head, priority,
    qpack, response_frame, settings, trailers_frame, varint, write_frame_header, write_settings,
};
