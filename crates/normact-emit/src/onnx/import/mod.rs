//! An ONNX model as a layer, if it is made of operations that the language has.
//!
//! Nodes are run one after the other on what stands for tensors: a node of the layer's graph with the
//! [`View`] of the input that it has, numbers stored in the model, shapes. Initializers become parameters when
//! they meet the input. What the language cannot say is reported node by node, all in one go.
//!
//! A model is read from anywhere, so its size is bounded and so is everything that is made of it.

mod graph;
mod operators;
mod tensor;
mod view;

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use normact_ir::json::is_identifier;
use normact_ir::{Buffers, Extent, Interval, Layer, NodeId, Param, Scalar};
use prost::Message;

use self::graph::Graph;
use self::tensor::{Integers, Numbers, Stored, stored};
use self::view::{InputSizes, Part, View};
use super::proto::{
    AttributeProto, Dimension, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, data_type,
};

/// The largest model that is read, in bytes: layers are small, and messages take more room in memory than in
/// a file.
const MAX_BYTES: usize = 1 << 20;

/// The most nodes that are run, those of functions counted at every call.
const MAX_NODES: usize = 10_000;

/// How deep functions may call each other.
const MAX_CALLS: usize = 16;

/// Before this version of the operator set, operands did not broadcast.
const MIN_OPSET: i64 = 7;

/// A layer that was read from a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The layer. Parameters start at their values in the model, or at the average of values that differ.
    pub layer: Layer,
    /// The number of channels of the model.
    pub channels: usize,
    /// The values in the model of parameters and running averages, by the names in the layer.
    pub weights: Vec<(String, Vec<f32>)>,
}

/// Why a model cannot be read as a layer: one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportError {
    /// The node, or what else of the model; none where it is the file.
    pub node: Option<String>,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "{node}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Everything that keeps a model from being read as a layer, in the order of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportErrors(pub Vec<ImportError>);

impl fmt::Display for ImportErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            let line_break = if number == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ImportErrors {}

impl From<ImportError> for ImportErrors {
    fn from(error: ImportError) -> Self {
        Self(vec![error])
    }
}

/// Reads an ONNX model as a layer. A float input of 2 to 5 axes, whose number of channels is fixed, becomes
/// the input. An initializer with one value per channel becomes a parameter, and so does one of a single value
/// on at least one axis; numbers without axes are constants. `BatchNormalization` becomes moments over the
/// batch with their running averages; any other average over samples becomes a moment over the batch too,
/// which the layer computes in training and reads in evaluation.
///
/// # Errors
/// The bytes are no model, or the model is no layer: every reason that was found.
pub fn import_onnx(bytes: &[u8]) -> Result<Imported, ImportErrors> {
    if bytes.len() > MAX_BYTES {
        return Err(file(format!("the file has {} bytes; a layer's has at most {MAX_BYTES}", bytes.len())).into());
    }
    let model = ModelProto::decode(bytes).map_err(|error| file(format!("the file is no ONNX model: {error}")))?;
    let graph = model.graph.as_ref().ok_or_else(|| file("the file holds no ONNX model: it has no graph".to_owned()))?;
    let (name, sizes) = input(graph)?;
    let mut reader = Reader::new(&model, sizes);
    let mut values = HashMap::new();
    initializers(graph, &mut values);
    let (view, node) = (reader.sizes.view(), reader.graph.input());
    values.insert(name.to_owned(), Value::Tensor(Tensor { node, view }));
    let opset = reader.opset(&model.opset_import);
    reader.run(&graph.node, &mut values, &Scope { opset, attributes: &[], depth: 0 });
    let output = reader.output(graph, &values);
    if !reader.errors.is_empty() {
        return Err(ImportErrors(reader.errors));
    }
    let output = output.unwrap_or_else(|| unreachable!("without an output there is an error"));
    reader.finish(&graph.name, output)
}

fn file(message: String) -> ImportError {
    ImportError { node: None, message }
}

