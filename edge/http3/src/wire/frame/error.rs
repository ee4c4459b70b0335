//! Why the frames of a stream are refused, and with which code.

use crate::wire::{Code, SettingsError};

/// Why a stream's bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame that isn't allowed on this stream, or not at this place.
    #[error("a frame of type {0:#x} is not allowed here")]
    Unexpected(u64),
    /// The control stream begins with another frame than SETTINGS.
    #[error("the control stream begins with a frame of type {0:#x}")]
    MissingSettings(u64),
    /// A payload that isn't laid out as its type demands.
    #[error("a frame of type {0:#x} has a malformed payload")]
    Malformed(u64),
    /// The stream ends inside of a frame.
    #[error("the stream ends inside of a frame")]
    Truncated,
    /// The request's stream ends before its head.
    #[error("the stream ends before the request's head")]
    Incomplete,
    /// A field section larger than the limit.
    #[error("a field section of {announced} bytes is larger than {limit}")]
    TooLarge {
        /// The bytes that the frame announced.
        announced: u64,
        /// The limit for field sections, `Limits::field_section_bytes`.
        limit: usize,
    },
    /// Another frame that is larger than any honest one.
    #[error("a frame of type {ty:#x} announces {announced} bytes")]
    Oversized {
        /// The frame's type.
        ty: u64,
        /// The bytes that it announced.
        announced: u64,
    },
    /// Too many frames in a row that bring nothing.
    #[error("{0} frames in a row bring nothing")]
    Idle(u32),
    /// A stream or push id that can't be used so.
    #[error("a frame of type {ty:#x} refers to the id {id}")]
    Id {
        /// The frame's type.
        ty: u64,
        /// The id.
        id: u64,
    },
    /// A SETTINGS frame that says something wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

impl FrameError {
    /// The code to reset the stream or close the connection with. A request whose head is too large
    /// is better answered 431 than reset.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Unexpected(_) => Code::H3_FRAME_UNEXPECTED,
            Self::MissingSettings(_) => Code::H3_MISSING_SETTINGS,
            Self::Malformed(_) | Self::Truncated => Code::H3_FRAME_ERROR,
            Self::Incomplete => Code::H3_REQUEST_INCOMPLETE,
            Self::TooLarge { .. } | Self::Oversized { .. } | Self::Idle(_) => {
                Code::H3_EXCESSIVE_LOAD
            }
            Self::Id { .. } => Code::H3_ID_ERROR,
            Self::Settings(error) => error.code(),
        }
    }

    /// Whether only the stream ends, not the connection.
    #[must_use]
    pub const fn is_stream_error(self) -> bool {
        matches!(self, Self::Incomplete | Self::TooLarge { .. })
    }
}
