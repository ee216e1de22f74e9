//! What an execution costs, in thousandths of one addition of full-size values, and how many of its
//! steps can leave the numbers of f32.
//!
//! One pass over a full-size value is the unit: on the CPU an addition, product, maximum, negation or
//! absolute value of 8 x 64 x 32 x 32 numbers takes 45 to 47 µs and is bound by memory, a quotient 54,
//! a root 90, a sum in vector registers 51; without vector code `exp` and `log` take 30 times as long, with
//! it, and on graphics processors, about 4 times. `sigmoid`, `tanh` and the like are an exponential, a sum
//! and a quotient, or more. A statistic reads the value once, a variance twice. A value that varies along
//! fewer axes costs its share of elements in that shape: next to nothing. A negation is half of the
//! subtraction it nearly always belongs to.

use normact_ir::{Axes, Channels, Dag, Interval, Moment, Op, Prim, Quantity, Scalar};

use super::analysis::{Known, known};

/// The cost of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Steps that can overflow, or divide by what f32 takes for zero.
    pub(super) hazards: u64,
    /// In thousandths of a full-size addition.
    pub(super) work: u64,
}

impl std::ops::Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { hazards: self.hazards + other.hazards, work: self.work + other.work }
    }
}

/// The cost of the nodes that the output depends on, each of them once.
pub(super) fn of_dag(dag: &Dag) -> Cost {
    let facts = known(dag);
    let live = dag.live();
    let mut total = Cost { hazards: 0, work: 0 };
    for id in dag.ids().filter(|id| live[id.index()]) {
        let operands: Vec<&Known> = dag.operands(id).iter().map(|operand| &facts[operand.index()]).collect();
        total = total
            + match dag.op(id) {
                Op::Input | Op::Param(_) => Cost { hazards: 0, work: 0 },
                Op::Constant(value) => of_constant(value),
                Op::Prim(prim) => of_prim(prim, &operands),
                Op::Moment(op) => of_moment(op.moment(), operands[0]) + of_constant(op.eps()),
            };
    }
    total
}

/// A constant is written into the code; one that is no ordinary f32 is a hazard.
pub(super) fn of_constant(value: Scalar) -> Cost {
    let magnitude = value.get().abs();
    let ordinary = magnitude == 0.0 || (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&magnitude);
    Cost { hazards: u64::from(!ordinary), work: 0 }
}

/// An elementwise operation.
pub(super) fn of_prim(prim: Prim, operands: &[&Known]) -> Cost {
    const SIMPLE: [Prim; 6] = [Prim::Add, Prim::Mul, Prim::Max, Prim::Abs, Prim::Square, Prim::Sign];
    const DOUBLE: [Prim; 2] = [Prim::Div, Prim::Sqrt];
    const SERIES: [Prim; 2] = [Prim::Exp, Prim::Log];
    let halves = if prim == Prim::Neg {
        1
    } else if SIMPLE.contains(&prim) {
        2
    } else if DOUBLE.contains(&prim) {
        4
    } else if SERIES.contains(&prim) {
        8
    } else {
        12
    };
    let axes = operands.iter().map(|operand| operand.axes).fold(Axes::NONE, Axes::union);
    Cost { hazards: u64::from(is_hazard(prim, operands)), work: (halves * share(axes) / 2).max(1) }
}

/// A statistic of such a value.
pub(super) fn of_moment(moment: Moment, operand: &Known) -> Cost {
    let passes = match moment.quantity() {
        Quantity::Mean | Quantity::MeanSquare => 2,
        Quantity::Variance => 3,
    };
    Cost { hazards: 0, work: passes * share(operand.axes) + 1 + u64::from(moment.is_root()) }
}

/// The number of elements of a value with such axes in the shape 8 x 64 x 1024 with 32 groups, in
/// thousandths of all.
pub(super) fn share(axes: Axes) -> u64 {
    let samples = if axes.samples { 8 } else { 1 };
    let channels = match axes.channels {
        Channels::One => 1,
        Channels::Groups(_) => 32,
        Channels::All => 64,
    };
    let positions = if axes.positions { 1024 } else { 1 };
    (1000 * samples * channels * positions / (8 * 64 * 1024)).max(1)
}

/// The largest operand for which `exp` is finite in f32.
const EXP_LIMIT: f64 = 88.7;

/// Whether an operation can turn ordinary numbers into infinite or undefined ones.
fn is_hazard(prim: Prim, operands: &[&Known]) -> bool {
    let last = operands[operands.len() - 1].range;
    match prim {
        Prim::Exp => last.high() > EXP_LIMIT,
        Prim::Div | Prim::Log => !is_away_from_zero(last),
        _ => false,
    }
}

/// Whether no value is so close to zero that its inverse overflows in f32.
pub(super) fn is_away_from_zero(range: Interval) -> bool {
    const LEAST: f64 = 1e-30;
    range.low() >= LEAST || range.high() <= -LEAST
}
