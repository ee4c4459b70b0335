//! Hands one process's output to all who follow it.
//!
//! # Invariants
//!
//! - Every subscriber gets every chunk from its subscription on, in order, then sees the queue
//!   close; the end is stored before the queues close.
//! - With subscribers, output goes at the pace of the slowest. Without, it is thrown away.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::status::End;

/// Chunks that wait for one subscriber; of 32 KiB at most, so half a MiB.
const QUEUE_CHUNKS: usize = 16;

/// Most subscribers of one process.
const SUBSCRIBERS_MAX: usize = 64;

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Of the standard output.
    Stdout(Bytes),
    /// Of the standard error.
    Stderr(Bytes),
}

/// Too many follow this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("process has {SUBSCRIBERS_MAX} subscribers already")]
pub(crate) struct TooManySubscribers;

#[derive(Debug)]
enum State {
    Running(Vec<mpsc::Sender<Chunk>>),
    Ended(End),
}

/// All subscribers of one process, or its end.
#[derive(Debug)]
pub(crate) struct Fanout {
    state: Mutex<State>,
}

impl Fanout {
    pub(crate) const fn new() -> Self {
        Self { state: Mutex::new(State::Running(Vec::new())) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue of all output from now on; closed already when the process has ended.
    pub(crate) fn subscribe(&self) -> Result<mpsc::Receiver<Chunk>, TooManySubscribers> {
        let (tx, rx) = mpsc::channel(QUEUE_CHUNKS);
        if let State::Running(subscribers) = &mut *self.state() {
            subscribers.retain(|subscriber| !subscriber.is_closed());
            if subscribers.len() >= SUBSCRIBERS_MAX {
                return Err(TooManySubscribers);
            }
            subscribers.push(tx);
        }
        Ok(rx)
    }

    /// Waits until every subscriber has room, and gives each the chunk.
    pub(crate) async fn send(&self, chunk: Chunk) {
        let subscribers = match &mut *self.state() {
            State::Running(subscribers) => {
                subscribers.retain(|subscriber| !subscriber.is_closed());
                subscribers.clone()
            }
            State::Ended(_) => return,
        };
        for subscriber in subscribers {
            // One that left in the meantime is swept by the next call.
            let _ = subscriber.send(chunk.clone()).await;
        }
    }

    /// Stores the end and closes all queues.
    pub(crate) fn close(&self, end: End) {
        *self.state() = State::Ended(end);
    }

    /// The end, once there is one.
    pub(crate) fn end(&self) -> Option<End> {
        match &*self.state() {
            State::Running(_) => None,
            State::Ended(end) => Some(end.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::timeout;

    use super::*;

    fn chunk(n: usize) -> Chunk {
        Chunk::Stdout(Bytes::from(n.to_string()))
    }

    fn end() -> End {
        End { exit_code: 0, exited: true, status: "exit status 0".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_subscriber_holds_the_output_back_and_loses_nothing() {
        let fanout = Arc::new(Fanout::new());
        let (mut slow, mut quick) = (fanout.subscribe().unwrap(), fanout.subscribe().unwrap());
        let drain = tokio::spawn(async move {
            let mut seen = 0;
            while quick.recv().await.is_some() {
                seen += 1;
            }
            seen
        });
        for n in 0..QUEUE_CHUNKS {
            fanout.send(chunk(n)).await;
        }
        let blocked = timeout(Duration::from_secs(5), fanout.send(chunk(QUEUE_CHUNKS))).await;
        assert!(blocked.is_err(), "the slow one's queue is full");
        for n in 0..QUEUE_CHUNKS {
            assert_eq!(slow.recv().await, Some(chunk(n)));
        }
        drop(slow);
        fanout.send(chunk(99)).await;
        fanout.close(end());
        assert!(drain.await.unwrap() > QUEUE_CHUNKS);
    }

    #[tokio::test]
    async fn queue_closes_after_the_last_chunk_and_then_there_is_an_end() {
        let fanout = Fanout::new();
        let mut early = fanout.subscribe().unwrap();
        fanout.send(chunk(1)).await;
        assert_eq!(fanout.end(), None);
        fanout.close(end());
        assert_eq!(early.recv().await, Some(chunk(1)));
        assert_eq!(early.recv().await, None);
        assert_eq!(fanout.end(), Some(end()));
        assert_eq!(fanout.subscribe().unwrap().recv().await, None, "too late for output");
    }

    #[test]
    fn subscribers_are_limited_and_those_that_left_do_not_count() {
        let fanout = Fanout::new();
        let mut all: Vec<_> = (0..SUBSCRIBERS_MAX).map(|_| fanout.subscribe().unwrap()).collect();
        assert_eq!(fanout.subscribe().unwrap_err(), TooManySubscribers);
        all.pop();
        assert!(fanout.subscribe().is_ok());
    }
}
