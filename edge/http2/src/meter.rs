//! Counts the frames that a client sends, by their nine-byte headers (RFC 9113 4.1).
//!
//! What a frame costs us has little to do with its size. The `h2` crate bounds memory; this bounds
//! what a client can make us do per second.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::Reason;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{Config, Counters};

/// Length of a frame's header.
const HEADER_BYTES: usize = 9;
/// The client's connection preface (RFC 9113 3.4).
const PREFACE_BYTES: usize = 24;
/// A DATA frame that brings less costs more than it brings.
const TINY_BYTES: usize = 16;
/// Over which time frames are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Which bound a client went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    /// No excess but a lack: the first frame is no SETTINGS (RFC 9113 3.4).
    NoSettings,
    Resets,
    Continuations,
    Settings,
    Pings,
    Control,
    TinyData,
    HeadBytes,
}

impl Excess {
    pub(crate) fn count(self, counters: &Counters) {
        Counters::count(match self {
            Self::NoSettings => &counters.malformed,
            Self::Resets => &counters.resets,
            Self::Continuations => &counters.continuations,
            Self::Settings => &counters.settings,
            Self::Pings => &counters.pings,
            Self::Control => &counters.control,
            Self::TinyData => &counters.tiny_data,
            Self::HeadBytes => &counters.head_bytes,
        });
    }

    /// What the client is told.
    pub(crate) const fn code(self) -> Reason {
        match self {
            Self::NoSettings => Reason::PROTOCOL_ERROR,
            _ => Reason::ENHANCE_YOUR_CALM,
        }
    }

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::NoSettings => "the connection does not begin with SETTINGS",
            Self::Resets => "too many streams were reset",
            Self::Continuations => "a head has too many CONTINUATION frames",
            Self::Settings => "too many SETTINGS frames",
            Self::Pings => "too many PING frames",
            Self::Control => "too many control frames",
            Self::TinyData => "too many DATA frames with next to nothing in them",
            Self::HeadBytes => "a head is far too large",
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    resets: u32,
    settings: u32,
    pings: u32,
    control: u32,
    window_updates: u32,
    tiny: u32,
}

#[derive(Debug)]
struct State {
    /// Bytes of the preface or of a payload that are passed over.
    skip: usize,
    header: [u8; HEADER_BYTES],
    filled: usize,
    since: Instant,
    counts: Counts,
    continuations: u32,
    excess: Option<Excess>,
    began: bool,
    last_read: Instant,
}

/// Counts of one connection, shared by its reader and its owner.
#[derive(Debug)]
pub(crate) struct Meter {
    config: Arc<Config>,
    state: Mutex<State>,
}

