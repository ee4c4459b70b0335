//! What was read of a body, kept so that it can be read once more.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BoxError};

/// Most bytes that are kept for one request: an agent that has no sandbox says so before more than a
/// flow control window's worth was sent.
const KEPT_MAX_BYTES: usize = 64 * 1024;

/// The frames of a body so far.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    data: VecDeque<Bytes>,
    bytes: usize,
}

impl Kept {
    /// Keeps one more. False: the body can't be read once more, since there is too much of it, or
    /// more to it than data.
    pub(crate) fn push(&mut self, frame: &Frame<Bytes>) -> bool {
        let Some(data) = frame.data_ref() else { return false };
        self.bytes += data.len();
        self.data.push_back(data.clone());
        self.bytes <= KEPT_MAX_BYTES
    }
}

/// A body from its beginning: what was kept, then the rest of it.
#[derive(Debug)]
pub(crate) struct Replayed {
    kept: Kept,
    rest: Body,
}

impl Replayed {
    pub(crate) const fn new(kept: Kept, rest: Body) -> Self {
        Self { kept, rest }
    }
}

impl HttpBody for Replayed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(data) = this.kept.data.pop_front() {
            this.kept.bytes -= data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Pin::new(&mut this.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.kept.data.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, kept) = (self.rest.size_hint(), self.kept.bytes as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::body::full;

    #[tokio::test]
    async fn what_was_kept_comes_before_the_rest() {
        let mut kept = Kept::default();
        assert!(kept.push(&Frame::data(Bytes::from_static(b"first "))));
        assert!(kept.push(&Frame::data(Bytes::from_static(b"second "))));
        let again = Replayed::new(kept, full("third"));
        assert_eq!(again.size_hint().exact(), Some(18));
        assert!(!again.is_end_stream());
        assert_eq!(again.collect().await.unwrap().to_bytes(), "first second third");
    }

    #[test]
    fn too_much_and_trailers_cannot_be_kept() {
        let mut kept = Kept::default();
        assert!(kept.push(&Frame::data(Bytes::from(vec![0; KEPT_MAX_BYTES]))));
        assert!(!kept.push(&Frame::data(Bytes::from_static(b"x"))));
        assert!(!Kept::default().push(&Frame::trailers(http::HeaderMap::new())));
    }
}
