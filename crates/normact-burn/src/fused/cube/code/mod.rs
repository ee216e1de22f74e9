//! A kernel on its way: numbers, places in buffers and what a walk visits. The walks are added by `walks`.

mod walks;

use std::collections::HashMap;

use normact_ir::{Axes, Channels, Prim};
use normact_plan::graph::{Expr, Graph, Operands, Statistic, ValueId};
use normact_plan::{Schedule, Sizes};

use super::blocks::{Blocks, Threads};
use super::kernel::{RADIX, RUN};
use super::program::{
    Coordinate, Extent, Given, Index, Kernel, Op, Own, Part, Program, Small, Span, SpanKind, Tensor, Term, Walk, number,
};

/// The most sums of one walk: what fits the 16 KiB of shared memory that every GPU has.
pub(super) const SUMS: usize = 16;

/// The most rounds of all loops of a kernel together on a CPU: Mesa's driver ends them all after 65,535.
pub(super) const MOST_ROUNDS: usize = 60_000;

/// The fewest elements of a slot for which sums of larger slots begin there.
const ELEMENTS_OF_PART: usize = 16;

/// Where parts of reductions begin in a buffer.
pub(super) type Placed = HashMap<(ValueId, Part), usize>;

/// What is the same for all kernels of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) graph: &'a Graph,
    /// The means of which both parts are computed.
    pub(super) centers: &'a [bool],
    pub(super) params: &'a [Axes],
    pub(super) running: &'a [Axes],
    /// The sizes of the tensors of a pass, and those that statistics are of.
    pub(super) sizes: Sizes,
    pub(super) counted: Sizes,
    pub(super) lanes: usize,
    pub(super) threads: Threads,
}

/// Where the results of a reduction go, beside its readers in the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Placement {
    /// The buffer and the offset of its slots, where another kernel reads them.
    pub(super) leaves: Option<(Own, usize)>,
    /// The offset of the sums of each block, the number of columns, and whether they are slots.
    pub(super) partial: Option<(usize, usize, bool)>,
}

/// What a walk adds up.
pub(super) struct Sum {
    pub(super) operand: ValueId,
    pub(super) results: Vec<(ValueId, Vec<(Part, Placement)>)>,
    pub(super) only_first: [bool; 3],
    /// Where the sum goes in scratch memory, if it is only a part.
    pub(super) parts: Option<usize>,
}

/// A kernel on its way.
pub(super) struct Code<'a> {
    setting: Setting<'a>,
    graph: &'a Graph,
    sizes: Sizes,
    blocks: Blocks,
    workgroup: usize,
    walks: Vec<Walk>,
    /// Whether every walk so far reads as many elements at a time as it should.
    reads_vectors: bool,
    numbers: Vec<usize>,
    known_numbers: HashMap<NumberKey, usize>,
    counts: Vec<f32>,
    known_counts: HashMap<(Axes, Axes), usize>,
    tensors: Vec<Tensor>,
    small: Vec<Small>,
    given: Vec<Given>,
    writes: bool,
    finals: Vec<usize>,
    own: Vec<Own>,
    exports: usize,
    scratch: usize,
    registers: usize,
    homes: HashMap<(ValueId, Part), Home>,
    /// The reductions that the forward pass keeps, and those of the kernel before; such a buffer is bound
    /// when it is first read.
    kept: HashMap<(ValueId, Part), Index>,
    before: HashMap<(ValueId, Part), (Given, Index)>,
}

/// What a number means. Numbers that happen to be equal stay apart, so that the program does not
/// depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum NumberKey {
    ChannelStride,
    SampleStride,
    Slots(Channels),
    SlotsAndPositions(Channels),
}

/// Where a reduction is found.
#[derive(Debug, Clone)]
enum Home {
    Register(usize),
    Own(usize, Index),
}

impl Setting<'_> {
    /// The parts of a reduction that are computed.
    pub(super) fn parts(&self, id: ValueId) -> impl Iterator<Item = Part> + use<> {
        std::iter::once(Part::Value).chain(self.centers[id.index()].then_some(Part::Low))
    }
}

