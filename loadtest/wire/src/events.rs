//! Server-sent events, as WHATWG's HTML standard has them (9.2, server-sent events).

use std::collections::VecDeque;

use crate::{CallError, Incoming};

/// Longest line, and most data of one event, bytes.
const EVENT_MAX_BYTES: usize = 1 << 20;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The last id that came, with this event or before it; empty if none did.
    pub id: String,
    /// Its type, `message` if it has none of its own.
    pub event: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
}

/// The events of an answer.
#[derive(Debug)]
pub struct Events {
    incoming: Incoming,
    parser: Parser,
}

impl Events {
    /// Reads an answer's body as events, whatever its headers call it.
    #[must_use]
    pub fn new(incoming: Incoming) -> Self {
        Self { incoming, parser: Parser::default() }
    }

    /// The answer's head.
    #[must_use]
    pub fn answer(&self) -> &Incoming {
        &self.incoming
    }

    /// The next event; `None` at the end. One that was not finished doesn't count.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the body breaks off, the request's time is up or an event is larger than
    /// 1 MiB.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped.
    pub async fn next(&mut self) -> Result<Option<Event>, CallError> {
        loop {
            if let Some(event) = self.parser.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.incoming.next().await? {
                Some(piece) => self.parser.feed(&piece)?,
                None => return Ok(None),
            }
        }
    }
}

/// Bytes in, events out.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed now belongs to it.
    returned: bool,
    /// Whether a line has been read: a byte order mark can only be in the first.
    begun: bool,
    id: String,
    event: String,
    data: String,
    ready: VecDeque<Event>,
}

impl Parser {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), CallError> {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let feed_of_return = bytes[end] == b'\n' && end == 0 && self.returned;
            if !feed_of_return {
                self.push(&bytes[..end])?;
                let line = std::mem::take(&mut self.line);
                self.take(&String::from_utf8_lossy(&line))?;
                self.line = line;
                self.line.clear();
            }
            self.returned = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
        }
        if !bytes.is_empty() {
            self.returned = false;
        }
        self.push(bytes)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        fits(self.line.len() + bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn take(&mut self, line: &str) -> Result<(), CallError> {
        let line = if self.begun { line } else { line.strip_prefix('\u{feff}').unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            self.dispatch();
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                fits(self.data.len() + value.len() + 1)?;
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            _ => {} // a comment, `retry`, or unknown
        }
        Ok(())
    }

    fn dispatch(&mut self) {
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        // Without a line of data there is no event; its last line feed is none of its.
        if data.pop().is_some() {
            let event = if event.is_empty() { "message".to_owned() } else { event };
            self.ready.push_back(Event { id: self.id.clone(), event, data });
        }
    }
}

fn fits(bytes: usize) -> Result<(), CallError> {
    if bytes > EVENT_MAX_BYTES {
        return Err(CallError::TooLarge { what: "an event", max_bytes: EVENT_MAX_BYTES });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        pieces.iter().for_each(|piece| parser.feed(piece).unwrap());
        parser.ready.into()
    }

    fn event(id: &str, event: &str, data: &str) -> Event {
        Event { id: id.to_owned(), event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let text = "\u{feff}data: one\nid: 1\n\n: comment\nevent: add\ndata:two\ndata:  lines\n\n\
                    event: nothing\n\nretry: 5\ndata\n\nid\ndata: four\rdata: five\r\n\r\nid: a\0b\n\
                    data: six\n\ndata: unfinished\n";
        assert_eq!(
            parse(&[text.as_bytes()]),
            [
                event("1", "message", "one"),
                event("1", "add", "two\n lines"),
                event("1", "message", ""),
                event("", "message", "four\nfive"),
                event("", "message", "six"),
            ]
        );
    }

    #[test]
    fn lines_and_events_have_a_limit() {
        let mut parser = Parser::default();
        let error = parser.feed(&vec![b'x'; EVENT_MAX_BYTES + 1]).unwrap_err();
        assert_eq!(error.kind(), "too_large");
        let mut parser = Parser::default();
        let lines = b"data: 0123456789\n".repeat(EVENT_MAX_BYTES / 11 + 1);
        assert_eq!(parser.feed(&lines).unwrap_err().kind(), "too_large");
    }

    proptest! {
        #[test]
        fn events_are_the_same_however_they_are_cut(
            words in prop::collection::vec(
                prop::sample::select(
                    &["data", "data:", " ", "event: ", "id: ", "x", "\u{e4}", "\r", "\n", "\r\n",
                      "\n\n", "\u{feff}", "\0", ":", "retry: 1"][..],
                ),
                0..60,
            ),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text = words.concat();
            let bytes = text.as_bytes();
            let mut at: Vec<_> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<_> = at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
            prop_assert_eq!(parse(&pieces), parse(&[bytes]));
        }
    }
}
