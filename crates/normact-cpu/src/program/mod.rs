//! A schedule compiled for one direction of memory: steps on chunks, and arithmetic on scalars.
//!
//! A chunk is a run of elements along the lane axis: positions, or channels where those are
//! contiguous or there are hardly any positions. A value that does not vary along the lanes is a
//! scalar, computed in f64 once for as many rows as it is the same for; so the reciprocal of a
//! standard deviation or a product of parameters costs nothing per element. A value that varies along
//! the lanes only (a parameter, when lanes are channels) is shared by rows: it is computed in f64 once
//! for each run of lanes.

mod compile;

use normact_ir::{Axes, Channels, Prim};
use normact_plan::Sizes;
use normact_plan::graph::Statistic;

use crate::native::{Instructions, Native};
use crate::run::{Blocks, STREAMED};
use crate::slots::{Accumulation, Grid, Layout};
use crate::vector::{Source, Step};

/// The axis that chunks run along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Chunks are runs of positions of one channel.
    Positions,
    /// Chunks are runs of channels at one position.
    Channels,
}

impl Lane {
    /// The axis of a chunk and the axis of the rows beside it, in the view of all ranks.
    pub(crate) fn axes(self) -> (usize, usize) {
        match self {
            Lane::Positions => (2, 1),
            Lane::Channels => (1, 2),
        }
    }

    fn varies(self, axes: Axes) -> bool {
        match self {
            Lane::Positions => axes.positions,
            Lane::Channels => axes.channels != Channels::One,
        }
    }

    fn rows_vary(self, axes: Axes) -> bool {
        match self {
            Lane::Positions => axes.channels != Channels::One,
            Lane::Channels => axes.positions,
        }
    }

    /// The slots of accumulators: with lanes along channels, one for each channel of a group.
    fn accumulated(self, to: Axes) -> Axes {
        match (self, to.channels) {
            (Lane::Channels, Channels::Groups(_)) => Axes { channels: Channels::All, ..to },
            _ => to,
        }
    }
}

/// Where the value of a slot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Array {
    Param(usize),
    Running(usize),
    /// A reduction that was given.
    Given(usize),
    /// A reduction of this schedule.
    Result(usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ScalarStep {
    Constant(f64),
    Load(Array),
    Unary(Prim, usize),
    Binary(Prim, usize, usize),
}

/// Arithmetic on scalars: each step gives the scalar of its number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scalars {
    pub(crate) steps: Vec<ScalarStep>,
}

/// How far something stays the same beside the lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Same {
    /// For all samples.
    pub(crate) samples: bool,
    /// For so many rows, counted from a multiple of that number.
    pub(crate) rows: usize,
}

impl Default for Same {
    fn default() -> Self {
        Self { samples: true, rows: usize::MAX }
    }
}

impl Same {
    /// A value of these axes.
    fn of(axes: Axes, lane: Lane, sizes: Sizes) -> Self {
        let rows = match (lane.rows_vary(axes), lane) {
            (false, _) => usize::MAX,
            (true, Lane::Positions) => sizes.channels / sizes.slots(axes)[1],
            (true, Lane::Channels) => 1,
        };
        Self { samples: !axes.samples, rows }
    }

    /// Both.
    fn and(self, other: Self) -> Self {
        let rows = match (self.rows, other.rows) {
            (usize::MAX, rows) | (rows, usize::MAX) => rows,
            (mut a, mut b) => {
                while b > 0 {
                    (a, b) = (b, a % b);
                }
                a
            }
        };
        Self { samples: self.samples && other.samples, rows }
    }
}

/// How long what rows share stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// For a run of lanes.
    Lanes,
    /// For a run of lanes of one sample.
    Sample,
}

/// What is computed of a value that rows share, into one of the registers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum SharedStep {
    Load(Array),
    Unary(Prim, Source),
    Binary(Prim, Source, Source),
    /// What rounding to f32 leaves of another register.
    Remainder(usize),
}

/// What a pass does with a chunk.
#[derive(Debug, Clone, Default)]
pub(crate) struct PassProgram {
    pub(crate) scalars: Scalars,
    /// How far the scalars stay the same.
    pub(crate) scalars_same: Same,
    /// How far scalars and slots of accumulators do, so that rows may be one run of elements.
    pub(crate) same: Same,
    /// What rows share, by [`Tier`]: what to compute and into which register.
    pub(crate) shared: [Vec<(SharedStep, usize)>; 2],
    /// The registers among these that elements are multiplied with or divided by.
    pub(crate) factors: Vec<usize>,
    /// The steps of a row.
    pub(crate) steps: Vec<(Step, Home)>,
    pub(crate) registers: usize,
    /// What is summed up over the elements of a chunk, and what has a slot for each lane.
    pub(crate) sums: Vec<Accumulate>,
    pub(crate) by_lane: Vec<Accumulate>,
    pub(crate) write: Option<Source>,
    /// Whether the last step of a row may write the result itself.
    pub(crate) last_step_writes: bool,
    pub(crate) reads: [bool; 2],
    pub(crate) small: Vec<Small>,
    /// The machine code of the steps, where there is one.
    pub(crate) native: Option<Native>,
}

/// Where a step puts its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    Register(usize),
    /// The chunk's part of what is held for the block.
    Held(usize),
}

