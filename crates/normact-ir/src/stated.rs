//! Gradients that a text states: a straight-line program from the input, the upstream gradient and
//! the parameters to the gradients, its f64 evaluation, and the comparison with the chain rule.
//!
//! It is no [`Dag`]: it has a second tensor, several results, and sums, since the transpose of
//! broadcasting is a sum. Its statistics are those of a batch in training, without running averages.
//!
//! What it says is compared with what [`crate::evaluate`] finds by reverse accumulation, so
//! nothing here knows a derivative. A gradient may be stated for some of a layer's tensors only; the
//! evaluation therefore gives `None` for the others, where [`Gradients`](crate::Gradients) has no
//! place for that.
//!
//! A value varies along channels or it does not: one that is the same within groups is kept channel
//! by channel, and a sum over channels counts each of them.

use std::collections::HashMap;

use crate::array::Array;
use crate::axes::{Axes, Channels, IndexSet};
use crate::dag::{Dag, Extent, NodeId, Operands, Param, ParamId};
use crate::eval::{EvalError, Inputs, Mode, evaluate};
use crate::prim::{Prim, Quantity};
use crate::reduction::Reduction;
use crate::scalar::Scalar;
use crate::shape::{Shape, groups_for};

/// A statistic over an index set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Statistic {
    /// The sum of the elements.
    Sum,
    /// How many elements a sum has.
    Count,
    /// The mean of the elements.
    Mean,
    /// The mean of their squares.
    MeanSquare,
    /// Their population variance.
    Variance,
}

impl Statistic {
    /// The statistics that only gradients have, with their names in the language and what they are, in
    /// Markdown.
    pub const OWN: [(&str, Statistic, &str); 2] = [
        ("sum", Statistic::Sum, "the sum of `x` over the axes of the set that `x` varies along"),
        ("count", Statistic::Count, "how many elements that sum has"),
    ];

    /// The statistic that only gradients have of that name.
    pub fn own(name: &str) -> Option<Self> {
        Self::OWN.into_iter().find(|(own, ..)| *own == name).map(|(_, statistic, _)| statistic)
    }
}

impl From<Quantity> for Statistic {
    fn from(quantity: Quantity) -> Self {
        match quantity {
            Quantity::Mean => Statistic::Mean,
            Quantity::MeanSquare => Statistic::MeanSquare,
            Quantity::Variance => Statistic::Variance,
        }
    }
}

/// What a step computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// The layer's input.
    Input,
    /// The gradient of the layer's output, of the input's shape.
    Upstream,
    /// A fixed number.
    Constant(Scalar),
    /// A parameter.
    Param(ParamId),
    /// An elementwise primitive.
    Prim(Prim),
    /// A statistic of the operand.
    Statistic(Statistic, IndexSet),
}

/// What a text says the gradients of a layer are.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    steps: Vec<(Op, Operands, Axes)>,
    input: Option<NodeId>,
    params: Vec<(Extent, Option<NodeId>)>,
}

/// The gradients that were stated, in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// With respect to the input, in row-major order.
    pub x: Option<Vec<f64>>,
    /// With respect to each parameter.
    pub params: Vec<Option<Vec<f64>>>,
}

/// How one stated gradient compares with the chain rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// `x`, or the parameter's name.
    pub name: String,
    /// The largest error over all elements, relative to the largest element of the gradient or to 1 where
    /// all are smaller; infinite where the two are not numbers alike.
    pub worst: f64,
    /// The element with that error.
    pub index: usize,
    /// Its gradient by the chain rule.
    pub gradient: f64,
    /// Its gradient as stated.
    pub stated: f64,
}

