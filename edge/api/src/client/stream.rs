//! The streams of answers: a command's events (a JSON object a line) and those of pools
//! (`text/event-stream`).

use std::time::Duration;

use http::Response;
use hyper::body::Incoming;

use super::{ClientError, lines::Lines};
use crate::{ExecEvent, PoolEvent};

/// The events of a running command. Dropping it ends the command (unless it is in the background).
#[derive(Debug)]
pub struct ExecStream {
    lines: Lines,
}

impl ExecStream {
    pub(super) fn new(response: Response<Incoming>) -> Self {
        Self { lines: Lines::new(response) }
    }

    /// The next event; `None` once the command has ended and everything was read.
    ///
    /// Waits as long as the command is silent: the server bounds how long it runs. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the connection broke or a line was not understood.
    pub async fn next(&mut self) -> Result<Option<ExecEvent>, ClientError> {
        while let Some(line) = self.lines.next().await? {
            if !line.trim_ascii().is_empty() {
                let event = serde_json::from_slice(&line);
                return event.map(Some).map_err(|error| self.lines.bad(error));
            }
        }
        Ok(None)
    }
}

/// The events of one pool or of all. Dropping it hangs up.
#[derive(Debug)]
pub struct PoolEvents {
    lines: Lines,
    /// Longest time without a line.
    idle: Duration,
    /// What was read of the event under way: a call that is dropped loses nothing.
    partial: Partial,
}

/// An event between its first line and the blank one that ends it.
#[derive(Debug, Default)]
struct Partial {
    name: String,
    data: String,
}

impl PoolEvents {
    pub(super) fn new(response: Response<Incoming>, idle: Duration) -> Self {
        Self { lines: Lines::new(response), idle, partial: Partial::default() }
    }

    /// The next event; `None` once the server has ended the stream. Events that this version
    /// doesn't know are passed over. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the connection broke, nothing came for 30 s more than the interval, or an
    /// event was not understood.
    pub async fn next(&mut self) -> Result<Option<PoolEvent>, ClientError> {
        loop {
            let line = tokio::time::timeout(self.idle, self.lines.next()).await;
            let Some(line) = line.map_err(|_| ClientError::Deadline(self.idle))?? else {
                return Ok(None); // an event without its end is dropped, as the format wants it
            };
            let line = std::str::from_utf8(&line).map_err(|error| self.lines.bad(error))?;
            if let Some(ended) = self.partial.take_line(line) {
                let event = ended.parse().map_err(|error| self.lines.bad(error))?;
                if let Some(event) = event {
                    return Ok(Some(event));
                }
            }
        }
    }
}

impl Partial {
    /// Takes a line in; gives the event that it ends, if it ends one.
    fn take_line(&mut self, line: &str) -> Option<Self> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            let ended = std::mem::take(self);
            return Some(ended).filter(|event| !event.data.is_empty());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            _ => {} // a comment, an id, or what a later version has
        }
        None
    }

    fn parse(&self) -> serde_json::Result<Option<PoolEvent>> {
        let data = self.data.as_str();
        Ok(Some(match self.name.as_str() {
            "stats" => PoolEvent::Stats(serde_json::from_str(data)?),
            "end" => PoolEvent::End(serde_json::from_str(data)?),
            "error" => PoolEvent::Error(serde_json::from_str(data)?),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<Option<PoolEvent>> {
        let mut partial = Partial::default();
        let ended = text.split_terminator('\n').filter_map(|line| partial.take_line(line));
        ended.map(|event| event.parse().unwrap()).collect()
    }

    #[test]
    fn lines_make_events_whatever_their_ends_and_order() {
        let end =
            |name: &str| Some(PoolEvent::End(crate::PoolEnd { function: name.parse().unwrap() }));
        let text = ": hello\n\nevent: end\ndata: {\"function\":\"a\"}\n\n\
                    data:{\"function\":\ndata:\"b\"}\r\nevent:end\r\n\r\n\
                    event: later\nid: 7\ndata: x\n\nevent: end\ndata: {\"function\":\"cut\"}\n";
        assert_eq!(events(text), [end("a"), end("b"), None]);
    }

    #[test]
    fn data_that_is_not_what_its_event_says_is_an_error() {
        let partial = Partial { name: "stats".to_owned(), data: "{}".to_owned() };
        assert!(partial.parse().unwrap_err().to_string().contains("function"));
    }
}
