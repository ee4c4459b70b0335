//! What a connection and its streams share: the table of streams, the windows, what waits to be written.
//!
//! Who holds the lock never waits, calls nobody back and drops no future.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    BodyError, Config, Counters,
    out::Out,
    streams::{Answer, Blocked, Known, Stream, Streams},
    tasks::Bell,
    window::{RecvWindow, SendWindow},
    wire::{
        Code,
        frame::{SEND_MAX_BYTES, flag, kind, put_header, put_number},
        settings::DEFAULT_WINDOW,
    },
};

/// What the lock is for.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) out: Out,
    pub(crate) streams: Streams,
    pub(crate) send: SendWindow,
    pub(crate) recv: RecvWindow,
    /// The client's window for a new stream.
    pub(crate) stream_window: u32,
    /// The client's dynamic table has become smaller: it waits to hear that we use none.
    pub(crate) tell_no_table: bool,
    /// Answers that have begun since the last write.
    pub(crate) begun: u32,
    /// Who waits for a turn to write.
    waiting: VecDeque<u32>,
    /// The futures of streams that are no more.
    pub(crate) doomed: Vec<usize>,
    send_buffer_bytes: usize,
}

/// What came of sending data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// All of it is on its way.
    All,
    /// And the stream has ended with it.
    Ended,
    /// Some is left; the future runs again when more may go.
    Blocked,
    /// The stream is no more.
    Gone,
}

impl Core {
    /// Sends as much as the windows and the buffer allow, in frames.
    pub(crate) fn send_data(&mut self, id: u32, data: &mut Bytes, last: bool) -> Sent {
        let Some(stream) = self.streams.get(id) else { return Sent::Gone };
        while !data.is_empty() {
            let room = self.send_buffer_bytes.saturating_sub(self.out.len());
            let allowed = stream.send.open().min(self.send.open());
            let length = allowed.min(room).min(data.len()).min(SEND_MAX_BYTES);
            if length == 0 {
                if stream.send.open() == 0 {
                    stream.blocked = Blocked::Window;
                } else if stream.blocked != Blocked::Queued {
                    stream.blocked = Blocked::Queued;
                    self.waiting.push_back(id);
                }
                return Sent::Blocked;
            }
            let ends = last && length == data.len();
            let flags = if ends { flag::END_STREAM } else { 0 };
            put_header(self.out.tail(), length, kind::DATA, flags, id);
            self.out.push(data.split_to(length));
            stream.send.take(length);
            self.send.take(length);
            if ends {
                self.end_answer(id);
                return Sent::Ended;
            }
        }
        Sent::All
    }

    /// The future of the stream whose turn it is to write, if something may be written.
    pub(crate) fn next_writer(&mut self) -> Option<usize> {
        // A turn of a few bytes would be many frames.
        let is_full = self.out.len() > self.send_buffer_bytes / 2;
        if is_full || self.send.open() == 0 {
            return None;
        }
        while let Some(id) = self.waiting.pop_front() {
            if let Some(stream) = self.streams.get(id)
                && stream.blocked == Blocked::Queued
            {
                stream.blocked = Blocked::No;
                if stream.slot.is_some() {
                    return stream.slot;
                }
            }
        }
        None
    }

    /// Whether answers come in numbers: several have begun since the last write, or one is still to.
    pub(crate) fn has_many_answers(&mut self) -> bool {
        self.begun > 1 || self.streams.iter_mut().any(|stream| stream.answer == Answer::Waiting)
    }

    /// A stream's window is wider: who waited for that gets in line.
    fn unblock(stream: &mut Stream, waiting: &mut VecDeque<u32>) {
        if stream.blocked == Blocked::Window && stream.send.open() > 0 {
            stream.blocked = Blocked::Queued;
            waiting.push_back(stream.id);
        }
    }

    /// Widens a stream's window. False: it is wider now than a window can be.
    pub(crate) fn widen(&mut self, id: u32, by: u32) -> bool {
        let Some(stream) = self.streams.get(id) else { return true };
        let fits = stream.send.change(by.into());
        Self::unblock(stream, &mut self.waiting);
        fits
    }

