//! The client, `cart` and `replay` against a small service in memory, which can also misbehave.

mod cart_cli;
mod client_answers;
mod replay_end;
mod replay_import;
mod replay_order;
mod replay_setup;
mod service;