impl Home {
    fn source(self) -> Source {
        match self {
            Home::Register(register) => Source::Register(register),
            Home::Held(held) => Source::Held(held),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Accumulate {
    /// The accumulator's number among those of the pass, or among those across blocks.
    pub(crate) target: Target,
    pub(crate) summand: Summand,
    pub(crate) what: Accumulation,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Block(usize),
    Across(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Summand {
    Value(Source),
    /// A product that is summed without being stored.
    Product(Source, Source),
}

/// A reduction of a value that has slots only.
#[derive(Debug, Clone)]
pub(crate) struct Small {
    pub(crate) operand: SmallValue,
    /// Along which axes it varies.
    pub(crate) varies: [bool; 3],
    pub(crate) to: Layout,
    pub(crate) statistic: Statistic,
    /// How many elements make a slot.
    pub(crate) count: f64,
    /// The number of its result, or of its accumulator across blocks.
    pub(crate) result: usize,
    pub(crate) is_across: bool,
}

/// A value that has slots only, with the arithmetic to compute it.
#[derive(Debug, Clone)]
pub(crate) struct SmallValue {
    pub(crate) scalars: Scalars,
    pub(crate) root: usize,
}

/// A compiled schedule.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) lane: Lane,
    pub(crate) sizes: Sizes,
    pub(crate) blocks: Blocks,
    pub(crate) before: Vec<Small>,
    pub(crate) passes: Vec<PassProgram>,
    /// How many values passes hold.
    pub(crate) held: usize,
    /// What the passes accumulate per block.
    pub(crate) block: Vec<Vec<BlockReduction>>,
    pub(crate) after: Vec<Small>,
    pub(crate) across: Vec<Across>,
    /// The slots of each result.
    pub(crate) results: Vec<Layout>,
    /// Results that leave their block.
    pub(crate) exported: Vec<usize>,
    /// The results that are kept, in order.
    pub(crate) kept: Vec<usize>,
    /// What is given of each kind: its slots, and where they begin in the list of what was kept.
    pub(crate) given: Vec<(Layout, usize)>,
    pub(crate) params: Vec<Layout>,
    pub(crate) running: Vec<Layout>,
    /// The small values asked for in the end, and where.
    pub(crate) finals: Vec<Option<(SmallValue, Grid)>>,
    /// The result, where it is the same at every position: it is not written but computed in the end,
    /// once for each of its slots.
    pub(crate) broadcast: Option<(SmallValue, Grid)>,
}

/// A sum across blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Across {
    /// The slots it is accumulated in, and those of the result.
    pub(crate) sums: Layout,
    pub(crate) to: Layout,
    pub(crate) statistic: Statistic,
    /// The number of the result.
    pub(crate) result: usize,
}

/// An accumulator of a block, and the results it gives.
#[derive(Debug, Clone)]
pub(crate) struct BlockReduction {
    pub(crate) what: Accumulation,
    /// The slots it has, and those of the results.
    pub(crate) sums: Layout,
    pub(crate) to: Layout,
    /// The numbers of the results, and which statistic each is.
    pub(crate) results: Vec<(usize, Statistic)>,
    /// How many elements make a slot.
    pub(crate) count: f64,
}

impl PassProgram {
    /// Whether there is something to do for every element.
    pub(crate) fn has_elements(&self) -> bool {
        !self.sums.is_empty() || !self.by_lane.is_empty() || self.write.is_some()
    }

    /// What the pass takes for each element, in additions; a rough measure.
    fn work(&self) -> usize {
        let step = |&(step, _): &(Step, Home)| match step {
            Step::Unary(Prim::Exp | Prim::Log | Prim::Sigmoid | Prim::Tanh | Prim::Erf, _) => 8,
            Step::Unary(Prim::Sqrt, _) | Step::Binary(Prim::Div, ..) => 4,
            Step::Unary(..) | Step::Binary(..) | Step::Subtract(..) | Step::MultiplyAdd(..) => 1,
        };
        let sum = |sum: &Accumulate| match sum.what {
            Accumulation::Sum | Accumulation::SumOfSquares => 1,
            Accumulation::Moments => 3,
        };
        let reads = self.reads.iter().filter(|&&reads| reads).count();
        self.steps.iter().map(step).sum::<usize>()
            + self.sums.iter().map(sum).sum::<usize>()
            + 4 * self.by_lane.len()
            + reads
            + usize::from(self.write.is_some())
    }
}

/// What a run of elements takes beside them, in additions.
const WORK_OF_RUN: usize = 1000;

impl Program {
    /// What a run takes, in additions of vectors' elements; a rough measure.
    pub(crate) fn work(&self) -> usize {
        let Sizes { samples, channels, positions } = self.sizes;
        let rows = match self.lane {
            Lane::Positions => channels,
            Lane::Channels => positions,
        };
        let passes = self.passes.iter().filter(|pass| pass.has_elements());
        let work = |pass: &PassProgram| {
            let runs = samples * rows.div_ceil(pass.same.rows);
            self.sizes.elements() * pass.work() + runs * WORK_OF_RUN
        };
        passes.map(work).sum()
    }

    /// Makes machine code for the passes.
    pub(crate) fn generate(&mut self, instructions: Instructions) {
        let native = Native::of(self.passes.iter(), instructions, self.sizes.elements() >= STREAMED);
        self.passes.iter_mut().zip(native).for_each(|(pass, native)| pass.native = native);
    }
}
