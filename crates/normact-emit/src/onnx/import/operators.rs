//! What each operator of ONNX does to what stands for tensors.

use normact_ir::{Groups, Running as Kept};
use normact_ir::{IndexSet, Moment, NodeId, Prim, Scalar, Tracking};
use std::cell::Cell;
use std::num::NonZeroU32;

use super::super::proto::{AttributeProto, NodeProto, TensorProto, data_type};
use super::graph::{Graph, default_tracking};
use super::tensor::{Integers, Numbers, shortest, stored};
use super::view::{Axis, MAX_RANK, Part, Size, View};
use super::{Failure, Reader, Running, Scope, Tensor, Value};

/// Runs a node of a standard operator; its value is that of its one output.
pub(super) fn apply(
    reader: &mut Reader<'_>,
    node: &NodeProto,
    inputs: &[Option<Value>],
    scope: &Scope<'_>,
) -> Result<Value, Failure> {
    if !["", "ai.onnx"].contains(&&*node.domain) {
        return because(format!("operators of the domain `{}` are not read", node.domain));
    }
    let mut call = Call { reader, node, inputs, scope, inputs_read: Cell::new(0) };
    let value = call.operator()?;
    let read = call.inputs_read.get();
    if let Some(further) = inputs.iter().skip(read).position(Option::is_some) {
        return because(format!("its input {} has no meaning in a layer", read + further));
    }
    match node.output.iter().skip(1).find(|output| !output.is_empty()) {
        Some(output) => because(format!("its output `{output}` has no meaning in a layer")),
        None => Ok(value),
    }
}

/// An attribute of a node within a function whose attributes are `outer`.
pub(super) fn resolved(attribute: &AttributeProto, outer: &[AttributeProto]) -> Result<AttributeProto, Failure> {
    if attribute.ref_attr_name.is_empty() {
        return Ok(attribute.clone());
    }
    let referred = outer.iter().find(|outer| outer.name == attribute.ref_attr_name);
    let referred = referred.ok_or_else(|| {
        Failure::Because(format!("its attribute `{}` is not given to the function", attribute.ref_attr_name))
    })?;
    Ok(AttributeProto { name: attribute.name.clone(), ..referred.clone() })
}

fn because<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Because(message.into()))
}

struct Call<'a, 'model> {
    reader: &'a mut Reader<'model>,
    node: &'a NodeProto,
    inputs: &'a [Option<Value>],
    scope: &'a Scope<'a>,
    /// How many inputs were looked at: an operator that is read has no others.
    inputs_read: Cell<usize>,
}

impl Call<'_, '_> {
    fn operator(&mut self) -> Result<Value, Failure> {
        match &*self.node.op_type {
            "Abs" => self.prim(Prim::Abs),
            "Erf" => self.prim(Prim::Erf),
            "Exp" => self.prim(Prim::Exp),
            "Neg" => self.prim(Prim::Neg),
            "Sigmoid" => self.prim(Prim::Sigmoid),
            "Sign" => self.prim(Prim::Sign),
            "Tanh" => self.prim(Prim::Tanh),
            "Sqrt" => self.unary(|graph, x| graph.sqrt(x)),
            "Log" => self.unary(|graph, x| graph.log(x)),
            "Reciprocal" => self.unary(|graph, x| Ok(reciprocal(graph, x))),
            "Pow" => self.power(),

            "Relu" => self.unary(|graph, x| Ok(relu(graph, x))),
            "LeakyRelu" => self.with_number("alpha", 0.01, leaky_relu),
            "Elu" => self.with_number("alpha", 1.0, |graph, x, alpha| elu(graph, x, alpha, 1.0)),
            "Celu" if self.float("alpha", 1.0)? <= 0.0 => because("its alpha is not positive"),
            "Celu" => self.with_number("alpha", 1.0, |graph, x, alpha| elu(graph, x, alpha, alpha)),
            "Selu" => {
                let gamma = self.float("gamma", 1.050_701)?;
                self.with_number("alpha", 1.673_263_2, |graph, x, alpha| {
                    let elu = elu(graph, x, alpha, 1.0);
                    scaled(graph, elu, gamma)
                })
            }
            "HardSigmoid" => {
                let beta = self.float("beta", 0.5)?;
                self.with_number("alpha", 0.2, |graph, x, alpha| hard_sigmoid(graph, x, alpha, beta))
            }
            "HardSwish" => self.unary(|graph, x| {
                let gate = hard_sigmoid(graph, x, 1.0 / 6.0, 0.5);
                Ok(graph.mul(x, gate))
            }),
            "Softplus" => self.unary(|graph, x| Ok(softplus(graph, x))),
            "Softsign" => self.unary(|graph, x| {
                let abs = graph.unary(Prim::Abs, x);
                let divisor = shifted(graph, abs, 1.0);
                Ok(graph.div(x, divisor))
            }),
            "Mish" => self.unary(|graph, x| {
                let softplus = softplus(graph, x);
                let gate = graph.unary(Prim::Tanh, softplus);
                Ok(graph.mul(x, gate))
            }),
            "Swish" => self.with_number("alpha", 1.0, |graph, x, alpha| {
                let operand = if alpha == 1.0 { x } else { scaled(graph, x, alpha) };
                let gate = graph.unary(Prim::Sigmoid, operand);
                graph.mul(x, gate)
            }),
            "Gelu" => match &*self.text("approximate", "none")? {
                "none" => self.unary(|graph, x| Ok(gelu(graph, x))),
                "tanh" => self.unary(|graph, x| Ok(gelu_tanh(graph, x))),
                other => because(format!("its approximation `{other}` is not one of ONNX")),
            },
            "PRelu" => self.binary(|graph, x, slope| {
                let (positive, negative) = (relu(graph, x), negative_part(graph, x));
                let negative = graph.mul(negative, slope);
                graph.add(positive, negative)
            }),
            "Clip" => self.clip(),

            "Add" => self.arithmetic(i64::checked_add, Graph::add),
            "Sub" => self.arithmetic(i64::checked_sub, Graph::sub),
            "Mul" => self.arithmetic(i64::checked_mul, Graph::mul),
            "Div" => self.arithmetic(floored_quotient, Graph::div),
            "Max" => self.variadic(Graph::max),
            "Min" => self.variadic(Graph::min),
            "Sum" => self.variadic(Graph::add),
            "Mean" => {
                let sum = self.variadic(Graph::add)?;
                let Tensor { node, view } = self.reader.tensor(&sum)?;
                let count = self.reader.graph.number(self.inputs.len() as f64);
                Ok(Value::Tensor(Tensor { node: self.reader.graph.div(node, count), view }))
            }

            "ReduceMean" => self.reduce(false),
            "ReduceSum" => self.reduce(true),
            "GlobalAveragePool" => {
                let Tensor { node, view } = self.tensor(0)?;
                let axes: Vec<usize> = (2..view.0.len()).collect();
                self.mean(node, &view, &axes, true)
            }
            "BatchNormalization" => self.batch_normalization(),
            "InstanceNormalization" => {
                let Tensor { view, .. } = self.tensor(0)?;
                let parts = view.0.iter().skip(2).flatten().copied().collect();
                self.normalization(parts, Centre::Mean, 1)
            }
            "LayerNormalization" => self.layer_normalization(Centre::Mean),
            "RMSNormalization" => self.layer_normalization(Centre::Zero),
            "GroupNormalization" => self.group_normalization(),

            "Identity" => self.value(0).cloned(),
            "Dropout" => {
                // The share of elements that training drops; evaluation drops none.
                let _ = self.optional(1);
                self.value(0).cloned()
            }
            "Cast" => self.cast(),
            "Constant" => self.constant(),
            "ConstantOfShape" => self.constant_of_shape(),
            "Shape" => self.shape(),
            "Size" => self.size(),
            "Gather" => self.gather(),
            "Slice" => self.slice(),
            "Concat" => self.concat(),
            "Equal" => self.equal(),
            "Where" => self.choose(),
            "Reshape" => self.reshape(),
            "Flatten" => self.flatten(),
            "Expand" => self.expand(),
            "Squeeze" => self.squeeze(),
            "Unsqueeze" => self.unsqueeze(),
            "Transpose" => self.transpose(),
            "" => because("it has no operator"),
            _ => because("the language has no operation like it"),
        }
    }
}

