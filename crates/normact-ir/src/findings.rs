//! What is suspicious about a graph, whatever its input's size.

use crate::axes::{Axes, Channels};
use crate::dag::{Dag, NodeId, Op, Operands};
use crate::interval::Interval;
use crate::prim::Prim;
use crate::shape::infer;

/// A fact about a graph that its author may want to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The output does not depend on the input.
    IgnoresInput,
    /// The output is the same along an axis of the input and is broadcast.
    Constant {
        /// The same for all samples.
        samples: bool,
        /// The same for all channels.
        channels: bool,
        /// The same at all positions.
        positions: bool,
    },
    /// A moment of a value that does not vary along the axes it averages over.
    DegenerateMoment {
        /// The moment.
        node: NodeId,
    },
    /// A quotient whose divisor can be zero.
    DivisionByZero {
        /// The quotient.
        node: NodeId,
        /// The divisor.
        divisor: NodeId,
    },
    /// An `exp` whose operand has no upper bound that keeps it finite in f32.
    ExpOverflow {
        /// The `exp`.
        node: NodeId,
    },
}

/// The largest operand for which `exp` is finite in f32.
const EXP_LIMIT: f64 = 88.7;

/// Every finding about the nodes the output depends on, in the order of the nodes.
pub fn findings(dag: &Dag) -> Vec<Finding> {
    let mut found = Vec::new();
    let axes = infer(dag);
    let ranges = ranges(dag);
    let live = dag.live();
    for id in dag.ids().filter(|id| live[id.index()]) {
        match (dag.op(id), dag.operands(id)) {
            (Op::Moment(op), Operands::One(x)) if axes[x.index()].constant_along(op.over()) => {
                found.push(Finding::DegenerateMoment { node: id });
            }
            (Op::Prim(Prim::Div), Operands::Two(_, divisor)) if ranges[divisor.index()].contains_zero() => {
                found.push(Finding::DivisionByZero { node: id, divisor });
            }
            (Op::Prim(Prim::Exp), Operands::One(x)) if ranges[x.index()].high() > EXP_LIMIT => {
                found.push(Finding::ExpOverflow { node: id });
            }
            _ => {}
        }
    }
    let output = dag.output().index();
    if !dag.depends_on_input()[output] {
        found.push(Finding::IgnoresInput);
    } else if axes[output] != Axes::INPUT {
        let Axes { samples, channels, positions } = axes[output];
        let channels = channels == Channels::All;
        found.push(Finding::Constant { samples: !samples, channels: !channels, positions: !positions });
    }
    found
}

/// For each node, an interval that holds every value it can take for finite inputs and parameters.
pub fn ranges(dag: &Dag) -> Vec<Interval> {
    let mut ranges: Vec<Interval> = Vec::with_capacity(dag.len());
    for id in dag.ids() {
        let range = match (dag.op(id), dag.operands(id)) {
            (Op::Constant(value), _) => Interval::point(value.get()),
            // The interval of a product forgets that both factors are the same.
            (Op::Prim(Prim::Mul), Operands::Two(a, b)) if a == b => {
                Prim::Square.range(ranges[a.index()], ranges[a.index()])
            }
            (Op::Prim(prim), Operands::One(x)) => prim.range(ranges[x.index()], ranges[x.index()]),
            (Op::Prim(prim), Operands::Two(a, b)) => prim.range(ranges[a.index()], ranges[b.index()]),
            (Op::Moment(op), Operands::One(x)) => ranges[x.index()].moment(op.moment(), op.eps().get()),
            (Op::Input | Op::Param(_) | Op::Prim(_) | Op::Moment(_), _) => Interval::ALL,
        };
        ranges.push(range);
    }
    ranges
}
