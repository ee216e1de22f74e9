//! What is known about the values of an e-class: its number if it is constant, the axes it varies
//! along, the interval it lies in, and whether it is defined everywhere. The rules' guards ask this.

use std::collections::HashMap;

use egg::{Analysis, DidMerge, EGraph, Id, Language};
use normact_ir::{
    Axes, Channels, Dag, Extent, Interval, Moment, NodeId, Op, Operands, Param, Prim, Quantity, Running, Scalar,
    Tracking,
};

use super::language::{ENode, Head, Set};

/// An e-graph of layers.
pub(super) type Graph = EGraph<ENode, Facts>;

/// The analysis: what leaves mean.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) params: Vec<Param>,
    /// What is known about frozen statistics.
    pub(super) frozen: HashMap<NodeId, Known>,
}

/// The facts about one e-class. Members are equal wherever one of them is defined, so what is known
/// about one is known about all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) constant: Option<Scalar>,
    /// The axes that every member varies along.
    pub(super) axes: Axes,
    /// Holds every value taken where the class is defined.
    pub(super) range: Interval,
    /// Whether it is a number for all finite inputs and parameters.
    pub(super) defined: bool,
    /// Whether every member depends on the input.
    pub(super) of_input: bool,
    /// The index set, for the first child of a moment.
    pub(super) set: Option<Set>,
    narrowed: u8,
}

/// A class that contains itself, such as `a = log(exp(a))`, could narrow its interval without end.
const MAX_NARROWED: u8 = 8;

impl Known {
    fn new(axes: Axes, range: Interval, defined: bool) -> Self {
        Self { constant: None, axes, range, defined, of_input: false, set: None, narrowed: 0 }
    }

    fn of(self, operands: &[Known]) -> Self {
        Self { of_input: operands.iter().any(|operand| operand.of_input), ..self }
    }

    pub(super) fn of_set(set: Set) -> Self {
        Self { set: Some(set), ..Self::new(Axes::NONE, Interval::ALL, true) }
    }

    fn input() -> Self {
        Self { of_input: true, ..Self::new(Axes::INPUT, Interval::ALL, true) }
    }

    fn same(&self, other: &Self) -> bool {
        self.constant == other.constant
            && self.axes == other.axes
            && self.range == other.range
            && self.defined == other.defined
            && self.of_input == other.of_input
            && self.set == other.set
    }
}

impl Analysis<ENode> for Facts {
    type Data = Known;

    fn make(graph: &mut Graph, node: &ENode, _id: Id) -> Known {
        know(graph, node)
    }

    fn merge(&mut self, a: &mut Known, b: Known) -> DidMerge {
        let before = *a;
        a.constant = match (a.constant, b.constant) {
            (Some(x), Some(y)) => Some(simpler(x, y)),
            (x, y) => x.or(y),
        };
        a.axes = fewest(a.axes, b.axes);
        a.defined |= b.defined;
        a.of_input &= b.of_input;
        a.set = a.set.or(b.set);
        if a.narrowed < MAX_NARROWED {
            a.range = common(a.range, b.range);
            a.narrowed += u8::from(a.range != before.range);
        }
        DidMerge(!a.same(&before), !a.same(&b))
    }

    /// A constant class is its number: other members would only make more forms of it.
    fn modify(graph: &mut Graph, id: Id) {
        let Some(value) = graph[id].data.constant else { return };
        if graph[id].nodes.iter().all(|node| node.head == Head::Constant(value)) {
            return;
        }
        if !graph[id].nodes.iter().any(|node| node.head == Head::Constant(value)) {
            let constant = graph.add_uncanonical(ENode::leaf(Head::Constant(value)));
            graph.union_trusted(id, constant, "fold-constants");
        }
        graph[id].nodes.retain(|node| node.head == Head::Constant(value));
    }
}

/// Of two numbers that were computed in two ways and should be one, the shorter decimal.
fn simpler(x: Scalar, y: Scalar) -> Scalar {
    if x == y {
        return x;
    }
    let key = |value: Scalar| (value.to_string().len(), value);
    std::cmp::min_by_key(x, y, |&value| key(value))
}

/// The axes along which both vary.
fn fewest(a: Axes, b: Axes) -> Axes {
    let channels = match (a.channels, b.channels) {
        (Channels::One, _) | (_, Channels::One) => Channels::One,
        (Channels::All, other) | (other, Channels::All) => other,
        (groups, _) => groups,
    };
    Axes { samples: a.samples && b.samples, channels, positions: a.positions && b.positions }
}

/// The values in both intervals. Where rounding leaves none, the first.
fn common(a: Interval, b: Interval) -> Interval {
    let (low, high) = (a.low().max(b.low()), a.high().min(b.high()));
    if low > high {
        return a;
    }
    let both = Interval::new(low, high);
    if a.contains_zero() && b.contains_zero() { both } else { both.without_zero() }
}