/// An operation on two nodes of the layer's graph.
type Binary = fn(&mut Graph, NodeId, NodeId) -> NodeId;

/// Inputs and attributes.
impl Call<'_, '_> {
    fn optional(&self, index: usize) -> Option<&Value> {
        self.inputs_read.set(self.inputs_read.get().max(index + 1));
        self.inputs.get(index).and_then(Option::as_ref)
    }

    fn value(&self, index: usize) -> Result<&Value, Failure> {
        match self.optional(index) {
            Some(Value::Unknown) => Err(Failure::Operand),
            Some(Value::Unreadable(message)) => because(&**message),
            Some(value) => Ok(value),
            None => because(format!("its input {index} is missing")),
        }
    }

    fn tensor(&mut self, index: usize) -> Result<Tensor, Failure> {
        let value = self.value(index)?.clone();
        self.reader.tensor(&value)
    }

    fn integers(&self, index: usize) -> Result<Integers, Failure> {
        match self.value(index)? {
            Value::Integers(integers) => Ok(integers.clone()),
            _ => because(format!("its input {index} is no list of integers that is known without the input")),
        }
    }

    fn known_integers(&self, index: usize) -> Result<Vec<i64>, Failure> {
        let list = self.integers(index)?.list;
        let known: Option<Vec<i64>> = list.iter().map(|size| self.reader.sizes.number(size)).collect();
        known.map_or_else(|| because(format!("its input {index} depends on sizes that are not fixed")), Ok)
    }

    fn attribute(&self, name: &str) -> Result<Option<AttributeProto>, Failure> {
        let attribute = self.node.attribute.iter().find(|attribute| attribute.name == name);
        attribute.map(|attribute| resolved(attribute, self.scope.attributes)).transpose()
    }

    fn attribute_of<T>(
        &self,
        name: &str,
        read: impl FnOnce(AttributeProto) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(attribute) = self.attribute(name)? else { return Ok(None) };
        let wrong = || Failure::Because(format!("its attribute `{name}` is of another type than it has in ONNX"));
        read(attribute).ok_or_else(wrong).map(Some)
    }

    fn int(&self, name: &str, default: i64) -> Result<i64, Failure> {
        Ok(self.attribute_of(name, |attribute| attribute.i)?.unwrap_or(default))
    }

    fn float(&self, name: &str, default: f32) -> Result<f64, Failure> {
        let value = self.attribute_of(name, |attribute| attribute.f)?.unwrap_or(default);
        if value.is_finite() { Ok(shortest(value)) } else { because(format!("its attribute `{name}` is {value}")) }
    }

    fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, Failure> {
        self.attribute_of(name, |attribute| Some(attribute.ints))
    }

    fn text(&self, name: &str, default: &str) -> Result<String, Failure> {
        let text = self.attribute_of(name, |attribute| String::from_utf8(attribute.s?).ok())?;
        Ok(text.unwrap_or_else(|| default.to_owned()))
    }

