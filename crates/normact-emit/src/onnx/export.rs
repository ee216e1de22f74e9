//! A layer as two ONNX models: one of standard operators alone, which every runtime takes, and one in which
//! the same operators are the body of a function, for use within other models.
//!
//! A model is the layer in evaluation mode: a running average is an initializer beside the parameters. A layer
//! without running averages is the same function in training, and so is its model. The body views the input
//! as `[N, channels, positions]`, so it serves inputs of every rank; the rank is said by the input's type
//! alone.

use std::collections::{HashMap, HashSet};

use normact_ir::{Axes, Buffers, Channels, Extent, IndexSet, Layer, Prim, Quantity, Scalar, Shape, check};
use prost::Message;

use super::proto::{
    AttributeProto, Dimension, DimensionProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type, data_type,
};
use super::{DOMAIN, IR, IR_WITH_FUNCTIONS, OPSET};
use crate::emit::{EmitError, EmittedFile, Names, Options};
use crate::outline::{Average, Expr, Outline, Value};
use crate::text::text;

const TARGET: &str = "ONNX";
const INPUT: &str = "x";
const OUTPUT: &str = "y";

/// The names of the sizes of an input of each rank; the number of channels takes the place of `C`.
const DIMENSIONS: [&[&str]; 4] = [&["N", "C"], &["N", "C", "L"], &["N", "C", "H", "W"], &["N", "C", "D", "H", "W"]];

pub(crate) fn emit(layer: &Layer, options: &Options) -> Result<Vec<EmittedFile>, EmitError> {
    let names = Names::new(layer, &[], TARGET)?;
    let channels = options.channels.ok_or(EmitError::ChannelsUnknown { target: TARGET })?;
    // One axis too many is enough to be refused.
    let mut dims = vec![1; options.rank.unwrap_or(4).min(6)];
    if let Some(size) = dims.get_mut(1) {
        *size = channels;
    }
    let shape = Shape::new(&dims).map_err(EmitError::Shape)?;
    if let Some(error) = check(&layer.dag, &shape).0.into_iter().next() {
        return Err(EmitError::Shape(error));
    }
    let stored = stored(layer, channels, options)?;
    let body = Body::of(layer, channels, &stored)?;

    let initializers: Vec<TensorProto> =
        stored.into_iter().filter(|tensor| body.reads.contains(&tensor.name)).collect();
    let inputs = [INPUT].into_iter().chain(initializers.iter().map(|tensor| tensor.name.as_str()));
    let inputs: Vec<String> = inputs.map(str::to_owned).collect();
    let doc = doc(layer, channels, options);
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version };
    let model = |graph_nodes: Vec<NodeProto>, functions: Vec<FunctionProto>| ModelProto {
        ir_version: if functions.is_empty() { IR } else { IR_WITH_FUNCTIONS },
        opset_import: [opset("", OPSET)].into_iter().chain(functions.iter().map(|_| opset(DOMAIN, 1))).collect(),
        producer_name: "normact".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: doc.clone(),
        graph: Some(GraphProto {
            node: graph_nodes,
            name: names.function.clone(),
            initializer: initializers.clone(),
            doc_string: doc.clone(),
            input: vec![value_info(INPUT, dims.len(), channels)],
            output: vec![value_info(OUTPUT, dims.len(), channels)],
        }),
        functions,
    };
    let function = FunctionProto {
        name: names.function.clone(),
        input: inputs.clone(),
        output: vec![OUTPUT.to_owned()],
        attribute_proto: vec![],
        node: body.nodes.clone(),
        doc_string: doc.clone(),
        opset_import: vec![opset("", OPSET)],
        domain: DOMAIN.to_owned(),
    };
    let call = NodeProto {
        input: inputs,
        output: vec![OUTPUT.to_owned()],
        name: OUTPUT.to_owned(),
        op_type: names.function.clone(),
        domain: DOMAIN.to_owned(),
        attribute: vec![],
    };
    let file = |suffix: &str, model: ModelProto| EmittedFile {
        name: format!("{}{suffix}.onnx", names.function),
        bytes: model.encode_to_vec(),
    };
    Ok(vec![file("", model(body.nodes, vec![])), file("_function", model(vec![call], vec![function]))])
}

