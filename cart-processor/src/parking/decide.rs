//! Decides so that a panic of the rules harms one cart only.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cart::Aggregate;
use journal::Codecs;

use crate::batch::{self, CartBatch, decide_batch};
use crate::intake::ConsumedCommand;
use crate::redelivery::RedeliveredRows;

/// Runs the rules of one cart; a panic comes back as its message. What they were changing is to be dropped then.
pub(crate) fn guarded<T>(rules: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(rules)).map_err(|panic| panic_text(&*panic))
}

/// The text of a panic; `panic!` makes one of these two types.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| String::from("a panic without a text"))
}

/// What became of a parked cart's commands.
#[derive(Debug)]
pub(crate) struct InTurn {
    /// Those before the one for which the rules panic; `None` without one.
    pub(crate) decided: Option<CartBatch>,
    /// The message, and the offset of the command.
    pub(crate) panicked: Option<(String, i64)>,
}

/// Decides the commands one by one, so that those before a panic stay decided. After a panic the cart is to be dropped.
pub(crate) fn in_turn(
    cart: &mut Aggregate,
    rows: &RedeliveredRows,
    commands: impl IntoIterator<Item = ConsumedCommand>,
    codecs: &Codecs,
) -> Result<InTurn, batch::Error> {
    let mut decided: Option<CartBatch> = None;
    for command in commands {
        let offset = command.position.offset();
        match guarded(|| decide_batch(cart, vec![command], rows, codecs)) {
            Ok(one) => match &mut decided {
                None => decided = Some(one?),
                Some(before) => before.add(one?),
            },
            Err(message) => return Ok(InTurn { decided, panicked: Some((message, offset)) }),
        }
    }
    Ok(InTurn { decided, panicked: None })
}