    /// The axes of a node: an attribute, or from some version on an input.
    fn axes(&self) -> Result<Option<Vec<i64>>, Failure> {
        match self.ints("axes")? {
            Some(axes) => Ok(Some(axes)),
            None if self.optional(1).is_some() => self.known_integers(1).map(Some),
            None => Ok(None),
        }
    }
}

/// The number of an axis, counted from the end where it is negative.
fn axis_of(axis: i64, rank: usize) -> Result<usize, Failure> {
    let from_front = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    match usize::try_from(from_front) {
        Ok(axis) if axis < rank => Ok(axis),
        _ => because(format!("it has an axis {axis}, where there are {rank}")),
    }
}

fn axes_of(axes: &[i64], rank: usize) -> Result<Vec<usize>, Failure> {
    axes.iter().map(|&axis| axis_of(axis, rank)).collect()
}

/// Elementwise operators.
impl Call<'_, '_> {
    fn unary(&mut self, f: impl FnOnce(&mut Graph, NodeId) -> Result<NodeId, String>) -> Result<Value, Failure> {
        let Tensor { node, view } = self.tensor(0)?;
        let node = f(&mut self.reader.graph, node)?;
        Ok(Value::Tensor(Tensor { node, view }))
    }

    fn prim(&mut self, prim: Prim) -> Result<Value, Failure> {
        self.unary(|graph, x| Ok(graph.unary(prim, x)))
    }

    fn with_number(
        &mut self,
        name: &str,
        default: f32,
        f: impl FnOnce(&mut Graph, NodeId, f64) -> NodeId,
    ) -> Result<Value, Failure> {
        let number = self.float(name, default)?;
        self.unary(|graph, x| Ok(f(graph, x, number)))
    }

    fn binary(&mut self, f: impl FnOnce(&mut Graph, NodeId, NodeId) -> NodeId) -> Result<Value, Failure> {
        let (a, b) = (self.tensor(0)?, self.tensor(1)?);
        self.combined(a, b, f).map(Value::Tensor)
    }

    fn combined(
        &mut self,
        a: Tensor,
        b: Tensor,
        f: impl FnOnce(&mut Graph, NodeId, NodeId) -> NodeId,
    ) -> Result<Tensor, Failure> {
        let view = self.reader.sizes.broadcast(&a.view, &b.view)?;
        Ok(Tensor { node: f(&mut self.reader.graph, a.node, b.node), view })
    }

    fn variadic(&mut self, f: impl Fn(&mut Graph, NodeId, NodeId) -> NodeId) -> Result<Value, Failure> {
        let mut value = self.tensor(0)?;
        for index in 1..self.inputs.len() {
            let next = self.tensor(index)?;
            value = self.combined(value, next, &f)?;
        }
        Ok(Value::Tensor(value))
    }

    /// Arithmetic, of shapes too.
    fn arithmetic(&mut self, of_integers: fn(i64, i64) -> Option<i64>, of_tensors: Binary) -> Result<Value, Failure> {
        let (Value::Integers(_), Value::Integers(_)) = (self.value(0)?, self.value(1)?) else {
            return self.binary(of_tensors);
        };
        let sizes = self.reader.sizes.clone();
        self.integers_from([0, 1], |[a, b]| {
            let of_sizes = sizes.number(a).zip(sizes.number(b)).and_then(|(a, b)| of_integers(a, b));
            of_sizes.map(Size::Number).ok_or("it computes with sizes that are not fixed")
        })
    }

    /// A list of integers, element by element from others, of which those of one element are repeated.
    fn integers_from<const N: usize>(
        &self,
        inputs: [usize; N],
        f: impl Fn([&Size; N]) -> Result<Size, &'static str>,
    ) -> Result<Value, Failure> {
        let mut lists = vec![];
        for input in inputs {
            lists.push(self.integers(input)?);
        }
        let len = lists.iter().map(|list| list.list.len()).max().unwrap_or(0);
        if lists.iter().any(|list| ![1, len].contains(&list.list.len())) {
            return because("its lists have different lengths");
        }
        let element = |index: usize| {
            f(std::array::from_fn(|list| {
                let list = &lists[list].list;
                &list[if list.len() == 1 { 0 } else { index }]
            }))
        };
        let list = (0..len).map(element).collect::<Result<_, _>>().map_err(str::to_owned)?;
        Ok(Value::Integers(Integers { list, is_scalar: lists.iter().all(|list| list.is_scalar) }))
    }

    fn power(&mut self) -> Result<Value, Failure> {
        let exponent = match self.value(1)? {
            Value::Numbers(numbers) if numbers.len() == 1 => numbers.uniform(),
            Value::Integers(Integers { list, .. }) => match list[..] {
                [Size::Number(number)] => Some(number as f64),
                _ => None,
            },
            _ => None,
        };
        let Some(exponent) = exponent else { return because("its exponent is not one number") };
        let is_inverse = exponent < 0.0;
        let power: fn(&mut Graph, NodeId) -> Result<NodeId, String> = match exponent.abs() {
            0.5 => |graph, x| graph.sqrt(x),
            1.0 => |_, x| Ok(x),
            2.0 => |graph, x| Ok(graph.mul(x, x)),
            3.0 => |graph, x| {
                let square = graph.mul(x, x);
                Ok(graph.mul(x, square))
            },
            4.0 => |graph, x| {
                let square = graph.mul(x, x);
                Ok(graph.mul(square, square))
            },
            _ => return because(format!("its exponent {exponent} is none of 0.5, 1, 2, 3, 4 and their negatives")),
        };
        self.unary(|graph, x| {
            let power = power(graph, x)?;
            Ok(if is_inverse { reciprocal(graph, power) } else { power })
        })
    }