/// The formula with what to know before using it.
fn doc(layer: &Layer, channels: usize, options: &Options) -> String {
    let mode = if Buffers::of(&layer.dag).list().is_empty() {
        "in training and in evaluation"
    } else {
        "in evaluation: batch statistics are the running averages"
    };
    let formula = options.source.as_deref().map_or_else(|| crate::listing(layer), str::to_owned);
    format!("The layer `{}` of {channels} channels, {mode}.\n\n{}", layer.name, formula.trim_end())
}

/// The parameters, then the running averages, with their values.
fn stored(layer: &Layer, channels: usize, options: &Options) -> Result<Vec<TensorProto>, EmitError> {
    let buffers = Buffers::of(&layer.dag);
    let params = layer.dag.params().iter().map(|param| (&param.name, param.extent, param.init.get(), "parameter"));
    let averages = buffers.list().iter().map(|buffer| (&buffer.name, buffer.extent, buffer.init(), "running average"));
    let stored: Vec<_> = params.chain(averages).collect();
    if let Some((name, _)) = options.weights.iter().find(|(name, _)| stored.iter().all(|known| known.0 != name)) {
        return Err(EmitError::Weights(format!("there are weights for `{name}`, which the layer does not have")));
    }
    let tensor = |(name, extent, init, what): (&String, Extent, f64, &str)| {
        if [INPUT, OUTPUT].contains(&name.as_str()) {
            return Err(EmitError::Collision { name: name.clone(), target: TARGET });
        }
        let len = extent.len(channels);
        let values = match options.weights.iter().find(|(known, _)| known == name) {
            Some((_, values)) if values.len() == len => values.clone(),
            Some((_, values)) => {
                return Err(EmitError::Weights(format!("`{name}` has {} values, expected {len}", values.len())));
            }
            None => vec![single(init)?; len],
        };
        let (dims, each) = match extent {
            Extent::PerChannel => (vec![1, channels as i64, 1], "for each channel"),
            Extent::Scalar => (vec![1], "for the whole layer"),
        };
        Ok(TensorProto { name: name.clone(), doc_string: format!("{what}, one {each}"), ..floats(dims, &values) })
    };
    stored.into_iter().map(tensor).collect()
}

fn floats(dims: Vec<i64>, values: &[f32]) -> TensorProto {
    let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { dims, data_type: data_type::FLOAT, raw_data: Some(raw_data), ..TensorProto::default() }
}

/// A number as the model stores it.
fn single(value: f64) -> Result<f32, EmitError> {
    let single = value as f32;
    let what = || format!("numbers as large as {value:e}: it computes in float32");
    if single.is_finite() { Ok(single) } else { Err(EmitError::Unsupported { what: what(), target: TARGET }) }
}

fn value_info(name: &str, rank: usize, channels: usize) -> ValueInfoProto {
    let dimension = |name: &&str| match *name {
        "C" => Dimension::Value(channels as i64),
        name => Dimension::Param(name.to_owned()),
    };
    let dims = DIMENSIONS[rank - 2].iter().map(|name| DimensionProto { value: Some(dimension(name)) });
    let shape = TensorShapeProto { dim: dims.collect() };
    let tensor_type = TensorTypeProto { elem_type: data_type::FLOAT, shape: Some(shape) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
        doc_string: String::new(),
    }
}

/// The operators from the input to the output.
struct Body<'a> {
    outline: &'a Outline<'a>,
    channels: usize,
    nodes: Vec<NodeProto>,
    /// The parameters and running averages that are read.
    reads: HashSet<String>,
    names: HashSet<String>,
    /// The value of each step; of steps that evaluation does not need, none.
    steps: Vec<Option<String>>,
    /// The same where a statistic has one value for each group, before it is repeated for each channel.
    by_group: HashMap<usize, String>,
    /// Values by what computes them: constants, views, shapes.
    known: HashMap<Known, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Known {
    Number(Scalar),
    Shape(Vec<i64>),
    /// The input as `[N, channels, positions]`.
    View,
    /// A value as `[N, groups, the rest]`.
    Grouped(String, usize),
}

