//! JSON bodies: objects only, with the path of the field that is wrong.

use std::marker::PhantomData;

use cart::whole_number;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use warp::http::{HeaderMap, HeaderValue, header};

use crate::problem::Problem;

/// Maximum number of characters of a value or a path that a problem quotes.
const QUOTED_CHARS_MAX: usize = 100;

/// A JSON object: by itself, serde also accepts the array of its fields' values.
pub(super) struct Object<T>(pub(super) T);

impl<T: JsonSchema> JsonSchema for Object<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    // It is the same schema, not a second one of that name.
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// A whole number in any JSON spelling, such as `2.0`. Read from its text, since a binary fraction would be rounded.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let text = <&RawValue>::deserialize(deserializer)?.get();
    whole_number(text).and_then(|number| i32::try_from(number).ok()).ok_or_else(|| {
        let text: String = text.chars().take(QUOTED_CHARS_MAX).collect();
        D::Error::custom(format!("must be a whole number from {} to {}, not {text}", i32::MIN, i32::MAX))
    })
}

/// Reads a body that is one JSON object.
pub(super) fn read<'a, T: Deserialize<'a>>(headers: &HeaderMap, body: &'a [u8]) -> Result<T, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
        return Err(Problem::unsupported_media_type());
    }
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !is_identity(value)) {
        return Err(Problem::unsupported_content_encoding());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let result = serde_path_to_error::deserialize(&mut deserializer).map_err(invalid_field);
    match result.and_then(|Object(value)| deserializer.end().map(|()| value).map_err(malformed)) {
        Ok(value) => Ok(value),
        // Which of the two it is does not depend on where the reader of the fields stopped.
        Err(problem) => Err(not_json(body).map_or(problem, Problem::malformed_body)),
    }
}

/// Whether the codings leave a body as it is.
fn is_identity(encodings: &HeaderValue) -> bool {
    let mut all = encodings.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    all.all(|encoding| encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity"))
}

/// Why a body is not JSON (RFC 8259), if it is not. JSON has numbers of any size, and strings that are not valid text.
fn not_json(body: &[u8]) -> Option<String> {
    if let Err(error) = str::from_utf8(body) {
        return Some(format!("{error}: JSON is UTF-8"));
    }
    serde_json::from_slice::<IgnoredAny>(body).err().map(|error| error.to_string())
}

fn malformed(error: serde_json::Error) -> Problem {
    Problem::malformed_body(error.to_string())
}

/// Names the field by its path, such as `commands[0].adjust.adjustBy`.
fn invalid_field(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let (object, message) = (error.path().to_string(), error.inner().to_string());
    // serde names a missing or repeated field in the message only.
    let field =
        ["missing field `", "duplicate field `"].iter().find_map(|start| message.strip_prefix(start)?.split_once('`'));
    let path = match (object.as_str(), field) {
        (".", None) => return Problem::invalid_field(message),
        (".", Some((field, _))) => field.to_owned(),
        (object, None) => object.to_owned(),
        (object, Some((field, _))) => format!("{object}.{field}"),
    };
    let path: String = path.chars().take(QUOTED_CHARS_MAX).collect();
    Problem::invalid_field(format!("{path}: {message}"))
}