    fn clip(&mut self) -> Result<Value, Failure> {
        let mut value = self.tensor(0)?;
        let bounds: [(&str, Binary); 2] = [("min", Graph::max), ("max", Graph::min)];
        for (index, (name, f)) in bounds.into_iter().enumerate() {
            let bound = if self.scope.opset >= 11 {
                self.optional(index + 1).cloned()
            } else {
                let bound = self.attribute_of(name, |attribute| attribute.f)?;
                bound.map(|bound| Value::Numbers(Numbers::scalar(shortest(bound))))
            };
            let Some(bound) = bound else { continue };
            if let Value::Numbers(numbers) = &bound
                && numbers.uniform().is_some_and(|bound| bound.abs() >= shortest(f32::MAX))
            {
                continue;
            }
            let bound = self.reader.tensor(&bound)?;
            value = self.combined(value, bound, f)?;
        }
        Ok(Value::Tensor(value))
    }
}

fn floored_quotient(a: i64, b: i64) -> Option<i64> {
    a.checked_div(b)
}

/// `x + number`
fn shifted(graph: &mut Graph, x: NodeId, number: f64) -> NodeId {
    let number = graph.number(number);
    graph.add(x, number)
}

/// `number * x`
fn scaled(graph: &mut Graph, x: NodeId, number: f64) -> NodeId {
    let number = graph.number(number);
    graph.mul(number, x)
}

fn reciprocal(graph: &mut Graph, x: NodeId) -> NodeId {
    let one = graph.number(1.0);
    graph.div(one, x)
}

/// `max(x, 0)`
fn relu(graph: &mut Graph, x: NodeId) -> NodeId {
    let zero = graph.number(0.0);
    graph.max(x, zero)
}

/// `min(x, 0)`
fn negative_part(graph: &mut Graph, x: NodeId) -> NodeId {
    let zero = graph.number(0.0);
    graph.min(x, zero)
}

fn leaky_relu(graph: &mut Graph, x: NodeId, alpha: f64) -> NodeId {
    if (0.0..=1.0).contains(&alpha) {
        let flat = scaled(graph, x, alpha);
        return graph.max(x, flat);
    }
    let (positive, negative) = (relu(graph, x), negative_part(graph, x));
    let negative = scaled(graph, negative, alpha);
    graph.add(positive, negative)
}

/// `max(x, 0) + alpha * (exp(min(x, 0) / width) - 1)`
fn elu(graph: &mut Graph, x: NodeId, alpha: f64, width: f64) -> NodeId {
    let positive = relu(graph, x);
    let mut negative = negative_part(graph, x);
    if width != 1.0 {
        let width = graph.number(width);
        negative = graph.div(negative, width);
    }
    let exp = graph.unary(Prim::Exp, negative);
    let mut curve = shifted(graph, exp, -1.0);
    if alpha != 1.0 {
        curve = scaled(graph, curve, alpha);
    }
    graph.add(positive, curve)
}

/// `min(max(alpha * x + beta, 0), 1)`
fn hard_sigmoid(graph: &mut Graph, x: NodeId, alpha: f64, beta: f64) -> NodeId {
    let slope = scaled(graph, x, alpha);
    let line = shifted(graph, slope, beta);
    let positive = relu(graph, line);
    let one = graph.number(1.0);
    graph.min(positive, one)
}

/// `max(x, 0) + log(1 + exp(-abs(x)))`
fn softplus(graph: &mut Graph, x: NodeId) -> NodeId {
    let positive = relu(graph, x);
    let abs = graph.unary(Prim::Abs, x);
    let negative = graph.neg(abs);
    let exp = graph.unary(Prim::Exp, negative);
    let sum = shifted(graph, exp, 1.0);
    let log = graph.unary(Prim::Log, sum);
    graph.add(positive, log)
}

/// `0.5 * x * (1 + erf(x / sqrt(2)))`
fn gelu(graph: &mut Graph, x: NodeId) -> NodeId {
    let root = graph.number(std::f64::consts::SQRT_2);
    let operand = graph.div(x, root);
    let erf = graph.unary(Prim::Erf, operand);
    let gate = shifted(graph, erf, 1.0);
    let half = scaled(graph, x, 0.5);
    graph.mul(half, gate)
}

/// `0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))`
fn gelu_tanh(graph: &mut Graph, x: NodeId) -> NodeId {
    let square = graph.mul(x, x);
    let cube = graph.mul(x, square);
    let cubic = scaled(graph, cube, 0.044715);
    let sum = graph.add(x, cubic);
    let operand = scaled(graph, sum, (2.0 / std::f64::consts::PI).sqrt());
    let tanh = graph.unary(Prim::Tanh, operand);
    let gate = shifted(graph, tanh, 1.0);
    let half = scaled(graph, x, 0.5);
    graph.mul(half, gate)
}

/// What a normalization takes its operand to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Centre {
    Mean,
    Zero,
}

/// Averages and normalizations.
impl Call<'_, '_> {
    /// `ReduceMean`, or `ReduceSum`, which is the mean times the number of elements if that is known.
    fn reduce(&mut self, is_sum: bool) -> Result<Value, Failure> {
        let axes = self.axes()?.filter(|axes| !axes.is_empty());
        let keeps_axes = self.int("keepdims", 1)? != 0;
        if axes.is_none() && self.int("noop_with_empty_axes", 0)? != 0 {
            return self.value(0).cloned();
        }
        let Tensor { node, view } = self.tensor(0)?;
        let axes = axes.map_or_else(|| Ok((0..view.0.len()).collect()), |axes| axes_of(&axes, view.0.len()))?;
        let mean = self.mean(node, &view, &axes, keeps_axes)?;
        if !is_sum {
            return Ok(mean);
        }
        let parts: Axis = view
            .0
            .iter()
            .enumerate()
            .filter(|(axis, _)| axes.contains(axis))
            .flat_map(|(_, axis)| axis)
            .copied()
            .collect();
        let Some(count) = self.reader.sizes.along(&parts) else {
            return because("the number of elements of the sum is not fixed");
        };
        let Tensor { node, view } = self.reader.tensor(&mean)?;
        Ok(Value::Tensor(Tensor { node: scaled(&mut self.reader.graph, node, count as f64), view }))
    }

