//! A client of event streams.

use std::collections::VecDeque;

use anyhow::{Context as _, bail, ensure};
use reqwest::{Client, Response};
use serde_json::Value;

/// An open stream.
pub(crate) struct EventStream {
    response: Response,
    text: String,
    parts: VecDeque<Part>,
}

/// What is between two blank lines.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    Event { id: i64, data: Value },
    Comment(String),
    Retry(u64),
}

/// Asks for a stream; the answer may be a problem.
pub(crate) async fn request(client: &Client, url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
    let request = client.get(url).header("accept", "text/event-stream");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Ok(request.send().await?)
}

impl EventStream {
    /// Opens a stream behind the event `last`, if there is one.
    pub(crate) async fn open(client: &Client, url: &str, last: Option<i64>) -> anyhow::Result<Self> {
        let last = last.map(|last| last.to_string());
        let headers: Vec<_> = last.iter().map(|last| ("last-event-id", last.as_str())).collect();
        Self::of(request(client, url, &headers).await?).await
    }

    /// The stream of an answer.
    pub(crate) async fn of(response: Response) -> anyhow::Result<Self> {
        let status = response.status();
        if status != 200 {
            bail!("{status}: {}", response.text().await.unwrap_or_default());
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        ensure!(header("content-type") == Some("text/event-stream"), "{response:?}");
        ensure!(header("cache-control") == Some("no-store"), "{response:?}");
        Ok(Self { response, text: String::new(), parts: VecDeque::new() })
    }

    /// The next part; `None` at the end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Part>> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                return Ok(Some(part));
            }
            let Some(chunk) = self.response.chunk().await? else {
                ensure!(self.text.is_empty(), "the stream ended within '{}'", self.text);
                return Ok(None);
            };
            self.text.push_str(std::str::from_utf8(&chunk).context("a chunk has whole events")?);
            while let Some((part, rest)) = self.text.split_once("\n\n") {
                self.parts.push_back(parse(part)?);
                self.text = rest.to_owned();
            }
        }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn event(&mut self) -> anyhow::Result<Option<(i64, Value)>> {
        loop {
            match self.next().await? {
                Some(Part::Event { id, data }) => return Ok(Some((id, data))),
                Some(Part::Comment(_) | Part::Retry(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// So many events, which are there or follow.
    pub(crate) async fn events(&mut self, count: usize) -> anyhow::Result<Vec<Value>> {
        let mut events = Vec::new();
        while events.len() < count {
            let (id, data) = self.event().await?.with_context(|| format!("it ended after {} events", events.len()))?;
            ensure!(data["sequenceNumber"] == id, "event {id} is {data}");
            events.push(data);
        }
        Ok(events)
    }
}

fn parse(text: &str) -> anyhow::Result<Part> {
    let lines: Vec<_> = text.lines().map(|line| line.split_once(": ").unwrap_or((line, ""))).collect();
    Ok(match lines[..] {
        [("id", id), ("data", data)] => Part::Event { id: id.parse()?, data: serde_json::from_str(data)? },
        [("retry", retry)] => Part::Retry(retry.parse()?),
        [("", comment)] => Part::Comment(comment.to_owned()),
        _ => bail!("'{text}' is no part of a stream"),
    })
}
