//! The client and `replay` against a small service that speaks the real protocol on a real port, well or badly.

mod client_answers;
mod replay_end;
mod replay_order;
mod replay_setup;
mod service;
