//! Retries of a command, with the same key, until it has an outcome or its time is over.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::bits::mix_bits;
use crate::error;
use crate::{Error, Execution, Outcome, Problem};

/// The longest pause, so that callers are back soon after the service is.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The longest Retry-After that is obeyed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How long a command is retried. An attempt that is in flight when the time is over is completed.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    /// If the command may have been executed.
    pub(crate) retry_for: Duration,
    /// If it was certainly not executed.
    pub(crate) not_executed_for: Duration,
    /// The first pause; doubled each time, up to 2 s.
    pub(crate) pause: Duration,
}

/// The outcome of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Completed<T> {
    Accepted(T),
    Rejected(Problem),
}

/// Why a command has no outcome when its time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GaveUp {
    /// Why the last attempt failed.
    pub(crate) reason: String,
    /// [`Execution::Unknown`] if it was unknown after any attempt.
    pub(crate) execution: Execution,
    /// The command's id, if any response was a 202: the command is in the log.
    pub(crate) pending: Option<Uuid>,
}

/// The kinds of [`AttemptFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Pending,
    Unavailable,
    NotExecuted,
    Unknown,
}

/// Why an attempt gave no outcome.
#[derive(Debug, Clone)]
pub(crate) struct AttemptFailure {
    pub(crate) kind: FailureKind,
    pub(crate) reason: String,
    retry_after: Option<Duration>,
    is_transient: bool,
    command_id: Option<Uuid>,
}

impl Retry {
    /// Sends a command until it has an outcome or its time is over. `send` gets the attempt's number, from 0; `note` gets the
    /// reason of each retry. The seed spreads the pauses of callers that would retry at the same time.
    pub(crate) async fn run<T>(
        &self,
        seed: u64,
        mut send: impl AsyncFnMut(u32) -> Result<Outcome<T>, Error>,
        mut note: impl FnMut(&AttemptFailure),
    ) -> Result<Completed<T>, GaveUp> {
        let sent_at = Instant::now();
        let mut execution = Execution::NotExecuted;
        let mut pending = None;
        let mut attempt = 0;
        loop {
            let failure = match AttemptFailure::of(send(attempt).await) {
                Ok(Completed::Rejected(problem)) => {
                    return Ok(Completed::Rejected(Problem { command_id: problem.command_id.or(pending), ..problem }));
                }
                Ok(completed) => return Ok(completed),
                Err(failure) => failure,
            };
            pending = pending.or(failure.command_id);
            let limit = match failure.kind {
                FailureKind::Pending | FailureKind::Unknown => {
                    execution = Execution::Unknown;
                    self.retry_for
                }
                FailureKind::Unavailable | FailureKind::NotExecuted => match execution {
                    Execution::Unknown => self.retry_for,
                    Execution::NotExecuted => self.not_executed_for,
                },
            };
            let pause = self.pause(seed, attempt).max(failure.retry_after.unwrap_or_default());
            if !failure.is_transient || sent_at.elapsed() + pause >= limit {
                return Err(GaveUp { reason: failure.reason, execution, pending });
            }
            note(&failure);
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// Doubles with each attempt; of that, a share from half to all, so that callers do not retry at the same time.
    fn pause(&self, seed: u64, attempt: u32) -> Duration {
        let full = self.pause.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX);
        let sixteenths = 8 + mix_bits(seed ^ u64::from(attempt) << 48) % 9;
        full * u32::try_from(sixteenths).unwrap_or(16) / 16
    }
}

impl AttemptFailure {
    fn of<T>(result: Result<Outcome<T>, Error>) -> Result<Completed<T>, Self> {
        Err(match result {
            Ok(Outcome::Accepted(accepted)) => return Ok(Completed::Accepted(accepted)),
            Ok(Outcome::Rejected(problem)) => return Ok(Completed::Rejected(problem)),
            Ok(Outcome::Pending { command_id, parked }) => Self {
                kind: FailureKind::Pending,
                reason: parked.map_or_else(
                    || "202: no outcome in time".to_owned(),
                    |reason| format!("202: the cart is parked ({reason}) until an operator has repaired it"),
                ),
                retry_after: None,
                is_transient: true,
                command_id: Some(command_id),
            },
            Ok(Outcome::Unavailable { detail, retry_after }) => Self {
                kind: FailureKind::Unavailable,
                reason: format!("503: {}", if detail.is_empty() { "unavailable" } else { &detail }),
                retry_after: retry_after.map(|pause| pause.min(RETRY_AFTER_MAX)),
                is_transient: true,
                command_id: None,
            },
            Err(error) => Self {
                kind: match error.execution() {
                    Execution::NotExecuted => FailureKind::NotExecuted,
                    Execution::Unknown => FailureKind::Unknown,
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
        Ok(Outcome::Pending { command_id: Uuid::max(), parked: None })
    }

    /// Gives the answers one after the other, and then repeats the last.
    async fn run(retry: &Retry, answers: Vec<fn() -> Answer>) -> (Result<Completed<u8>, GaveUp>, Vec<FailureKind>) {
        let kinds = RefCell::new(vec![]);
        let last = answers.len() - 1;
        let send = async |attempt: u32| answers[last.min(attempt as usize)]();
        let completed = retry.run(7, send, |failure| kinds.borrow_mut().push(failure.kind)).await;
        (completed, kinds.into_inner())
    }

    #[tokio::test]
    async fn retries_until_there_is_an_outcome() {
        let (completed, kinds) = run(&QUICK, vec![lost, away, pending, || Ok(Outcome::Accepted(1))]).await;
        assert_eq!(completed, Ok(Completed::Accepted(1)));
        assert_eq!(kinds, [FailureKind::Unknown, FailureKind::Unavailable, FailureKind::Pending]);
        let (completed, _) = run(&QUICK, vec![pending, || Ok(Outcome::Rejected(problem(409)))]).await;
        assert_eq!(completed, Ok(Completed::Rejected(Problem { command_id: Some(Uuid::max()), ..problem(409) })));
    }

    #[tokio::test]
    async fn gives_up_earlier_if_not_executed() {
        let short = Retry { not_executed_for: Duration::ZERO, ..QUICK };
        let (completed, kinds) = run(&short, vec![away]).await;
        let gave_up = completed.expect_err("it is away");
        assert_eq!((gave_up.execution, gave_up.pending, kinds.len()), (Execution::NotExecuted, None, 0));

        // Once it may have been executed, a later attempt that was certainly not executed does not change that.
        let short = Retry { retry_for: Duration::from_millis(30), ..short };
        let (completed, kinds) = run(&short, vec![lost, away]).await;
        assert_eq!(completed.expect_err("it is away").execution, Execution::Unknown);
        assert!(kinds.len() > 1, "{kinds:?}");
        let (completed, _) = run(&short, vec![pending, lost]).await;
        assert_eq!(completed.expect_err("it is away").pending, Some(Uuid::max()));
    }

    #[tokio::test]
    async fn does_not_retry_a_permanent_failure() {
        let not_found = || {
            Err(Error::UnexpectedAnswer { status: hyper::StatusCode::NOT_FOUND, excerpt: "another server".to_owned() })
        };
        let (completed, kinds) = run(&QUICK, vec![not_found]).await;
        assert!(completed.expect_err("it is another server").reason.contains("another server"));
        assert_eq!(kinds, []);
    }
}
