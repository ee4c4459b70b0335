//! One direction of a connection: a line in which each piece waits its time.
//!
//! Pieces are read as they come and written when they have waited, in order, so that a delay costs
//! time once and not throughput. A half that was closed is closed on the other side, as late.
//!
//! # Limits
//!
//! [`LINE_BYTES_MAX`] in a line: with a delay, throughput is at most that much per delay.

use std::{
    collections::VecDeque,
    future::pending,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Slowness, bucket::Bucket};

/// Most bytes that wait in one direction.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;

/// Both directions of one connection share its rate.
#[derive(Debug)]
pub(super) struct Meter {
    begin: Instant,
    bucket: Mutex<Bucket>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), bucket: Mutex::default() }
    }

    fn allow(&self, want: usize, rate: Option<u64>) -> Step {
        let Some(rate) = rate else { return Step::Write(want) };
        let bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        match bucket.allow(self.begin.elapsed(), want, rate) {
            Ok(bytes) => Step::Write(bytes),
            Err(then) => Step::Wait(self.begin + then),
        }
    }

    fn spend(&self, bytes: usize, rate: Option<u64>) {
        let Some(rate) = rate else { return };
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.spend(self.begin.elapsed(), bytes, rate);
    }
}

/// What waits, oldest first.
#[derive(Debug, Default)]
struct Line {
    pieces: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// When the reading half ended.
    ended: Option<Instant>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Write so many bytes of the oldest piece.
    Write(usize),
    /// Nothing before that moment.
    Wait(Instant),
    /// Nothing before something comes.
    Idle,
    /// All is written.
    End,
}

impl Line {
    fn has_room(&self) -> bool {
        self.ended.is_none() && self.bytes < LINE_BYTES_MAX
    }

    fn push(&mut self, now: Instant, piece: Bytes) {
        if piece.is_empty() {
            self.ended = Some(now);
            return;
        }
        self.bytes += piece.len();
        self.pieces.push_back((now, piece));
    }

    fn step(&self, now: Instant, delay: Duration, meter: &Meter, rate: Option<u64>) -> Step {
        let (came, size) = match (self.pieces.front(), self.ended) {
            (Some((came, piece)), _) => (*came, piece.len()),
            (None, Some(ended)) => (ended, 0),
            (None, None) => return Step::Idle,
        };
        match came + delay {
            due if due > now => Step::Wait(due),
            _ if size == 0 => Step::End,
            _ => meter.allow(size, rate),
        }
    }

    fn head(&self, bytes: usize) -> &[u8] {
        self.pieces.front().map_or(&[], |(_, piece)| &piece[..bytes])
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some((_, piece)) = self.pieces.front_mut() {
            piece.advance(bytes);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

/// Carries one direction until its reading half has ended and all is written.
///
/// # Errors
///
/// What either half said, or that the proxy has ended.
pub(super) async fn carry(
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    mut slowness: watch::Receiver<Slowness>,
    delayed: bool,
    meter: &Meter,
) -> io::Result<()> {
    let (mut line, mut buffer) = (Line::default(), BytesMut::new());
    loop {
        let slow = *slowness.borrow_and_update();
        let delay = if delayed { slow.delay } else { Duration::ZERO };
        let step = line.step(Instant::now(), delay, meter, slow.bytes_per_s);
        if step == Step::End {
            return write.shutdown().await;
        }
        if line.has_room() {
            buffer.reserve(PIECE_BYTES);
        }
        // Every arm is cancel-safe: what was not reported was neither read nor written.
        tokio::select! {
            got = read.read_buf(&mut buffer), if line.has_room() => {
                got?;
                line.push(Instant::now(), buffer.split().freeze());
            }
            wrote = write_some(&mut write, &line, step) => {
                let wrote = wrote?;
                meter.spend(wrote, slow.bytes_per_s);
                line.advance(wrote);
            }
            // A fault's end makes what waits go at once.
            changed = slowness.changed() => changed.map_err(io::Error::other)?,
        }
    }
}

/// Writes some, or wakes up with nothing written when it may be time.
async fn write_some(
    write: &mut (impl AsyncWrite + Unpin),
    line: &Line,
    step: Step,
) -> io::Result<usize> {
    match step {
        Step::Write(bytes) => match write.write(line.head(bytes)).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            wrote => Ok(wrote),
        },
        Step::Wait(until) => {
            sleep_until(until).await;
            Ok(0)
        }
        Step::Idle | Step::End => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pieces_wait_their_time_and_not_each_others() {
        let (slow, _) =
            watch::channel(Slowness { delay: Duration::from_secs(10), ..Slowness::default() });
        let ((mut near, read), (write, mut far)) = (duplex(64), duplex(1 << 20));
        let meter = Meter::new();
        let carried = carry(read, write, slow.subscribe(), true, &meter);
        let talk = async {
            let begin = Instant::now();
            for number in 0..5_u8 {
                near.write_all(&[number]).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            drop(near);
            for number in 0..5_u8 {
                assert_eq!(far.read_u8().await.unwrap(), number);
                let waited = begin.elapsed().as_secs();
                assert_eq!(waited, u64::from(number) + 10);
            }
            assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(begin.elapsed().as_secs(), 15, "the end waits as well");
        };
        let (carried, ()) = tokio::join!(carried, talk);
        carried.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn line_is_bounded_and_let_go_when_made_fast() {
        let (slow, _) =
            watch::channel(Slowness { delay: Duration::from_secs(60), ..Slowness::default() });
        let ((mut near, read), (write, mut far)) = (duplex(1024), duplex(8 << 20));
        let meter = Meter::new();
        let carried = carry(read, write, slow.subscribe(), true, &meter);
        let talk = async {
            let begin = Instant::now();
            let mut sent = 0;
            let wait = Duration::from_secs(1);
            while let Ok(wrote) = tokio::time::timeout(wait, near.write(&[7; 1024])).await {
                sent += wrote.unwrap();
            }
            assert!(
                (LINE_BYTES_MAX..LINE_BYTES_MAX + PIECE_BYTES + 2048).contains(&sent),
                "{sent}"
            );
            slow.send_replace(Slowness::default());
            drop(near);
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            assert_eq!(all.len(), sent);
            assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        };
        let (carried, ()) = tokio::join!(carried, talk);
        carried.unwrap();
    }
}