    /// The client's window for streams is another one, for those that are open, too (RFC 9113 6.9.2).
    pub(crate) fn change_windows(&mut self, window: u32) -> bool {
        let by = i64::from(window) - i64::from(self.stream_window);
        self.stream_window = window;
        let mut fits = true;
        for stream in self.streams.iter_mut() {
            fits &= stream.send.change(by);
            Self::unblock(stream, &mut self.waiting);
        }
        fits
    }

    /// The whole answer is written.
    pub(crate) fn end_answer(&mut self, id: u32) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.answer = Answer::Ended;
        stream.slot = None; // it ends by itself
        if stream.received {
            self.streams.remove(id);
        } else if stream.inbox.is_none() {
            // RFC 9113 8.1: nobody wants the rest.
            self.reset(id, Code::NO_ERROR, BodyError::Lost);
        }
    }

    /// The whole request is here.
    pub(crate) fn end_request(&mut self, id: u32) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.received = true;
        if stream.answer == Answer::Ended {
            self.streams.remove(id);
        }
    }

    /// Ends a stream of our own accord. Its future, if it still runs, is doomed.
    pub(crate) fn reset(&mut self, id: u32, code: Code, error: BodyError) {
        put_number(self.out.tail(), kind::RST_STREAM, id, code.0);
        if let Some(stream) = self.streams.remove(id) {
            self.streams.remember(id, Known::ResetByUs);
            self.close(&stream, error);
        }
    }

    /// A stream is no more: its future is doomed, its reader told.
    pub(crate) fn close(&mut self, stream: &Stream, error: BodyError) {
        self.doomed.extend(stream.slot);
        if let Some(inbox) = &stream.inbox {
            let dropped = inbox.fail(error);
            self.release(dropped);
        }
    }

    /// Bytes that came are dealt with: the client may send as many again on the connection.
    pub(crate) fn release(&mut self, bytes: usize) {
        if let Some(by) = self.recv.release(bytes) {
            put_number(self.out.tail(), kind::WINDOW_UPDATE, 0, by);
        }
    }

    /// Bytes of a stream were read.
    pub(crate) fn release_of(&mut self, id: u32, bytes: usize) {
        self.release(bytes);
        if let Some(stream) = self.streams.get(id)
            && !stream.received
            && let Some(by) = stream.recv.release(bytes)
        {
            put_number(self.out.tail(), kind::WINDOW_UPDATE, id, by);
        }
    }
}

/// Shared by a connection, its answers and its bodies.
#[derive(Debug)]
pub(crate) struct Link {
    core: Mutex<Core>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) config: Arc<Config>,
    pub(crate) counters: Arc<Counters>,
}

impl Link {
    pub(crate) fn new(config: Arc<Config>, counters: Arc<Counters>) -> Self {
        let core = Core {
            out: Out::default(),
            streams: Streams::default(),
            send: SendWindow::new(DEFAULT_WINDOW),
            recv: RecvWindow::new(config.connection_window_bytes.max(DEFAULT_WINDOW)),
            stream_window: DEFAULT_WINDOW,
            tell_no_table: false,
            begun: 0,
            waiting: VecDeque::new(),
            doomed: Vec::new(),
            send_buffer_bytes: config.send_buffer_bytes,
        };
        Self { core: Mutex::new(core), bell: Arc::default(), config, counters }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of a body were read, perhaps by another task than the connection's.
    pub(crate) fn read(&self, id: u32, bytes: usize) {
        let before_and_after = {
            let mut core = self.lock();
            let before = core.out.len();
            core.release_of(id, bytes);
            (before, core.out.len())
        };
        if before_and_after.0 != before_and_after.1 {
            self.bell.nudge();
        }
    }

    /// A body will not be read any more.
    pub(crate) fn abandon(&self, id: u32) {
        let mut core = self.lock();
        let Some(stream) = core.streams.get(id) else { return };
        let Some(inbox) = stream.inbox.take() else { return };
        let over = stream.answer == Answer::Ended && !stream.received;
        let dropped = inbox.abandon();
        core.release(dropped);
        if over {
            core.reset(id, Code::NO_ERROR, BodyError::Lost);
        }
        drop(core);
        self.bell.nudge();
    }
}
