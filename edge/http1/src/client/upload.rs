//! A request's body on its way to a server.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body;
use tokio::task::JoinHandle;

use crate::{
    BoxError,
    encode::{self, Framing},
    io::Writer,
};

/// Why a body is not sent to its end.
#[derive(Debug)]
pub(super) enum Fault {
    Body(BoxError),
    Io(io::Error),
}

/// A body and how far it is.
#[derive(Debug)]
pub(super) struct Upload<B> {
    body: B,
    framing: Framing,
    data: Bytes,
    chunk_open: bool,
    left: u64,
    done: bool,
    is_tunnel: bool,
}

impl<B> Upload<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    pub(super) fn new(body: B, framing: Framing) -> Self {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        let done = framing == Framing::Length(0);
        Self { body, framing, data: Bytes::new(), chunk_open: false, left, done, is_tunnel: false }
    }

    /// What comes is written as it is, and its end ends the direction.
    pub(super) fn become_tunnel(&mut self) {
        (self.is_tunnel, self.framing, self.done) = (true, Framing::Close, false);
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Hands the body over to the writer; what is small waits there until it is flushed. Ready when
    /// all is handed over.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut Writer,
    ) -> Poll<Result<(), Fault>> {
        loop {
            if !self.data.is_empty() {
                ready!(writer.poll_write(cx, &mut self.data)).map_err(Fault::Io)?;
            }
            if std::mem::take(&mut self.chunk_open) {
                writer.buf.extend_from_slice(b"\r\n");
            }
            if self.done {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.take(frame, writer)?,
                Poll::Ready(None) => self.end(writer, None)?,
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(Fault::Body(error.into())));
                }
                Poll::Pending => {
                    if let Poll::Ready(Err(error)) = writer.poll_flush(cx) {
                        return Poll::Ready(Err(Fault::Io(error)));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn take(&mut self, frame: http_body::Frame<Bytes>, writer: &mut Writer) -> Result<(), Fault> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => return self.end(writer, Some(&trailers)),
                Err(_) => return Ok(()),
            },
        };
        if data.is_empty() {
            return Ok(());
        }
        match self.framing {
            Framing::Length(_) if data.len() as u64 > self.left => {
                return Err(Fault::Body("the body is longer than it said".into()));
            }
            Framing::Length(_) => self.left -= data.len() as u64,
            Framing::Chunked => encode::chunk_size(&mut writer.buf, data.len()),
            Framing::None | Framing::Close => {}
        }
        self.chunk_open = self.framing == Framing::Chunked;
        if writer.should_copy(&data) {
            writer.buf.extend_from_slice(&data);
        } else {
            self.data = data;
        }
        Ok(())
    }

    fn end(
        &mut self,
        writer: &mut Writer,
        trailers: Option<&http::HeaderMap>,
    ) -> Result<(), Fault> {
        match self.framing {
            Framing::Length(_) if self.left > 0 => {
                return Err(Fault::Body("the body is shorter than it said".into()));
            }
            Framing::Chunked => encode::last_chunk(&mut writer.buf, trailers),
            Framing::Length(_) | Framing::None | Framing::Close => {}
        }
        self.done = true;
        Ok(())
    }

    async fn run(mut self, mut writer: Box<Writer>) -> Result<Box<Writer>, Fault> {
        poll_fn(|cx| self.poll(cx, &mut writer)).await?;
        poll_fn(|cx| writer.poll_flush(cx)).await.map_err(Fault::Io)?;
        if self.is_tunnel {
            poll_fn(|cx| writer.poll_shutdown(cx)).await.map_err(Fault::Io)?;
        }
        Ok(writer)
    }
}

/// The rest of a body, sent while its answer is read.
#[derive(Debug)]
pub(super) enum Uploading {
    /// By this task; it ends with the answer.
    Task(JoinHandle<Result<Box<Writer>, Fault>>),
    /// There is none any more; the writer is here unless it broke.
    Done(Option<Box<Writer>>),
}

impl Uploading {
    pub(super) fn spawn<B>(upload: Upload<B>, writer: Box<Writer>) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        Self::Task(tokio::spawn(upload.run(writer)))
    }

    /// Sees whether it has ended; its failure is the answer's to show.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Self::Task(task) = self else { return Poll::Ready(Ok(())) };
        match ready!(Pin::new(task).poll(cx)) {
            Ok(Ok(writer)) => *self = Self::Done(Some(writer)),
            Ok(Err(fault)) => {
                *self = Self::Done(None);
                return Poll::Ready(Err(fault));
            }
            Err(_) => *self = Self::Done(None),
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn take_writer(&mut self) -> Option<Box<Writer>> {
        match self {
            Self::Task(_) => None,
            Self::Done(writer) => writer.take(),
        }
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Self::Task(task) = self {
            task.abort();
        }
    }
}