/// The name of the graph's input, and its sizes.
fn input(graph: &GraphProto) -> Result<(&str, InputSizes), ImportError> {
    // Old models list their initializers among the inputs.
    let is_stored = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs: Vec<_> = graph.input.iter().filter(|input| !is_stored(&input.name)).collect();
    let [input] = inputs[..] else {
        return Err(file(format!("the model has {} inputs, and a layer has one", inputs.len())));
    };
    let error = |message: String| ImportError { node: Some(format!("input `{}`", input.name)), message };
    let tensor = input.r#type.as_ref().and_then(|r#type| r#type.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| error("it is no tensor".to_owned()))?;
    if ![data_type::FLOAT, data_type::DOUBLE].contains(&tensor.elem_type) {
        return Err(error(format!(
            "its elements have type {} of ONNX, which is not float or double",
            tensor.elem_type
        )));
    }
    let dims = tensor.shape.as_ref().ok_or_else(|| error("its number of axes is not known".to_owned()))?;
    let sizes = dims.dim.iter().map(|dim| match dim.value {
        Some(Dimension::Value(size)) => match u32::try_from(size) {
            Ok(size) if size > 0 => Ok(Some(size as usize)),
            _ => Err(error(format!("it has an axis of size {size}"))),
        },
        Some(Dimension::Param(_)) | None => Ok(None),
    });
    match sizes.collect::<Result<Vec<_>, _>>()?[..] {
        [samples, Some(channels), ref positions @ ..] if positions.len() <= 3 => {
            Ok((&input.name, InputSizes { samples, channels, positions: positions.to_vec() }))
        }
        [_, None, ref positions @ ..] if positions.len() <= 3 => {
            Err(error("the size of axis 1, the number of channels, is not fixed".to_owned()))
        }
        ref sizes => Err(error(format!("it has {} axes; a layer's has 2 to 5", sizes.len()))),
    }
}

fn initializers(graph: &GraphProto, values: &mut HashMap<String, Value>) {
    for tensor in &graph.initializer {
        let value = match stored(tensor, Some(Rc::from(tensor.name.as_str()))) {
            Ok(stored) => stored.into(),
            Err(message) => Value::Unreadable(format!("of initializer `{}`, {message}", tensor.name).into()),
        };
        values.insert(tensor.name.clone(), value);
    }
}

/// A node of the layer's graph with the view that a tensor of the model gives of it: along what is missing in
/// the view, the node does not vary.
#[derive(Debug, Clone)]
struct Tensor {
    node: NodeId,
    view: View,
}

/// What stands for a value of the model.
#[derive(Debug, Clone)]
enum Value {
    Tensor(Tensor),
    Numbers(Numbers),
    Integers(Integers),
    /// What a node would have computed that is reported already.
    Unknown,
    /// An initializer that no layer has, which matters if a node uses it.
    Unreadable(Rc<str>),
}

/// What a node may refer to beside values.
struct Scope<'a> {
    /// The version of the operators.
    opset: i64,
    /// The attributes of the function that is run.
    attributes: &'a [AttributeProto],
    depth: usize,
}

/// A running average of the model, and the moment that keeps it.
struct Running {
    moment: NodeId,
    values: Vec<f64>,
}

struct Reader<'a> {
    functions: HashMap<(&'a str, &'a str), &'a FunctionProto>,
    sizes: InputSizes,
    graph: Graph,
    /// The parameter of each initializer that has met the input.
    params: HashMap<Rc<str>, NodeId>,
    weights: Vec<(String, Vec<f32>)>,
    running: Vec<Running>,
    errors: Vec<ImportError>,
    nodes_left: usize,
}

impl<'a> Reader<'a> {
    fn new(model: &'a ModelProto, sizes: InputSizes) -> Self {
        let functions = model.functions.iter().map(|function| ((&*function.domain, &*function.name), function));
        Self {
            functions: functions.collect(),
            sizes,
            graph: Graph::default(),
            params: HashMap::new(),
            weights: vec![],
            running: vec![],
            errors: vec![],
            nodes_left: MAX_NODES,
        }
    }

    fn report(&mut self, node: String, message: String) {
        self.errors.push(ImportError { node: Some(node), message });
    }

    /// The version of the standard operators; 0 where none is said.
    fn opset(&mut self, imports: &[OperatorSetIdProto]) -> i64 {
        let standard = imports.iter().find(|import| ["", "ai.onnx"].contains(&&*import.domain));
        let version = standard.map_or(0, |import| import.version);
        if version < MIN_OPSET {
            self.errors.push(file(format!(
                "the model uses operators of version {version}; {MIN_OPSET} is the first that is read"
            )));
        }
        version
    }

