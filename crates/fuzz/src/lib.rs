//! Fuzz targets: every decoder that reads from outside, given any bytes.
//!
//! A target is the function `run` of a module. It returns whether the decoder accepts the input, and panics if an accepted
//! value does not keep what the target's module promises.
//!
//! ```text
//! seeds/<target>/       accepted inputs ────┬─▶ tests/inputs, as they are and damaged (cargo test)
//! findings/<target>/    past failures ──────┤
//! crates/cart's golden records ─────────────┴─▶ fuzz_targets/, with libFuzzer (scripts/fuzz)
//! ```

#![expect(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use cart::contract::Contract;
use clap::Parser;
use kafka::{Codec, KafkaArgs, Registry};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub mod csv_files;
pub mod http_bodies;
pub mod records;
pub mod trace_contexts;

/// The schema id in every record's frame. Any id will do: no registry is asked.
const SCHEMA_ID: u32 = 1;

#[derive(Parser)]
struct NoArguments {
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// A topic's codec as the services use it, but without a registry: it decodes records with [`SCHEMA_ID`] only.
fn codec<T: Contract + Serialize + DeserializeOwned>() -> Codec<T> {
    let registry = Registry::new(&NoArguments::parse_from(["fuzz"]).kafka).unwrap();
    Codec::registered(&registry, T::TOPIC, T::SCHEMA, SCHEMA_ID).unwrap()
}