    fn mean(&mut self, node: NodeId, view: &View, axes: &[usize], keeps_axes: bool) -> Result<Value, Failure> {
        let mut reduced = vec![];
        let (mut left, mut parts) = (vec![], Axis::new());
        for (number, axis) in view.0.iter().enumerate() {
            if !axes.contains(&number) {
                left.push(axis.clone());
                continue;
            }
            reduced.push(number);
            parts.extend(axis);
            if keeps_axes {
                left.push(vec![]);
            }
        }
        let node = match self.index_set(node, &parts)? {
            Some(over) => self.reader.graph.mean(over, node),
            None => node,
        };
        Ok(Value::Tensor(Tensor { node, view: View(left) }))
    }

    fn index_set(&self, node: NodeId, parts: &[Part]) -> Result<Option<IndexSet>, Failure> {
        Ok(self.reader.sizes.index_set(self.reader.graph.axes(node), parts)?)
    }

    /// `eps`, under its name in ONNX.
    fn epsilon(&self) -> Result<Scalar, Failure> {
        match Scalar::new(self.float("epsilon", 1e-5)?) {
            Some(eps) if eps >= Scalar::ZERO => Ok(eps),
            _ => because("its epsilon is negative"),
        }
    }

    /// The operand less its mean over parts of the input, if it has a centre, by its standard deviation or root
    /// mean square; scaled and shifted by inputs 1 and 2, whose last axis is number `axis` of the operand, or
    /// its last for `usize::MAX`.
    fn normalization(&mut self, parts: Axis, centre: Centre, axis: usize) -> Result<Value, Failure> {
        let Tensor { node, view } = self.tensor(0)?;
        let eps = self.epsilon()?;
        let over = self.index_set(node, &parts)?;
        let graph = &mut self.reader.graph;
        let node = match (over, centre) {
            (Some(over), Centre::Mean) => {
                let mean = graph.mean(over, node);
                let deviation = graph.sub(node, mean);
                let std = graph.moment(Moment::Std, over, node, eps, default_tracking());
                graph.div(deviation, std)
            }
            (Some(over), Centre::Zero) => {
                let rms = graph.moment(Moment::Rms, over, node, eps, default_tracking());
                graph.div(node, rms)
            }
            (None, _) => return because("its operand is the same along the axes that it normalizes"),
        };
        let below = (view.0.len() - 1).saturating_sub(axis);
        self.scaled_and_shifted(Tensor { node, view }, below).map(Value::Tensor)
    }

    /// Times input 1, plus input 2, as far as there are any; these have `below` axes of size 1 after theirs.
    fn scaled_and_shifted(&mut self, mut value: Tensor, below: usize) -> Result<Tensor, Failure> {
        let steps: [(usize, Binary, Scalar); 2] = [(1, Graph::mul, Scalar::ONE), (2, Graph::add, Scalar::ZERO)];
        for (input, f, identity) in steps {
            if self.optional(input).is_none() {
                continue;
            }
            let mut by = self.tensor(input)?;
            by.view.0.extend(vec![vec![]; below]);
            let changes_nothing = self.reader.graph.number_of(by.node) == Some(identity);
            value =
                self.combined(value, by, |graph, value, by| if changes_nothing { value } else { f(graph, value, by) })?;
        }
        Ok(value)
    }

    fn layer_normalization(&mut self, centre: Centre) -> Result<Value, Failure> {
        let Tensor { view, .. } = self.tensor(0)?;
        let first = axis_of(self.int("axis", -1)?, view.0.len())?;
        let parts = view.0[first..].iter().flatten().copied().collect();
        self.normalization(parts, centre, usize::MAX)
    }

    fn group_normalization(&mut self) -> Result<Value, Failure> {
        let Tensor { view, .. } = self.tensor(0)?;
        let groups = u32::try_from(self.int("num_groups", 0)?).ok().and_then(NonZeroU32::new);
        let Some(groups) = groups else { return because("it has no number of groups") };
        let channels = self.reader.sizes.channels;
        if Groups::Exactly(groups).count(channels).is_none() {
            return because(format!("{groups} groups do not divide {channels} channels"));
        }
        self.expect_channels(&view)?;
        let groups = groups.get() as usize;
        let split = if groups == 1 { [Part::Channels].to_vec() } else { [Part::Within(groups)].to_vec() };
        let split = if groups == channels { vec![] } else { split };
        let parts = split.into_iter().chain(view.0.iter().skip(2).flatten().copied()).collect();
        self.normalization(parts, Centre::Mean, 1)
    }

    fn expect_channels(&self, view: &View) -> Result<(), Failure> {
        if view.0.get(1).is_some_and(|axis| axis[..] == [Part::Channels]) {
            return Ok(());
        }
        because(format!("axis 1 of its operand, of shape {}, is not the channels", self.reader.sizes.shown(view)))
    }

