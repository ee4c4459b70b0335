//! quinn's errors in the words of `h3`.

use std::sync::Arc;

use h3::quic::{ConnectionErrorIncoming, StreamErrorIncoming};

pub(super) fn lost(error: quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

pub(super) fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(closed) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: closed.error_code.into() }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

pub(super) fn read_error(error: std::io::Error) -> StreamErrorIncoming {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<quinn::ReadError>());
    match inner {
        Some(quinn::ReadError::Reset(code)) => {
            StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }
        }
        Some(quinn::ReadError::ConnectionLost(reason)) => lost(reason.clone()),
        _ => StreamErrorIncoming::Unknown(error.into()),
    }
}

pub(super) fn write_error(error: quinn::WriteError) -> StreamErrorIncoming {
    match error {
        quinn::WriteError::Stopped(code) => {
            StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }
        }
        quinn::WriteError::ConnectionLost(reason) => lost(reason),
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}
