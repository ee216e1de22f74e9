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
}

/// What a kernel is compiled for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Program {
    /// Threads of a workgroup, a power of two.
    pub(super) workgroup: usize,
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
    /// The number with that index.
    Number(usize),
}

/// Operands are registers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Input(usize, Index),
    Output(usize, Index),
    Statistic(usize),
    /// The bits of an f32.
    Constant(u32),
    Count(usize),
    Unary(Prim, usize),
    Binary(Prim, usize, usize),
}

/// The place of an element in a buffer: a number, and for each term a coordinate divided by its unit
/// times a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Index {
    pub(super) offset: usize,
    pub(super) terms: Vec<Term>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Term {
    pub(super) of: Coordinate,
    pub(super) unit: usize,
    pub(super) stride: usize,
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
    /// The index of the count of a slot's elements.
    pub(super) count: usize,
    /// Along which axes only blocks at the start count.
    pub(super) only_first: [bool; 3],
    pub(super) results: Vec<Result>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Result {
    pub(super) statistic: Statistic,
    pub(super) register: Option<usize>,
    pub(super) places: Vec<(usize, Index)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) value: usize,
    pub(super) output: usize,
    pub(super) index: Index,
}

impl Span {
    pub(super) fn has_elements(self) -> bool {
        matches!(self.kind, SpanKind::Elements | SpanKind::Grouped(_))
    }

    pub(super) fn is_single(self) -> bool {
        matches!(self.kind, SpanKind::One | SpanKind::Elements)
    }
}

impl Walk {
    /// Whether the block is one slot.
    pub(super) fn is_single(&self) -> bool {
        self.samples.is_single() && self.channels.is_single() && self.positions.is_single()
    }

    /// The accumulations that need a second visit.
    pub(super) fn moments(&self) -> Vec<usize> {
        (0..self.accumulate.len()).filter(|&number| self.accumulate[number].is_moments()).collect()
    }
}

impl Accumulate {
    pub(super) fn is_moments(&self) -> bool {
        self.results.iter().any(|result| result.statistic == Statistic::Variance)
    }

    pub(super) fn is_square(&self) -> bool {
        self.results.iter().any(|result| result.statistic == Statistic::MeanSquare)
    }
}

/// A buffer that a kernel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Input,
    Upstream,
    Param(usize),
    Running(usize),
    /// What the forward pass keeps.
    Kept,
    /// What the kernel before exports.
    Exports,
    /// What the kernel before leaves for this one.
    Scratch,
}

/// A buffer that a kernel writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The full-size result.
    Full,
    /// Results that leave the pass: what the forward pass keeps.
    Exports,
    /// Results that walks of the same kernel read, and what is left for the second kernel.
    Scratch,
    /// A small result.
    Final(usize),
}

/// A kernel with everything but its tensors.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub(super) program: Program,
    pub(super) numbers: Vec<usize>,
    pub(super) counts: Vec<f32>,
    pub(super) blocks: usize,
    pub(super) inputs: Vec<Source>,
    pub(super) outputs: Vec<Target>,
    /// How many numbers it exports.
    pub(super) exports: usize,
    /// How many numbers of scratch it needs.
    pub(super) scratch: usize,
}

impl Kernel {
    /// Whether it has nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.program.walks.is_empty()
    }

    /// The operations that are unrolled into its code.
    pub(super) fn operations(&self) -> usize {
        let walks = self.program.walks.iter();
        walks.map(|walk| walk.block_ops.len() + walk.slot_ops.len() + walk.element_ops.len()).sum()
    }
}

/// A lowered schedule.
#[derive(Debug, Clone)]
pub(super) struct Lowered {
    pub(super) blocks: Kernel,
    /// Adds up what the blocks have in common.
    pub(super) finish: Option<Kernel>,
    /// Where the exported reductions are.
    pub(super) exported: HashMap<ValueId, usize>,
    /// The length of each final value that is written.
    pub(super) finals: Vec<Option<usize>>,
}

impl Lowered {
    pub(super) fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        std::iter::once(&self.blocks).chain(&self.finish)
    }
}