impl Gradient {
    /// Every step with its operands, which come before it.
    pub fn steps(&self) -> impl Iterator<Item = (Op, Operands)> + '_ {
        self.steps.iter().map(|(op, operands, _)| (*op, *operands))
    }

    /// The gradient of the input, if it is stated.
    pub fn input(&self) -> Option<NodeId> {
        self.input
    }

    /// The gradient of each parameter, if it is stated.
    pub fn params(&self) -> impl Iterator<Item = Option<NodeId>> + '_ {
        self.params.iter().map(|(_, id)| *id)
    }

    /// The stated gradients for an input and an upstream gradient.
    ///
    /// # Errors
    /// An exact number of groups does not divide the channels, or a tensor has the wrong number of elements.
    pub fn evaluate(&self, inputs: &Inputs, dy: &[f64]) -> Result<Values, EvalError> {
        self.check_lengths(inputs, dy)?;
        let shape = &inputs.shape;
        let mut values: Vec<Array> = Vec::with_capacity(self.steps.len());
        for &(op, operands, axes) in &self.steps {
            let dims = dims(axes, shape);
            let operand = |id: NodeId| &values[id.index()];
            let value = match (op, operands) {
                (Op::Input, _) => Array::new(dims, inputs.x.clone()),
                (Op::Upstream, _) => Array::new(dims, dy.to_vec()),
                (Op::Constant(value), _) => Array::full(dims, value.get()),
                (Op::Param(param), _) => Array::new(dims, inputs.params[param.index()].clone()),
                (Op::Prim(prim), Operands::One(x)) => operand(x).map(|x| prim.value(x, 0.0)),
                (Op::Prim(prim), Operands::Two(a, b)) => operand(a).zip(operand(b), |a, b| prim.value(a, b)),
                (Op::Statistic(statistic, over), Operands::One(x)) => {
                    let groups = match over {
                        IndexSet::Group(groups) => groups_for(groups, shape.channels())?,
                        _ => 1,
                    };
                    let reduction = Reduction::new(operand(x).dims(), over, groups);
                    reduced(statistic, reduction, operand(x), dims)
                }
                (Op::Prim(_) | Op::Statistic(..), _) => unreachable!("the builder checks the number of operands"),
            };
            values.push(value);
        }
        let stated =
            |id: Option<NodeId>, axes: Axes| id.map(|id| values[id.index()].broadcast(dims(axes, shape)).into_data());
        let params = self.params.iter().map(|(extent, id)| stated(*id, extent_axes(*extent)));
        Ok(Values { x: stated(self.input, Axes::INPUT), params: params.collect() })
    }

    fn check_lengths(&self, inputs: &Inputs, dy: &[f64]) -> Result<(), EvalError> {
        let length = |name: &str, expected: usize, found: usize| {
            if expected == found { Ok(()) } else { Err(EvalError::Length { name: name.to_owned(), expected, found }) }
        };
        length("x", inputs.shape.elements(), inputs.x.len())?;
        length("dy", inputs.shape.elements(), dy.len())?;
        length("the list of parameters", self.params.len(), inputs.params.len())?;
        for (number, ((extent, _), values)) in self.params.iter().zip(&inputs.params).enumerate() {
            length(&format!("parameter {number}"), extent.len(inputs.shape.channels()), values.len())?;
        }
        Ok(())
    }
}

/// Compares the stated gradients with those of the chain rule in training mode; `None` for those that
/// are not stated.
///
/// # Errors
/// The layer or its stated gradient cannot be evaluated on these inputs.
pub fn check(dag: &Dag, stated: &Gradient, inputs: &Inputs, dy: &[f64]) -> Result<Vec<Option<Check>>, EvalError> {
    let expected = evaluate(dag, inputs, Mode::Training)?.gradients(dy);
    let found = stated.evaluate(inputs, dy)?;
    let names = std::iter::once("x").chain(dag.params().iter().map(|param| param.name.as_str()));
    let expected = std::iter::once(&expected.x).chain(&expected.params);
    let found = std::iter::once(&found.x).chain(&found.params);
    let compared = names.zip(expected).zip(found);
    Ok(compared.map(|((name, expected), found)| Some(worst(name, expected, found.as_ref()?))).collect())
}

fn worst(name: &str, expected: &[f64], found: &[f64]) -> Check {
    let scale = expected.iter().filter(|x| x.is_finite()).fold(1.0, |scale: f64, value| scale.max(value.abs()));
    let mut check = Check { name: name.to_owned(), worst: 0.0, index: 0, gradient: 0.0, stated: 0.0 };
    for (index, (&gradient, &stated)) in expected.iter().zip(found).enumerate() {
        let is_same = gradient == stated || (gradient.is_nan() && stated.is_nan());
        let error = if is_same { 0.0 } else { (gradient - stated).abs() / scale };
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error > check.worst || index == 0 {
            check = Check { worst: error, index, gradient, stated, ..check };
        }
    }
    check
}

/// A statistic as a value with the sizes `dims`.
fn reduced(statistic: Statistic, reduction: Reduction, x: &Array, dims: [usize; 3]) -> Array {
    let statistics = match statistic {
        Statistic::Count => return Array::full(dims, reduction.count() as f64),
        Statistic::Sum => reduction.sum(x),
        Statistic::Mean => reduction.average(x, Quantity::Mean),
        Statistic::MeanSquare => reduction.average(x, Quantity::MeanSquare),
        Statistic::Variance => reduction.average(x, Quantity::Variance),
    };
    reduction.as_value(statistics).broadcast(dims)
}

/// The sizes of a value; one that varies from group to group is kept channel by channel.
fn dims(axes: Axes, shape: &Shape) -> [usize; 3] {
    let channels = match axes.channels {
        Channels::One => 1,
        Channels::Groups(_) | Channels::All => shape.channels(),
    };
    [if axes.samples { shape.samples() } else { 1 }, channels, if axes.positions { shape.positions() } else { 1 }]
}

/// The axes of a parameter.
pub fn extent_axes(extent: Extent) -> Axes {
    match extent {
        Extent::PerChannel => Axes::CHANNEL,
        Extent::Scalar => Axes::NONE,
    }
}

/// Builds a [`Gradient`], operands before users and equal steps shared.
#[derive(Debug, Clone)]
pub struct Builder {
    params: Vec<Extent>,
    steps: Vec<(Op, Operands, Axes)>,
    known: HashMap<(Op, Operands), NodeId>,
}

