//! The token of an accepted command: its position in the log. A later read that sends it includes the command.

use std::fmt;

use cart::{CartId, LogEpoch, Position};
use kafka::partition_of;
use warp::http::{HeaderMap, HeaderName, HeaderValue};
use warp::reply::Response;

use crate::problem::Problem;

/// In the response to an accepted command.
const READ_AFTER_TOKEN: HeaderName = HeaderName::from_static("read-after-token");

/// In a read that must include that command.
const READ_AFTER: HeaderName = HeaderName::from_static("read-after");

/// The identity of the log of commands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandLog {
    pub(crate) epoch: LogEpoch,
    pub(crate) partitions: i32,
}

/// The position of a command. Its text is `epoch-partition-offset`; clients must not interpret it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    epoch: i64,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

impl CommandLog {
    /// Adds the token of a command to the response.
    pub(crate) fn insert_token(self, response: &mut Response, cart_id: CartId, position: Position) {
        let partition = partition_of(cart_id.to_string().as_bytes(), self.partitions);
        let token = Token { epoch: self.epoch.get().into(), partition, offset: position.offset() };
        if let Ok(value) = HeaderValue::from_str(&token.to_string()) {
            response.headers_mut().insert(READ_AFTER_TOKEN, value);
        }
    }

    /// The token that a read sends, if it sends one. Rejects a token of another log.
    pub(crate) fn read_token(self, headers: &HeaderMap) -> Result<Option<Token>, Problem> {
        let Some(value) = headers.get(READ_AFTER) else { return Ok(None) };
        let token = value.to_str().ok().and_then(Token::parse).filter(|token| token.partition < self.partitions);
        let token = token.ok_or_else(|| {
            Problem::invalid_header("Read-After must be a Read-After-Token from the answer to a command")
        })?;
        if token.epoch != i64::from(self.epoch.get()) {
            let detail = "Read-After is from a log of commands that was replaced; read without it, or with the token \
                of a newer command";
            return Err(Problem::invalid_header(detail));
        }
        Ok(Some(token))
    }
}

impl Token {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-').map(|part| {
            // Rust would also read a sign.
            Some(part).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?.parse::<i64>().ok()
        });
        let mut next = || parts.next().flatten();
        let (epoch, partition, offset) = (next()?, next()?, next()?);
        let is_all = parts.next().is_none();
        is_all.then_some(Self { epoch, partition: i32::try_from(partition).ok()?, offset })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, partition, offset } = self;
        write!(f, "{epoch}-{partition}-{offset}")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const LOG: CommandLog = CommandLog { epoch: LogEpoch::FIRST, partitions: 12 };

    fn read(text: &str) -> Result<Option<Token>, String> {
        let headers = HeaderMap::from_iter([(READ_AFTER, HeaderValue::from_str(text).unwrap())]);
        LOG.read_token(&headers).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn a_token_has_the_position_of_its_command() {
        let cart_id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
        let mut response = Response::default();
        LOG.insert_token(&mut response, cart_id, Position::new(LOG.epoch, 4_711));
        let token = read(response.headers()[READ_AFTER_TOKEN].to_str().unwrap()).unwrap().unwrap();
        let partition = partition_of(b"6ba7b811-9dad-11d1-80b4-00c04fd430c8", 12);
        assert_eq!(token, Token { epoch: 1, partition, offset: 4_711 });
        assert_eq!(LOG.read_token(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn rejects_malformed_tokens() {
        let numbers = ["", "1", "1-2", "1-2-3-4", "1--3", "1-2-x", "1-2-+3", "1-12-3", "1-2147483648-3"];
        for bad in numbers.into_iter().chain(["1-2-9223372036854775808", " ", "1-2-3 ", "1,2,3"]) {
            assert!(read(bad).unwrap_err().contains("must be a Read-After-Token"), "{bad}");
        }
    }

    #[test]
    fn rejects_tokens_of_another_log() {
        for other in ["2-3-4", "0-3-4", "70000-3-4"] {
            assert!(read(other).unwrap_err().contains("from a log of commands that was replaced"), "{other}");
        }
    }
}