impl Meter {
    pub(crate) fn new(config: Arc<Config>) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            filled: 0,
            since: now,
            counts: Counts::default(),
            continuations: 0,
            excess: None,
            began: false,
            last_read: now,
        };
        Arc::new(Self { config, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the client went over, if it did.
    pub(crate) fn excess(&self) -> Option<Excess> {
        self.lock().excess
    }

    /// What the `h2` crate saw before we did, if that is why it sent the client away. It does not say
    /// what it was: that is told from what came most of.
    pub(crate) fn excess_of(&self, error: &h2::Error) -> Option<Excess> {
        if !error.is_library() || error.reason() != Some(Reason::ENHANCE_YOUR_CALM) {
            return None;
        }
        let state = self.lock();
        let Counts { resets, tiny, .. } = state.counts;
        let seen = [
            (resets, Excess::Resets),
            (tiny, Excess::TinyData),
            (state.continuations, Excess::Continuations),
        ];
        let most = seen.into_iter().max_by_key(|(count, _)| *count);
        Some(most.filter(|(count, _)| *count > 0).map_or(Excess::HeadBytes, |(_, of)| of))
    }

    /// When something came last.
    pub(crate) fn last_read(&self) -> Instant {
        self.lock().last_read
    }

    fn read(&self, mut bytes: &[u8]) {
        let mut state = self.lock();
        state.last_read = Instant::now();
        while !bytes.is_empty() {
            if state.skip > 0 {
                let skipped = state.skip.min(bytes.len());
                state.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let filled = state.filled;
            let take = (HEADER_BYTES - filled).min(bytes.len());
            state.header[filled..filled + take].copy_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            state.filled += take;
            if state.filled == HEADER_BYTES {
                state.filled = 0;
                let [a, b, c, kind, ..] = state.header;
                let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                state.skip = length;
                state.frame(kind, length, &self.config);
            }
        }
    }
}

impl State {
    fn frame(&mut self, kind: u8, length: usize, config: &Config) {
        if self.last_read.duration_since(self.since) >= WINDOW {
            (self.since, self.counts) = (self.last_read, Counts::default());
        }
        let counts = &mut self.counts;
        let over = |count: &mut u32, max: u32| {
            *count += 1;
            *count > max
        };
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const RST_STREAM: u8 = 3;
        const SETTINGS: u8 = 4;
        const PING: u8 = 6;
        const WINDOW_UPDATE: u8 = 8;
        const CONTINUATION: u8 = 9;
        let control = config.max_control_frames_per_second;
        let excess = match kind {
            DATA if length >= TINY_BYTES => None,
            DATA => over(&mut counts.tiny, config.max_tiny_data_frames_per_second)
                .then_some(Excess::TinyData),
            HEADERS => {
                self.continuations = 0;
                None
            }
            CONTINUATION => {
                self.continuations += 1;
                (self.continuations > config.max_continuations).then_some(Excess::Continuations)
            }
            RST_STREAM => {
                over(&mut counts.resets, config.max_resets_per_second).then_some(Excess::Resets)
            }
            SETTINGS => over(&mut counts.settings, control).then_some(Excess::Settings),
            PING => over(&mut counts.pings, control).then_some(Excess::Pings),
            WINDOW_UPDATE => over(&mut counts.window_updates, config.max_window_updates_per_second)
                .then_some(Excess::Control),
            _ => over(&mut counts.control, control).then_some(Excess::Control),
        };
        let lack = (!self.began && kind != SETTINGS).then_some(Excess::NoSettings);
        self.began = true;
        self.excess = self.excess.or(lack).or(excess);
    }
}

/// A connection whose frames are counted as they are read.
#[derive(Debug)]
pub(crate) struct Metered<I> {
    io: I,
    meter: Arc<Meter>,
}

impl<I> Metered<I> {
    pub(crate) const fn new(io: I, meter: Arc<Meter>) -> Self {
        Self { io, meter }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Metered<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            this.meter.read(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Metered<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        bytes.resize(HEADER_BYTES + payload, 0xaa);
        bytes
    }

    /// The excess after `count` frames, fed in pieces of `step` bytes.
    fn after(count: u32, kind: u8, payload: usize, step: usize) -> Option<Excess> {
        let config = Config {
            max_resets_per_second: 10,
            max_control_frames_per_second: 10,
            max_tiny_data_frames_per_second: 10,
            max_continuations: 10,
            ..Config::default()
        };
        let meter = Meter::new(Arc::new(config));
        let mut bytes = vec![0; PREFACE_BYTES];
        bytes.extend(frame(4, 0));
        for _ in 0..count {
            bytes.extend(frame(kind, payload));
        }
        for piece in bytes.chunks(step) {
            meter.read(piece);
        }
        meter.excess()
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_of_flood_is_told_apart() {
        for (kind, payload, excess) in [
            (0, 0, Excess::TinyData),
            (2, 5, Excess::Control),
            (3, 4, Excess::Resets),
            (4, 6, Excess::Settings),
            (6, 8, Excess::Pings),
            (9, 100, Excess::Continuations),
            (0xbe, 1000, Excess::Control),
        ] {
            for step in [1, 7, 4096] {
                let begin = u32::from(kind == 4); // a connection has its first SETTINGS anyway
                assert_eq!(after(10 - begin, kind, payload, step), None, "{kind} {step}");
                let over = after(11 - begin, kind, payload, step);
                assert_eq!(over, Some(excess), "{kind} {step}");
            }
        }
        assert_eq!(after(1000, 0, 1000, 100), None, "data that brings something");
    }
}