/// What a body consists of in the end.
struct Written {
    nodes: Vec<NodeProto>,
    reads: HashSet<String>,
}

impl Body<'_> {
    fn of(layer: &Layer, channels: usize, stored: &[TensorProto]) -> Result<Written, EmitError> {
        let taken: Vec<&str> = stored.iter().map(|tensor| tensor.name.as_str()).chain([INPUT, OUTPUT]).collect();
        let outline = Outline::new(&layer.dag, &taken);
        let names = taken.iter().copied().chain(outline.steps.iter().map(|step| step.name.as_str()));
        let mut body = Body {
            outline: &outline,
            channels,
            nodes: vec![],
            reads: HashSet::new(),
            names: names.map(str::to_owned).collect(),
            steps: vec![None; outline.steps.len()],
            by_group: HashMap::new(),
            known: HashMap::new(),
        };
        let needed = needed(&outline);
        for (index, step) in outline.steps.iter().enumerate().filter(|(index, _)| needed[*index]) {
            let value = match &step.value {
                Value::Expr(expr) => body.expr(expr, Some(&step.name))?,
                Value::Average(average) => body.average(index, &step.name, average)?,
            };
            body.steps[index] = Some(value);
        }
        let mut result = body.expr(&outline.result, None)?;
        let Axes { samples, channels, positions } = outline.result_axes;
        if !(samples && channels != Channels::One && positions) {
            let view = body.view();
            let shape = body.add_new("Shape", &[&view], "view_shape");
            result = body.add_new("Expand", &[&result, &shape], "result");
        }
        let shape = body.add_new("Shape", &[INPUT], "x_shape");
        body.add("Reshape", &[&result, &shape], OUTPUT);
        Ok(Written { nodes: body.nodes, reads: body.reads })
    }

    /// The value of an expression, called `name` if an operator computes it.
    fn expr(&mut self, expr: &Expr, name: Option<&str>) -> Result<String, EmitError> {
        let (operator, operands, stem) = match expr {
            Expr::Input => return Ok(self.view()),
            Expr::Constant(value) => return self.number(*value, None),
            Expr::Param(param) => return Ok(self.stored(&self.outline.dag.param(*param).name)),
            Expr::Step(step) => return Ok(self.step(*step)),
            Expr::Unary(prim, a) => {
                let a = self.expr(a, None)?;
                match text(*prim).onnx {
                    "square" => ("Mul", vec![a.clone(), a], "square"),
                    "signed_log" => ("Mul", self.sign_and("Log", &a), "log"),
                    "signed_sqrt" => ("Mul", self.sign_and("Sqrt", &a), "sqrt"),
                    operator => (operator, vec![a], prim.name()),
                }
            }
            Expr::Binary(Prim::Add, a, b) if matches!(**b, Expr::Unary(Prim::Neg, _)) => {
                let a = self.expr(a, None)?;
                let b = match &**b {
                    Expr::Unary(_, b) => self.expr(b, None)?,
                    _ => unreachable!("the arm is for unary operations"),
                };
                ("Sub", vec![a, b], "sub")
            }
            Expr::Binary(prim, a, b) => (text(*prim).onnx, vec![self.expr(a, None)?, self.expr(b, None)?], prim.name()),
            Expr::Root(average, eps) => {
                let mut radicand = self.expr(average, None)?;
                if *eps != Scalar::ZERO {
                    let eps = self.number(*eps, Some("eps"))?;
                    radicand = self.add_new("Add", &[&radicand, &eps], "radicand");
                }
                ("Sqrt", vec![radicand], self.root_name(average))
            }
        };
        let name = name.map_or_else(|| self.fresh(stem), str::to_owned);
        self.add(operator, &operands.iter().map(String::as_str).collect::<Vec<_>>(), &name);
        Ok(name)
    }

    /// What the formula calls the root of an average.
    fn root_name(&self, average: &Expr) -> &'static str {
        let Expr::Step(step) = average else { return "root" };
        match &self.outline.steps[*step].value {
            Value::Average(Average { quantity: Quantity::Variance, .. }) => "std",
            Value::Average(Average { quantity: Quantity::MeanSquare, .. }) => "rms",
            Value::Average(_) | Value::Expr(_) => "root",
        }
    }

    /// The factors of a function's odd extension: the sign, and the function of the absolute value.
    fn sign_and(&mut self, operator: &str, operand: &str) -> Vec<String> {
        let sign = self.add_new("Sign", &[operand], "sign");
        let abs = self.add_new("Abs", &[operand], "abs");
        let of_abs = self.add_new(operator, &[&abs], &format!("{}_abs", operator.to_lowercase()));
        vec![sign, of_abs]
    }

    /// The value of the step that is this average.
    fn average(&mut self, index: usize, name: &str, average: &Average) -> Result<String, EmitError> {
        if let Some(buffer) = average.buffer {
            return Ok(self.stored(&self.outline.buffers.list()[buffer].name));
        }
        let mut operand = self.expr(&average.operand, None)?;
        let [samples, mut channels, positions] = average.reduced();
        let mut groups = None;
        if let (IndexSet::Group(setting), true) = (average.over, channels) {
            let count = setting.count(self.channels).unwrap_or_else(|| unreachable!("the shape was checked"));
            channels = count == 1;
            groups = (count != 1 && count != self.channels).then_some(count);
        }
        if let Some(groups) = groups {
            operand = self.grouped(&operand, groups);
        }
        let positions = positions || groups.is_some();
        let axes: Vec<i64> = [(0, samples), (1, channels), (2, positions)]
            .into_iter()
            .filter(|axis| axis.1)
            .map(|axis| axis.0)
            .collect();
        let reduced = if groups.is_some() { self.fresh(&format!("{name}_by_group")) } else { name.to_owned() };
        let value = match average.quantity {
            Quantity::Mean => self.mean(&operand, &axes, &reduced),
            Quantity::MeanSquare => {
                let square = self.add_new("Mul", &[&operand, &operand], "square");
                self.mean(&square, &axes, &reduced)
            }
            Quantity::Variance => {
                let known =
                    average.mean.map(|mean| self.by_group.get(&mean).cloned().unwrap_or_else(|| self.step(mean)));
                let mean = known.unwrap_or_else(|| {
                    let name = self.fresh("mean");
                    self.mean(&operand, &axes, &name)
                });
                let deviation = self.add_new("Sub", &[&operand, &mean], "deviation");
                let square = self.add_new("Mul", &[&deviation, &deviation], "square");
                self.mean(&square, &axes, &reduced)
            }
        };
        let Some(groups) = groups else { return Ok(value) };
        // [N, groups, 1] -> [N, groups, channels of a group] -> [N, channels, 1]
        self.by_group.insert(index, value.clone());
        let repeats = self.shape(vec![1, 1, (self.channels / groups) as i64]);
        let repeated = self.add_new("Expand", &[&value, &repeats], &format!("{name}_repeated"));
        let shape = self.shape(vec![0, self.channels as i64, 1]);
        self.add("Reshape", &[&repeated, &shape], name);
        Ok(name.to_owned())
    }

    /// The mean along axes, which stay at size 1; along none, the operand itself.
    fn mean(&mut self, operand: &str, axes: &[i64], name: &str) -> String {
        if axes.is_empty() {
            return operand.to_owned();
        }
        let attribute = |name: &str| AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
        self.add("ReduceMean", &[operand], name);
        self.nodes.last_mut().unwrap_or_else(|| unreachable!("it was added above")).attribute = vec![
            AttributeProto { r#type: attribute_type::INTS, ints: axes.to_vec(), ..attribute("axes") },
            AttributeProto { r#type: attribute_type::INT, i: Some(1), ..attribute("keepdims") },
        ];
        name.to_owned()
    }

    fn view(&mut self) -> String {
        if let Some(name) = self.known.get(&Known::View) {
            return name.clone();
        }
        let shape = self.shape(vec![0, self.channels as i64, -1]);
        let name = self.add_new("Reshape", &[INPUT, &shape], "x_view");
        self.known.insert(Known::View, name.clone());
        name
    }

    fn grouped(&mut self, value: &str, groups: usize) -> String {
        let key = Known::Grouped(value.to_owned(), groups);
        if let Some(name) = self.known.get(&key) {
            return name.clone();
        }
        let shape = self.shape(vec![0, groups as i64, -1]);
        let name = self.add_new("Reshape", &[value, &shape], &format!("{value}_in_groups"));
        self.known.insert(key, name.clone());
        name
    }

    fn number(&mut self, value: Scalar, stem: Option<&str>) -> Result<String, EmitError> {
        if let Some(name) = self.known.get(&Known::Number(value)) {
            return Ok(name.clone());
        }
        // A value's name is an identifier.
        let digits = value.to_string().replace('-', "minus_").replace('.', "_");
        let name = self.fresh(&stem.map_or_else(|| format!("number_{digits}"), str::to_owned));
        self.constant(floats(vec![], &[single(value.get())?]), &name);
        self.known.insert(Known::Number(value), name.clone());
        Ok(name)
    }

    fn shape(&mut self, sizes: Vec<i64>) -> String {
        let key = Known::Shape(sizes);
        if let Some(name) = self.known.get(&key) {
            return name.clone();
        }
        let name = self.fresh("shape");
        if let Known::Shape(sizes) = &key {
            let raw_data = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
            let dims = vec![sizes.len() as i64];
            let data_type = data_type::INT64;
            self.constant(TensorProto { dims, data_type, raw_data: Some(raw_data), ..TensorProto::default() }, &name);
        }
        self.known.insert(key, name.clone());
        name
    }

    fn constant(&mut self, tensor: TensorProto, name: &str) {
        self.add("Constant", &[], name);
        self.nodes.last_mut().unwrap_or_else(|| unreachable!("it was added above")).attribute = vec![AttributeProto {
            name: "value".to_owned(),
            r#type: attribute_type::TENSOR,
            t: Some(Box::new(tensor)),
            ..AttributeProto::default()
        }];
    }

    fn stored(&mut self, name: &str) -> String {
        self.reads.insert(name.to_owned());
        name.to_owned()
    }

    fn step(&self, step: usize) -> String {
        self.steps[step].clone().unwrap_or_else(|| unreachable!("a step precedes its readers"))
    }

    fn add_new(&mut self, operator: &str, inputs: &[&str], stem: &str) -> String {
        let name = self.fresh(stem);
        self.add(operator, inputs, &name);
        name
    }

    /// Adds a node, called as what it computes.
    fn add(&mut self, operator: &str, inputs: &[&str], output: &str) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: operator.to_owned(),
            domain: String::new(),
            attribute: vec![],
        });
    }

    fn fresh(&mut self, stem: &str) -> String {
        let numbered = (2..).map(|number| format!("{stem}_{number}"));
        let name = [stem.to_owned()].into_iter().chain(numbered).find(|name| !self.names.contains(name));
        let name = name.unwrap_or_else(|| unreachable!("there are more numbers than names"));
        self.names.insert(name.clone());
        name
    }
}

/// The steps that the result depends on where batch statistics are read instead of computed.
fn needed(outline: &Outline<'_>) -> Vec<bool> {
    let mut needed = vec![false; outline.steps.len()];
    let read = |expr: &Expr, needed: &mut Vec<bool>| {
        expr.visit(&mut |part| {
            if let Expr::Step(step) = part {
                needed[*step] = true;
            }
        });
    };
    read(&outline.result, &mut needed);
    for (index, step) in outline.steps.iter().enumerate().rev() {
        match &step.value {
            _ if !needed[index] => {}
            Value::Expr(expr) => read(expr, &mut needed),
            Value::Average(average) if average.buffer.is_some() => {}
            Value::Average(average) => {
                read(&average.operand, &mut needed);
                average.mean.iter().for_each(|&mean| needed[mean] = true);
            }
        }
    }
    needed
}
