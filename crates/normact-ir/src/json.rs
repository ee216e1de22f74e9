//! The JSON form of a layer: versioned, and node for node, dead nodes included.
//!
//! ```json
//! {"normact": 1, "name": "swish",
//!  "params": [{"name": "v", "extent": "channel", "init": 1.0}],
//!  "nodes": [{"op": "input"}, {"op": "param", "param": "v"}, {"op": "mul", "args": [1, 0]},
//!            {"op": "sigmoid", "args": [2]}, {"op": "mul", "args": [0, 3]}],
//!  "output": 4}
//! ```
//!
//! A moment is `{"op": "std", "args": [0], "over": "group", "groups": 32, "eps": 1e-5}`; `"exact": true`
//! stands for `group(32)`, and `momentum` and `running` belong to index sets that hold samples.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::axes::{Groups, INDEX_SETS, IndexSet};
use crate::dag::{Builder, Dag, DagError, Extent, MomentOp, NodeId, Op, Operands, Param, Running, Tracking, op_name};
use crate::layer::Layer;
use crate::prim::{Moment, Prim};
use crate::scalar::Scalar;

/// Words that cannot be names, since they are keywords of the language.
pub const KEYWORDS: [&str; 4] = ["fn", "layer", "param", "let"];

/// The version this crate writes and reads.
pub const VERSION: u32 = 1;

/// The most parameters of a layer in this form: many more than any layer has, and few enough to
/// compare each with each other one.
pub const MAX_PARAMS: usize = 10_000;

/// The defaults of the settings of a moment.
pub mod defaults {
    /// `groups`
    pub const GROUPS: u32 = 32;
    /// `eps`
    pub const EPS: f64 = 1e-5;
    /// `momentum`
    pub const MOMENTUM: f64 = 0.1;
}

/// Why a text is not a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct JsonError {
    /// `line 3, column 7` for malformed JSON, `nodes[4]` for a graph that makes no sense.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// The line for malformed JSON, 1 otherwise.
    pub line: usize,
    /// The column for malformed JSON, 1 otherwise.
    pub column: usize,
}

