//! A minimal HTTP/1.1 client: keep-alive connections, requests, and answers with a length. Its CPU time is taken from the
//! machine that is measured, so it does nothing more.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The maximum length of an answer: a full cart is below 1 MiB.
const ANSWER_LEN_MAX: usize = 4 << 20;

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// A keep-alive connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(8 << 10) })
    }

    /// A header of the last answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = self.answer.get(..head_len(&self.answer)?)?;
        find(std::str::from_utf8(head).ok()?, name)
    }

    /// Sends a request and returns the answer's status once all of it has arrived.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        let mut end = None;
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if end.is_none() {
                end = head(&self.answer)?;
            }
            match end {
                Some((status, len)) if self.answer.len() >= len => return Ok(status),
                Some((_, len)) if len > ANSWER_LEN_MAX => return Err(ErrorKind::InvalidData.into()),
                Some(_) | None => {}
            }
        }
    }
}

/// The status, and the lengths of head and body; `None` until the head is complete.
fn head(answer: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let Some(end) = head_len(answer) else { return Ok(None) };
    let invalid = || io::Error::from(ErrorKind::InvalidData);
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| invalid())?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(invalid)?;
    let len = find(head, "content-length").and_then(|value| value.parse::<usize>().ok()).ok_or_else(invalid)?;
    Ok(Some((status, end + END.len() + len)))
}

fn head_len(answer: &[u8]) -> Option<usize> {
    answer.windows(END.len()).position(|bytes| bytes == END)
}

/// The value of a header.
fn find<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let headers = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    headers.into_iter().find(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_answer_up_to_its_content_length() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ndate: now\r\n\r\nhello";
        assert_eq!(head(answer).expect("a good head"), Some((200, answer.len())));
        assert_eq!(head(b"HTTP/1.1 200 OK\r\ncontent-le").expect("a part of one"), None);
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
