//! Reads so that what cannot be read of one cart harms that cart only.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use cart::CartId;
use futures::FutureExt as _;

use super::decide::panic_text;
use super::trial::{Cause, is_alone};

/// Why carts were not read, if the store is not to blame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// Their rows cannot be read or decoded.
    #[error(transparent)]
    Rows(journal::Error),
    /// The rules panic for what the rows say.
    #[error("the rules panic while a cart is loaded: {0}")]
    Panicked(String),
}

impl Unread {
    pub(crate) fn cause(self) -> Cause {
        match self {
            Self::Rows(error) => Cause::Unreadable(format!("{:#}", anyhow::Error::new(error))),
            Self::Panicked(message) => Cause::Panicked(message),
        }
    }
}

/// Reads from the journal. A failure of the store is the outer error; the inner one is a matter of the carts that are read.
pub(crate) async fn read_guarded<T>(
    read: impl Future<Output = Result<T, journal::Error>>,
) -> Result<Result<T, Unread>, journal::Error> {
    // A panic leaves nothing behind: what was read so far is dropped.
    match AssertUnwindSafe(read).catch_unwind().await {
        Ok(Ok(read)) => Ok(Ok(read)),
        Ok(Err(error)) if error.is_of_rows() => Ok(Err(Unread::Rows(error))),
        Ok(Err(error)) => Err(error),
        Err(panic) => Ok(Err(Unread::Panicked(panic_text(&*panic)))),
    }
}

/// Why each of these carts fails, if they fail alone: then they are set aside. Otherwise one of the reasons, for all to wait.
pub(crate) fn fail_alone(
    failed: Vec<(CartId, Unread)>,
    succeeded: usize,
    store_answers: bool,
) -> Result<HashMap<CartId, Cause>, Unread> {
    let are_alone = is_alone(failed.len(), succeeded, store_answers);
    let cause =
        |(cart_id, unread): (CartId, Unread)| if are_alone { Ok((cart_id, unread.cause())) } else { Err(unread) };
    failed.into_iter().map(cause).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    async fn read(error: journal::Error) -> Result<Result<(), Unread>, journal::Error> {
        read_guarded(async { Err(error) }).await
    }

    #[tokio::test]
    async fn a_panic_and_bad_rows_are_a_matter_of_the_cart_and_other_errors_of_the_store() {
        assert!(matches!(read_guarded(async { Ok(7) }).await, Ok(Ok(7))));
        let panicked = read_guarded(async { panic!("quantity {} overflows", 7) }).await;
        assert!(matches!(panicked, Ok(Err::<(), _>(Unread::Panicked(text))) if text == "quantity 7 overflows"));
        assert!(matches!(read(journal::Error::undecodable("reading", "bytes")).await, Ok(Err(Unread::Rows(_)))));
        assert!(read(journal::Error::new("reading", "no answer")).await.is_err());
    }

    #[test]
    fn carts_for_which_loading_panics_are_set_aside_beside_others_only() {
        let id = |number: u128| CartId::from(uuid::Uuid::from_u128(number));
        let panics =
            |count| (0..count).map(|number| (id(number), Unread::Panicked(String::from("overflow")))).collect();
        let aside = fail_alone(panics(2), 1, true).unwrap();
        assert_eq!((aside.len(), aside[&id(1)].reason()), (2, String::from("rule-panicked: overflow")));
        assert_eq!(fail_alone(panics(1), 0, true).unwrap().len(), 1, "the store answers for another");
        assert!(matches!(fail_alone(panics(2), 0, true), Err(Unread::Panicked(_))), "all panic: none is set aside");
    }
}
