//! Registry-framed Avro: a zero byte, the schema's id in four bytes (big-endian), the datum.
//! Source of the format: Confluent's "Wire format" page of the schema registry's documentation.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use apache_avro::Schema;
use apache_avro::error::Details;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{ResolvedSchema, SchemaKind};
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::{Error, Registry};

const MAGIC: u8 = 0;
const HEADER_LEN: usize = 5;

/// Schemas live as long as the process. A topic has one schema per deployment that changed it, so this many are a
/// sign of made-up ids.
const SCHEMAS_MAX: usize = 1_000;

/// The largest string, bytes or array of a value: as large as the largest record on any topic of ours.
const ALLOCATION_MAX: usize = 8 << 20;

/// Writes values of one type with one schema, and reads them with whichever schema wrote them.
#[derive(Clone)]
pub struct Codec<T> {
    id: u32,
    schema: &'static Schema,
    writer: Arc<GenericDatumWriter<'static>>,
    readers: Arc<RwLock<HashMap<u32, Option<Reader>>>>,
    registry: Registry,
    values: PhantomData<fn(T) -> T>,
}

/// Reads what one schema wrote.
#[derive(Clone)]
struct Reader {
    datum: Arc<GenericDatumReader<'static>>,
    /// The schema is of our record, and has types that ours does not have.
    is_newer: bool,
}

impl<T> std::fmt::Debug for Codec<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why bytes are no value.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Null, or shorter than the header.
    #[error("the value has {len} bytes, too few for a registry-framed record")]
    TooShort {
        /// How many.
        len: usize,
    },
    /// Not framed as the registry's clients do it.
    #[error("the value starts with byte {byte:#04x}, not with 0x00 and a schema id")]
    NotFramed {
        /// The first byte.
        byte: u8,
    },
    /// This schema was not met yet: [`Codec::decode_or_fetch`] fetches it.
    #[error("schema {id} has not been fetched yet")]
    UnknownSchemaId { id: u32 },
    /// The registry has no such Avro schema.
    #[error("the registry has no Avro schema {id}")]
    UnknownSchema { id: u32 },
    /// Written by a newer version of this software, with something in it that ours does not know. Not garbage: readers
    /// are upgraded before writers, so this reader has to stop there until it is.
    #[error("the value has schema {id}, which is newer than this program, and cannot be decoded: {reason}")]
    Newer {
        /// The schema's id.
        id: u32,
        /// What the decoder says.
        reason: String,
    },
    /// The datum does not fit its schema, or the schema not the type: garbage.
    #[error("the value cannot be decoded with schema {id}: {reason}")]
    Malformed {
        /// The schema's id.
        id: u32,
        /// What the decoder says.
        reason: String,
    },
    /// There are bytes behind the datum.
    #[error("{len} bytes follow the value")]
    TrailingBytes {
        /// How many.
        len: usize,
    },
}

impl<T: Serialize + DeserializeOwned> Codec<T> {
    /// Registers `schema` for the values of `topic` and writes with the id that this gives: never with 'latest',
    /// which another program may have registered.
    ///
    /// # Errors
    /// As [`Registry::register`]; also if the schema's text is invalid.
    pub async fn register(registry: &Registry, topic: &str, schema: &str) -> Result<Self, Error> {
        let id = registry.register(topic, schema).await?;
        Self::registered(registry, topic, schema, id)
    }

    /// The same where the id that the registry has given to `schema` is known.
    ///
    /// # Errors
    /// If the schema's text is invalid.
    pub fn registered(registry: &Registry, topic: &str, schema: &str, id: u32) -> Result<Self, Error> {
        // A length in garbage must not make the decoder ask for half a gigabyte, its default. Set once a process.
        apache_avro::util::max_allocation_bytes(ALLOCATION_MAX);
        let failed = || format!("reading the schema of {topic}");
        let parsed = parse_once(schema).map_err(|error| Error::fatal(failed(), error))?;
        let writer = GenericDatumWriter::builder(parsed)
            .human_readable(false)
            .build()
            .map_err(|error| Error::fatal(failed(), error))?;
        let reader = Reader::new(parsed, parsed).map_err(|error| Error::fatal(failed(), error))?;
        Ok(Self {
            id,
            schema: parsed,
            writer: Arc::new(writer),
            readers: Arc::new(RwLock::new(HashMap::from([(id, Some(reader))]))),
            registry: registry.clone(),
            values: PhantomData,
        })
    }

    /// The framed bytes of a value.
    ///
    /// # Errors
    /// When the value does not fit the schema, which the tests of the types rule out.
    pub fn encode(&self, value: &T) -> Result<Vec<u8>, Error> {
        // Most records of ours have 200 to 400 bytes.
        let mut bytes = Vec::with_capacity(384);
        bytes.push(MAGIC);
        bytes.extend(self.id.to_be_bytes());
        self.writer
            .write_ser(&mut bytes, value)
            .map_err(|error| Error::fatal(format!("encoding a value with schema {}", self.id), error))?;
        Ok(bytes)
    }

