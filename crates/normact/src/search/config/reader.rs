//! TOML tables whose keys have defaults, read so that one mistake hides no other.
//!
//! What a table may hold is what its defaults have when they are written out, and each key is read on its own:
//! one that cannot be keeps its default and is told with its place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use normact_syntax::nearest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Failure;

pub(super) type Table<'a> = DeTable<'a>;

/// A text with what is wrong about it so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    problems: Vec<Problem>,
    /// Where the value of each key stands, `rejection.quality.steps` for a nested one.
    places: BTreeMap<String, usize>,
}

#[derive(PartialEq)]
struct Problem {
    at: usize,
    message: String,
    help: Option<String>,
}

impl<'a> Reader<'a> {
    /// Parses a text; after a mistake of syntax it goes on as well as it can.
    pub(super) fn parse(text: &'a str) -> (Self, Table<'a>) {
        let mut reader = Self { text, problems: vec![], places: BTreeMap::new() };
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            reader.problem(error.span().map_or(0, |span| span.start), error.message(), None);
        }
        (reader, root.into_inner())
    }

    /// Notes a problem at a place of the text.
    pub(super) fn problem(&mut self, at: usize, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.problems.push(Problem { at, message: message.into(), help: help.into() });
    }

    /// Notes a problem at the value of a key, or of the next one if the text does not give it: of two options that
    /// contradict each other, what the text says is at fault and not a default.
    pub(super) fn problem_at(&mut self, keys: &[&str], message: impl Into<String>, help: impl Into<Option<String>>) {
        let at = keys.iter().find_map(|key| self.place_of(key)).unwrap_or(0);
        self.problem(at, message, help);
    }

    /// Where the text gives a key; for one in a table that it gives as a whole, where that stands.
    pub(super) fn place_of(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some(at) = self.places.get(key) {
                return Some(*at);
            }
            key = key.rsplit_once('.')?.0;
        }
    }

    /// Whether the text gives a key.
    pub(super) fn gives(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Every problem in the order of the text, which came from `name`.
    pub(super) fn finish(mut self, name: &str) -> Result<(), Failure> {
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by_key(|problem| problem.at);
        self.problems.dedup();
        let mut message = String::new();
        for Problem { at, message: problem, help } in &self.problems {
            let (line, column) = self.line_and_column(*at);
            let _ = writeln!(message, "error: {name}:{line}:{column}: {problem}");
            let _ = help.as_ref().map(|help| writeln!(message, "  help: {help}"));
        }
        Err(Failure::rendered(message))
    }

    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..at.min(self.text.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The tables within a table; what is no table is a problem.
    pub(super) fn tables<'t, 'b>(
        &mut self,
        within: &str,
        table: &'t Table<'b>,
    ) -> Vec<(usize, &'t str, &'t Table<'b>)> {
        let mut tables = vec![];
        for (key, value) in table {
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            let path = path(within, name);
            match value.get_ref() {
                DeValue::Table(table) => {
                    self.places.insert(path, at);
                    tables.push((at, name, table));
                }
                _ => {
                    self.problem(at, format!("`{name}` is a table"), format!("write `[{path}]` above its keys"));
                }
            }
        }
        tables.sort_by_key(|(at, ..)| *at);
        tables
    }

    /// A key that a table does not have.
    pub(super) fn unknown<'k>(
        &mut self,
        table: &str,
        key: &str,
        at: usize,
        known: impl Iterator<Item = &'k str> + Clone,
    ) {
        let place = if table.is_empty() { "there is no table".to_owned() } else { format!("`[{table}]` has no key") };
        let help = match nearest(key, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it may have {}", known.collect::<Vec<_>>().join(", ")),
        };
        self.problem(at, format!("{place} `{key}`"), help);
    }

    /// A table with its defaults where the text says nothing.
    pub(super) fn table<T: Serialize + DeserializeOwned>(&mut self, name: &str, table: &Table<'_>, defaults: T) -> T {
        let mut values = object(&defaults);
        let is_possible = |values: &Value| match serde_json::from_value::<T>(values.clone()) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        self.fill(name, table, "", &mut values, &is_possible);
        serde_json::from_value(values).unwrap_or(defaults)
    }

    /// Puts what a table says into the object at `pointer` within `root`, as far as `is_possible` agrees.
    fn fill(
        &mut self,
        name: &str,
        table: &Table<'_>,
        pointer: &str,
        root: &mut Value,
        is_possible: &dyn Fn(&Value) -> Result<(), String>,
    ) {
        for (key, value) in table {
            let (key, at) = (key.get_ref().as_ref(), key.span().start);
            let known = root.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
            let Some(default) = known.get(key) else {
                self.unknown(name, key, at, known.keys().map(String::as_str));
                continue;
            };
            let (path, pointer) = (path(name, key), format!("{pointer}/{key}"));
            self.places.insert(path.clone(), value.span().start);
            let given = match (value.get_ref(), default) {
                (DeValue::Table(table), Value::Object(_)) => {
                    self.fill(&path, table, &pointer, root, is_possible);
                    continue;
                }
                // `false` in the place of a table leaves that out.
                (DeValue::Boolean(false), Value::Object(_)) => Value::Null,
                (value, _) => match json(value) {
                    Ok(value) => value,
                    Err(problem) => {
                        self.problem_at(&[&path], format!("`{path}` is {problem}"), None);
                        continue;
                    }
                },
            };
            let mut tried = root.clone();
            if let Some(place) = tried.pointer_mut(&pointer) {
                *place = given;
            }
            match is_possible(&tried) {
                Ok(()) => *root = tried,
                Err(problem) => self.problem_at(&[&path], format!("`{key}` cannot be that: {problem}"), None),
            }
        }
    }
}

fn path(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

fn object(defaults: &impl Serialize) -> Value {
    serde_json::to_value(defaults).unwrap_or_else(|error| unreachable!("a table is plain data: {error}"))
}

/// A value as JSON, or what it is that cannot be.
fn json(value: &DeValue<'_>) -> Result<Value, &'static str> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(integer) => {
            let (digits, radix) = (integer.as_str().replace('_', ""), integer.radix());
            match i64::from_str_radix(&digits, radix) {
                Ok(number) => Value::from(number),
                // Seeds may be larger than a signed number.
                Err(_) => u64::from_str_radix(&digits, radix).map_err(|_| "an integer of more than 64 bits")?.into(),
            }
        }
        DeValue::Float(float) => {
            let number = float.as_str().replace('_', "").parse().map_err(|_| "no number")?;
            serde_json::Number::from_f64(number).ok_or("not a finite number")?.into()
        }
        DeValue::Array(values) => {
            Value::Array(values.iter().map(|value| json(value.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let member = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &Cow<'_, str> = key.get_ref();
                Ok::<_, &str>((key.to_string(), json(value.get_ref())?))
            };
            Value::Object(table.iter().map(member).collect::<Result<Map<_, _>, _>>()?)
        }
        DeValue::Datetime(_) => return Err("a date, which no key takes"),
    })
}