fn know(graph: &Graph, node: &ENode) -> Known {
    let child = |index: usize| graph[node.children()[index]].data;
    match node.head {
        Head::Input => Known::input(),
        Head::Constant(value) => of_constant(value),
        Head::Param(param) => of_param(&graph.analysis.params[param.index()]),
        Head::Prim(prim) => {
            let operands: Vec<Known> = node.children().iter().map(|&operand| graph[operand].data).collect();
            // The interval of a product forgets that both factors are the same.
            let is_square = prim == Prim::Mul && graph.find(node.children()[0]) == graph.find(node.children()[1]);
            of_prim(if is_square { Prim::Square } else { prim }, &operands)
        }
        Head::Moment(moment) => {
            let eps = if moment.is_root() { child(2).constant } else { Some(Scalar::ZERO) };
            match (child(0).set, eps) {
                (Some(set), Some(eps)) => of_moment(moment, set, eps, &child(1)),
                // The settings are known as soon as constants are folded.
                _ => Known::new(child(1).axes, Interval::ALL, false).of(&[child(1)]),
            }
        }
        Head::Set(set) => Known::of_set(set),
        Head::Frozen(node) => graph.analysis.frozen[&node],
    }
}

/// The same facts about the nodes of a graph.
pub(super) fn known(dag: &Dag) -> Vec<Known> {
    let mut facts: Vec<Known> = Vec::with_capacity(dag.len());
    for id in dag.ids() {
        let operands: Vec<Known> = dag.operands(id).iter().map(|operand| facts[operand.index()]).collect();
        facts.push(match dag.op(id) {
            Op::Input => Known::input(),
            Op::Constant(value) => of_constant(value),
            Op::Param(param) => of_param(dag.param(param)),
            Op::Prim(prim) => {
                let is_square = prim == Prim::Mul && matches!(dag.operands(id), Operands::Two(a, b) if a == b);
                of_prim(if is_square { Prim::Square } else { prim }, &operands)
            }
            Op::Moment(op) => of_moment(op.moment(), Set::of(op, operands[0].axes), op.eps(), &operands[0]),
        });
    }
    facts
}

fn of_constant(value: Scalar) -> Known {
    Known { constant: Some(value), ..Known::new(Axes::NONE, Interval::point(value.get()), true) }
}

fn of_param(param: &Param) -> Known {
    let axes = match param.extent {
        Extent::PerChannel => Axes::CHANNEL,
        Extent::Scalar => Axes::NONE,
    };
    Known::new(axes, Interval::ALL, true)
}

fn of_prim(prim: Prim, operands: &[Known]) -> Known {
    let (a, b) = (operands[0], operands[operands.len() - 1]);
    let defined = operands.iter().all(|operand| operand.defined)
        && match prim {
            Prim::Div => !b.range.contains_zero(),
            Prim::Log => !a.range.contains_zero(),
            // Every other primitive is a total function.
            _ => true,
        };
    let axes = operands.iter().map(|operand| operand.axes).fold(Axes::NONE, Axes::union);
    let mut known = Known::new(axes, prim.range(a.range, b.range), defined).of(operands);
    if let (Some(x), Some(y)) = (a.constant, b.constant)
        && let Some(value) = fold(prim, x.get(), y.get())
    {
        known.constant = Some(value);
        known.range = Interval::point(value.get());
    }
    known
}

/// The value of a primitive on constants; `None` where it is not a finite number, or has become 0 by
/// underflow.
fn fold(prim: Prim, a: f64, b: f64) -> Option<Scalar> {
    let value = prim.value(a, b);
    // What is left when 0.3 is taken from 0.1 + 0.2 is zero.
    if prim == Prim::Add && value.abs() <= 1e-12 * a.abs().max(b.abs()) {
        return Some(Scalar::ZERO);
    }
    let may_be_zero = prim.range(Interval::point(a), Interval::point(b)).contains_zero();
    if value == 0.0 && !may_be_zero { None } else { Scalar::new(value) }
}

/// What is known about a moment of such a value.
pub(super) fn of_moment(moment: Moment, set: Set, eps: Scalar, operand: &Known) -> Known {
    let axes = operand.axes.reduce(set.over);
    let range = match set.tracking {
        None => operand.range.moment(moment, eps.get()),
        Some(tracking) => tracked_range(moment, tracking, eps, operand.range),
    };
    Known::new(axes, range, operand.defined).of(&[*operand])
}

/// A running average lies between the values it started with and those of the batches.
fn tracked_range(moment: Moment, tracking: Tracking, eps: Scalar, operand: Interval) -> Interval {
    let (batch, start) = match moment.quantity() {
        Quantity::Mean => (operand, 0.0),
        Quantity::MeanSquare => (Prim::Square.range(operand, operand), 1.0),
        Quantity::Variance => (operand.moment(Moment::Var, 0.0), 1.0),
    };
    // `count / (count - 1)` is at most 2.
    let scale = if tracking.running == Running::Unbiased { 2.0 } else { 1.0 };
    let average = Interval::new(batch.low().min(start), (scale * batch.high()).max(start));
    if !moment.is_root() {
        return average;
    }
    let root = Interval::new((average.low() + eps.get()).sqrt(), (average.high() + eps.get()).sqrt());
    if eps.get() > 0.0 { root.without_zero() } else { root }
}
