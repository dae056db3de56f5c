//! Compares an answer with the one on a page. docs/api.md explains the placeholders.

use std::collections::HashMap;
use std::fmt::Display;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Stands for what is left out.
const DOTS: &str = "...";

/// The placeholder for a JSON value that is not a string.
const REST: &str = "\u{0}...";

/// The maximum difference of a time from the current time.
const RECENT: TimeDelta = TimeDelta::hours(1);

/// The result of a command.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) succeeded: bool,
    pub(super) output: String,
    /// The statuses of its requests.
    pub(super) statuses: Vec<u16>,
    /// Its standard error.
    pub(super) errors: String,
}

/// Compares the answers of one installation.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// The real id for each shown id.
    ids: HashMap<String, String>,
}

/// The status line and the header fields.
struct Head<'a> {
    status: &'a str,
    fields: Vec<(String, &'a str)>,
}

type Compared = Result<(), String>;

/// Splits curl's output into head and body.
fn split(text: &str) -> (Option<Head<'_>>, &str) {
    if !text.starts_with("HTTP/") {
        return (None, text.trim());
    }
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines().map(str::trim);
    let status = lines.next().unwrap_or_default();
    let fields = lines.map(|line| line.split_once(':').unwrap_or((line, "")));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim())).collect();
    (Some(Head { status, fields }), body.trim())
}

