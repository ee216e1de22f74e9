//! The f64 reference evaluator: what a layer means, in numbers, with its gradient.
//!
//! It is the yardstick for every back-end, so it is written for clarity: one array per node, kept
//! for the reverse pass. Statistics are population statistics in two passes.

use crate::array::Array;
use crate::axes::IndexSet;
use crate::buffers::Buffers;
use crate::dag::{Dag, NodeId, Op, Operands, Running};
use crate::prim::{Quantity, Slope};
use crate::reduction::Reduction;
use crate::shape::{Shape, ShapeError, check, groups_for};

/// Whether batch statistics come from the batch or from the running averages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// From the batch; the running averages are updated.
    Training,
    /// From the running averages.
    Evaluation,
}

/// Everything a layer reads: its input, and values for every parameter and buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// The shape of the input, rank 2 to 5.
    pub shape: Shape,
    /// The input's elements in row-major order.
    pub x: Vec<f64>,
    /// For each parameter of [`Dag::params`], its values: `[C]` or `[1]`.
    pub params: Vec<Vec<f64>>,
    /// For each buffer of [`Buffers::list`], its values: `[C]` or `[1]`.
    pub state: Vec<Vec<f64>>,
}

impl Inputs {
    /// An input with all parameters and buffers at their initial values.
    pub fn initial(dag: &Dag, shape: Shape, x: Vec<f64>) -> Self {
        let channels = shape.channels();
        let params = dag.params().iter().map(|param| vec![param.init.get(); param.extent.len(channels)]).collect();
        let state = Buffers::of(dag).list().iter().map(|buffer| vec![buffer.init(); buffer.len(channels)]).collect();
        Self { shape, x, params, state }
    }
}

/// Why a layer cannot be evaluated on given inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The graph does not fit the input's shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A tensor has the wrong number of elements.
    #[error("{name} has {found} values, expected {expected}")]
    Length {
        /// `x`, or the parameter's or buffer's name.
        name: String,
        /// How many it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
}

/// The result of an evaluation, with what the reverse pass needs.
#[derive(Debug, Clone)]
pub struct Evaluation<'dag> {
    dag: &'dag Dag,
    shape: Shape,
    mode: Mode,
    buffers: Buffers,
    values: Vec<Option<Array>>,
    state: Vec<Vec<f64>>,
}

/// The gradients of a sum of outputs weighted by `dy`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// With respect to the input, in row-major order.
    pub x: Vec<f64>,
    /// With respect to each parameter.
    pub params: Vec<Vec<f64>>,
}

/// Evaluates the layer. Nodes the output does not depend on are skipped.
///
/// # Errors
/// The graph does not fit the shape, or a tensor has the wrong number of elements.
pub fn evaluate<'dag>(dag: &'dag Dag, inputs: &Inputs, mode: Mode) -> Result<Evaluation<'dag>, EvalError> {
    let buffers = Buffers::of(dag);
    check_inputs(dag, &buffers, inputs)?;
    let shape = &inputs.shape;
    let channels = shape.channels();
    let full = [shape.samples(), channels, shape.positions()];
    let live = dag.live();
    let mut values: Vec<Option<Array>> = vec![None; dag.len()];
    let mut state = inputs.state.clone();
    let mut updated = vec![false; state.len()];
    for id in dag.ids().filter(|id| live[id.index()]) {
        let value = match dag.op(id) {
            Op::Input => Array::new(full, inputs.x.clone()),
            Op::Constant(value) => Array::full([1; 3], value.get()),
            Op::Param(param) => per_channel(&inputs.params[param.index()]),
            Op::Prim(prim) => match dag.operands(id) {
                Operands::Two(a, b) => operand(&values, a).zip(operand(&values, b), |a, b| prim.value(a, b)),
                Operands::One(x) => operand(&values, x).map(|x| prim.value(x, 0.0)),
                Operands::None => unreachable!("primitives have operands"),
            },
            Op::Moment(op) => {
                let x = operand(&values, only_operand(dag, id));
                let quantity = op.moment().quantity();
                let root = |average: f64| (average + op.eps().get()).sqrt();
                let finish = |average: Array| if op.moment().is_root() { average.map(root) } else { average };
                match (buffers.of_node(id), mode) {
                    (Some(buffer), Mode::Evaluation) => finish(per_channel(&inputs.state[buffer])),
                    (buffer, _) => {
                        let reduction = Reduction::new(x.dims(), op.over(), groups(op.over(), channels)?);
                        let average = reduction.average(x, quantity);
                        if let (Some(buffer), Mode::Training) = (buffer, mode)
                            && !std::mem::replace(&mut updated[buffer], true)
                        {
                            let tracking = buffers.list()[buffer].tracking;
                            let correction = match tracking.running {
                                Running::Unbiased => bessel(reduction.count()),
                                Running::Biased => 1.0,
                            };
                            let momentum = tracking.momentum.get();
                            for (old, new) in state[buffer].iter_mut().zip(average.data()) {
                                *old = (1.0 - momentum) * *old + momentum * correction * new;
                            }
                        }
                        reduction.as_value(finish(average))
                    }
                }
            }
        };
        values[id.index()] = Some(value);
    }
    Ok(Evaluation { dag, shape: shape.clone(), mode, buffers, values, state })
}

