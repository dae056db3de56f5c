//! Operators' verbs that meet: while others are at work, when they are killed in the middle, and two at once.
//!
//! * [`generations`]: a pause of a generation that is built, and skips where there are two generations.
//! * [`killed`]: `pause`, `resume` and `skip` that are killed, and repeated.
//! * [`parked`]: a cart is parked while generations are switched; tries that are killed, and two at once.
//! * [`together`]: two pauses, skips and switches at once.

pub(crate) mod generations;
pub(crate) mod killed;
pub(crate) mod parked;
pub(crate) mod together;