impl Sum {
    pub(super) fn of(operand: ValueId, results: Vec<(ValueId, Vec<(Part, Placement)>)>) -> Self {
        Self { operand, results, only_first: [false; 3], parts: None }
    }
}

impl<'a> Code<'a> {
    pub(super) fn new(setting: Setting<'a>, blocks: Blocks) -> Self {
        let [samples, channels, positions] = blocks.size;
        let sizes = setting.sizes;
        let numbers = vec![
            sizes.samples,
            sizes.channels,
            sizes.positions,
            samples,
            channels,
            positions,
            blocks.count[1],
            blocks.count[2],
            blocks.count.iter().product(),
            RADIX,
        ];
        let reads_vectors = sizes.positions.is_multiple_of(setting.lanes) && positions.is_multiple_of(setting.lanes);
        Self {
            setting,
            graph: setting.graph,
            sizes,
            workgroup: if blocks.alone { 1 } else { blocks.workgroup },
            blocks,
            walks: vec![],
            reads_vectors,
            numbers,
            known_numbers: HashMap::new(),
            counts: vec![],
            known_counts: HashMap::new(),
            tensors: vec![],
            small: vec![],
            given: vec![],
            writes: false,
            finals: vec![],
            own: vec![],
            exports: 0,
            scratch: 0,
            registers: 0,
            homes: HashMap::new(),
            kept: HashMap::new(),
            before: HashMap::new(),
        }
    }

    /// The kernel, unless it cannot read as many elements at a time as it should, or one thread has too many.
    pub(super) fn kernel(mut self) -> Option<Kernel> {
        let rounds = self.rounds();
        if !self.reads_vectors || self.blocks.alone && rounds > MOST_ROUNDS {
            return None;
        }
        let sums = |walk: &Walk| walk.accumulate.len().max(2 * walk.moments().len()) * walk.slots_at_a_time();
        let shared =
            self.walks.iter().filter(|walk| walk.team > 1).map(sums).max().unwrap_or(0).max(1) * self.workgroup;
        if self.counts.is_empty() {
            self.counts.push(1.0);
        }
        // Only what a later walk reads needs to be published.
        for number in 0..self.walks.len() {
            let (earlier, later) = self.walks.split_at_mut(number + 1);
            let reads = later.iter().any(|walk| {
                let ops = walk.block_ops.iter().chain(&walk.slot_ops).chain(&walk.element_ops);
                ops.into_iter().any(|(_, op)| matches!(op, Op::Own(..)))
            });
            earlier[number].publishes &= reads;
        }
        Some(Kernel {
            program: Program {
                workgroup: self.blocks.workgroup,
                alone: self.blocks.alone,
                cut: self.blocks.count.map(|count| count > 1),
                walks: self.walks,
                shared,
            },
            numbers: self.numbers,
            counts: self.counts,
            blocks: self.blocks.count.iter().product(),
            rounds,
            lanes: self.setting.lanes,
            tensors: self.tensors,
            small: self.small,
            given: self.given,
            writes: self.writes,
            finals: self.finals,
            own: self.own,
            exports: self.exports,
            scratch: self.scratch,
        })
    }

    /// How many rounds of loops a thread goes through.
    fn rounds(&self) -> usize {
        let rounds = |walk: &Walk| {
            let extent = |span: Span, of_block: usize| match span.extent {
                Extent::Block => of_block,
                Extent::BlockOfRows => self.blocks.size[1] * self.blocks.size[2],
                Extent::Number(number) => self.numbers[number],
            };
            let [samples, channels, positions] = self.blocks.size;
            let spans = [(walk.samples, samples), (walk.channels, channels), (walk.positions, positions)];
            let (slots, elements) = spans.into_iter().fold((1, 1), |(slots, elements), (span, of_block)| {
                let all = extent(span, of_block);
                match span.kind {
                    SpanKind::One => (slots, elements),
                    SpanKind::Slots => (slots * all, elements),
                    SpanKind::Elements => (slots, elements * all),
                    SpanKind::Grouped(size) => (slots * (all / size), elements * size),
                }
            });
            let of_team = |all: usize, threads: usize| all.div_ceil(threads);
            let at_a_time = walk.lanes / walk.slots_at_a_time();
            let elements = of_team(of_team(elements, at_a_time), walk.team);
            of_team(slots / walk.slots_at_a_time(), self.workgroup / walk.team)
                * (1 + elements.div_ceil(RUN) + elements)
        };
        self.walks.iter().map(rounds).sum()
    }