    /// Runs nodes in their order, which is one that computes values before they are used.
    fn run(&mut self, nodes: &[NodeProto], values: &mut HashMap<String, Value>, scope: &Scope<'_>) {
        for node in nodes {
            if self.nodes_left == 0 {
                return;
            }
            self.nodes_left -= 1;
            if self.nodes_left == 0 {
                self.errors.push(file(format!("the model has more than {MAX_NODES} nodes")));
                return;
            }
            let outputs = match self.node(node, values, scope) {
                Ok(outputs) => outputs,
                Err(Failure::Because(message)) => {
                    self.report(described(node), message);
                    vec![]
                }
                Err(Failure::Operand) => vec![],
            };
            let mut outputs = outputs.into_iter();
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                let value = outputs.next().unwrap_or(Value::Unknown);
                if values.insert(name.clone(), value).is_some() {
                    self.report(described(node), format!("it computes `{name}`, which is there already"));
                }
            }
        }
    }

    fn node(
        &mut self,
        node: &NodeProto,
        values: &HashMap<String, Value>,
        scope: &Scope<'_>,
    ) -> Result<Vec<Value>, Failure> {
        let input = |name: &String| match values.get(name) {
            _ if name.is_empty() => Ok(None),
            Some(value) => Ok(Some(value.clone())),
            None => Err(Failure::Because(format!("it uses `{name}`, which is not computed before"))),
        };
        let inputs = node.input.iter().map(input).collect::<Result<Vec<_>, _>>()?;
        let function = self.functions.get(&(&*node.domain, &*node.op_type)).copied();
        match function {
            Some(function) => self.call(function, node, inputs, scope),
            None => operators::apply(self, node, &inputs, scope).map(|value| vec![value]),
        }
    }

    /// Runs the body of a function.
    fn call(
        &mut self,
        function: &FunctionProto,
        node: &NodeProto,
        inputs: Vec<Option<Value>>,
        scope: &Scope<'_>,
    ) -> Result<Vec<Value>, Failure> {
        if scope.depth == MAX_CALLS {
            return Err(Failure::Because(format!("functions call each other more than {MAX_CALLS} deep")));
        }
        if inputs.len() > function.input.len() {
            let (given, taken) = (inputs.len(), function.input.len());
            return Err(Failure::Because(format!("it is given {given} inputs, and the function takes {taken}")));
        }
        let named = function.input.iter().zip(inputs);
        let mut values: HashMap<String, Value> =
            named.filter_map(|(name, value)| value.map(|value| (name.clone(), value))).collect();
        let given = node.attribute.iter().map(|attribute| operators::resolved(attribute, scope.attributes));
        let given: Vec<AttributeProto> = given.collect::<Result<_, _>>()?;
        let is_given = |name: &str| given.iter().any(|attribute| attribute.name == name);
        let defaults = function.attribute_proto.iter().filter(|default| !is_given(&default.name)).cloned();
        let attributes: Vec<AttributeProto> = given.iter().cloned().chain(defaults).collect();
        let opset = self.opset(&function.opset_import);
        self.run(&function.node, &mut values, &Scope { opset, attributes: &attributes, depth: scope.depth + 1 });
        let output = |name: &String| values.get(name).cloned();
        let outputs: Option<Vec<Value>> = function.output.iter().map(output).collect();
        outputs.ok_or_else(|| Failure::Because("the function does not compute all of its outputs".to_owned()))
    }

    /// The node that the model's output is; where there is none, an error is reported.
    fn output(&mut self, graph: &GraphProto, values: &HashMap<String, Value>) -> Option<NodeId> {
        let [output] = &graph.output[..] else {
            self.errors.push(file(format!("the model has {} outputs, and a layer has one", graph.output.len())));
            return None;
        };
        let place = format!("output `{}`", output.name);
        let Some(value) = values.get(&output.name) else {
            self.report(place, "no node computes it".to_owned());
            return None;
        };
        match self.tensor(value) {
            Ok(tensor) if self.sizes.is_input(&tensor.view) => Some(tensor.node),
            Ok(tensor) => {
                let (found, input) = (self.sizes.shown(&tensor.view), self.sizes.shown(&self.sizes.view()));
                self.report(place, format!("it has the shape {found}, and a layer's output has its input's, {input}"));
                None
            }
            Err(Failure::Because(message)) => {
                self.report(place, message);
                None
            }
            // A value that is unknown because a node was reported.
            Err(Failure::Operand) if !self.errors.is_empty() => None,
            Err(Failure::Operand) => {
                self.report(place, "it is an output of a node that is not read".to_owned());
                None
            }
        }
    }

    /// A value as part of the layer's graph. Stored numbers become constants and parameters here.
    fn tensor(&mut self, value: &Value) -> Result<Tensor, Failure> {
        match value {
            Value::Tensor(tensor) => Ok(tensor.clone()),
            Value::Numbers(numbers) => self.numbers(numbers).map_err(Failure::Because),
            Value::Integers(_) => Err(Failure::Because("it computes with integers".to_owned())),
            Value::Unknown => Err(Failure::Operand),
            Value::Unreadable(message) => Err(Failure::Because(message.to_string())),
        }
    }

    fn numbers(&mut self, numbers: &Numbers) -> Result<Tensor, String> {
        let channels = self.sizes.channels;
        let mut wide = numbers.dims.iter().filter(|&&size| size != 1);
        let is_per_channel = match (wide.next(), wide.next()) {
            (Some(&size), None) => size == channels,
            // One channel: a single value is per channel where it has an axis for channels.
            (None, _) => channels == 1 && numbers.dims.len() > 1,
            (Some(_), Some(_)) => false,
        };
        let is_scalar = numbers.len() == 1 && !numbers.dims.is_empty();
        let axis = |part: Part| numbers.dims.iter().map(move |&size| if size == 1 { vec![] } else { vec![part] });
        let extent = match &numbers.initializer {
            Some(_) if is_per_channel => Extent::PerChannel,
            Some(_) if is_scalar => Extent::Scalar,
            _ => {
                let value = numbers.uniform().ok_or_else(|| {
                    format!("a tensor of shape {:?} is neither one value nor one for each channel", numbers.dims)
                })?;
                let value = Scalar::new(value).ok_or_else(|| format!("a layer does not hold the number {value}"))?;
                let node = self.graph.constant(value);
                let copies = numbers.dims.iter().map(|&size| if size == 1 { vec![] } else { vec![Part::Copies(size)] });
                return Ok(Tensor { node, view: View(copies.collect()) });
            }
        };
        let view = View(axis(Part::Channels).collect());
        let name = numbers.initializer.as_ref().unwrap_or_else(|| unreachable!("constants were dealt with"));
        if let Some(&node) = self.params.get(name) {
            return Ok(Tensor { node, view });
        }
        if numbers.values.iter().any(|value| !(*value as f32).is_finite()) {
            return Err(format!("initializer `{name}` has values that are not finite in float32"));
        }
        let average = || shortest_average(&numbers.values);
        let init = Scalar::new(numbers.uniform().unwrap_or_else(average)).unwrap_or(Scalar::ZERO);
        let least = numbers.values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = numbers.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let identifier = self.identifier(name);
        let param = Param { name: identifier.clone(), extent, init };
        let node = self.graph.param(param, Interval::new(least, greatest));
        let node = node.unwrap_or_else(|| unreachable!("the name was chosen because it is free"));
        self.params.insert(name.clone(), node);
        self.weights.push((identifier, spread(&numbers.values, extent.len(channels))));
        Ok(Tensor { node, view })
    }

    /// A name in the language that is free, like one of the model.
    fn identifier(&self, name: &str) -> String {
        let stem = word(name);
        let numbered = (2..).map(|number| format!("{stem}_{number}"));
        let is_free = |name: &String| is_identifier(name) && name != "x" && !self.graph.has_param(name);
        let free = [stem.clone()].into_iter().chain(numbered).find(is_free);
        free.unwrap_or_else(|| unreachable!("there are more numbers than names"))
    }

    fn finish(self, name: &str, output: NodeId) -> Result<Imported, ImportErrors> {
        let channels = self.sizes.channels;
        let (dag, new) = self.graph.finish(output);
        let buffers = Buffers::of(&dag);
        let is_used = |name: &String| dag.params().iter().any(|param| param.name == *name);
        let mut weights: Vec<(String, Vec<f32>)> = self.weights.into_iter().filter(|(name, _)| is_used(name)).collect();
        for running in self.running {
            let Some(buffer) = new[running.moment.index()].and_then(|moment| buffers.of_node(moment)) else { continue };
            let buffer = &buffers.list()[buffer];
            let values = spread(&running.values, buffer.len(channels));
            match weights.iter().find(|(name, _)| *name == buffer.name) {
                Some((_, known)) if *known != values => {
                    let message = "two normalizations of one value have different running averages".to_owned();
                    return Err(file(message).into());
                }
                Some(_) => {}
                None => weights.push((buffer.name.clone(), values)),
            }
        }
        let name = word(name);
        let name = if is_identifier(&name) { name } else { format!("layer_{name}") };
        Ok(Imported { layer: Layer { name, dag }, channels, weights })
    }
}