    /// The value of framed bytes; a schema that was not met yet is fetched first.
    ///
    /// # Errors
    /// The outer error: the registry does not answer, so nothing is known about the bytes. The inner one: [`DecodeError`].
    pub async fn decode_or_fetch(&self, bytes: &[u8]) -> Result<Result<T, DecodeError>, Error> {
        match self.decode(bytes) {
            Err(DecodeError::UnknownSchemaId { id }) => {
                self.fetch_schema(id).await?;
                Ok(self.decode(bytes))
            }
            decoded => Ok(decoded),
        }
    }

    /// [`Codec::decode_or_fetch`] on a plain thread; blocks only while it fetches.
    ///
    /// # Errors
    /// As [`Codec::decode_or_fetch`].
    pub fn decode_or_fetch_blocking(&self, bytes: &[u8], runtime: &Handle) -> Result<Result<T, DecodeError>, Error> {
        match self.decode(bytes) {
            Err(DecodeError::UnknownSchemaId { .. }) => runtime.block_on(self.decode_or_fetch(bytes)),
            decoded => Ok(decoded),
        }
    }

    /// The value of framed bytes whose schema was met before.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(&self, bytes: &[u8]) -> Result<T, DecodeError> {
        let (id, mut datum) = split(bytes)?;
        let reader = self.readers.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        let reader = match reader {
            Some(Some(reader)) => reader,
            Some(None) => return Err(DecodeError::UnknownSchema { id }),
            None => return Err(DecodeError::UnknownSchemaId { id }),
        };
        let value = reader.datum.read_deser(&mut datum).map_err(|error| match reason(error) {
            reason if reader.is_newer => DecodeError::Newer { id, reason },
            reason => DecodeError::Malformed { id, reason },
        })?;
        match datum.len() {
            0 => Ok(value),
            len => Err(DecodeError::TrailingBytes { len }),
        }
    }

    /// Asks the registry again for schemas that it did not have: an operator may have restored them.
    pub fn forget_unknown_schemas(&self) {
        self.readers.write().unwrap_or_else(PoisonError::into_inner).retain(|_, reader| reader.is_some());
    }

    /// Fetches a schema and keeps it; that the registry has none with this id is kept too.
    async fn fetch_schema(&self, id: u32) -> Result<(), Error> {
        let schema = self.registry.schema(id).await?;
        let reader = schema.and_then(|schema| Reader::new(Box::leak(Box::new(schema)), self.schema).ok());
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        if readers.len() >= SCHEMAS_MAX {
            // Forget which ids don't exist, never a schema in use.
            readers.retain(|_, reader| reader.is_some());
        }
        readers.insert(id, reader);
        Ok(())
    }
}

/// The decoder's reason without the whole schema: it becomes a log line and a header.
fn reason(error: apache_avro::Error) -> String {
    let details = error.into_details();
    if let Details::DeserializeSchemaAware { value, schema, .. } = &details {
        let name = schema.name().map_or_else(|| format!("{:?}", SchemaKind::from(schema)), ToString::to_string);
        return format!("{value}, found {name}");
    }
    details.to_string()
}

impl Reader {
    fn new(schema: &'static Schema, ours: &'static Schema) -> Result<Self, apache_avro::Error> {
        let datum = GenericDatumReader::builder(schema).human_readable(false).build()?;
        let is_newer = schema.name() == ours.name() && {
            let (theirs, ours) = (ResolvedSchema::try_from(schema)?, ResolvedSchema::try_from(ours)?);
            theirs.get_names().keys().any(|name| !ours.get_names().contains_key(name))
        };
        Ok(Self { datum: Arc::new(datum), is_newer })
    }
}

/// The schema of a text. Writers and readers borrow their schema and live as long as the process, so the schema does too: once, although
/// each look of `audit --watch` makes its codecs anew.
fn parse_once(text: &str) -> Result<&'static Schema, apache_avro::Error> {
    static PARSED: Mutex<BTreeMap<String, &'static Schema>> = Mutex::new(BTreeMap::new());
    let mut parsed = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(schema) = parsed.get(text).copied() {
        return Ok(schema);
    }
    let schema: &'static Schema = Box::leak(Box::new(Schema::parse_str(text)?));
    parsed.insert(text.to_owned(), schema);
    Ok(schema)
}

fn split(bytes: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    match bytes {
        [MAGIC, a, b, c, d, datum @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [byte, ..] if bytes.len() >= HEADER_LEN => Err(DecodeError::NotFramed { byte: *byte }),
        _ => Err(DecodeError::TooShort { len: bytes.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_parsed_once() {
        let of = |name: &str| {
            let text = format!(r#"{{"type":"record","name":"{name}","fields":[]}}"#);
            parse_once(&text).expect("a schema")
        };
        assert!(std::ptr::eq(of("A"), of("A")));
        assert!(!std::ptr::eq(of("A"), of("B")));
        assert!(parse_once("{").is_err());
    }
}
