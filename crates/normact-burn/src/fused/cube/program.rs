//! What a kernel is compiled for, and what it is launched with.
//!
//! The program is compiled; sizes and everything that follows from them are numbers that it reads when
//! it runs, so that a new batch size mostly runs the kernel that is there.
//!
//! A block of the schedule is the work of one workgroup. Each pass becomes **walks**: one for the
//! reductions to the same axes, which visits the slots of those axes that the block holds. The results
//! of a walk with a single slot stay in registers; others go to scratch memory, from where later walks of
//! the same workgroup read them. Results that leave the pass have a buffer of their own, since that is kept.

use std::collections::HashMap;

use normact_ir::Prim;
use normact_plan::Sizes;
use normact_plan::graph::{Statistic, ValueId};

/// Indices of the numbers that every program reads.
pub(super) mod number {
    pub(in super::super) const SAMPLES: usize = 0;
    pub(in super::super) const CHANNELS: usize = 1;
    pub(in super::super) const POSITIONS: usize = 2;
    pub(in super::super) const BLOCK_SAMPLES: usize = 3;
    pub(in super::super) const BLOCK_CHANNELS: usize = 4;
    pub(in super::super) const BLOCK_POSITIONS: usize = 5;
    pub(in super::super) const CHANNEL_BLOCKS: usize = 6;
    pub(in super::super) const POSITION_BLOCKS: usize = 7;
    pub(in super::super) const BLOCKS: usize = 8;
    /// How many sums one thread adds up at a time, which is always the same: for loops that are not to be unrolled.
    pub(in super::super) const RADIX: usize = 9;
}

/// What a kernel is compiled for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Program {
    /// Threads of a workgroup, a power of two.
    pub(super) workgroup: usize,
    /// Whether each thread has a block of its own.
    pub(super) alone: bool,
    /// Along which axes there are several blocks.
    pub(super) cut: [bool; 3],
    pub(super) walks: Vec<Walk>,
    /// Elements of shared memory.
    pub(super) shared: usize,
}

/// A visit of elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Walk {
    pub(super) samples: Span,
    pub(super) channels: Span,
    pub(super) positions: Span,
    /// How many neighbouring positions are visited at a time: elements of a slot, or slots.
    pub(super) lanes: usize,
    /// How many threads share a slot, a power of two.
    pub(super) team: usize,
    /// Whether neighbouring threads work on neighbouring slots, instead of elements.
    pub(super) slots_first: bool,
    /// Operations with the register of each result: once per block, per slot, and per element.
    pub(super) block_ops: Vec<(usize, Op)>,
    pub(super) slot_ops: Vec<(usize, Op)>,
    pub(super) element_ops: Vec<(usize, Op)>,
    pub(super) accumulate: Vec<Accumulate>,
    pub(super) writes: Vec<Write>,
    /// Whether later walks read what it writes.
    pub(super) publishes: bool,
}

