//! How a connection ends: what is said to the client, and what to whoever serves it.

use std::{future::poll_fn, io, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{Connection, Ended};
use crate::{
    BodyError, Counters, ServeError,
    inbound::Fault,
    keep_alive::Verdict,
    limits::Excess,
    wire::{Code, frame::put_go_away},
};

/// How long a client that is sent away has to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// Most bytes that are read from a client that is sent away, so that it comes to read why.
const FAREWELL_BYTES: u64 = 1024 * 1024;

/// Why a connection has no more turns.
pub(super) enum End {
    /// The client is gone.
    Gone,
    /// All was served that had to be.
    Drained,
    Io(io::Error),
    Fault(Fault),
    Verdict(Verdict),
}

impl<I, T> Connection<I, T>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T: Future<Output = ()>,
{
    /// Says what is left to say, to a client that may be gone or not read it.
    pub(super) async fn end(mut self, end: End) -> Result<Ended, ServeError> {
        let ended = Ended { requests: self.requests };
        let counters = Arc::clone(&self.link.counters);
        let (told, result) = match end {
            End::Gone => (None, Ok(ended)),
            End::Io(error) if is_gone(&error) => (None, Ok(ended)),
            End::Io(error) => (None, Err(error.into())),
            End::Verdict(Verdict::Dead | Verdict::Ask) => (None, Err(ServeError::Dead)),
            End::Verdict(Verdict::Handshake) => {
                Counters::count(&counters.handshake);
                (None, Err(ServeError::Handshake))
            }
            End::Verdict(Verdict::Idle) => {
                Counters::count(&counters.idle);
                (Some(Code::NO_ERROR), Ok(ended))
            }
            End::Drained => (Some(Code::NO_ERROR), Ok(ended)),
            End::Fault(Fault::Excess(excess)) => {
                excess.count(&counters);
                (Some(Excess::CODE), Err(ServeError::Excess(excess.reason())))
            }
            End::Fault(Fault::Protocol(code, reason)) => {
                if !self.inbound.began {
                    Counters::count(&counters.malformed);
                }
                (Some(code), Err(ServeError::Protocol { code, reason }))
            }
        };
        self.give_up_streams();
        if let Some(code) = told {
            let drained = self.drain.is_last() && code == Code::NO_ERROR;
            let _ = timeout(FAREWELL, self.say_farewell(code, drained)).await; // it need not listen
        }
        result
    }

    /// Ends all requests that are under way, and the reading of their bodies.
    fn give_up_streams(&mut self) {
        let streams = self.link.lock().streams.take_all();
        for stream in streams {
            self.link.lock().close(&stream, BodyError::Lost);
        }
        self.tasks.clear();
    }

    /// Sends what waits and GOAWAY, and reads on for a while: what is unread when a connection is
    /// closed takes what was written with it.
    async fn say_farewell(&mut self, code: Code, said: bool) -> io::Result<()> {
        if !said {
            let mut core = self.link.lock();
            let last = core.streams.last();
            put_go_away(core.out.tail(), last, code);
        }
        poll_fn(|cx| self.link.lock().out.poll_flush(cx, &mut self.io)).await?;
        self.io.shutdown().await?;
        let mut rest = Pin::new(&mut self.io).take(FAREWELL_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        Ok(())
    }
}

/// The client closed the connection, in good order or not: nobody's fault.
fn is_gone(error: &io::Error) -> bool {
    let quiet = [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::NotConnected,
    ];
    quiet.contains(&error.kind())
}