    fn batch_normalization(&mut self) -> Result<Value, Failure> {
        let Tensor { node, view } = self.tensor(0)?;
        self.expect_channels(&view)?;
        if self.int("training_mode", 0)? != 0 {
            return because("it is in training mode; a layer is read from a model for evaluation");
        }
        if !self.reader.graph.axes(node).samples {
            return because("its operand is the same for all samples, of which a layer keeps no running average");
        }
        // The weight of the new value, which is 1 less the one of ONNX but for rounding.
        let momentum = (1.0 - self.float("momentum", 0.9)?).clamp(0.0, 1.0);
        let momentum = Scalar::new((momentum * 1e7).round() / 1e7).unwrap_or(Scalar::ZERO);
        let tracking = Tracking { momentum, running: Kept::Biased };
        let eps = self.epsilon()?;
        let (means, variances) = (self.running(3)?, self.running(4)?);
        let graph = &mut self.reader.graph;
        let mean = graph.moment(Moment::Mean, IndexSet::Batch, node, Scalar::ZERO, tracking);
        let std = graph.moment(Moment::Std, IndexSet::Batch, node, eps, tracking);
        let deviation = graph.sub(node, mean);
        let node = graph.div(deviation, std);
        let below = view.0.len() - 2;
        self.reader.running.push(Running { moment: mean, values: means });
        self.reader.running.push(Running { moment: std, values: variances });
        self.scaled_and_shifted(Tensor { node, view }, below).map(Value::Tensor)
    }

    /// Stored running averages, one for each channel.
    fn running(&self, input: usize) -> Result<Vec<f64>, Failure> {
        match self.value(input)? {
            Value::Numbers(numbers) if numbers.dims == [self.reader.sizes.channels] => {
                if numbers.values.iter().any(|value| !(*value as f32).is_finite()) {
                    return because(format!("its input {input} has values that are not finite in float32"));
                }
                Ok(numbers.values.to_vec())
            }
            _ => because(format!("its input {input} is not stored in the model with one value for each channel")),
        }
    }
}

/// Constants, shapes and views.
impl Call<'_, '_> {
    fn cast(&mut self) -> Result<Value, Failure> {
        let to = i32::try_from(self.int("to", 0)?).unwrap_or(0);
        let is_float = [data_type::FLOAT, data_type::DOUBLE].contains(&to);
        let is_integer = [data_type::INT32, data_type::INT64, data_type::BOOL].contains(&to);
        match self.value(0)? {
            value @ (Value::Tensor(_) | Value::Numbers(_)) if is_float => Ok(value.clone()),
            value @ Value::Integers(_) if is_integer => Ok(value.clone()),
            Value::Integers(integers) if is_float && integers.list.len() == 1 => {
                let dims = if integers.is_scalar { vec![] } else { vec![1] };
                let value = self.known_integers(0)?[0] as f64;
                Ok(Value::Numbers(Numbers::new(dims, vec![value], None)))
            }
            _ => because(format!("it changes the type of elements to {to} of ONNX")),
        }
    }

    fn constant(&self) -> Result<Value, Failure> {
        if let Some(tensor) = self.attribute_of("value", |attribute| attribute.t)? {
            return Ok(stored(&tensor, None)?.into());
        }
        if self.attribute("value_float")?.is_some() {
            return Ok(Value::Numbers(Numbers::scalar(self.float("value_float", 0.0)?)));
        }
        if self.attribute("value_int")?.is_some() {
            let list = vec![Size::Number(self.int("value_int", 0)?)];
            return Ok(Value::Integers(Integers { list, is_scalar: true }));
        }
        if let Some(ints) = self.ints("value_ints")? {
            return list_of(ints.into_iter().map(Size::Number).collect());
        }
        because("its value is none of a tensor, a number and a list of integers")
    }

    fn constant_of_shape(&mut self) -> Result<Value, Failure> {
        let shape = self.integers(0)?.list;
        let zero = || TensorProto {
            dims: vec![1],
            data_type: data_type::FLOAT,
            float_data: vec![0.0],
            ..TensorProto::default()
        };
        let tensor = self.attribute_of("value", |attribute| attribute.t)?.map_or_else(zero, |tensor| *tensor);
        match Value::from(stored(&tensor, None)?) {
            Value::Integers(Integers { list, .. }) => match (&shape[..], &list[..]) {
                ([size], [value]) => match self.reader.sizes.number(size).map(usize::try_from) {
                    Some(Ok(len)) if len <= MAX_RANK => list_of(vec![value.clone(); len]),
                    _ => because("it makes a long list of integers"),
                },
                _ => because("it makes a tensor of integers"),
            },
            value => {
                let Tensor { node, view } = self.reader.tensor(&value)?;
                let view = self.reader.sizes.expanded(&View(vec![vec![]; view.0.len().min(shape.len())]), &shape)?;
                Ok(Value::Tensor(Tensor { node, view }))
            }
        }
    }

    fn shape(&self) -> Result<Value, Failure> {
        let list: Vec<Size> = match self.value(0)? {
            Value::Tensor(tensor) => tensor.view.0.iter().cloned().map(Size::Axis).collect(),
            Value::Numbers(numbers) => numbers.dims.iter().map(|&size| Size::Number(size as i64)).collect(),
            _ => return because("it is of a list of integers"),
        };
        let bound =
            |at: i64| (if at < 0 { at.saturating_add(list.len() as i64) } else { at }).clamp(0, list.len() as i64);
        let (start, end) = (bound(self.int("start", 0)?), bound(self.int("end", i64::MAX)?));
        list_of(list.get(start as usize..end as usize).unwrap_or_default().to_vec())
    }

    fn size(&self) -> Result<Value, Failure> {
        let Value::Tensor(tensor) = self.value(0)? else { return because("it is not of a part of the layer") };
        let parts: Axis = tensor.view.0.iter().flatten().copied().collect();
        Ok(Value::Integers(Integers { list: vec![Size::Axis(parts)], is_scalar: true }))
    }