impl Builder {
    /// An empty program for a layer with these parameters.
    pub fn new(params: &[Param]) -> Self {
        Self { params: params.iter().map(|param| param.extent).collect(), steps: vec![], known: HashMap::new() }
    }

    /// The number of steps so far.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no step yet.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The step for an operation, shared with an equal one.
    ///
    /// # Panics
    /// The operands do not fit the operation: the caller's mistake.
    pub fn intern(&mut self, op: Op, operands: Operands) -> NodeId {
        let count = match op {
            Op::Input | Op::Upstream | Op::Constant(_) | Op::Param(_) => 0,
            Op::Prim(prim) => prim.arity().count(),
            Op::Statistic(..) => 1,
        };
        assert_eq!(operands.count(), count, "{op:?}");
        if let Some(&id) = self.known.get(&(op, operands)) {
            return id;
        }
        let of_operands = operands.iter().map(|id| self.axes(id)).fold(Axes::NONE, Axes::union);
        let axes = match op {
            Op::Input | Op::Upstream => Axes::INPUT,
            Op::Constant(_) | Op::Statistic(Statistic::Count, _) => Axes::NONE,
            Op::Param(param) => extent_axes(self.params[param.index()]),
            Op::Prim(_) => of_operands,
            Op::Statistic(_, over) => of_operands.reduce(over),
        };
        let id = NodeId::at(self.steps.len());
        self.steps.push((op, operands, axes));
        self.known.insert((op, operands), id);
        id
    }

    /// The axes a step varies along.
    pub fn axes(&self, id: NodeId) -> Axes {
        self.steps[id.index()].2
    }

    /// The program with these results: the gradient of the input and of each parameter.
    ///
    /// # Panics
    /// A result varies along axes that what it is the gradient of does not have, or there are not as many
    /// as there are parameters.
    pub fn finish(self, input: Option<NodeId>, params: Vec<Option<NodeId>>) -> Gradient {
        assert_eq!(params.len(), self.params.len());
        for (id, extent) in params.iter().zip(&self.params) {
            let axes = extent_axes(*extent);
            assert!(id.is_none_or(|id| self.axes(id).union(axes) == axes), "a result has more axes than its parameter");
        }
        Gradient { steps: self.steps, input, params: self.params.into_iter().zip(params).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::axes::Groups;

    /// A statistic of the input 0, 1, 2, ... of shape `[2, 4, 3]`, or of a statistic of that.
    fn statistics(steps: &[(Statistic, IndexSet)]) -> Vec<f64> {
        let shape = Shape::new(&[2, 4, 3]).unwrap();
        let mut builder = Builder::new(&[]);
        let x = builder.intern(Op::Input, Operands::None);
        let last = steps
            .iter()
            .fold(x, |x, &(statistic, over)| builder.intern(Op::Statistic(statistic, over), Operands::One(x)));
        let x = (0..24).map(f64::from).collect();
        let inputs = Inputs { shape, x, params: vec![], state: vec![] };
        builder.finish(Some(last), vec![]).evaluate(&inputs, &[0.0; 24]).unwrap().x.unwrap()
    }

    fn groups(count: u32) -> IndexSet {
        IndexSet::Group(Groups::AtMost(NonZeroU32::new(count).unwrap()))
    }

    #[test]
    fn sums_and_counts_are_those_of_the_index_set() {
        for (over, first, last, count) in [
            (IndexSet::Batch, 42.0, 96.0, 6.0),
            (IndexSet::Instance, 3.0, 66.0, 3.0),
            (IndexSet::Layer, 66.0, 210.0, 12.0),
            (groups(3), 15.0, 123.0, 6.0),
            (IndexSet::Channel, 18.0, 74.0, 4.0),
            (IndexSet::All, 276.0, 276.0, 24.0),
        ] {
            let sums = statistics(&[(Statistic::Sum, over)]);
            assert_eq!((sums[0], sums[23]), (first, last), "sum[{over}]");
            assert_eq!(statistics(&[(Statistic::Count, over)]), vec![count; 24], "count[{over}]");
        }
    }

    #[test]
    fn a_value_of_groups_counts_once_for_each_channel_however_many_groups_there_are() {
        for count in [1, 2, 4] {
            let of_groups = [(Statistic::Mean, groups(count)), (Statistic::Count, IndexSet::Layer)];
            assert_eq!(statistics(&of_groups)[0], 4.0, "{count} groups");
            let sums = statistics(&[(Statistic::Mean, groups(count)), (Statistic::Sum, IndexSet::All)]);
            assert_eq!(sums[0], 276.0 / 3.0, "{count} groups");
        }
    }

    #[test]
    fn an_axis_that_a_value_does_not_vary_along_is_not_summed() {
        let twice = statistics(&[(Statistic::Sum, IndexSet::Batch), (Statistic::Sum, IndexSet::Batch)]);
        assert_eq!(twice, statistics(&[(Statistic::Sum, IndexSet::Batch)]));
        assert_eq!(statistics(&[(Statistic::Mean, IndexSet::All), (Statistic::Count, IndexSet::All)])[0], 1.0);
    }
}
