//! What the fuzz targets share; the targets are in `fuzz_targets/`, run by `scripts/fuzz`.

use cart::contract::Contract;
use clap::Parser;
use kafka::{Codec, Error, KafkaArgs, Registry};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Any: there is no registry that would give one.
pub const SCHEMA_ID: u32 = 1;

#[derive(Parser)]
struct NoArguments {
    #[command(flatten)]
    kafka: KafkaArgs,
}

/// A topic's codec as the services have it, without a registry: only records with [`SCHEMA_ID`] can be read.
///
/// # Errors
/// When the schema's text is none.
pub fn codec<T: Contract + Serialize + DeserializeOwned>() -> Result<Codec<T>, Error> {
    let registry = Registry::new(&NoArguments::parse_from(["fuzz"]).kafka)?;
    Codec::registered(&registry, T::TOPIC, T::SCHEMA, SCHEMA_ID)
}