/// `count / (count - 1)`, which makes a population variance unbiased; 1 for a single element, where
/// no unbiased estimate exists.
pub fn bessel(count: usize) -> f64 {
    if count > 1 { count as f64 / (count - 1) as f64 } else { 1.0 }
}

impl Evaluation<'_> {
    /// The layer's result, broadcast to the input's shape, in row-major order.
    pub fn output(&self) -> Vec<f64> {
        operand(&self.values, self.dag.output()).broadcast(self.full()).into_data()
    }

    /// The value of one node; `None` if the output does not depend on it.
    pub fn value(&self, id: NodeId) -> Option<&Array> {
        self.values[id.index()].as_ref()
    }

    /// The buffers after this evaluation.
    pub fn state(&self) -> &[Vec<f64>] {
        &self.state
    }

    /// The gradients for an upstream gradient `dy` of the input's shape.
    ///
    /// # Panics
    /// `dy` does not have as many elements as the input.
    pub fn gradients(&self, dy: &[f64]) -> Gradients {
        let channels = self.shape.channels();
        let mut x = vec![0.0; self.shape.elements()];
        let mut params: Vec<Vec<f64>> =
            self.dag.params().iter().map(|param| vec![0.0; param.extent.len(channels)]).collect();
        let mut adjoints: Vec<Option<Array>> = vec![None; self.dag.len()];
        let output = self.dag.output();
        accumulate(
            &mut adjoints[output.index()],
            Array::new(self.full(), dy.to_vec()).sum_to(operand(&self.values, output).dims()),
        );
        for id in self.dag.ids().rev() {
            let Some(dy) = adjoints[id.index()].take() else { continue };
            match self.dag.op(id) {
                Op::Input => x = add(&x, dy.data()),
                Op::Constant(_) => {}
                Op::Param(param) => params[param.index()] = add(&params[param.index()], dy.data()),
                Op::Prim(prim) => {
                    let y = operand(&self.values, id);
                    match self.dag.operands(id) {
                        Operands::One(a) => {
                            let value = operand(&self.values, a);
                            let slope = value.zip(y, |a, y| match prim.slope(a, 0.0, y) {
                                Slope::Unary(slope) => slope,
                                Slope::Binary(..) => unreachable!("one operand"),
                            });
                            accumulate(&mut adjoints[a.index()], slope.zip(&dy, product));
                        }
                        Operands::Two(a, b) => {
                            let (va, vb) = (operand(&self.values, a), operand(&self.values, b));
                            let side = |first: bool, dims: [usize; 3]| {
                                let (va, vb) = (va.broadcast(y.dims()), vb.broadcast(y.dims()));
                                let slopes = va.data().iter().zip(vb.data()).zip(y.data()).zip(dy.data());
                                let products = slopes.map(|(((&a, &b), &y), &dy)| match prim.slope(a, b, y) {
                                    Slope::Binary(da, db) => product(if first { da } else { db }, dy),
                                    Slope::Unary(_) => unreachable!("two operands"),
                                });
                                Array::new(y.dims(), products.collect()).sum_to(dims)
                            };
                            let (da, db) = (side(true, va.dims()), side(false, vb.dims()));
                            accumulate(&mut adjoints[a.index()], da);
                            accumulate(&mut adjoints[b.index()], db);
                        }
                        Operands::None => unreachable!("primitives have operands"),
                    }
                }
                Op::Moment(op) => {
                    if self.buffers.of_node(id).is_some() && self.mode == Mode::Evaluation {
                        continue;
                    }
                    let x_id = only_operand(self.dag, id);
                    let x = operand(&self.values, x_id);
                    let count = groups(op.over(), channels).expect("evaluation checked the groups");
                    let reduction = Reduction::new(x.dims(), op.over(), count);
                    let dy = reduction.spread(&reduction.gather(&dy));
                    // The derivative of the average with respect to one element.
                    let scale = 1.0 / reduction.count() as f64;
                    let inner = match op.moment().quantity() {
                        Quantity::Mean => Array::full(x.dims(), scale),
                        Quantity::MeanSquare => x.map(|x| 2.0 * x * scale),
                        Quantity::Variance => {
                            let mean = reduction.spread(&reduction.average(x, Quantity::Mean));
                            x.zip(&mean, |x, mean| 2.0 * (x - mean) * scale)
                        }
                    };
                    let dx = if op.moment().is_root() {
                        // d sqrt(q) = dq / (2 sqrt(q)), and 0 at 0 as for `sqrt`.
                        let root = operand(&self.values, id);
                        let root = reduction.spread(&reduction.representative(root));
                        let outer = root.map(|root| if root == 0.0 { 0.0 } else { 0.5 / root });
                        inner.zip(&outer, product).zip(&dy, product)
                    } else {
                        inner.zip(&dy, product)
                    };
                    accumulate(&mut adjoints[x_id.index()], dx);
                }
            }
        }
        Gradients { x, params }
    }

    fn full(&self) -> [usize; 3] {
        [self.shape.samples(), self.shape.channels(), self.shape.positions()]
    }
}

