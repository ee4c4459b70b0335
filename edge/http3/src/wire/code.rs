//! Which error codes of HTTP/3 and QPACK exist, and what they are called.

use std::fmt;

/// An application error code of HTTP/3 (RFC 9114 8.1) or QPACK (RFC 9204 6), as it goes into
/// RESET_STREAM, STOP_SENDING and CONNECTION_CLOSE.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(u32);

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal,)+) => {
        impl Code {
            $($(#[doc = $doc])+ pub const $name: Self = Self($value);)+

            /// Every code that has a name.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name in the RFC.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)+
                    _ => "unknown",
                }
            }
        }
    };
}

codes! {
    /// No error: the connection or stream is closed as agreed.
    H3_NO_ERROR = 0x100,
    /// The peer broke the protocol in a way that no other code fits.
    H3_GENERAL_PROTOCOL_ERROR = 0x101,
    /// Something failed on our side.
    H3_INTERNAL_ERROR = 0x102,
    /// The peer opened a stream that we don't accept.
    H3_STREAM_CREATION_ERROR = 0x103,
    /// A stream that has to live as long as the connection was closed.
    H3_CLOSED_CRITICAL_STREAM = 0x104,
    /// A frame that isn't allowed here or now.
    H3_FRAME_UNEXPECTED = 0x105,
    /// A frame whose layout or size is wrong.
    H3_FRAME_ERROR = 0x106,
    /// The peer makes us work without need.
    H3_EXCESSIVE_LOAD = 0x107,
    /// A stream or push id that is used wrongly.
    H3_ID_ERROR = 0x108,
    /// What a SETTINGS frame says is wrong.
    H3_SETTINGS_ERROR = 0x109,
    /// The control stream does not begin with SETTINGS.
    H3_MISSING_SETTINGS = 0x10a,
    /// The request was not looked at: it can be sent again.
    H3_REQUEST_REJECTED = 0x10b,
    /// The request or its response is no longer wanted.
    H3_REQUEST_CANCELLED = 0x10c,
    /// The client's stream ended before the request was whole.
    H3_REQUEST_INCOMPLETE = 0x10d,
    /// A message is malformed and can't be processed.
    H3_MESSAGE_ERROR = 0x10e,
    /// The connection made for CONNECT was reset or closed abnormally.
    H3_CONNECT_ERROR = 0x10f,
    /// It can't be served over HTTP/3: try HTTP/1.1.
    H3_VERSION_FALLBACK = 0x110,
    /// A field section can't be decoded (ends the connection).
    QPACK_DECOMPRESSION_FAILED = 0x200,
    /// An instruction on the encoder stream is wrong.
    QPACK_ENCODER_STREAM_ERROR = 0x201,
    /// An instruction on the decoder stream is wrong.
    QPACK_DECODER_STREAM_ERROR = 0x202,
}

impl Code {
    /// The code as it is sent.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#x})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_named_and_lie_where_the_registries_put_them() {
        let values: Vec<u32> = Code::ALL.iter().map(|code| code.value()).collect();
        assert_eq!(values, (0x100..=0x110).chain(0x200..=0x202).collect::<Vec<_>>());
        assert!(Code::ALL.iter().all(|code| code.name() != "unknown"));
        assert_eq!(Code::H3_MESSAGE_ERROR.to_string(), "H3_MESSAGE_ERROR (0x10e)");
    }
}