    fn gather(&self) -> Result<Value, Failure> {
        let Value::Integers(Integers { list, .. }) = self.value(0)? else {
            return because("it picks elements of a tensor, and the language has no such operation");
        };
        let indices = self.integers(1)?;
        let picked = self.known_integers(1)?.into_iter().map(|index| Ok(list[axis_of(index, list.len())?].clone()));
        let list = picked.collect::<Result<_, Failure>>()?;
        Ok(Value::Integers(Integers { list, is_scalar: indices.is_scalar }))
    }

    fn slice(&self) -> Result<Value, Failure> {
        let Value::Integers(Integers { list, .. }) = self.value(0)? else {
            return because("it picks elements of a tensor, and the language has no such operation");
        };
        let (starts, ends) = match (self.ints("starts")?, self.ints("ends")?) {
            (Some(starts), Some(ends)) => (starts, ends),
            _ => (self.known_integers(1)?, self.known_integers(2)?),
        };
        let steps = if self.optional(4).is_some() { self.known_integers(4)? } else { vec![1] };
        let ([start], [end], [1]) = (&starts[..], &ends[..], &steps[..]) else {
            return because("it is more than a part of a shape");
        };
        let bound =
            |at: i64| (if at < 0 { at.saturating_add(list.len() as i64) } else { at }).clamp(0, list.len() as i64);
        list_of(list.get(bound(*start) as usize..bound(*end) as usize).unwrap_or_default().to_vec())
    }

    fn concat(&self) -> Result<Value, Failure> {
        let mut list = vec![];
        for index in 0..self.inputs.len() {
            let Value::Integers(integers) = self.value(index)? else {
                return because("it joins tensors, and the language has no such operation");
            };
            list.extend(integers.list.iter().cloned());
            if list.len() > MAX_RANK {
                return because(format!("it makes a shape of more than {MAX_RANK} axes"));
            }
        }
        list_of(list)
    }

    /// Whether sizes are equal, as far as that is known, in ones and zeros.
    fn equal(&self) -> Result<Value, Failure> {
        let sizes = &self.reader.sizes;
        self.integers_from([0, 1], |[a, b]| match (sizes.number(a), sizes.number(b)) {
            _ if a == b => Ok(Size::Number(1)),
            (Some(a), Some(b)) => Ok(Size::Number(i64::from(a == b))),
            // A size is positive.
            (Some(number), None) | (None, Some(number)) if number < 1 => Ok(Size::Number(0)),
            _ => Err("it compares sizes that are not fixed"),
        })
    }

    fn choose(&self) -> Result<Value, Failure> {
        if !matches!(self.value(0)?, Value::Integers(_)) {
            return because("it chooses by numbers, and the language has no such operation");
        }
        self.integers_from([0, 1, 2], |[condition, a, b]| match condition {
            Size::Number(0) => Ok(b.clone()),
            Size::Number(_) => Ok(a.clone()),
            Size::Axis(_) => Err("it chooses by a size"),
        })
    }

    fn reshape(&mut self) -> Result<Value, Failure> {
        let shape = match self.ints("shape")? {
            Some(shape) => shape.into_iter().map(Size::Number).collect(),
            None => self.integers(1)?.list,
        };
        if shape.len() > MAX_RANK {
            return because(format!("it makes a tensor of {} axes", shape.len()));
        }
        if self.int("allowzero", 0)? != 0 && shape.contains(&Size::Number(0)) {
            return because("it makes an empty tensor");
        }
        match self.value(0)? {
            Value::Numbers(numbers) => {
                let sizes = shape.iter().map(|size| self.reader.sizes.number(size)).collect::<Option<Vec<i64>>>();
                match sizes.and_then(|sizes| reshaped_dims(&numbers.dims, &sizes)) {
                    // One value per channel, in groups.
                    Some(dims) if dims.iter().filter(|&&size| size != 1).count() > 1 => self.reshape_tensor(&shape),
                    Some(dims) => Ok(Value::Numbers(Numbers { dims, ..numbers.clone() })),
                    None => because(format!("it gives another shape to {} stored numbers", numbers.len())),
                }
            }
            // Between a number and a list of one.
            Value::Integers(integers) if integers.list.len() == 1 && shape.len() <= 1 => {
                Ok(Value::Integers(Integers { is_scalar: shape.is_empty(), ..integers.clone() }))
            }
            Value::Integers(integers) if shape.len() == 1 => Ok(Value::Integers(integers.clone())),
            Value::Integers(_) => because("it makes a tensor of integers"),
            Value::Tensor(_) | Value::Unknown | Value::Unreadable(_) => self.reshape_tensor(&shape),
        }
    }

    fn reshape_tensor(&mut self, shape: &[Size]) -> Result<Value, Failure> {
        let Tensor { node, view } = self.tensor(0)?;
        let view = self.reader.sizes.reshaped(&view, shape)?;
        Ok(Value::Tensor(Tensor { node, view }))
    }

    fn flatten(&mut self) -> Result<Value, Failure> {
        let axis = self.int("axis", 1)?;
        let Tensor { node, view } = self.tensor(0)?;
        let rank = view.0.len();
        let axis = if axis == rank as i64 { rank } else { axis_of(axis, rank)? };
        let (before, after) = view.0.split_at(axis);
        Ok(Value::Tensor(Tensor { node, view: View(vec![before.concat(), after.concat()]) }))
    }

    fn expand(&mut self) -> Result<Value, Failure> {
        let shape = self.integers(1)?.list;
        let Tensor { node, view } = self.tensor(0)?;
        let view = self.reader.sizes.expanded(&view, &shape)?;
        Ok(Value::Tensor(Tensor { node, view }))
    }

