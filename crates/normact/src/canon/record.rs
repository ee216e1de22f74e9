//! One line to one record: the key of a layer, or what is wrong with the line.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use normact_egraph::{Canonicalizer, Fingerprinter, MAX_ASSIGNMENTS, Rule, Status};
use normact_ir::{Dag, Extent, Op, json};
use normact_syntax::{Overrides, Source, compile};
use serde::Serialize;
use serde_json::Value;

use super::lines::{Line, MAX_LINE};

/// The longest message of a record, in characters: messages quote what was read, which can be long.
const MAX_MESSAGE: usize = 500;
/// After a graph with more nodes than this a worker starts with new memory.
const LARGE: usize = 10_000;
/// A fingerprint takes time in proportion to nodes and to ways of giving parameters values; those of
/// larger layers are left out.
const MAX_FINGERPRINT_WORK: usize = 1 << 18;

/// What became of some lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) lines: u64,
    pub(crate) errors: u64,
    /// Layers whose rules did not come to an end.
    pub(crate) over_budget: u64,
    /// How often each rule was applied, in the order of all rules; empty before the first line.
    pub(crate) applied: Vec<u64>,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.errors += other.errors;
        self.over_budget += other.over_budget;
        self.applied.resize(self.applied.len().max(other.applied.len()), 0);
        self.applied.iter_mut().zip(other.applied).for_each(|(total, more)| *total += more);
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Record {
    Layer {
        id: Value,
        key: String,
        status: &'static str,
        /// Null for a layer that is too large for one; left out where none was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        fingerprint: Option<Option<String>>,
    },
    Wrong {
        id: Value,
        error: LineError,
    },
}

#[derive(Debug, Serialize)]
struct LineError {
    code: &'static str,
    message: String,
    line: u64,
}

/// What is wrong with a line: a short stable code and a message.
struct Wrong {
    code: &'static str,
    message: String,
}

fn wrong(code: &'static str, message: impl Into<String>) -> Wrong {
    Wrong { code, message: message.into() }
}

/// Makes records, keeping its memory from line to line.
#[derive(Debug)]
pub(crate) struct Worker {
    canonicalizer: Canonicalizer,
    fingerprinter: Option<Fingerprinter>,
    applied_before: Vec<u64>,
}

impl Worker {
    pub(crate) fn new(with_fingerprint: bool) -> Self {
        Self {
            canonicalizer: Canonicalizer::default(),
            fingerprinter: with_fingerprint.then(Fingerprinter::new),
            applied_before: vec![0; Rule::ALL.len()],
        }
    }

    /// How often each rule was applied since the last time this was asked.
    pub(crate) fn applied(&mut self) -> Vec<u64> {
        let now = self.canonicalizer.applied();
        // A worker that started with new memory counts from the beginning.
        let before = std::mem::replace(&mut self.applied_before, now.to_vec());
        now.iter().zip(before).map(|(now, before)| now.checked_sub(before).unwrap_or(*now)).collect()
    }

    /// Appends the record of a line, as a line.
    pub(crate) fn record(&mut self, number: u64, line: &Line, text: &mut String) -> Counts {
        let record = self.guarded(number, line);
        let counts = match &record {
            Record::Layer { status, .. } => {
                Counts { lines: 1, over_budget: u64::from(*status == Status::Budget.name()), ..Counts::default() }
            }
            Record::Wrong { .. } => Counts { lines: 1, errors: 1, ..Counts::default() },
        };
        // JSON made of strings and values always has a text.
        text.push_str(&serde_json::to_string(&record).unwrap_or_default());
        text.push('\n');
        counts
    }

