//! A connection, the same over HTTP/1.1, HTTP/2 and HTTP/3.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use loadtest_model::Protocol;
use tokio::time::{Instant, timeout_at};

use crate::{
    Answer, CallError, CallTimes, Incoming, OpenTimes, Origin, Request,
    answer::{Body, Head, Lent, Slot, within},
    dial, h1, http2, quic,
};

/// Longest to open a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Largest body that [`Connection::call`] collects.
const BODY_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A connection that was just opened.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub connection: Connection,
    /// How long that took.
    pub times: OpenTimes,
}

/// A connection, or with HTTP/2 and HTTP/3 a handle on one. Requests on one handle go one after
/// the other.
#[derive(Debug)]
pub struct Connection {
    via: Via,
}

#[derive(Debug)]
enum Via {
    H1(Box<h1::Wire>),
    /// Lent to an answer that is still coming, or to be fetched back from one that has ended.
    Away(Slot),
    H2(http2::Sender),
    H3(Box<quic::Sender>),
}

impl Connection {
    /// Connects to an origin, which must speak exactly `protocol`: agreed on by ALPN over TLS,
    /// known beforehand in the clear. Takes at most 10 s.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn open(origin: &Origin, protocol: Protocol) -> Result<Opened, CallError> {
        Self::open_within(origin, protocol, CONNECT_MAX).await
    }

    /// The same with another bound.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn open_within(
        origin: &Origin,
        protocol: Protocol,
        allowed: Duration,
    ) -> Result<Opened, CallError> {
        let mut times = OpenTimes::default();
        let via = within("connecting", Instant::now() + allowed, allowed, async {
            Ok(match protocol {
                Protocol::H1 => {
                    let stream = dial::dial(origin, protocol, &mut times).await?;
                    Via::H1(Box::new(h1::Wire::new(stream, origin.authority())?))
                }
                Protocol::H2 => {
                    let stream = dial::dial(origin, protocol, &mut times).await?;
                    Via::H2(http2::open(stream, origin).await?)
                }
                Protocol::H3 => Via::H3(Box::new(quic::open(origin, &mut times).await?)),
            })
        })
        .await?;
        Ok(Opened { connection: Self { via }, times })
    }

    /// Whether another request may be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match &self.via {
            Via::H1(wire) => wire.is_open(),
            Via::Away(slot) => {
                let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                slot.as_ref().is_some_and(|wire| wire.is_open())
            }
            Via::H2(sender) => sender.is_open(),
            Via::H3(sender) => sender.is_open(),
        }
    }

    /// Another handle on the same connection, for a request at the same time. HTTP/1.1 has none.
    #[must_use]
    pub fn handle(&self) -> Option<Self> {
        let via = match &self.via {
            Via::H1(_) | Via::Away(_) => return None,
            Via::H2(sender) => Via::H2(sender.clone()),
            Via::H3(sender) => Via::H3(sender.clone()),
        };
        Some(Self { via })
    }

    /// The handle on its connection, if it speaks HTTP/2.
    pub(crate) fn http2(&mut self) -> Option<&mut http2::Sender> {
        match &mut self.via {
            Via::H2(sender) => Some(sender),
            Via::H1(_) | Via::Away(_) | Via::H3(_) => None,
        }
    }

    /// Sends a request and collects the whole answer, its body up to 64 MiB.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is no answer or not all of it.
    pub async fn call(&mut self, request: &Request) -> Result<Answer, CallError> {
        self.call_up_to(request, BODY_MAX_BYTES).await
    }

    /// The same with another limit.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is no answer or not all of it.
    pub async fn call_up_to(
        &mut self,
        request: &Request,
        max_bytes: usize,
    ) -> Result<Answer, CallError> {
        let mut body = BytesMut::new();
        let mut collect = |piece: &[u8]| {
            if piece.len() > max_bytes - body.len() {
                return Err(CallError::TooLarge { what: "the answer's body", max_bytes });
            }
            body.extend_from_slice(piece);
            Ok(())
        };
        let mut answer = self.run(request, &mut collect).await?;
        answer.body = body.freeze();
        Ok(answer)
    }

    /// Sends a request and shows `sink` the body as it comes; the answer has none then.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is no answer or not all of it.
    pub async fn exchange(
        &mut self,
        request: &Request,
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<Answer, CallError> {
        let mut show = |piece: &[u8]| {
            sink(piece);
            Ok(())
        };
        self.run(request, &mut show).await
    }

    async fn run(
        &mut self,
        request: &Request,
        sink: &mut impl FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<Answer, CallError> {
        self.fetch_back();
        let (allowed, sent) = (request.time(), Instant::now());
        let mut step = "the answer's head";
        // One deadline for all of it: that is one timer, and no gap between two.
        let work = async {
            let mut bytes = 0;
            let mut take = |piece: &[u8]| {
                bytes += piece.len() as u64;
                sink(piece)
            };
            let (head, first_byte) = match &mut self.via {
                Via::H1(wire) => {
                    let (head, first_byte) = wire.start(request).await?;
                    step = "the answer's body";
                    while let Some(taken) = wire
                        .next(|input, bytes| {
                            let taken = take(&input[..bytes]);
                            input.advance(bytes);
                            taken
                        })
                        .await?
                    {
                        taken?;
                    }
                    (head.into(), first_byte)
                }
                Via::H2(sender) => {
                    let (head, mut body) = sender.start(request).await?;
                    let first_byte = Instant::now();
                    step = "the answer's body";
                    while let Some(piece) = body.next().await? {
                        take(&piece)?;
                    }
                    (head, first_byte)
                }
                Via::H3(sender) => {
                    let (head, mut body) = sender.start(request).await?;
                    let first_byte = Instant::now();
                    step = "the answer's body";
                    while let Some(piece) = body.next().await? {
                        take(&piece)?;
                    }
                    (head, first_byte)
                }
                Via::Away(_) => return Err(busy()),
            };
            let Head { status, version, headers } = head;
            let times = CallTimes { sent, first_byte, last_byte: Instant::now() };
            Ok(Answer { status, version, headers, body: Bytes::new(), bytes, times })
        };
        let done = timeout_at(sent + allowed, work).await;
        done.unwrap_or(Err(CallError::Deadline { step, after: allowed }))
    }

    /// Sends a request and reads the head of the answer. With HTTP/1.1 the connection is the
    /// answer's until that has ended.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is none.
    pub async fn start(&mut self, request: &Request) -> Result<Incoming, CallError> {
        self.fetch_back();
        let (allowed, sent) = (request.time(), Instant::now());
        let started = within("the answer's head", sent + allowed, allowed, async {
            Ok(match &mut self.via {
                Via::H1(wire) => {
                    let (head, first_byte) = wire.start(request).await?;
                    (head.into(), first_byte, None)
                }
                Via::H2(sender) => {
                    let (head, body) = sender.start(request).await?;
                    (head, Instant::now(), Some(Body::H2(Box::new(body))))
                }
                Via::H3(sender) => {
                    let (head, body) = sender.start(request).await?;
                    (head, Instant::now(), Some(Body::H3(Box::new(body))))
                }
                Via::Away(_) => return Err(busy()),
            })
        });
        let (head, first_byte, body) = started.await?;
        let body = body.unwrap_or_else(|| Body::H1(self.lend()));
        Ok(Incoming::new(head, body, (sent, first_byte), allowed))
    }

    /// Lends an HTTP/1.1 connection to an answer.
    fn lend(&mut self) -> Lent {
        let slot = Slot::default();
        match std::mem::replace(&mut self.via, Via::Away(Arc::clone(&slot))) {
            Via::H1(wire) => Lent::new(wire, slot),
            Via::Away(_) | Via::H2(_) | Via::H3(_) => {
                unreachable!("only an answer by HTTP/1.1 comes without a body of its own")
            }
        }
    }

    /// Takes the connection back from an answer that has ended.
    fn fetch_back(&mut self) {
        if let Via::Away(slot) = &self.via {
            let wire = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(wire) = wire {
                self.via = Via::H1(wire);
            }
        }
    }
}

/// The connection is an answer's that was not read to its end, or it went down with that.
fn busy() -> CallError {
    CallError::Closed { step: "the answer before" }
}

impl From<h1::Head> for Head {
    fn from(head: h1::Head) -> Self {
        Self { status: head.status, version: head.version, headers: head.headers }
    }
}