/// Why a node has no value.
enum Failure {
    /// The language does not have it.
    Because(String),
    /// One of its operands has none.
    Operand,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure::Because(message)
    }
}

impl From<Stored> for Value {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Numbers(numbers) => Value::Numbers(numbers),
            Stored::Integers(integers) => Value::Integers(integers),
        }
    }
}

/// `node 'conv' (Conv)`, or by what it computes where it has no name.
fn described(node: &NodeProto) -> String {
    let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
    let (operator, output) = (&node.op_type, node.output.first().map_or("", String::as_str));
    let name = if node.name.is_empty() { output } else { &node.name };
    format!("node `{name}` ({domain}{operator})")
}

/// The letters, digits and underscores of a name.
fn word(name: &str) -> String {
    let word: String =
        name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).take(60).collect();
    let word = word.trim_matches('_');
    match word.chars().next() {
        None => "layer".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("_{word}"),
        Some(_) => word.to_owned(),
    }
}

fn shortest_average(values: &[f64]) -> f64 {
    let average = values.iter().sum::<f64>() / values.len() as f64;
    tensor::shortest(average as f32)
}

/// Values in float32; one stands for all.
fn spread(values: &[f64], len: usize) -> Vec<f32> {
    match values {
        [value] => vec![*value as f32; len],
        values => values.iter().map(|&value| value as f32).collect(),
    }
}
