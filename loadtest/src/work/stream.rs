//! Streams of messages: WebSocket echoes and server-sent events.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use loadtest_model::{Protocol, Stream};
use loadtest_wire::{CallError, Events, Message, Origin, Request, WebSocket};
use tokio::time::{Instant, sleep};

use super::{check, connections::Connections, request::push_open};
use crate::outcome::{Failure, Outcome, Timing};

/// What is opened and what is right.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) origin: Origin,
    pub(crate) headers: HeaderMap,
    pub(crate) stream: Stream,
    pub(crate) streams_max: u32,
    pub(crate) limit: Duration,
}

impl Feed {
    fn path(&self) -> String {
        let Stream { path, messages, delay_ms, .. } = &self.stream;
        path.replace("{n}", &messages.to_string()).replace("{delay_ms}", &delay_ms.to_string())
    }
}

/// One WebSocket: opens, sends, checks each echo, closes.
pub(crate) async fn web_socket(feed: &Feed) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(error) = talk(feed, &mut outcome).await {
        outcome.failure.get_or_insert(Failure::of_call(&error));
    }
    outcome
}

async fn talk(feed: &Feed, outcome: &mut Outcome) -> Result<(), CallError> {
    let began = Instant::now();
    let deadline = began + feed.limit;
    let (mut socket, times) =
        WebSocket::open(&feed.origin, &feed.path(), &feed.headers, deadline).await?;
    outcome.connections = 1;
    outcome.status = Some(101);
    push_open(outcome, &times);
    outcome.timings.push((Timing::Step("open"), began.elapsed()));
    let body = check::pattern(feed.stream.message_bytes);
    for number in 0..feed.stream.messages {
        if number > 0 && feed.stream.delay_ms > 0 {
            sleep(Duration::from_millis(feed.stream.delay_ms)).await;
        }
        // The number makes each message another one: an echo of the one before is seen.
        let message = Bytes::from([&number.to_be_bytes()[..], &body].concat());
        let sent = Instant::now();
        outcome.bytes_sent += message.len() as u64;
        socket.send(Message::Binary(message.clone())).await?;
        let echo = socket.next().await?;
        outcome.timings.push((Timing::Step("message"), sent.elapsed()));
        let wrong = wrong_echo(number, &message, echo.as_ref());
        outcome.bytes_received += echo.as_ref().map_or(0, |echo| bytes(echo).len() as u64);
        let failed = wrong.clone();
        outcome.checks.push(("echo", wrong));
        if let Some(why) = failed {
            outcome.failure = Some(Failure::new("check_echo", why));
            return Ok(());
        }
    }
    outcome.ended = Some(Instant::now());
    socket.close().await
}

fn wrong_echo(number: u32, sent: &Bytes, echo: Option<&Message>) -> Option<String> {
    match echo {
        None => Some(format!("the socket was closed instead of echoing message {number}")),
        Some(echo) if bytes(echo) == &sent[..] => None,
        Some(echo) => Some(format!(
            "message {number} of {} bytes came back as {} other bytes",
            sent.len(),
            bytes(echo).len()
        )),
    }
}

fn bytes(message: &Message) -> &[u8] {
    match message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) => bytes,
    }
}

/// What one worker has to follow events.
#[derive(Debug)]
pub(crate) struct Follower {
    feed: Arc<Feed>,
    connections: Connections,
    request: Request,
}

impl Follower {
    pub(crate) fn new(feed: &Arc<Feed>, protocol: Protocol) -> Self {
        let mut request = Request::get(feed.path()).within(feed.limit);
        for (name, value) in &feed.headers {
            request = request.header(name.clone(), value.clone());
        }
        request = request.header(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let connections = Connections::new(feed.origin.clone(), protocol, true, feed.streams_max);
        Self { feed: Arc::clone(feed), connections, request }
    }

    /// One stream: opens, takes events, checks their number and order.
    pub(crate) async fn once(&self) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err(error) = self.follow(&mut outcome).await {
            outcome.failure.get_or_insert(Failure::of_call(&error));
        }
        outcome
    }

    async fn follow(&self, outcome: &mut Outcome) -> Result<(), CallError> {
        let mut lease = self.connections.take().await?;
        outcome.connections = u64::from(lease.opened.is_some());
        if let Some(times) = &lease.opened {
            push_open(outcome, times);
        }
        let sent = Instant::now();
        let incoming = lease.connection.start(&self.request).await?;
        outcome.status = Some(incoming.status.as_u16());
        if !incoming.status.is_success() {
            let status = incoming.status.as_u16();
            let why = format!("answered {status}");
            outcome.failure = Some(Failure::new(format!("status_{status}"), why));
            return Ok(());
        }
        let mut events = Events::new(incoming);
        let (mut count, mut last) = (0_u32, sent);
        let mut wrong = None;
        while let Some(event) = events.next().await? {
            let now = Instant::now();
            let step = if count == 0 { "first_event" } else { "event" };
            outcome.timings.push((Timing::Step(step), now - last));
            last = now;
            outcome.bytes_received += event.data.len() as u64;
            if !event.id.is_empty() && event.id != count.to_string() {
                wrong.get_or_insert(format!("event {count} has the id {:?}", event.id));
            }
            count += 1;
        }
        outcome.ended = Some(Instant::now());
        if count != self.feed.stream.messages {
            let expected = self.feed.stream.messages;
            wrong.get_or_insert(format!("{count} events came; expected {expected}"));
        }
        outcome.failure = wrong.clone().map(|why| Failure::new("check_events", why));
        outcome.checks.push(("events", wrong));
        drop(events);
        self.connections.give_back(lease);
        Ok(())
    }
}