/// What a walk visits along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Span {
    pub(super) kind: SpanKind,
    pub(super) extent: Extent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SpanKind {
    /// The first element.
    One,
    /// A slot for each.
    Slots,
    /// Each, as elements of one slot.
    Elements,
    /// A slot for each group of so many.
    Grouped(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Extent {
    /// The block's.
    Block,
    /// The block's channels times its positions.
    BlockOfRows,
    /// The number with that index.
    Number(usize),
}

/// Operands are registers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// An element of a tensor.
    Tensor(usize, Index),
    /// A value of a parameter or running average.
    Small(usize, Index),
    /// What an earlier kernel left.
    Given(usize, Index),
    /// What an earlier walk left.
    Own(usize, Index),
    Statistic(usize),
    /// The bits of an f32.
    Constant(u32),
    Count(usize),
    Unary(Prim, usize),
    Binary(Prim, usize, usize),
    /// The first minus a mean, of which the last is what an f32 does not hold.
    Centered(usize, usize, usize),
}

/// The place of an element in a buffer: a number, if it is not 0, and for each term a coordinate divided by its unit
/// times a number, if that is not 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Index {
    pub(super) offset: Option<usize>,
    pub(super) terms: Vec<Term>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Term {
    pub(super) of: Coordinate,
    pub(super) unit: usize,
    pub(super) stride: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Coordinate {
    Sample,
    Channel,
    Position,
    Row,
    Column,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Accumulate {
    pub(super) value: usize,
    /// The register with the low part of the value, where that is a mean.
    pub(super) low: Option<usize>,
    /// The index of the count of a slot's elements.
    pub(super) count: usize,
    /// Along which axes only blocks at the start count.
    pub(super) only_first: [bool; 3],
    pub(super) results: Vec<Result>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Result {
    pub(super) statistic: Statistic,
    pub(super) part: Part,
    pub(super) register: Option<usize>,
    pub(super) places: Vec<(usize, Index)>,
}

/// Which part of a statistic. A mean has a second one, so that what is subtracted from elements near a large
/// mean is not its rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Value,
    Low,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) value: usize,
    pub(super) target: Target,
    pub(super) index: Index,
}

impl Index {
    pub(super) fn varies_along_positions(&self) -> bool {
        self.terms.iter().any(|term| term.of == Coordinate::Position)
    }
}

impl Span {
    pub(super) fn has_elements(self) -> bool {
        matches!(self.kind, SpanKind::Elements | SpanKind::Grouped(_))
    }

    pub(super) fn is_single(self) -> bool {
        matches!(self.kind, SpanKind::One | SpanKind::Elements)
    }
}

impl Op {
    /// The registers that it reads.
    pub(super) fn operands(&self) -> impl Iterator<Item = usize> + use<> {
        let [a, b, c] = match *self {
            Op::Tensor(..) | Op::Small(..) | Op::Given(..) | Op::Own(..) => [None; 3],
            Op::Statistic(_) | Op::Constant(_) | Op::Count(_) => [None; 3],
            Op::Unary(_, a) => [Some(a), None, None],
            Op::Binary(_, a, b) => [Some(a), Some(b), None],
            Op::Centered(a, b, c) => [Some(a), Some(b), Some(c)],
        };
        [a, b, c].into_iter().flatten()
    }
}

impl Walk {
    /// A walk that visits elements, one at a time, and does nothing yet.
    pub(super) fn new([samples, channels, positions]: [Span; 3], team: usize, slots_first: bool) -> Self {
        Self {
            samples,
            channels,
            positions,
            lanes: 1,
            team,
            slots_first,
            block_ops: vec![],
            slot_ops: vec![],
            element_ops: vec![],
            accumulate: vec![],
            writes: vec![],
            publishes: false,
        }
    }

    /// Its operations.
    pub(super) fn ops(&self) -> impl Iterator<Item = &Op> {
        self.block_ops.iter().chain(&self.slot_ops).chain(&self.element_ops).map(|(_, op)| op)
    }

    /// Whether the block is one slot.
    pub(super) fn is_single(&self) -> bool {
        self.samples.is_single() && self.channels.is_single() && self.positions.is_single()
    }

    /// Whether a slot has more than one element.
    pub(super) fn has_elements(&self) -> bool {
        [self.samples, self.channels, self.positions].into_iter().any(Span::has_elements)
    }

    /// Whether results go to memory.
    pub(super) fn has_places(&self) -> bool {
        self.accumulate.iter().flat_map(|sum| &sum.results).any(|result| !result.places.is_empty())
    }

    /// The number of a result of an accumulation among those of all.
    pub(super) fn number_of(&self, accumulate: usize, result: usize) -> usize {
        self.accumulate[..accumulate].iter().map(|before| before.results.len()).sum::<usize>() + result
    }

    /// How many neighbouring slots are visited at a time.
    pub(super) fn slots_at_a_time(&self) -> usize {
        if self.positions.kind == SpanKind::Slots { self.lanes } else { 1 }
    }

    /// Whether a slot is the work of one thread.
    pub(super) fn is_alone(&self) -> bool {
        self.team == 1
    }

    /// The accumulations of which threads are merged in a second phase, around the common mean.
    pub(super) fn moments(&self) -> Vec<usize> {
        (0..self.accumulate.len()).filter(|&number| self.accumulate[number].is_moments()).collect()
    }
}

impl Accumulate {
    /// Whether differences from the mean are accumulated. A mean of which both parts are wanted is, too.
    pub(super) fn is_moments(&self) -> bool {
        self.results.iter().any(|result| result.statistic == Statistic::Variance || result.part == Part::Low)
    }

    /// Whether the values, or their squares, are added up as they are: a sum beside moments is closer than what
    /// follows from the mean.
    pub(super) fn is_added_up(&self) -> bool {
        !self.is_moments() || self.results.iter().any(|result| result.statistic == Statistic::Sum)
    }

    pub(super) fn is_square(&self) -> bool {
        self.results.iter().any(|result| result.statistic == Statistic::MeanSquare)
    }
}

/// Where a walk writes values to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// The full-size result.
    Full,
    /// A small result, by its place among those that the kernel writes.
    Final(usize),
}

/// A full-size tensor that a kernel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tensor {
    Input,
    Upstream,
}