fn check_inputs(dag: &Dag, buffers: &Buffers, inputs: &Inputs) -> Result<(), EvalError> {
    let (errors, _) = check(dag, &inputs.shape);
    if let Some(error) = errors.into_iter().next() {
        return Err(error.into());
    }
    let channels = inputs.shape.channels();
    let length = |name: &str, expected: usize, found: usize| {
        if expected == found { Ok(()) } else { Err(EvalError::Length { name: name.to_owned(), expected, found }) }
    };
    length("x", inputs.shape.elements(), inputs.x.len())?;
    length("the list of parameters", dag.params().len(), inputs.params.len())?;
    for (param, values) in dag.params().iter().zip(&inputs.params) {
        length(&param.name, param.extent.len(channels), values.len())?;
    }
    length("the list of buffers", buffers.list().len(), inputs.state.len())?;
    for (buffer, values) in buffers.list().iter().zip(&inputs.state) {
        length(&buffer.name, buffer.len(channels), values.len())?;
    }
    Ok(())
}

fn groups(over: IndexSet, channels: usize) -> Result<usize, ShapeError> {
    match over {
        IndexSet::Group(groups) => groups_for(groups, channels),
        _ => Ok(1),
    }
}

fn per_channel(values: &[f64]) -> Array {
    Array::new([1, values.len(), 1], values.to_vec())
}

fn operand(values: &[Option<Array>], id: NodeId) -> &Array {
    values[id.index()].as_ref().expect("operands of live nodes are live and precede them")
}

fn only_operand(dag: &Dag, id: NodeId) -> NodeId {
    dag.operands(id).iter().next().expect("a moment has an operand")
}

fn product(a: f64, b: f64) -> f64 {
    a * b
}

fn accumulate(slot: &mut Option<Array>, gradient: Array) {
    *slot = Some(match slot.take() {
        Some(sum) => sum.zip(&gradient, |a, b| a + b),
        None => gradient,
    });
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}
