//! The client, `cart` and `replay` against a small service that speaks the real protocol on a real port, well or badly.

mod cart_cli;
mod client_answers;
mod replay_end;
mod replay_import;
mod replay_order;
mod replay_setup;
mod service;
