//! The client's streams in one direction: control, QPACK, and what is none of our business.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use quinn::{ReadError, RecvStream};
use tokio::time::timeout;

use crate::{
    link::{Link, varint},
    recv_body::CHUNK_BYTES,
    respond::Stopped,
    wire::{
        Code, DecoderStream, EncoderStream, Event, FrameReader, Priority, StreamError, StreamKind,
        varint as number,
    },
};

/// RFC 9114 6.2.1.
pub(crate) const CONTROL: u64 = 0x00;
/// RFC 9114 6.2.2.
const PUSH: u64 = 0x01;
/// RFC 9204 4.2.
const QPACK_ENCODER: u64 = 0x02;
/// RFC 9204 4.2.
const QPACK_DECODER: u64 = 0x03;

/// Most streams that are open: the three critical ones, and those whose type is not known yet.
const OPEN_MAX: usize = 16;

/// Accepts and reads the client's streams until the connection ends. `stopped` is about our control
/// stream.
///
/// This future and those of the streams live as long as the connection, so they are not `async fn`s,
/// which would hold what they are given twice.
pub(crate) fn run(
    link: Arc<Link>,
    stopped: impl Future<Output = Stopped> + Send + 'static,
) -> impl Future<Output = ()> + Send {
    let mut stopped = Box::pin(stopped);
    let mut streams: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    async move {
        loop {
            tokio::select! {
                accepted = link.quic.accept_uni() => {
                    let Ok(recv) = accepted else { return };
                    if !link.count_uni(streams.len(), OPEN_MAX) {
                        return;
                    }
                    streams.push(read(Arc::clone(&link), recv));
                }
                Some(()) = streams.next() => {}
                // It is never finished, so nothing but a stop or the connection's end comes of it.
                outcome = &mut stopped => {
                    if outcome.is_ok() {
                        let reason = "our control stream was stopped";
                        link.refuse(Code::H3_CLOSED_CRITICAL_STREAM, reason.into());
                    }
                    return;
                }
            }
        }
    }
}

/// Reads a stream to its end.
fn read(link: Arc<Link>, mut recv: RecvStream) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        // On the heap for as long as it takes: what comes after needs far less.
        let Some(mut reader) = Box::pin(begin(&link, &mut recv)).await else { return };
        loop {
            let bytes = match recv.read_chunk(CHUNK_BYTES, true).await {
                Ok(Some(chunk)) => chunk.bytes,
                Ok(None) | Err(ReadError::Reset(_)) => break,
                Err(_) => return,
            };
            if !reader.take(&link, bytes) {
                return;
            }
        }
        link.refuse(Code::H3_CLOSED_CRITICAL_STREAM, "a critical stream was closed".into());
    })
}

/// Finds out what kind of stream it is, and takes what came with its type. `None`: there is nothing
/// more to do about it.
async fn begin(link: &Link, recv: &mut RecvStream) -> Option<Critical> {
    // A stream may end before it says what it is (RFC 9114 6.2).
    let typed = timeout(link.config.head_timeout, read_type(recv)).await.unwrap_or(None);
    let Some((ty, rest)) = typed else {
        let _ = recv.stop(varint(Code::H3_STREAM_CREATION_ERROR)); // it may have ended
        return None;
    };
    let mut reader = match ty {
        CONTROL => Critical::Control {
            reader: Box::new(FrameReader::new(StreamKind::Control, link.limits)),
            since: Instant::now(),
        },
        QPACK_ENCODER => Critical::Encoder(EncoderStream::default()),
        QPACK_DECODER => Critical::Decoder(DecoderStream::default()),
        PUSH => {
            link.refuse(Code::H3_STREAM_CREATION_ERROR, "a client can't push".into());
            return None;
        }
        _ => {
            let _ = recv.stop(varint(Code::H3_STREAM_CREATION_ERROR)); // it may have ended
            return None;
        }
    };
    let bit = 1 << ty;
    if link.critical.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        link.refuse(Code::H3_STREAM_CREATION_ERROR, "a second stream of a type".into());
        return None;
    }
    reader.take(link, rest).then_some(reader)
}

/// The type of a stream, and what came with it. `None`: it ended before.
async fn read_type(recv: &mut RecvStream) -> Option<(u64, Bytes)> {
    let mut seen = Bytes::new();
    loop {
        let chunk = recv.read_chunk(CHUNK_BYTES, true).await.ok()??.bytes;
        seen = if seen.is_empty() { chunk } else { [&seen[..], &chunk[..]].concat().into() };
        if let Some((ty, len)) = number::decode(&seen) {
            return Some((ty, seen.slice(len..)));
        }
    }
}

/// A stream that lives as long as the connection.
enum Critical {
    Control {
        reader: Box<FrameReader>,
        /// Since when its frames that bring nothing are counted.
        since: Instant,
    },
    Encoder(EncoderStream),
    Decoder(DecoderStream),
}

impl Critical {
    /// Takes the next bytes. False: the connection has been closed because of them.
    fn take(&mut self, link: &Link, bytes: Bytes) -> bool {
        self.read(link, bytes) && link.count_control()
    }

    fn read(&mut self, link: &Link, bytes: Bytes) -> bool {
        let refused = |error: StreamError| link.refuse(error.code(), error.to_string());
        match self {
            Self::Control { reader, since } => {
                if since.elapsed() >= Duration::from_secs(1) {
                    reader.forget_idle();
                    *since = Instant::now();
                }
                reader.push(bytes);
                take_frames(link, reader)
            }
            Self::Encoder(reader) => reader.push(&bytes).map_err(refused).is_ok(),
            Self::Decoder(reader) => reader.push(&bytes).map_err(refused).is_ok(),
        }
    }
}

fn take_frames(link: &Link, reader: &mut FrameReader) -> bool {
    loop {
        match reader.next_event() {
            Ok(None) => return true,
            Ok(Some(event)) => {
                if !link.count_control() || !take_event(link, &event) {
                    return false;
                }
            }
            Err(error) => {
                link.refuse_frame(error);
                return false;
            }
        }
    }
}

/// Settings, GOAWAY and MAX_PUSH_ID of a client need nothing done: we don't push, and send field
/// sections without a table.
fn take_event(link: &Link, event: &Event) -> bool {
    if let Event::PriorityUpdate { stream_id, value } = event {
        let ahead = (stream_id / 4).saturating_sub(link.accepted.load(Ordering::Relaxed));
        if ahead > link.config.priority_ahead_max {
            link.refuse(Code::H3_ID_ERROR, "a priority for a stream that can't be".into());
            return false;
        }
        link.updates.push(*stream_id, Priority::parse(value));
    }
    true
}