    fn squeeze(&self) -> Result<Value, Failure> {
        let axes = self.axes()?;
        let value = self.value(0)?;
        let rank = rank(value);
        let is_single: Box<dyn Fn(usize) -> bool> = match value {
            Value::Tensor(tensor) => Box::new(|axis| self.reader.sizes.along(&tensor.view.0[axis]) == Some(1)),
            Value::Numbers(numbers) => Box::new(|axis| numbers.dims[axis] == 1),
            Value::Integers(integers) => Box::new(|_| integers.list.len() == 1),
            Value::Unknown | Value::Unreadable(_) => unreachable!("a value was read"),
        };
        let dropped = match axes {
            Some(axes) => axes_of(&axes, rank)?,
            None => (0..rank).filter(|&axis| is_single(axis)).collect(),
        };
        if let Some(axis) = dropped.iter().find(|&&axis| !is_single(axis)) {
            return because(format!("it drops axis {axis}, whose size is not 1"));
        }
        let is_left = |axis: usize| !dropped.contains(&axis);
        Ok(match value {
            Value::Tensor(Tensor { node, view }) => {
                let left = (0..rank).filter(|&axis| is_left(axis)).map(|axis| view.0[axis].clone());
                Value::Tensor(Tensor { node: *node, view: View(left.collect()) })
            }
            Value::Numbers(numbers) => {
                let left = (0..rank).filter(|&axis| is_left(axis)).map(|axis| numbers.dims[axis]);
                Value::Numbers(Numbers { dims: left.collect(), ..numbers.clone() })
            }
            Value::Integers(integers) => {
                Value::Integers(Integers { is_scalar: integers.is_scalar || !dropped.is_empty(), ..integers.clone() })
            }
            Value::Unknown | Value::Unreadable(_) => unreachable!("a value was read"),
        })
    }

    fn unsqueeze(&self) -> Result<Value, Failure> {
        let Some(axes) = self.axes()? else { return because("it has no axes") };
        let value = self.value(0)?;
        let rank = rank(value) + axes.len();
        if rank > MAX_RANK {
            return because(format!("it makes a tensor of {rank} axes"));
        }
        let added = axes_of(&axes, rank)?;
        if added.iter().enumerate().any(|(index, axis)| added[..index].contains(axis)) {
            return because("it adds an axis twice");
        }
        let is_added = |axis: usize| added.contains(&axis);
        Ok(match value {
            Value::Tensor(Tensor { node, view }) => {
                let mut old = view.0.iter().cloned();
                let axes = (0..rank).map(|axis| if is_added(axis) { vec![] } else { old.next().unwrap_or_default() });
                Value::Tensor(Tensor { node: *node, view: View(axes.collect()) })
            }
            Value::Numbers(numbers) => {
                let mut old = numbers.dims.iter().copied();
                let dims = (0..rank).map(|axis| if is_added(axis) { 1 } else { old.next().unwrap_or(1) });
                Value::Numbers(Numbers { dims: dims.collect(), ..numbers.clone() })
            }
            Value::Integers(integers) if rank <= 1 => {
                Value::Integers(Integers { is_scalar: rank == 0, ..integers.clone() })
            }
            Value::Integers(_) => return because("it makes a tensor of integers"),
            Value::Unknown | Value::Unreadable(_) => unreachable!("a value was read"),
        })
    }

    fn transpose(&self) -> Result<Value, Failure> {
        let value = self.value(0)?;
        let rank = rank(value);
        let order = match self.ints("perm")? {
            Some(order) => axes_of(&order, rank)?,
            None => (0..rank).rev().collect(),
        };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..rank) {
            return because(format!("its order of axes, {order:?}, does not name each axis once"));
        }
        match value {
            Value::Tensor(Tensor { node, view }) => {
                let axes = order.iter().map(|&axis| view.0[axis].clone());
                Ok(Value::Tensor(Tensor { node: *node, view: View(axes.collect()) }))
            }
            // The elements keep their order where only one axis has several.
            Value::Numbers(numbers) if numbers.dims.iter().filter(|&&size| size != 1).count() <= 1 => {
                let dims = order.iter().map(|&axis| numbers.dims[axis]);
                Ok(Value::Numbers(Numbers { dims: dims.collect(), ..numbers.clone() }))
            }
            _ => because("it changes the order of stored numbers"),
        }
    }
}

fn list_of(list: Vec<Size>) -> Result<Value, Failure> {
    if list.len() > MAX_RANK {
        return because(format!("it makes a list of {} integers", list.len()));
    }
    Ok(Value::Integers(Integers { list, is_scalar: false }))
}

fn rank(value: &Value) -> usize {
    match value {
        Value::Tensor(tensor) => tensor.view.0.len(),
        Value::Numbers(numbers) => numbers.dims.len(),
        Value::Integers(integers) => usize::from(!integers.is_scalar),
        Value::Unknown | Value::Unreadable(_) => 0,
    }
}

/// The sizes that stored numbers have after `Reshape`.
fn reshaped_dims(dims: &[usize], shape: &[i64]) -> Option<Vec<usize>> {
    let len: usize = dims.iter().product();
    let rest = shape.iter().position(|&size| size == -1);
    let size = |(axis, &size): (usize, &i64)| match size {
        0 => dims.get(axis).copied(),
        -1 if Some(axis) == rest => Some(1),
        size => usize::try_from(size).ok(),
    };
    let mut sizes = shape.iter().enumerate().map(size).collect::<Option<Vec<usize>>>()?;
    let known = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
    if let Some(rest) = rest {
        sizes[rest] = len.checked_div(known)?;
    }
    (sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size))? == len).then_some(sizes)
}
