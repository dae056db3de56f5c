//! Sending a command again, with the same key, until it is settled or its time is over.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::bits::mix_bits;
use crate::error;
use crate::{Error, Execution, Outcome, Problem};

/// A service that comes back should not wait longer than this for its callers.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A Retry-After above this is not believed: the caller must go on.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How long a command is tried. An attempt that is under way when the time is over is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    /// While the command may have been executed.
    pub(crate) retry_for: Duration,
    /// While it certainly was not.
    pub(crate) not_executed_for: Duration,
    /// The first pause; doubled each time, up to 2 s.
    pub(crate) pause: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled<T> {
    Accepted(T),
    Rejected(Problem),
}

/// Why a command did not end in its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsettled {
    /// What the last attempt met.
    pub(crate) reason: String,
    /// Unknown as soon as it was so after any attempt.
    pub(crate) execution: Execution,
    /// The command's id, if the service said once that the log has it.
    pub(crate) pending: Option<Uuid>,
}

/// What kept an attempt from settling its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Pending,
    Unavailable,
    NotExecuted,
    Unknown,
}

/// Why an attempt did not settle its command.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) cause: Cause,
    pub(crate) reason: String,
    retry_after: Option<Duration>,
    is_transient: bool,
    command_id: Option<Uuid>,
}