/// Makes JSON of a shown answer: `{...}`, `[...]`, `{...,"a":1}`. Its lines are joined.
fn without_dots(shown: &str) -> String {
    let mut json = String::new();
    let mut open = Vec::new();
    let (mut in_string, mut is_escaped) = (false, false);
    let mut rest = shown;
    while let Some(character) = rest.chars().next() {
        if !in_string && let Some(after) = rest.strip_prefix(DOTS) {
            json.push_str(if open.last() == Some(&'{') { r#""\u0000...":0"# } else { r#""\u0000...""# });
            rest = after;
            continue;
        }
        match character {
            '"' if !is_escaped => in_string = !in_string,
            '{' | '[' if !in_string => open.push(character),
            '}' | ']' if !in_string => drop(open.pop()),
            _ => {}
        }
        is_escaped = in_string && character == '\\' && !is_escaped;
        if character != '\n' {
            json.push(character);
        }
        rest = &rest[character.len_utf8()..];
    }
    json
}

/// One JSON value after the other.
fn values(text: &str) -> Result<Vec<Value>, serde_json::Error> {
    serde_json::Deserializer::from_str(text).into_iter().collect()
}

/// The status of a shown problem.
fn problem(shown: &str) -> Option<u64> {
    values(&without_dots(shown)).ok()?.first()?["status"].as_u64()
}

fn different(path: &str, what: &str, shown: impl Display, real: impl Display) -> Compared {
    Err(format!("{path}: the page shows {what} {shown}, the answer has {real}"))
}

fn same<T: PartialEq + Display>(path: &str, what: &str, shown: T, real: T) -> Compared {
    if shown == real { Ok(()) } else { different(path, what, shown, real) }
}

/// Whether a text consists of these parts in order, with anything in between.
fn fits(shown: &str, real: &str) -> bool {
    let Some((start, others)) = shown.split_once(DOTS) else { return shown == real };
    let Some(mut rest) = real.strip_prefix(start) else { return false };
    let mut others = others.split(DOTS).peekable();
    while let Some(part) = others.next() {
        if others.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    false
}

fn is_command_id(text: &str) -> bool {
    Uuid::parse_str(text).is_ok_and(|id| id.get_version_num() == 7)
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

impl Comparison {
    /// A difference as text.
    pub(super) fn compare(&mut self, shown: &str, run: &Run) -> Compared {
        if !run.succeeded {
            return Err(format!("the command failed: {}", run.errors.trim()));
        }
        let real = run.output.replace("\r\n", "\n");
        let ((shown_head, shown_body), (head, body)) = (split(shown), split(&real));
        match (&shown_head, &head) {
            (Some(shown), Some(real)) => self.head(shown, real)?,
            (Some(_), None) => return Err("the page shows a head, which the command does not print".to_owned()),
            (None, Some(_)) if !shown_body.is_empty() => {
                return Err("the command prints a head, which the page does not show".to_owned());
            }
            (None, _) => {}
        }
        let (last, others) = run.statuses.split_last().map_or((None, &[][..]), |(last, others)| (Some(last), others));
        let succeeded = others.iter().chain(last.filter(|_| shown_head.is_none() && problem(shown_body).is_none()));
        for status in succeeded {
            if !(200..300).contains(status) {
                return Err(format!("a request of the command is answered with {status}: {body}"));
            }
        }
        if let (Some(status), Some(shown)) = (last, problem(shown_body)) {
            same("status", "the problem's status", shown, u64::from(*status))?;
        }
        if shown_head.is_none() && shown_body.is_empty() { Ok(()) } else { self.body(shown_body, body) }
    }

    fn head(&mut self, shown: &Head<'_>, real: &Head<'_>) -> Compared {
        same("head", "the status line", shown.status, real.status)?;
        for (name, value) in &shown.fields {
            let values: Vec<_> = real.fields.iter().filter(|(real, _)| real == name).map(|(_, value)| *value).collect();
            if !values.iter().any(|real| self.text(value, real)) {
                return Err(format!("head: the page shows '{name}: {value}', the answer has {values:?}"));
            }
        }
        Ok(())
    }

    fn body(&mut self, shown: &str, real: &str) -> Compared {
        if !shown.starts_with(['{', '[']) {
            return if self.text(shown, real) { Ok(()) } else { different("body", "the text", shown, real) };
        }
        let shown = values(&without_dots(shown)).map_err(|error| format!("the page's answer is no JSON: {error}"))?;
        let real = values(real).map_err(|error| format!("the answer is no JSON ({error}): {real}"))?;
        same("body", "values, their number is", shown.len(), real.len())?;
        shown.iter().zip(&real).try_for_each(|(shown, real)| self.value("body", shown, real))
    }

    fn value(&mut self, path: &str, shown: &Value, real: &Value) -> Compared {
        match (shown, real) {
            (Value::Object(shown), Value::Object(real)) => self.object(path, shown, real),
            (Value::Array(shown), Value::Array(real)) => self.array(path, shown, real),
            (Value::String(shown), Value::String(real)) => {
                if self.text(shown, real) {
                    Ok(())
                } else {
                    different(path, "the text", shown, real)
                }
            }
            _ => same(path, "the value", shown, real),
        }
    }

    fn object(&mut self, path: &str, shown: &Map<String, Value>, real: &Map<String, Value>) -> Compared {
        for (name, value) in shown.iter().filter(|(name, _)| *name != REST) {
            let path = format!("{path}.{name}");
            let real = real.get(name).ok_or_else(|| format!("{path}: the page shows it, the answer lacks it"))?;
            self.value(&path, value, real)?;
        }
        match real.iter().find(|(name, _)| !shown.contains_key(*name)) {
            Some((name, value)) if !shown.contains_key(REST) => {
                Err(format!("{path}.{name}: the answer has {value}, the page lacks it"))
            }
            _ => Ok(()),
        }
    }

    fn array(&mut self, path: &str, shown: &[Value], real: &[Value]) -> Compared {
        let first = match shown.split_last() {
            Some((last, first)) if last == REST && real.len() >= first.len() => first,
            _ => shown,
        };
        if first.len() == shown.len() {
            same(path, "elements, their number is", shown.len(), real.len())?;
        }
        let mut pairs = first.iter().zip(real).enumerate();
        pairs.try_for_each(|(index, (shown, real))| self.value(&format!("{path}[{index}]"), shown, real))
    }

    fn text(&mut self, shown: &str, real: &str) -> bool {
        if is_command_id(shown) && is_command_id(real) {
            return self.ids.entry(shown.to_owned()).or_insert_with(|| real.to_owned()) == real;
        }
        let is_recent = |real: DateTime<Utc>| (Utc::now() - real).abs() < RECENT;
        fits(shown, real) || (time(shown).is_some() && time(real).is_some_and(is_recent))
    }
}