impl JsonError {
    fn at(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), line: 1, column: 1 }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    normact: u32,
    name: String,
    #[serde(default)]
    params: Vec<ParamRecord>,
    nodes: Vec<NodeRecord>,
    output: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParamRecord {
    name: String,
    #[serde(default)]
    extent: ExtentRecord,
    init: f64,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExtentRecord {
    #[default]
    Channel,
    Scalar,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RunningRecord {
    Biased,
    Unbiased,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeRecord {
    op: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    args: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    param: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    over: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exact: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eps: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    momentum: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<RunningRecord>,
}

/// The layer as one line of JSON.
pub fn to_json(layer: &Layer) -> String {
    serde_json::to_string(&document(layer)).expect("numbers are finite and keys are strings")
}

/// The layer as indented JSON.
pub fn to_json_pretty(layer: &Layer) -> String {
    serde_json::to_string_pretty(&document(layer)).expect("numbers are finite and keys are strings")
}

/// Reads a layer.
///
/// # Errors
/// The text is not JSON, is of another version, or describes no graph.
pub fn from_json(text: &str) -> Result<Layer, JsonError> {
    let document: Document = serde_json::from_str(text).map_err(|error| JsonError {
        place: format!("line {}, column {}", error.line(), error.column()),
        message: strip_place(&error.to_string()),
        line: error.line().max(1),
        column: error.column().max(1),
    })?;
    layer(document)
}

/// Reads a layer from a JSON value.
///
/// # Errors
/// The value is of another version, or describes no graph.
pub fn from_value(value: serde_json::Value) -> Result<Layer, JsonError> {
    let document: Document =
        serde_json::from_value(value).map_err(|error| JsonError::at("graph", error.to_string()))?;
    layer(document)
}

/// serde_json appends the place to its message; it is kept apart here.
fn strip_place(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message).to_owned()
}

fn document(layer: &Layer) -> Document {
    let dag = &layer.dag;
    Document {
        normact: VERSION,
        name: layer.name.clone(),
        params: dag.params().iter().map(param_record).collect(),
        nodes: dag.ids().map(|id| node_record(dag, id)).collect(),
        output: dag.output().index(),
    }
}

fn param_record(param: &Param) -> ParamRecord {
    ParamRecord {
        name: param.name.clone(),
        extent: match param.extent {
            Extent::PerChannel => ExtentRecord::Channel,
            Extent::Scalar => ExtentRecord::Scalar,
        },
        init: param.init.get(),
    }
}

fn node_record(dag: &Dag, id: NodeId) -> NodeRecord {
    let op = dag.op(id);
    let record = NodeRecord {
        op: op_name(op).to_owned(),
        args: dag.operands(id).iter().map(NodeId::index).collect(),
        ..NodeRecord::default()
    };
    match op {
        Op::Input | Op::Prim(_) => record,
        Op::Constant(value) => NodeRecord { value: Some(value.get()), ..record },
        Op::Param(param) => NodeRecord { param: Some(dag.param(param).name.clone()), ..record },
        Op::Moment(op) => {
            let (groups, exact) = match op.over() {
                IndexSet::Group(Groups::AtMost(count)) => (Some(count.get()), None),
                IndexSet::Group(Groups::Exactly(count)) => (Some(count.get()), Some(true)),
                _ => (None, None),
            };
            NodeRecord {
                over: Some(op.over().name().to_owned()),
                groups,
                exact,
                eps: op.moment().is_root().then_some(op.eps().get()),
                momentum: op.tracking().map(|tracking| tracking.momentum.get()),
                running: op.tracking().map(|tracking| match tracking.running {
                    Running::Biased => RunningRecord::Biased,
                    Running::Unbiased => RunningRecord::Unbiased,
                }),
                ..record
            }
        }
    }
}

fn layer(document: Document) -> Result<Layer, JsonError> {
    if document.normact != VERSION {
        return Err(JsonError::at(
            "normact",
            format!("this is version {} of the graph form; this program reads version {VERSION}", document.normact),
        ));
    }
    if !is_identifier(&document.name) {
        return Err(JsonError::at("name", format!("{:?} is not a name", document.name)));
    }
    if document.params.len() > MAX_PARAMS {
        let message = format!("{} parameters are more than the {MAX_PARAMS} accepted here", document.params.len());
        return Err(JsonError::at("params", message));
    }
    let mut builder = Builder::new();
    for (index, record) in document.params.into_iter().enumerate() {
        let place = format!("params[{index}]");
        let param = param(record).map_err(|message| JsonError::at(&place, message))?;
        builder.declare(param).map_err(|error| JsonError::at(&place, error.to_string()))?;
    }
    for (index, record) in document.nodes.into_iter().enumerate() {
        node(&mut builder, record).map_err(|message| JsonError::at(format!("nodes[{index}]"), message))?;
    }
    let Some(output) = builder.node(document.output) else {
        let message = format!("node {} does not exist; there are {} nodes", document.output, builder.len());
        return Err(JsonError::at("output", message));
    };
    Ok(Layer { name: document.name, dag: builder.finish(output) })
}

/// Whether a text can be a name in the language: letters, digits and `_`, no keyword and no primitive.
pub fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    let taken = KEYWORDS.contains(&text) || Prim::by_name(text).is_some() || Moment::by_name(text).is_some();
    !taken
        && chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn param(record: ParamRecord) -> Result<Param, String> {
    if !is_identifier(&record.name) {
        return Err(format!("{:?} is not a name", record.name));
    }
    let extent = match record.extent {
        ExtentRecord::Channel => Extent::PerChannel,
        ExtentRecord::Scalar => Extent::Scalar,
    };
    Ok(Param { name: record.name, extent, init: finite("init", record.init)? })
}

fn node(builder: &mut Builder, record: NodeRecord) -> Result<(), String> {
    let args: Result<Vec<NodeId>, String> = record
        .args
        .iter()
        .map(|&index| builder.node(index).ok_or(DagError::UndefinedOperand { operand: index }.to_string()))
        .collect();
    let op = op(builder, &record)?;
    let args = args?;
    let count = || DagError::OperandCount { op: record.op.clone(), expected: op.operand_count(), found: args.len() };
    let operands = Operands::from_slice(&args).ok_or_else(|| count().to_string())?;
    builder.append(op, operands).map_err(|error| error.to_string())?;
    Ok(())
}

fn op(builder: &Builder, record: &NodeRecord) -> Result<Op, String> {
    let moment = Moment::by_name(&record.op);
    refuse_strangers(record, moment)?;
    if let Some(moment) = moment {
        return Ok(Op::Moment(moment_op(moment, record)?));
    }
    if let Some(prim) = Prim::by_name(&record.op) {
        return Ok(Op::Prim(prim));
    }
    match record.op.as_str() {
        "input" => Ok(Op::Input),
        "constant" => Ok(Op::Constant(finite("value", record.value.ok_or("a constant needs a `value`")?)?)),
        "param" => {
            let name = record.param.as_deref().ok_or("a param node needs the name of a `param`")?;
            builder.param_named(name).map(Op::Param).ok_or_else(|| format!("parameter `{name}` is not declared"))
        }
        unknown => {
            let known: Vec<&str> = ["input", "constant", "param"]
                .into_iter()
                .chain(Prim::ALL.iter().map(|prim| prim.name()))
                .chain(Moment::ALL.iter().map(|moment| moment.name()))
                .collect();
            Err(format!("unknown operation `{unknown}`; there are {}", known.join(", ")))
        }
    }
}

/// A key that the operation does not read is a mistake worth hearing about.
fn refuse_strangers(record: &NodeRecord, moment: Option<Moment>) -> Result<(), String> {
    let is_moment = moment.is_some();
    let keys = [
        ("value", record.value.is_some(), record.op == "constant"),
        ("param", record.param.is_some(), record.op == "param"),
        ("over", record.over.is_some(), is_moment),
        ("groups", record.groups.is_some(), is_moment),
        ("exact", record.exact.is_some(), is_moment),
        ("eps", record.eps.is_some(), is_moment),
        ("momentum", record.momentum.is_some(), is_moment),
        ("running", record.running.is_some(), is_moment),
    ];
    match keys.iter().find(|(_, given, allowed)| *given && !allowed) {
        Some((key, ..)) => Err(format!("`{}` has no `{key}`", record.op)),
        None => Ok(()),
    }
}

fn moment_op(moment: Moment, record: &NodeRecord) -> Result<MomentOp, String> {
    let names: Vec<&str> = INDEX_SETS.iter().map(|(name, _)| *name).collect();
    let over = record
        .over
        .as_deref()
        .ok_or_else(|| format!("`{}` needs an index set `over`: {}", record.op, names.join(", ")))?;
    let over = match over {
        "batch" => IndexSet::Batch,
        "instance" => IndexSet::Instance,
        "layer" => IndexSet::Layer,
        "group" => {
            let count = record.groups.unwrap_or(defaults::GROUPS);
            let count = NonZeroU32::new(count).ok_or("`groups` must be at least 1")?;
            let exact = record.exact.unwrap_or(false);
            IndexSet::Group(if exact { Groups::Exactly(count) } else { Groups::AtMost(count) })
        }
        "channel" => IndexSet::Channel,
        "all" => IndexSet::All,
        unknown => return Err(format!("unknown index set `{unknown}`; there are {}", names.join(", "))),
    };
    let eps = finite("eps", record.eps.unwrap_or(defaults::EPS))?;
    if eps < Scalar::ZERO {
        return Err("`eps` must not be negative".to_owned());
    }
    let momentum = finite("momentum", record.momentum.unwrap_or(defaults::MOMENTUM))?;
    if !(0.0..=1.0).contains(&momentum.get()) {
        return Err("`momentum` must be between 0 and 1".to_owned());
    }
    let running = match record.running {
        Some(RunningRecord::Unbiased) => Running::Unbiased,
        Some(RunningRecord::Biased) | None => Running::Biased,
    };
    Ok(MomentOp::new(moment, over, eps, Tracking { momentum, running }))
}

fn finite(key: &str, value: f64) -> Result<Scalar, String> {
    Scalar::new(value).ok_or_else(|| format!("`{key}` must be a finite number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        from_json(text).unwrap_err().to_string()
    }

    #[test]
    fn keeps_dead_and_duplicate_nodes() {
        let text = r#"{"normact":1,"name":"g","params":[{"name":"v0","extent":"channel","init":0.0}],"nodes":[{"op":"input"},{"op":"constant","value":0.0},{"op":"param","param":"v0"},{"op":"tanh","args":[0]},{"op":"tanh","args":[0]},{"op":"std","args":[4],"over":"batch","eps":0.00001,"momentum":0.1,"running":"unbiased"}],"output":4}"#;
        let layer = from_json(text).unwrap();
        assert_eq!(layer.dag.len(), 6);
        assert_eq!(to_json(&layer), text);
        assert_eq!(from_json(&to_json_pretty(&layer)), Ok(layer));
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        assert_eq!(error("{"), "line 1, column 1: EOF while parsing an object");
        let with = |nodes: &str| format!(r#"{{"normact":1,"name":"g","nodes":[{nodes}],"output":0}}"#);
        let many: Vec<String> = (0..10_001).map(|number| format!(r#"{{"name":"p{number}","init":1}}"#)).collect();
        assert_eq!(
            error(&format!(r#"{{"normact":1,"name":"g","params":[{}],"nodes":[],"output":0}}"#, many.join(","))),
            "params: 10001 parameters are more than the 10000 accepted here"
        );
        assert_eq!(error(&with("")), "output: node 0 does not exist; there are 0 nodes");
        assert_eq!(error(&with(r#"{"op":"neg","args":[0]}"#)), "nodes[0]: node 0 is not defined before it is used");
        assert_eq!(
            error(&with(r#"{"op":"input"},{"op":"add","args":[0]}"#)),
            "nodes[1]: add takes 2 operand(s), found 1"
        );
        assert_eq!(error(&with(r#"{"op":"input","eps":1}"#)), "nodes[0]: `input` has no `eps`");
        assert_eq!(
            error(&with(r#"{"op":"input"},{"op":"std","args":[0],"over":"rows"}"#)),
            "nodes[1]: unknown index set `rows`; there are batch, instance, layer, group, channel, all"
        );
        assert_eq!(
            error(r#"{"normact":2,"name":"g","nodes":[],"output":0}"#),
            "normact: this is version 2 of the graph form; this program reads version 1"
        );
    }
}