impl Retry {
    /// Sends a command until it is settled or its time is over; `send` gets the attempt's number from 0, `note` what each
    /// retry is for. The seed spreads the pauses of callers that would come back together.
    pub(crate) async fn settle<T>(
        &self,
        seed: u64,
        mut send: impl AsyncFnMut(u32) -> Result<Outcome<T>, Error>,
        mut note: impl FnMut(&Trouble),
    ) -> Result<Settled<T>, Unsettled> {
        let sent_at = Instant::now();
        let mut execution = Execution::NotExecuted;
        let mut pending = None;
        let mut attempt = 0;
        loop {
            let trouble = match Trouble::of(send(attempt).await) {
                Ok(Settled::Rejected(problem)) => {
                    return Ok(Settled::Rejected(Problem { command_id: problem.command_id.or(pending), ..problem }));
                }
                Ok(settled) => return Ok(settled),
                Err(trouble) => trouble,
            };
            pending = pending.or(trouble.command_id);
            let limit = match trouble.cause {
                Cause::Pending | Cause::Unknown => {
                    execution = Execution::Unknown;
                    self.retry_for
                }
                Cause::Unavailable | Cause::NotExecuted => match execution {
                    Execution::Unknown => self.retry_for,
                    Execution::NotExecuted => self.not_executed_for,
                },
            };
            let pause = self.pause(seed, attempt).max(trouble.retry_after.unwrap_or_default());
            if !trouble.is_transient || sent_at.elapsed() + pause >= limit {
                return Err(Unsettled { reason: trouble.reason, execution, pending });
            }
            note(&trouble);
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Doubles from the first pause on; between half and all of that, so that callers don't come back together.
    fn pause(&self, seed: u64, attempt: u32) -> Duration {
        let full = self.pause.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX);
        let sixteenths = 8 + mix_bits(seed ^ u64::from(attempt) << 48) % 9;
        full * u32::try_from(sixteenths).unwrap_or(16) / 16
    }
}

impl Trouble {
    fn of<T>(result: Result<Outcome<T>, Error>) -> Result<Settled<T>, Self> {
        Err(match result {
            Ok(Outcome::Accepted(accepted)) => return Ok(Settled::Accepted(accepted)),
            Ok(Outcome::Rejected(problem)) => return Ok(Settled::Rejected(problem)),
            Ok(Outcome::Pending { command_id }) => Self {
                cause: Cause::Pending,
                reason: "202: no outcome in time".to_owned(),
                retry_after: None,
                is_transient: true,
                command_id: Some(command_id),
            },
            Ok(Outcome::Unavailable { detail, retry_after }) => Self {
                cause: Cause::Unavailable,
                reason: format!("503: {}", if detail.is_empty() { "unavailable" } else { &detail }),
                retry_after: retry_after.map(|pause| pause.min(RETRY_AFTER_MAX)),
                is_transient: true,
                command_id: None,
            },
            Err(error) => Self {
                cause: match error.execution() {
                    Execution::NotExecuted => Cause::NotExecuted,
                    Execution::Unknown => Cause::Unknown,
                },
                reason: error::chain(&error),
                retry_after: None,
                is_transient: error.is_transient(),
                command_id: None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const QUICK: Retry = Retry { retry_for: LONG, not_executed_for: LONG, pause: Duration::from_millis(1) };

    type Answer = Result<Outcome<u8>, Error>;

    fn problem(status: u16) -> Problem {
        let kind = "urn:cart:problem:cart-full".to_owned();
        Problem { kind, title: String::new(), status, detail: String::new(), command_id: None }
    }

    fn lost() -> Answer {
        Err(Error::UnexpectedAnswer { status: hyper::StatusCode::GATEWAY_TIMEOUT, excerpt: String::new() })
    }

    fn away() -> Answer {
        Ok(Outcome::Unavailable { detail: "busy".to_owned(), retry_after: None })
    }

    fn pending() -> Answer {
        Ok(Outcome::Pending { command_id: Uuid::max() })
    }

    /// Gives the answers one after the other, then the last for ever.
    async fn settle(retry: &Retry, answers: Vec<fn() -> Answer>) -> (Result<Settled<u8>, Unsettled>, Vec<Cause>) {
        let causes = RefCell::new(vec![]);
        let last = answers.len() - 1;
        let send = async |attempt: u32| answers[last.min(attempt as usize)]();
        let settled = retry.settle(7, send, |trouble| causes.borrow_mut().push(trouble.cause)).await;
        (settled, causes.into_inner())
    }

    #[tokio::test]
    async fn it_is_sent_until_it_is_settled() {
        let (settled, causes) = settle(&QUICK, vec![lost, away, pending, || Ok(Outcome::Accepted(1))]).await;
        assert_eq!(settled, Ok(Settled::Accepted(1)));
        assert_eq!(causes, [Cause::Unknown, Cause::Unavailable, Cause::Pending]);
        let (settled, _) = settle(&QUICK, vec![pending, || Ok(Outcome::Rejected(problem(409)))]).await;
        assert_eq!(settled, Ok(Settled::Rejected(Problem { command_id: Some(Uuid::max()), ..problem(409) })));
    }

    #[tokio::test]
    async fn what_was_not_executed_is_given_up_earlier() {
        let short = Retry { not_executed_for: Duration::ZERO, ..QUICK };
        let (settled, causes) = settle(&short, vec![away]).await;
        let unsettled = settled.expect_err("it is away");
        assert_eq!((unsettled.execution, unsettled.pending, causes.len()), (Execution::NotExecuted, None, 0));

        // Once it may have been executed, an attempt that certainly failed says nothing about the one before.
        let short = Retry { retry_for: Duration::from_millis(30), ..short };
        let (settled, causes) = settle(&short, vec![lost, away]).await;
        assert_eq!(settled.expect_err("it is away").execution, Execution::Unknown);
        assert!(causes.len() > 1, "{causes:?}");
        let (settled, _) = settle(&short, vec![pending, lost]).await;
        assert_eq!(settled.expect_err("it is away").pending, Some(Uuid::max()));
    }

    #[tokio::test]
    async fn what_a_retry_can_not_mend_is_sent_once() {
        let not_found = || {
            Err(Error::UnexpectedAnswer { status: hyper::StatusCode::NOT_FOUND, excerpt: "another server".to_owned() })
        };
        let (settled, causes) = settle(&QUICK, vec![not_found]).await;
        assert!(settled.expect_err("it is another server").reason.contains("another server"));
        assert_eq!(causes, []);
    }
}
