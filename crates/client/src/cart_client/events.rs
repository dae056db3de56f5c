//! The stream of a cart's events, as Server-Sent Events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::{Method, StatusCode};

use super::{Body, CartClient, no_answer};
use crate::error::Error;
use crate::ids::CartId;
use crate::wire::Outcome;

/// The maximum length of a line: an event has one item, with a name of 200 characters.
const LINE_LEN_MAX: usize = 64 << 10;

/// The longest silence of a stream: the service sends a heartbeat every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The pause before a reconnection, unless the service names another.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause that is obeyed.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// An event as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventMessage {
    /// Its sequence number in the cart.
    pub id: i64,
    /// The event as JSON, in one line.
    pub data: String,
}

/// An open stream.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    origin: String,
    parser: Parser,
}

impl CartClient {
    /// Opens the stream of a cart's events that follow the event `after`; 0 is before the first. The stream ends when the service
    /// does, for example; open another one behind the last event.
    ///
    /// # Errors
    /// As [`CartClient::cart`]; an answer other than a stream is an [`Outcome`].
    pub async fn events(&self, cart: CartId, after: i64) -> Result<Outcome<EventStream>, Error> {
        let request = self.request(Method::GET, format_args!("{cart}/events"));
        let request = request.header(ACCEPT, "text/event-stream").header("last-event-id", after);
        let response = self.in_time(self.response(request, Body::None)).await?;
        if response.status() != StatusCode::OK {
            return self.in_time(self.whole(response)).await?.refusal();
        }
        let (body, origin) = (response.into_body(), self.origin.clone());
        Ok(Outcome::Accepted(EventStream { body, origin, parser: Parser::default() }))
    }
}

impl EventStream {
    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// The connection is lost or silent, or what comes is no stream of events.
    pub async fn next(&mut self) -> Result<Option<EventMessage>, Error> {
        loop {
            if let Some(message) = self.parser.next()? {
                return Ok(Some(message));
            }
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
            let frame = frame.map_err(|elapsed| no_answer(&self.origin, elapsed))?;
            let Some(frame) = frame.transpose().map_err(|source| no_answer(&self.origin, source))? else {
                return Ok(None);
            };
            if let Ok(data) = frame.into_data() {
                self.parser.unread.extend_from_slice(&data);
            }
        }
    }

    /// How long to wait before the next stream is opened.
    #[must_use]
    pub fn retry_pause(&self) -> Duration {
        self.parser.retry_pause.unwrap_or(RETRY_PAUSE).min(RETRY_PAUSE_MAX)
    }
}

/// Finds the events in the bytes of a stream.
#[derive(Debug, Default)]
struct Parser {
    unread: Vec<u8>,
    id: Option<i64>,
    data: Option<String>,
    retry_pause: Option<Duration>,
}

impl Parser {
    /// The next event that has come whole.
    fn next(&mut self) -> Result<Option<EventMessage>, Error> {
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(message) = self.line(line.trim_end_matches(['\r', '\n'])) {
                return Ok(Some(message));
            }
        }
        if self.unread.len() > LINE_LEN_MAX { Err(Error::AnswerTooLong { limit: LINE_LEN_MAX }) } else { Ok(None) }
    }

    /// Takes a line; an empty one ends an event.
    fn line(&mut self, line: &str) -> Option<EventMessage> {
        if line.is_empty() {
            let (id, data) = (self.id.take(), self.data.take());
            return Some(EventMessage { id: id?, data: data? });
        }
        // A comment has no name before its colon.
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.id = value.parse().ok(),
            "data" => self.data = Some(value.to_owned()),
            "retry" => self.retry_pause = value.parse().ok().map(Duration::from_millis),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "retry: 1893\n\nid: 1\ndata: {\"a\":1}\n\n: up to date\n\nid: 2\r\ndata:{}\r\n\r\nid: 3\ndata: {";

    #[test]
    fn events_are_found_in_chunks_of_any_size() {
        let message = |id, data: &str| EventMessage { id, data: data.to_owned() };
        for size in 1..=TEXT.len() {
            let (mut parser, mut found) = (Parser::default(), Vec::new());
            for chunk in TEXT.as_bytes().chunks(size) {
                parser.unread.extend_from_slice(chunk);
                while let Some(message) = parser.next().expect("a stream") {
                    found.push(message);
                }
            }
            assert_eq!(found, [message(1, "{\"a\":1}"), message(2, "{}")], "chunks of {size}");
            assert_eq!(parser.retry_pause, Some(Duration::from_millis(1_893)));
        }
    }

    #[test]
    fn a_line_is_bounded() {
        let mut parser = Parser { unread: vec![b'x'; LINE_LEN_MAX + 1], ..Parser::default() };
        assert!(matches!(parser.next(), Err(Error::AnswerTooLong { .. })));
    }
}
