//! The streams that are open, and those that were reset a moment ago.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    inbox::Inbox,
    window::{RecvWindow, SendWindow},
};

/// Of how many streams it is remembered that they were reset: frames of them may still be on their way.
const RESET_MAX: usize = 128;

/// For how many streams a connection keeps room while none is open.
const KEPT_MAX: usize = 8;

/// Where an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its final head is not written: interim answers may be.
    Waiting,
    Begun,
    Ended,
}

/// What an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    No,
    /// Until the client opens the stream's window.
    Window,
    /// Its turn to write.
    Queued,
}

/// One request and its answer.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    /// Whose future answers it, until it has.
    pub(crate) slot: Option<usize>,
    pub(crate) send: SendWindow,
    pub(crate) recv: RecvWindow,
    pub(crate) answer: Answer,
    pub(crate) blocked: Blocked,
    /// Interim answers so far.
    pub(crate) interims: u8,
    /// The whole request is here.
    pub(crate) received: bool,
    /// Bytes of DATA that have to come, if the head says so.
    pub(crate) left: Option<u64>,
    /// Who reads the body; none: nobody does.
    pub(crate) inbox: Option<Arc<Inbox>>,
}

/// What a stream's number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Not opened yet.
    Idle,
    /// In the table.
    Open,
    /// Reset by us: the client may not know.
    ResetByUs,
    /// Reset by the client.
    ResetByClient,
    /// Ended in good order, or passed over.
    Closed,
}

/// The streams of a connection.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// In the order of their numbers, as they are opened. Few enough to look through by halves.
    open: Vec<Stream>,
    reset: VecDeque<(u32, Known)>,
    /// The largest number that was opened.
    last: u32,
}

impl Streams {
    fn place(&self, id: u32) -> Result<usize, usize> {
        self.open.binary_search_by_key(&id, |stream| stream.id)
    }

    #[inline]
    pub(crate) fn get(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.place(id).ok()?;
        Some(&mut self.open[place])
    }

    /// Opens a stream, whose number is the largest so far.
    pub(crate) fn open(&mut self, stream: Stream) {
        debug_assert!(stream.id > self.last);
        self.last = stream.id;
        self.open.push(stream);
    }

    /// A stream is refused: it counts as opened and closed.
    pub(crate) fn pass_over(&mut self, id: u32) {
        self.last = self.last.max(id);
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<Stream> {
        let place = self.place(id).ok()?;
        Some(self.open.remove(place))
    }

    /// Remembers that a stream was reset.
    pub(crate) fn remember(&mut self, id: u32, how: Known) {
        if self.reset.len() == RESET_MAX {
            self.reset.pop_front();
        }
        self.reset.push_back((id, how));
    }

    pub(crate) fn known(&self, id: u32) -> Known {
        if id > self.last {
            return Known::Idle;
        }
        if self.place(id).is_ok() {
            return Known::Open;
        }
        let reset = self.reset.iter().rev().find(|(reset, _)| *reset == id);
        reset.map_or(Known::Closed, |(_, how)| *how)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.open.iter_mut()
    }

    /// Gives memory back while none is open.
    pub(crate) fn shrink(&mut self) {
        if self.open.is_empty() && self.open.capacity() > KEPT_MAX {
            self.open = Vec::new();
        }
    }

    /// Takes all.
    pub(crate) fn take_all(&mut self) -> Vec<Stream> {
        std::mem::take(&mut self.open)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The largest number that was opened.
    pub(crate) const fn last(&self) -> u32 {
        self.last
    }
}
