//! One client's view of a process, as the events of the wire.

use std::{sync::Arc, time::Duration};

use connectrpc::ConnectError;
use envd_api::proto::process::{
    __buffa::oneof::process_event::{Event, data_event::Output},
    ProcessEvent,
    process_event::{DataEvent, EndEvent, KeepAlive, StartEvent},
};
use futures::{Stream, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{fanout::Chunk, status::End, table::Running};

/// How long nothing may happen before we say so, when the client doesn't choose.
const KEEPALIVE: Duration = Duration::from_secs(90);

/// When a stream speaks and when it ends, as its request's headers say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Silence after which a keepalive is sent.
    pub(crate) keepalive: Duration,
    /// When the client's patience ends.
    pub(crate) deadline: Option<Instant>,
}

impl Pace {
    /// Reads `Keepalive-Ping-Interval` (seconds) and the call's deadline.
    pub(crate) fn of(context: &connectrpc::RequestContext) -> Self {
        let header = context.header("keepalive-ping-interval");
        let seconds = header.and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
        let keepalive = match seconds {
            None | Some(0) => KEEPALIVE,
            Some(seconds) => Duration::from_secs(seconds.into()),
        };
        Self { keepalive, deadline: context.deadline().map(Instant::from_std) }
    }
}

/// Waits for a deadline that may not exist.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

enum Phase {
    Start,
    Follow,
    Done,
}

struct View {
    process: Arc<Running>,
    queue: mpsc::Receiver<Chunk>,
    pace: Pace,
    phase: Phase,
}

/// Start, data and keepalives, end.
pub(crate) fn events(
    process: Arc<Running>,
    queue: mpsc::Receiver<Chunk>,
    pace: Pace,
) -> impl Stream<Item = Result<ProcessEvent, ConnectError>> + Send + 'static {
    let view = View { process, queue, pace, phase: Phase::Start };
    stream::unfold(view, |mut view| async move {
        let event = view.next().await?;
        Some((event, view))
    })
}

impl View {
    async fn next(&mut self) -> Option<Result<ProcessEvent, ConnectError>> {
        match self.phase {
            Phase::Start => {
                self.phase = Phase::Follow;
                let start = StartEvent { pid: self.process.pid, ..Default::default() };
                Some(Ok(wire(start)))
            }
            Phase::Follow => Some(self.follow().await),
            Phase::Done => None,
        }
    }

    async fn follow(&mut self) -> Result<ProcessEvent, ConnectError> {
        tokio::select! {
            biased; // a client that has given up is told so, even while output goes on
            () = until(self.pace.deadline) => {
                self.phase = Phase::Done;
                Err(ConnectError::deadline_exceeded("process timeout"))
            }
            chunk = self.queue.recv() => match chunk {
                Some(chunk) => Ok(data(chunk)),
                None => {
                    self.phase = Phase::Done;
                    let end = self.process.fanout.end();
                    end.map(ended).ok_or_else(|| ConnectError::internal("process has no end"))
                }
            },
            () = sleep(self.pace.keepalive) => Ok(wire(KeepAlive::default())),
        }
    }
}

fn wire(event: impl Into<Event>) -> ProcessEvent {
    ProcessEvent { event: Some(event.into()), ..Default::default() }
}

fn data(chunk: Chunk) -> ProcessEvent {
    let output = match chunk {
        Chunk::Stdout(bytes) => Output::Stdout(bytes.into()),
        Chunk::Stderr(bytes) => Output::Stderr(bytes.into()),
    };
    wire(DataEvent { output: Some(output), ..Default::default() })
}

fn ended(end: End) -> ProcessEvent {
    let error = end.error();
    let End { exit_code, exited, status } = end;
    wire(EndEvent { exit_code, exited, status, error, ..Default::default() })
}
