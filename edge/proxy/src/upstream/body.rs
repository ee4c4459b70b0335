//! The body of an agent's answer. Its connection goes back to the pool at a clean end, else it is cut.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use edge_http1::client::Answer;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::{h2c::Place, pool::Pool};
use crate::{
    body::BoxError,
    pace::{Pace, Watch},
};

/// Streams an answer.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    source: Source,
    watch: Watch,
}

#[derive(Debug)]
enum Source {
    H1 { answer: Answer, pool: Arc<Pool>, agent: SocketAddr },
    H2 { incoming: Incoming, _place: Place },
}

impl UpstreamBody {
    pub(super) fn h1(answer: Answer, pool: &Arc<Pool>, agent: SocketAddr, pace: &Pace) -> Self {
        let source = Source::H1 { answer, pool: Arc::clone(pool), agent };
        Self { source, watch: Watch::new(&pace.of_answer()) }
    }

    pub(super) fn h2(incoming: Incoming, place: Place, pace: &Pace) -> Self {
        Self {
            source: Source::H2 { incoming, _place: place },
            watch: Watch::new(&pace.of_answer()),
        }
    }

    /// The answer has ended: its connection may serve the next one.
    fn give_back(&mut self) {
        if let Source::H1 { answer, pool, agent } = &mut self.source
            && let Some(connection) = answer.take_connection()
        {
            pool.put(*agent, connection);
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        // Known lengths are not polled to their end. Anything unread closes the connection.
        self.give_back();
    }
}

impl HttpBody for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::H1 { answer, .. } => {
                Pin::new(answer).poll_frame(cx).map_err(Into::<BoxError>::into)
            }
            Source::H2 { incoming, .. } => {
                Pin::new(incoming).poll_frame(cx).map_err(Into::<BoxError>::into)
            }
        };
        if frame.is_pending() {
            let error = ready!(this.watch.poll_expired(cx));
            return Poll::Ready(Some(Err(error.into())));
        }
        this.watch.got(0);
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::H1 { answer, .. } => answer.is_end_stream(),
            Source::H2 { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::H1 { answer, .. } => answer.size_hint(),
            Source::H2 { incoming, .. } => incoming.size_hint(),
        }
    }
}