/// A small operand that a kernel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Small {
    Param(usize),
    Running(usize),
}

/// Numbers that a kernel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// What the forward pass keeps.
    Kept,
    /// What the kernel before exports.
    Exports,
    /// What the kernel before leaves for this one.
    Scratch,
}

/// Numbers that a kernel writes, and may read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// Results that leave the pass: what the forward pass keeps.
    Exports,
    /// Results that walks of the same kernel read, and what is left for the second kernel.
    Scratch,
}

/// A kernel with everything but its tensors.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub(super) program: Program,
    pub(super) numbers: Vec<usize>,
    pub(super) counts: Vec<f32>,
    pub(super) blocks: usize,
    /// How many rounds of loops a thread goes through.
    pub(super) rounds: usize,
    /// How many neighbouring elements of tensors are read at a time.
    pub(super) lanes: usize,
    pub(super) tensors: Vec<Tensor>,
    pub(super) small: Vec<Small>,
    pub(super) given: Vec<Given>,
    /// Whether it writes the full-size result.
    pub(super) writes: bool,
    /// The numbers of the small results that it writes.
    pub(super) finals: Vec<usize>,
    pub(super) own: Vec<Own>,
    /// How many numbers it exports.
    pub(super) exports: usize,
    /// How many numbers of scratch it needs.
    pub(super) scratch: usize,
}

impl Kernel {
    /// How many buffers it is launched with, that of the sizes included.
    pub(super) fn buffers(&self) -> usize {
        let read = self.tensors.len() + self.small.len() + self.given.len();
        read + usize::from(self.writes) + self.finals.len() + self.own.len() + 1
    }

    /// Whether it has nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.program.walks.is_empty()
    }

    /// The operations that are unrolled into its code.
    pub(super) fn operations(&self) -> usize {
        self.program.walks.iter().map(|walk| walk.ops().count()).sum()
    }
}

/// A lowered schedule.
#[derive(Debug, Clone)]
pub(super) struct Lowered {
    pub(super) blocks: Kernel,
    /// Adds up what the blocks have in common.
    pub(super) finish: Option<Kernel>,
    /// The sizes of the full-size result: those of the input, or of one element of each channel that is repeated.
    pub(super) sizes: Sizes,
    /// Where the parts of exported reductions are.
    pub(super) exported: HashMap<(ValueId, Part), usize>,
    /// The length of each final value that is written.
    pub(super) finals: Vec<Option<usize>>,
}

impl Lowered {
    pub(super) fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        std::iter::once(&self.blocks).chain(&self.finish)
    }
}
