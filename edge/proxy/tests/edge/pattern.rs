//! Long bodies of which every byte is known.

use bytes::{Bytes, BytesMut};
use edge_proxy::{Body, BoxError};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

/// Not a power of two, so that a misplaced block shows.
pub(crate) const PATTERN_BYTES: usize = 65_521;

pub(crate) fn pattern() -> Bytes {
    let mut bytes = BytesMut::with_capacity(PATTERN_BYTES);
    let mut state = 1_u32;
    for _ in 0..PATTERN_BYTES {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(&state.to_be_bytes()[..1]);
    }
    bytes.freeze()
}

/// The pattern over and over, `total` bytes of it.
pub(crate) fn large(total: usize) -> Body {
    let pattern = pattern();
    let chunks = (0..total).step_by(PATTERN_BYTES).map(move |start| {
        let bytes = PATTERN_BYTES.min(total - start);
        Ok::<_, BoxError>(Frame::data(pattern.slice(..bytes)))
    });
    BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(chunks)))
}

/// Reads a body to its end; how much of it was the pattern, which is all of it unless an error says
/// otherwise.
pub(crate) async fn check<B>(mut body: B) -> Result<usize, String>
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    let pattern = pattern();
    let mut at = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("broke off at {at}: {error:?}"))?;
        let mut data = frame.into_data().map_err(|_| format!("trailers at {at}"))?;
        while !data.is_empty() {
            let offset = at % PATTERN_BYTES;
            let bytes = data.len().min(PATTERN_BYTES - offset);
            if data.split_to(bytes) != pattern.slice(offset..offset + bytes) {
                return Err(format!("wrong at {at}"));
            }
            at += bytes;
        }
    }
    Ok(at)
}