    /// One layer that normact cannot treat must not end a run of millions.
    fn guarded(&mut self, number: u64, line: &Line) -> Record {
        let mut id = Value::Null;
        let found = catch_unwind(AssertUnwindSafe(|| self.read(line, &mut id))).unwrap_or_else(|panic| {
            *self = Self::new(self.fingerprinter.is_some());
            Err(wrong("internal", format!("this is a mistake of normact, please report it: {}", said(&*panic))))
        });
        match found {
            Ok((key, status, fingerprint)) => Record::Layer { id, key, status, fingerprint },
            Err(Wrong { code, message }) => {
                Record::Wrong { id, error: LineError { code, message: shortened(message), line: number } }
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn read(&mut self, line: &Line, id: &mut Value) -> Result<(String, &'static str, Option<Option<String>>), Wrong> {
        let dag = dag(line, id)?;
        let (key, status) = self.canonicalizer.key(&dag);
        let fingerprint = self
            .fingerprinter
            .as_mut()
            .map(|fingerprinter| has_fingerprint(&dag).then(|| fingerprinter.of(&dag).to_string()));
        if dag.len() > LARGE {
            *self = Self::new(self.fingerprinter.is_some());
        }
        Ok((key.to_string(), status.name(), fingerprint))
    }
}

/// Whether a fingerprint is made in reasonable time.
fn has_fingerprint(dag: &Dag) -> bool {
    let live = dag.live();
    let nodes = live.iter().filter(|live| **live).count();
    let mut classes: HashMap<(Extent, u64), usize> = HashMap::new();
    for id in dag.ids().filter(|id| live[id.index()]) {
        let Op::Param(param) = dag.op(id) else { continue };
        *classes.entry((dag.param(param).extent, dag.param(param).init.get().to_bits())).or_default() += 1;
    }
    let ways = classes.values().flat_map(|&count| 2..=count + 1).fold(1, usize::saturating_mul);
    // More ways than the limit are not tried at all.
    nodes.saturating_mul(ways.min(MAX_ASSIGNMENTS)) <= MAX_FINGERPRINT_WORK
}

/// The layer of a line; the id is put in its place as soon as it is known.
fn dag(line: &Line, id: &mut Value) -> Result<Dag, Wrong> {
    let Line::Bytes(bytes) = line else {
        return Err(wrong("length", format!("the line is longer than the {} MiB accepted here", MAX_LINE >> 20)));
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = error.valid_up_to();
        wrong("utf8", format!("the line is not UTF-8 text: byte {valid} is 0x{:02x}", bytes[valid]))
    })?;
    if text.trim().is_empty() {
        return Err(wrong("json", "the line is blank; every line holds one record"));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let said = error.to_string();
        let message = said.rsplit_once(" at line ").map_or(said.as_str(), |(message, _)| message);
        wrong("json", format!("column {}: {message}", error.column()))
    })?;
    let Value::Object(mut record) = value else {
        return Err(wrong("json", "the line is no JSON object; write {\"id\": ..., \"graph\": {...}}"));
    };
    *id = record.remove("id").unwrap_or_default();
    match (record.remove("graph"), record.remove("text")) {
        (Some(graph), None) => {
            json::from_value(graph).map(|layer| layer.dag).map_err(|error| wrong("graph", error.to_string()))
        }
        (None, Some(Value::String(text))) => dag_of_text(text),
        (None, Some(_)) => Err(wrong("record", "`text` is no string")),
        (Some(_), Some(_)) => Err(wrong("record", "the record has both `graph` and `text`; leave one of them out")),
        (None, None) => Err(wrong("record", "the record has neither `graph` nor `text`")),
    }
}

fn dag_of_text(text: String) -> Result<Dag, Wrong> {
    let source = Source::new("text", text);
    let mut analysis = compile(&source, &Overrides::none());
    if let Some(first) = analysis.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        let place = source.position(first.span.start);
        let mut message = format!("text, line {}, column {}: {}", place.line, place.column, first.message);
        first.notes.iter().chain(&first.help).for_each(|more| message.push_str(&format!("; {more}")));
        return Err(wrong(first.code.as_str(), message));
    }
    match analysis.layers.len() {
        1 => Ok(analysis.layers.remove(0).layer.dag),
        0 => Err(wrong("text", "the text defines no layer; write `layer name(x) { ... }`")),
        count => Err(wrong("text", format!("the text defines {count} layers; write each on a line of its own"))),
    }
}

fn shortened(message: String) -> String {
    match message.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message,
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no reason given").to_owned()
}