    /// What a schedule reads of an earlier pass.
    pub(super) fn given(&mut self, schedule: &Schedule, kept: &Placed) {
        for &id in &schedule.given {
            for part in self.setting.parts(id) {
                let index = self.slots_index(self.graph.axes(id), kept[&(id, part)]);
                self.kept.insert((id, part), index);
            }
        }
    }

    /// What the kernel before has left.
    pub(super) fn reads(&mut self, from: Given, placed: &Placed) {
        // In a fixed order, on which the program depends.
        let mut placed: Vec<_> = placed.iter().map(|(&key, &offset)| (offset, key)).collect();
        placed.sort_unstable_by_key(|&(offset, _)| offset);
        for (offset, (id, part)) in placed {
            let index = self.slots_index(self.graph.axes(id), offset);
            self.before.insert((id, part), (from, index));
        }
    }

    /// Where so many numbers of scratch memory begin.
    pub(super) fn scratch(&mut self, len: usize) -> usize {
        self.scratch += len;
        self.scratch - len
    }

    /// Where so many exported numbers begin.
    pub(super) fn export(&mut self, len: usize) -> usize {
        self.exports += len;
        self.exports - len
    }

    fn number(&mut self, value: usize) -> usize {
        self.numbers.push(value);
        self.numbers.len() - 1
    }

    fn known(&mut self, key: NumberKey, value: usize) -> usize {
        if let Some(&index) = self.known_numbers.get(&key) {
            return index;
        }
        let index = self.number(value);
        self.known_numbers.insert(key, index);
        index
    }

    fn count(&mut self, of: Axes, per: Axes) -> usize {
        if let Some(&index) = self.known_counts.get(&(of, per)) {
            return index;
        }
        self.counts.push(self.setting.counted.count(of, per) as f32);
        self.known_counts.insert((of, per), self.counts.len() - 1);
        self.counts.len() - 1
    }

    /// A literal, unless a shading language has none for it, or its compilers take it for granted that
    /// a product with it is 0, whatever the other factor.
    fn constant(&mut self, value: f32) -> Op {
        if value.is_normal() {
            return Op::Constant(value.to_bits());
        }
        self.counts.push(value);
        Op::Count(self.counts.len() - 1)
    }

    /// The place of an element's slot among those of a value with such axes.
    pub(super) fn slots_index(&mut self, axes: Axes, offset: usize) -> Index {
        let [_, channels, positions] = self.sizes.slots(axes);
        let offset = (offset > 0).then(|| self.number(offset));
        let mut terms = vec![];
        if axes.samples {
            let stride = if axes.positions {
                self.known(NumberKey::SlotsAndPositions(axes.channels), channels * positions)
            } else {
                self.known(NumberKey::Slots(axes.channels), channels)
            };
            terms.push(Term { of: Coordinate::Sample, unit: 1, stride: Some(stride) });
        }
        if axes.channels != Channels::One {
            let unit = self.sizes.channels / channels;
            let stride = axes.positions.then_some(number::POSITIONS);
            terms.push(Term { of: Coordinate::Channel, unit, stride });
        }
        if axes.positions {
            terms.push(Term { of: Coordinate::Position, unit: 1, stride: None });
        }
        Index { offset, terms }
    }

    /// The place of an element in a full-size tensor, counted in as many elements as are read at a time.
    fn element_index(&mut self) -> Index {
        let Sizes { channels, positions, .. } = self.sizes;
        let positions = positions / self.setting.lanes;
        let sample = self.known(NumberKey::SampleStride, channels * positions);
        let channel = self.known(NumberKey::ChannelStride, positions);
        let term = |of, stride| Term { of, unit: 1, stride };
        Index {
            offset: None,
            terms: vec![
                term(Coordinate::Sample, Some(sample)),
                term(Coordinate::Channel, Some(channel)),
                term(Coordinate::Position, None),
            ],
        }
    }

    /// The spans of a walk over elements that vary along `from`, with slots along `to`.
    pub(super) fn spans(&self, from: Axes, to: Axes) -> [Span; 3] {
        let plain = |varies: bool, many: bool, slots: bool| match (varies && many, slots) {
            (false, _) => SpanKind::One,
            (true, true) => SpanKind::Slots,
            (true, false) => SpanKind::Elements,
        };
        let channels = if from.channels == Channels::One || self.blocks.channels == Channels::All {
            SpanKind::One
        } else if self.blocks.is_one_slot(to.channels) {
            SpanKind::Elements
        } else {
            match to.channels {
                Channels::All => SpanKind::Slots,
                Channels::Groups(_) => SpanKind::Grouped(self.sizes.channels / self.sizes.slots(to)[1]),
                Channels::One => unreachable!("it is one slot"),
            }
        };
        let span = |kind| Span { kind, extent: Extent::Block };
        [
            span(plain(from.samples, self.blocks.samples, to.samples)),
            span(channels),
            span(plain(from.positions, self.blocks.positions, to.positions)),
        ]
    }

    pub(super) fn is_single(&self, from: Axes, to: Axes) -> bool {
        self.spans(from, to).into_iter().all(Span::is_single)
    }

    /// Whether sums along `to` may begin with sums along `parts`, which have enough elements each, and of which no
    /// other block has the same.
    pub(super) fn can_begin_with(&self, parts: Axes, to: Axes) -> bool {
        let slots: usize = self.sizes.slots(parts).iter().product();
        let [sample_blocks, channel_blocks, position_blocks] = self.blocks.count;
        let has_block = (sample_blocks == 1 || parts.samples)
            && (channel_blocks == 1 || parts.channels == Channels::All)
            && position_blocks == 1;
        has_block
            && parts.union(to) == parts
            && !matches!(parts.channels, Channels::Groups(_))
            && !parts.positions
            && self.sizes.elements() >= ELEMENTS_OF_PART * slots
    }

    /// How many elements of the block vary along such axes.
    fn elements(&self, axes: Axes) -> usize {
        let [samples, channels, positions] = self.blocks.size;
        let slots = Sizes { samples, channels: self.sizes.channels, positions }.slots(axes);
        slots[0] * (slots[1] * channels).div_ceil(self.sizes.channels) * slots[2]
    }
}

/// The two sides of a difference from a mean.
pub(super) fn centered(graph: &Graph, id: ValueId) -> Option<(ValueId, ValueId)> {
    let Expr::Prim(Prim::Add, Operands::Two(a, b)) = graph.expr(id) else { return None };
    [(a, b), (b, a)].into_iter().find_map(|(value, negation)| {
        let Expr::Prim(Prim::Neg, Operands::One(mean)) = graph.expr(negation) else { return None };
        (is_mean(graph, mean) && graph.axes(value) != graph.axes(mean)).then_some((value, mean))
    })
}

pub(super) fn is_mean(graph: &Graph, id: ValueId) -> bool {
    matches!(graph.expr(id), Expr::Reduce { statistic: Statistic::Mean, .. })
}

/// The place of an entry in a list, at the end of which it is added if it is not there.
fn place_of<T: PartialEq>(list: &mut Vec<T>, entry: T) -> usize {
    list.iter().position(|known| *known == entry).unwrap_or_else(|| {
        list.push(entry);
        list.len() - 1
    })
}
