//! A schedule lowered to the programs of one or two kernels.

use std::collections::HashMap;

use normact_ir::{Axes, Channels, Extent as ParamExtent, Prim};
use normact_plan::graph::{Expr, Graph, Operands, Statistic, ValueId, one_by_one};
use normact_plan::{Kind, Plan, Reduction, Schedule, Sizes};

use super::blocks::{Blocks, Threads, power_of_two};
use super::kernel::{RADIX, RUN};
use super::program::{
    Accumulate, Coordinate, Extent, Given, Index, Kernel, Lowered, Op, Own, Part, Program, Result, Small, Span,
    SpanKind, Target, Tensor, Term, Walk, Write, number,
};

/// The most sums of one walk: what fits the 16 KiB of shared memory that every GPU has.
const SUMS: usize = 16;

/// The most rounds of all loops of a kernel together on a CPU: Mesa's driver ends them all after 65,535.
pub(super) const MOST_ROUNDS: usize = 60_000;

/// So few elements are quicker visited by every thread than summed up across threads, on a CPU.
const FEW_ELEMENTS: usize = 64;

/// The fewest elements of a slot for which sums of larger slots begin there.
const ELEMENTS_OF_PART: usize = 16;

/// What the kernels of a pass are made for, beside the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// Whether the backward pass gives the gradient of the input.
    pub(super) input_gradient: bool,
    /// How many neighbouring elements are read at a time, where that is possible. On a CPU, blocks of single threads
    /// only: a workgroup would take several times as long to compile.
    pub(super) lanes: usize,
    /// How the device runs threads.
    pub(super) threads: Threads,
}

/// Lowers the forward and the backward pass.
pub(super) fn lower(
    plan: &Plan,
    params: &[ParamExtent],
    running: &[ParamExtent],
    sizes: Sizes,
    wanted: Wanted,
) -> [Lowered; 2] {
    let axes = |extent: &ParamExtent| match extent {
        ParamExtent::PerChannel => Axes::CHANNEL,
        ParamExtent::Scalar => Axes::NONE,
    };
    let params: Vec<Axes> = params.iter().map(axes).collect();
    let running: Vec<Axes> = running.iter().map(axes).collect();
    let updates: Vec<_> = plan.joint.updates.iter().copied().zip(running.iter().copied()).collect();
    let gradients: Vec<_> = plan.joint.param_gradients.iter().copied().zip(params.iter().copied()).collect();
    let unread;
    let backward = if wanted.input_gradient {
        &plan.backward
    } else {
        let mut schedule = plan.backward.clone();
        schedule.passes.iter_mut().for_each(|pass| pass.write = None);
        unread = schedule;
        &unread
    };
    let graph = &plan.joint.graph;
    // What is the same for all samples and positions is computed once.
    let output = graph.axes(plan.joint.output);
    let reads_nothing = plan.forward.passes.iter().all(|pass| pass.reductions.is_empty());
    let is_repeated = reads_nothing && !output.samples && !output.positions;
    let of_forward = if is_repeated { Sizes { samples: 1, positions: 1, ..sizes } } else { sizes };
    let setting = Setting {
        graph,
        centers: &centers(graph),
        params: &params,
        running: &running,
        sizes,
        counted: sizes,
        lanes: 1,
        threads: wanted.threads,
    };
    let pass = |schedule: &Schedule, sizes: Sizes, finals: &[(Option<ValueId>, Axes)], kept: &Placed| {
        let setting = Setting { sizes, ..setting };
        let together = Blocks::new(graph, schedule, sizes, wanted.threads);
        let single = [Blocks::whole_channels, Blocks::alone].map(|of| of(graph, schedule, sizes, wanted.threads));
        let preferred: Vec<Blocks> = match wanted.threads {
            Threads::Gpu => vec![together],
            Threads::Cpu { .. } => single.into_iter().flatten().collect(),
        };
        let several = (wanted.lanes > 1).then_some(wanted.lanes);
        let ways =
            several.into_iter().chain([1]).flat_map(|lanes| preferred.iter().map(move |&blocks| (lanes, blocks)));
        ways.chain([(1, together)])
            .find_map(|(lanes, blocks)| Setting { lanes, ..setting }.schedule(schedule, blocks, finals, kept))
            .expect("single elements are always possible")
    };
    let forward = pass(&plan.forward, of_forward, &updates, &HashMap::new());
    let backward = pass(backward, sizes, &gradients, &forward.exported);
    [forward, backward]
}

/// Which reductions are means that are subtracted from something that varies along more axes: of those both
/// parts are computed.
fn centers(graph: &Graph) -> Vec<bool> {
    let mut centers = vec![false; graph.len()];
    for id in graph.ids() {
        if let Some((_, mean)) = centered(graph, id) {
            centers[mean.index()] = true;
        }
    }
    // A mean of means is as good as these.
    for id in graph.ids().rev() {
        if let (true, Expr::Reduce { operand, .. }) = (centers[id.index()], graph.expr(id))
            && is_mean(graph, operand)
        {
            centers[operand.index()] = true;
        }
    }
    centers
}

/// The two sides of a difference from a mean.
fn centered(graph: &Graph, id: ValueId) -> Option<(ValueId, ValueId)> {
    let Expr::Prim(Prim::Add, Operands::Two(a, b)) = graph.expr(id) else { return None };
    [(a, b), (b, a)].into_iter().find_map(|(value, negation)| {
        let Expr::Prim(Prim::Neg, Operands::One(mean)) = graph.expr(negation) else { return None };
        (is_mean(graph, mean) && graph.axes(value) != graph.axes(mean)).then_some((value, mean))
    })
}

fn is_mean(graph: &Graph, id: ValueId) -> bool {
    matches!(graph.expr(id), Expr::Reduce { statistic: Statistic::Mean, .. })
}

/// Where parts of reductions begin in a buffer.
type Placed = HashMap<(ValueId, Part), usize>;

/// What is the same for all kernels of a layer.
#[derive(Debug, Clone, Copy)]
struct Setting<'a> {
    graph: &'a Graph,
    /// The means of which both parts are computed.
    centers: &'a [bool],
    params: &'a [Axes],
    running: &'a [Axes],
    /// The sizes of the tensors of a pass, and those that statistics are of.
    sizes: Sizes,
    counted: Sizes,
    lanes: usize,
    threads: Threads,
}

/// Where a reduction is found.
#[derive(Debug, Clone)]
enum Home {
    Register(usize),
    Own(usize, Index),
}

impl<'a> Setting<'a> {
    /// The parts of a reduction that are computed.
    fn parts(&self, id: ValueId) -> impl Iterator<Item = Part> + use<> {
        std::iter::once(Part::Value).chain(self.centers[id.index()].then_some(Part::Low))
    }

    /// Lowers a schedule; `None` where it cannot read so many elements at a time, or one thread has too many.
    fn schedule(
        &self,
        schedule: &Schedule,
        blocks: Blocks,
        finals: &[(Option<ValueId>, Axes)],
        kept: &Placed,
    ) -> Option<Lowered> {
        let (graph, sizes) = (self.graph, self.sizes);
        let [sample_blocks, channel_blocks, position_blocks] = blocks.count;
        let is_whole = blocks.count == [1; 3];
        let has_finals = finals.iter().any(|(id, _)| id.is_some());
        let is_complete = |id: ValueId| channel_blocks == 1 || graph.axes(id).channels != Channels::One;
        let finishes_in_blocks = sample_blocks == 1
            && position_blocks == 1
            && schedule.across.iter().all(|&id| is_complete(id))
            && (schedule.after.is_empty() || is_whole);
        let deferred;
        let (schedule, read_later) = if finishes_in_blocks {
            (schedule, vec![])
        } else {
            let (rest, read_later) = self.deferred(schedule);
            deferred = rest;
            (&deferred, read_later)
        };

        let mut code = Code::new(*self, blocks);
        code.given(schedule, kept);
        let mut exported = HashMap::new();
        for &id in &schedule.exported {
            for part in self.parts(id) {
                exported.insert((id, part), code.exports);
                code.exports += sizes.slots(graph.axes(id)).iter().product::<usize>();
            }
        }
        let mut left = HashMap::new();
        for id in read_later {
            for part in self.parts(id) {
                left.insert((id, part), code.scratch(sizes.slots(graph.axes(id)).iter().product()));
            }
        }
        let mut partial = HashMap::new();
        let across: Vec<ValueId> = if finishes_in_blocks { vec![] } else { schedule.across.clone() };
        for &id in &across {
            let columns = if is_complete(id) { sizes.slots(graph.axes(id))[1] } else { channel_blocks };
            let offset = code.scratch(sample_blocks * position_blocks * columns);
            partial.insert(id, (offset, columns));
        }
        let full = |id: ValueId| (id, Target::Full, Axes::INPUT);
        let home = |id: ValueId, part: Part| Placement {
            leaves: match (exported.get(&(id, part)), left.get(&(id, part))) {
                (Some(&offset), _) => Some((Own::Exports, offset)),
                (None, offset) => offset.map(|&offset| (Own::Scratch, offset)),
            },
            partial: partial.get(&id).map(|&(offset, columns)| (offset, columns, is_complete(id))),
        };
        let homes = |id: ValueId| self.parts(id).map(|part| (part, home(id, part))).collect::<Vec<_>>();

        code.small(&schedule.before, &homes);
        for pass in &schedule.passes {
            // Axes that differ for the whole input may have the same slots in a block.
            let mut shapes: Vec<Axes> = vec![];
            for reduction in &pass.reductions {
                let spans = code.spans(Axes::INPUT, reduction.to);
                if shapes.iter().all(|&shape| code.spans(Axes::INPUT, shape) != spans) {
                    shapes.push(reduction.to);
                }
            }
            let shape_of = |code: &Code, reduction: &Reduction| {
                let spans = code.spans(Axes::INPUT, reduction.to);
                shapes.iter().copied().find(|&shape| code.spans(Axes::INPUT, shape) == spans).unwrap_or(reduction.to)
            };
            // A sum over the slots of another one begins with sums of these: one walk has them all.
            let by_parts = |code: &Code, reduction: &Reduction| {
                let shape = shape_of(code, reduction);
                let is_part = |&fine: &Axes| fine != shape && code.can_begin_with(fine, reduction.to);
                let is_center = |id: ValueId| self.centers[id.index()];
                let is_sum = matches!(reduction.kind, Kind::Sum { .. }) && !reduction.kind.results().any(is_center);
                shapes.iter().copied().find(is_part).filter(|_| is_sum)
            };
            let mut write = pass.write;
            for &to in &shapes {
                let mut sums = vec![];
                let mut begun: Vec<(Reduction, usize)> = vec![];
                for reduction in &pass.reductions {
                    let parts = by_parts(&code, reduction);
                    if parts == Some(to) {
                        let offset = code.scratch(sizes.slots(to).iter().product());
                        begun.push((*reduction, offset));
                        sums.push(Sum { parts: Some(offset), ..Sum::of(reduction.operand, vec![]) });
                    } else if parts.is_none() && shape_of(&code, reduction) == to {
                        let results = reduction.kind.results().map(|id| (id, homes(id))).collect();
                        sums.push(Sum::of(reduction.operand, results));
                    }
                }
                let mut rest = sums.into_iter();
                loop {
                    let together: Vec<Sum> = rest.by_ref().take(SUMS / 2).collect();
                    if together.is_empty() {
                        break;
                    }
                    let written = if code.is_single(Axes::INPUT, to) { write.take() } else { None };
                    code.walk(Axes::INPUT, to, together, written.into_iter().map(full).collect());
                }
                code.finish_parts(begun, to, &homes);
            }
            if let Some(id) = write {
                // Channel by channel, so that arithmetic on parameters is done once for each.
                let rows = Axes { positions: false, ..Axes::INPUT };
                code.walk(Axes::INPUT, rows, vec![], vec![full(id)]);
            }
            code.small(&pass.small, &homes);
        }
        let lengths: Vec<Option<usize>> = finals.iter().map(|&(id, axes)| id.map(|_| sizes.slots(axes)[1])).collect();
        if finishes_in_blocks || !has_finals {
            if finishes_in_blocks {
                code.small(&schedule.after, &homes);
            }
            code.finals(finals);
            return Some(Lowered { blocks: code.kernel()?, finish: None, sizes, exported, finals: lengths });
        }

        // Sums of as many columns in one walk.
        let rows = sample_blocks * position_blocks;
        let columns = |id: ValueId| (partial[&id].1, is_complete(id));
        let is_by_channel = |axes: Axes| axes.channels == Channels::All;
        let by_channel = across.iter().all(|&id| is_complete(id) && is_by_channel(graph.axes(id)))
            && schedule.after.iter().all(|&id| is_by_channel(graph.axes(id)))
            && finals.iter().all(|&(id, axes)| id.is_none() || is_by_channel(axes));
        let of_operand = |id: ValueId| match graph.expr(id) {
            Expr::Reduce { operand, .. } => sizes.slots(one_by_one(graph.axes(operand))).iter().product(),
            _ => 0,
        };
        let read: usize = across.iter().map(|&id| rows * columns(id).0).sum();
        let read = read + schedule.after.iter().map(|&id| of_operand(id)).sum::<usize>();
        let is_quick = 2 * read / sizes.channels < MOST_ROUNDS;
        let finish_blocks = match self.threads {
            Threads::Cpu { vector, .. } if by_channel && is_quick && sizes.channels >= vector => {
                Blocks::channels(sizes, vector)
            }
            threads => Blocks::whole(sizes, read, threads),
        };
        let mut finish = Code::new(Setting { lanes: 1, ..*self }, finish_blocks);
        finish.given(schedule, kept);
        for (from, placed) in [(Given::Exports, &exported), (Given::Scratch, &left)] {
            for (&(id, part), &offset) in placed {
                let index = finish.slots_index(graph.axes(id), offset);
                finish.before.insert((id, part), (from, index));
            }
        }
        let mut rest = across.clone();
        while let Some(&first) = rest.first() {
            let together: Vec<_> = rest.extract_if(.., |&mut id| columns(id) == columns(first)).collect();
            let (columns, are_slots) = columns(first);
            for together in together.chunks(SUMS) {
                let together: Vec<_> = together.iter().map(|&id| (id, partial[&id].0)).collect();
                finish.partials(&together, rows, columns, are_slots);
            }
        }
        let nowhere = |id: ValueId| self.parts(id).map(|part| (part, Placement::default())).collect();
        finish.small(&schedule.after, &nowhere);
        finish.finals(finals);
        Some(Lowered { blocks: code.kernel()?, finish: Some(finish.kernel()?), sizes, exported, finals: lengths })
    }
}

impl Setting<'_> {
    /// The same schedule with sums across blocks of what statistics give left to the second kernel, and the
    /// statistics which that reads: the first one has less to do, and to compile, than with a sum for each block.
    fn deferred(&self, schedule: &Schedule) -> (Schedule, Vec<ValueId>) {
        let graph = self.graph;
        let is_reduction = |id: ValueId| matches!(graph.expr(id), Expr::Reduce { .. });
        let is_left = |id: &ValueId| {
            let Expr::Reduce { operand, .. } = graph.expr(*id) else { return None };
            let leaves: Vec<ValueId> = {
                let cone = graph.cone(&[operand], is_reduction);
                graph.ids().filter(|&id| cone[id.index()] && is_reduction(id)).collect()
            };
            let is_known = |leaf: &ValueId| !schedule.across.contains(leaf) && !schedule.after.contains(leaf);
            let is_small = !graph.axes(operand).positions && !leaves.is_empty() && leaves.iter().all(is_known);
            is_small.then_some(leaves)
        };
        let mut left = schedule.clone();
        let deferred: Vec<ValueId> = left.across.extract_if(.., |id| is_left(id).is_some()).collect();
        let mut read_later: Vec<ValueId> = vec![];
        for leaf in deferred.iter().filter_map(is_left).flatten() {
            if ![&left.given, &left.exported, &read_later].into_iter().any(|known| known.contains(&leaf)) {
                read_later.push(leaf);
            }
        }
        let stays = |id: &ValueId| !deferred.contains(id);
        left.before.retain(stays);
        left.passes.iter_mut().for_each(|pass| pass.small.retain(stays));
        left.after.splice(0..0, deferred.iter().copied());
        (left, read_later)
    }
}

/// Where the results of a reduction go, beside its readers in the kernel.
#[derive(Debug, Clone, Copy, Default)]
struct Placement {
    /// The buffer and the offset of its slots, where another kernel reads them.
    leaves: Option<(Own, usize)>,
    /// The offset of the sums of each block, the number of columns, and whether they are slots.
    partial: Option<(usize, usize, bool)>,
}

struct Sum {
    operand: ValueId,
    results: Vec<(ValueId, Vec<(Part, Placement)>)>,
    only_first: [bool; 3],
    /// Where the sum goes in scratch memory, if it is only a part.
    parts: Option<usize>,
}

impl Sum {
    fn of(operand: ValueId, results: Vec<(ValueId, Vec<(Part, Placement)>)>) -> Self {
        Self { operand, results, only_first: [false; 3], parts: None }
    }
}

/// A kernel on its way.
struct Code<'a> {
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

impl<'a> Code<'a> {
    fn new(setting: Setting<'a>, blocks: Blocks) -> Self {
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
    fn kernel(mut self) -> Option<Kernel> {
        let rounds = self.rounds();
        if !self.reads_vectors || self.blocks.alone && rounds > MOST_ROUNDS {
            return None;
        }
        let sums = |walk: &Walk| walk.accumulate.len().max(2 * walk.moments().len());
        let shared = self.walks.iter().map(sums).max().unwrap_or(0).max(1) * self.workgroup;
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
            let elements = of_team(of_team(elements, walk.lanes), walk.team);
            of_team(slots, self.workgroup / walk.team) * (1 + elements.div_ceil(RUN) + elements)
        };
        self.walks.iter().map(rounds).sum()
    }

    /// What a schedule reads of an earlier pass.
    fn given(&mut self, schedule: &Schedule, kept: &Placed) {
        for &id in &schedule.given {
            for part in self.setting.parts(id) {
                let index = self.slots_index(self.graph.axes(id), kept[&(id, part)]);
                self.kept.insert((id, part), index);
            }
        }
    }

    /// Where so many numbers of scratch memory begin.
    fn scratch(&mut self, len: usize) -> usize {
        self.scratch += len;
        self.scratch - len
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
    fn slots_index(&mut self, axes: Axes, offset: usize) -> Index {
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
    fn spans(&self, from: Axes, to: Axes) -> [Span; 3] {
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

    fn is_single(&self, from: Axes, to: Axes) -> bool {
        self.spans(from, to).into_iter().all(Span::is_single)
    }

    /// Reductions of values that have few slots, those along the same axes in one walk: each walk is code that a
    /// driver has to compile, and has barriers.
    fn small(&mut self, ids: &[ValueId], homes: &dyn Fn(ValueId) -> Vec<(Part, Placement)>) {
        let mut together: Vec<Sum> = vec![];
        let mut axes = None;
        for &id in ids {
            let Expr::Reduce { operand, to, statistic } = self.graph.expr(id) else { unreachable!("a reduction") };
            let from = one_by_one(self.graph.axes(operand));
            let is_reduction = |id: ValueId| matches!(self.graph.expr(id), Expr::Reduce { .. });
            let cone = self.graph.cone(&[operand], is_reduction);
            let is_needed = together.iter().any(|sum| sum.results.iter().any(|(id, _)| cone[id.index()]));
            if axes != Some((from, to)) || is_needed || together.len() == SUMS / 2 {
                self.small_walk(axes.replace((from, to)), std::mem::take(&mut together));
            }
            let placements = homes(id);
            let is_partial = placements.iter().any(|(_, placement)| placement.partial.is_some());
            let only_first = [
                is_partial && !from.samples,
                is_partial && from.channels == Channels::One,
                is_partial && !from.positions,
            ];
            // A mean and a variance of the same values are accumulated together.
            let is_moment = |statistic| matches!(statistic, Statistic::Mean | Statistic::Variance);
            let same = together.iter_mut().find(|sum| {
                let others = sum.results.iter().all(|&(other, _)| match self.graph.expr(other) {
                    Expr::Reduce { statistic, .. } => is_moment(statistic),
                    _ => false,
                });
                sum.operand == operand && sum.only_first == only_first && is_moment(statistic) && others
            });
            match same {
                Some(sum) => sum.results.push((id, placements)),
                None => together.push(Sum { only_first, ..Sum::of(operand, vec![(id, placements)]) }),
            }
        }
        self.small_walk(axes, together);
    }

    fn small_walk(&mut self, axes: Option<(Axes, Axes)>, sums: Vec<Sum>) {
        if let Some((from, to)) = axes.filter(|_| !sums.is_empty()) {
            self.walk(from, to, sums, vec![]);
        }
    }

    /// Adds a walk over the elements of the block that vary along `from`.
    fn walk(&mut self, from: Axes, to: Axes, sums: Vec<Sum>, writes: Vec<(ValueId, Target, Axes)>) {
        let spans = self.spans(from, to);
        self.walk_of(from, to, spans, sums, writes);
    }

    fn walk_of(
        &mut self,
        from: Axes,
        to: Axes,
        [samples, channels, positions]: [Span; 3],
        sums: Vec<Sum>,
        writes: Vec<(ValueId, Target, Axes)>,
    ) {
        let is_single = [samples, channels, positions].into_iter().all(Span::is_single);
        let slots_first = positions.kind == SpanKind::Slots || channels.kind == SpanKind::Slots && !from.positions;
        let team = match is_single {
            true if writes.is_empty() => self.single_team(from),
            true => self.workgroup,
            false => self.team(from, to, slots_first, 1, !sums.is_empty()),
        };
        let mut walk = Walk::new([samples, channels, positions], team, slots_first);
        let roots: Vec<ValueId> = sums.iter().map(|sum| sum.operand).chain(writes.iter().map(|&(id, ..)| id)).collect();
        let is_center = |id: &ValueId| self.setting.centers[id.index()];
        let means: Vec<ValueId> = sums.iter().map(|sum| sum.operand).filter(is_center).collect();
        let [registers, lows] = self.ops(&mut walk, &roots, &means, to);
        for sum in sums {
            let (operand, from) = (registers[&sum.operand], one_by_one(self.graph.axes(sum.operand)));
            let own = sum.results.first().map_or(to, |&(id, _)| self.graph.axes(id));
            let count = self.count(from, own);
            let mut results = vec![];
            if let Some(offset) = sum.parts {
                let places = vec![(place_of(&mut self.own, Own::Scratch), self.slots_index(to, offset))];
                results.push(Result { statistic: Statistic::Sum, part: Part::Value, register: None, places });
                walk.publishes = true;
            }
            for (id, placements) in sum.results {
                let Expr::Reduce { statistic, .. } = self.graph.expr(id) else { unreachable!("a reduction") };
                for (part, placement) in placements {
                    let (result, publishes) = self.result(id, statistic, part, placement, is_single);
                    walk.publishes |= publishes;
                    results.push(result);
                }
            }
            let low = lows.get(&sum.operand).copied();
            walk.accumulate.push(Accumulate { value: operand, low, count, only_first: sum.only_first, results });
        }
        for (id, target, axes) in writes {
            let (index, target) = match target {
                Target::Full => {
                    self.writes = true;
                    (self.element_index(), target)
                }
                Target::Final(number) => (self.slots_index(axes, 0), Target::Final(place_of(&mut self.finals, number))),
            };
            walk.writes.push(Write { value: registers[&id], target, index });
        }
        self.flatten(&mut walk);
        self.use_lanes(&mut walk, from, to);
        self.walks.push(walk);
    }

    /// Whether sums along `to` may begin with sums along `parts`, which have enough elements each, and of which no
    /// other block has the same.
    fn can_begin_with(&self, parts: Axes, to: Axes) -> bool {
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

    /// Adds up the parts of sums, each from an offset on.
    fn finish_parts(
        &mut self,
        mut sums: Vec<(Reduction, usize)>,
        parts: Axes,
        homes: &dyn Fn(ValueId) -> Vec<(Part, Placement)>,
    ) {
        while let Some(&(Reduction { to, .. }, _)) = sums.first() {
            let together: Vec<_> = sums.extract_if(.., |(sum, _)| sum.to == to).collect();
            for together in together.chunks(SUMS / 2) {
                let spans = self.spans(parts, to);
                let is_single = spans.into_iter().all(Span::is_single);
                let slots_first = spans[1].kind == SpanKind::Slots;
                let team = if is_single { self.single_team(parts) } else { self.team(parts, to, slots_first, 1, true) };
                let mut walk = Walk::new(spans, team, slots_first);
                for (register, &(sum, offset)) in together.iter().enumerate() {
                    let index = self.slots_index(parts, offset);
                    walk.element_ops.push((register, Op::Own(place_of(&mut self.own, Own::Scratch), index)));
                    let mut results = vec![];
                    for id in sum.kind.results() {
                        let Expr::Reduce { statistic, .. } = self.graph.expr(id) else { unreachable!("a reduction") };
                        for (part, placement) in homes(id) {
                            let (result, publishes) = self.result(id, statistic, part, placement, is_single);
                            walk.publishes |= publishes;
                            results.push(result);
                        }
                    }
                    let count = self.count(Axes::INPUT, to);
                    walk.accumulate.push(Accumulate {
                        value: register,
                        low: None,
                        count,
                        only_first: [false; 3],
                        results,
                    });
                }
                self.walks.push(walk);
            }
        }
    }

    /// Makes one axis of channels and positions, which lie side by side in memory, where a walk visits both and
    /// nothing varies along one of them alone.
    fn flatten(&self, walk: &mut Walk) {
        let both = [walk.channels, walk.positions].into_iter().all(|span| span.kind == SpanKind::Elements);
        let varies = |index: &Index| {
            index.terms.iter().any(|term| matches!(term.of, Coordinate::Channel | Coordinate::Position))
        };
        let is_flat = walk.element_ops.iter().all(|(_, op)| match op {
            Op::Small(_, index) | Op::Given(_, index) | Op::Own(_, index) => !varies(index),
            _ => true,
        });
        let is_full = walk.writes.iter().all(|write| write.target == Target::Full);
        if both && is_flat && is_full && self.blocks.size[2] == self.sizes.positions {
            walk.channels.kind = SpanKind::One;
            walk.positions.extent = Extent::BlockOfRows;
        }
    }

    /// Lets a walk over tensors visit several positions at a time, if it can.
    fn use_lanes(&mut self, walk: &mut Walk, from: Axes, to: Axes) {
        let is_of_tensor = |op: &Op| matches!(op, Op::Tensor(..));
        let writes_tensor = walk.writes.iter().any(|write| write.target == Target::Full);
        if !writes_tensor && !walk.ops().any(is_of_tensor) {
            return;
        }
        let varies_along_lanes = |index: &Index| index.terms.iter().any(|term| term.of == Coordinate::Position);
        let is_odd = |op: &Op| match op {
            Op::Small(_, index) | Op::Given(_, index) | Op::Own(_, index) => varies_along_lanes(index),
            Op::Tensor(..) | Op::Statistic(_) | Op::Constant(_) | Op::Count(_) => false,
            Op::Unary(..) | Op::Binary(..) | Op::Centered(..) => false,
        };
        if walk.positions.kind == SpanKind::Elements && !walk.ops().any(is_odd) {
            walk.lanes = self.setting.lanes;
            if !walk.is_single() {
                walk.team = self.team(from, to, walk.slots_first, walk.lanes, !walk.accumulate.is_empty());
            }
        } else {
            self.reads_vectors &= self.setting.lanes == 1;
        }
    }

    fn result(
        &mut self,
        id: ValueId,
        statistic: Statistic,
        part: Part,
        placement: Placement,
        is_single: bool,
    ) -> (Result, bool) {
        let axes = self.graph.axes(id);
        let mut places = vec![];
        let mut publishes = false;
        if let Some((offset, columns, are_slots)) = placement.partial {
            let mut index = if are_slots {
                self.slots_index(axes, offset)
            } else {
                Index { offset: Some(self.number(offset)), terms: vec![] }
            };
            let stride = self.number(columns);
            index.terms.push(Term { of: Coordinate::Row, unit: 1, stride: Some(stride) });
            if !are_slots {
                index.terms.push(Term { of: Coordinate::Column, unit: 1, stride: None });
            }
            places.push((place_of(&mut self.own, Own::Scratch), index));
            return (Result { statistic, part, register: None, places }, false);
        }
        if placement.leaves.is_some() || !is_single {
            let (own, offset) = match placement.leaves {
                Some(place) => place,
                None => (Own::Scratch, self.scratch(self.sizes.slots(axes).iter().product())),
            };
            let index = self.slots_index(axes, offset);
            let own = place_of(&mut self.own, own);
            if !is_single {
                self.homes.insert((id, part), Home::Own(own, index.clone()));
                publishes = true;
            }
            places.push((own, index));
        }
        let register = is_single.then(|| {
            self.registers += 1;
            self.homes.insert((id, part), Home::Register(self.registers - 1));
            self.registers - 1
        });
        (Result { statistic, part, register, places }, publishes)
    }

    /// How many threads work on the one slot of a block: all, or, where it has few elements and to wait for each other
    /// takes longer than to visit them all, each by itself.
    fn single_team(&self, from: Axes) -> usize {
        let is_quick = self.setting.threads != Threads::Gpu && self.elements(from) <= FEW_ELEMENTS;
        if is_quick { 1 } else { self.workgroup }
    }

    /// How many elements of the block vary along such axes.
    fn elements(&self, axes: Axes) -> usize {
        let [samples, channels, positions] = self.blocks.size;
        let slots = Sizes { samples, channels: self.sizes.channels, positions }.slots(axes);
        slots[0] * (slots[1] * channels).div_ceil(self.sizes.channels) * slots[2]
    }

    /// How many threads work on a slot: enough that all have something to do, few enough that each has
    /// several elements.
    fn team(&self, from: Axes, to: Axes, slots_first: bool, lanes: usize, sums: bool) -> usize {
        let elements = self.elements(from) / lanes;
        let slots = self.elements(to).max(1);
        // Slots side by side give neighbours in memory to neighbouring threads only in teams. On a CPU these are
        // worth less than what it costs to sum up what the threads of a team have.
        let is_costly = sums && self.setting.threads != Threads::Gpu;
        let least = if slots_first || is_costly { 1 } else { 16 };
        team(self.workgroup, slots, elements.div_ceil(slots), least)
    }

    /// Adds the operations that give `roots`, and the low parts of `means`, and tells the registers of both.
    /// Slots vary along `to`.
    fn ops(&mut self, walk: &mut Walk, roots: &[ValueId], means: &[ValueId], to: Axes) -> [HashMap<ValueId, usize>; 2] {
        let graph = self.graph;
        let is_leaf = |id: ValueId| matches!(graph.expr(id), Expr::Reduce { .. });
        let cone = graph.cone(roots, is_leaf);
        let mut registers = HashMap::new();
        let mut ops = vec![];
        for id in graph.ids().filter(|id| cone[id.index()]) {
            let axes = graph.axes(id);
            let op = match graph.expr(id) {
                Expr::Input => Op::Tensor(place_of(&mut self.tensors, Tensor::Input), self.element_index()),
                Expr::Upstream => Op::Tensor(place_of(&mut self.tensors, Tensor::Upstream), self.element_index()),
                Expr::Constant(value) => self.constant(value.get() as f32),
                Expr::Count { of, per } => Op::Count(self.count(of, per)),
                Expr::Param(param) => {
                    let index = self.slots_index(self.setting.params[param.index()], 0);
                    Op::Small(place_of(&mut self.small, Small::Param(param.index())), index)
                }
                Expr::Running(buffer) => {
                    let index = self.slots_index(self.setting.running[buffer], 0);
                    Op::Small(place_of(&mut self.small, Small::Running(buffer)), index)
                }
                // Operations on numbers are left where they have no finite result, such as 1 / 0.
                Expr::Prim(prim, operands) if operands.iter().all(|id| graph.as_constant(id).is_some()) => {
                    let mut numbers = operands.iter().filter_map(|id| graph.as_constant(id));
                    let mut next = || numbers.next().unwrap_or(0.0);
                    self.constant(prim.value(next(), next()) as f32)
                }
                Expr::Prim(prim, Operands::One(a)) => Op::Unary(prim, registers[&a]),
                Expr::Prim(prim, Operands::Two(a, b)) => match centered(graph, id) {
                    Some((value, mean)) => {
                        let low = self.home(mean, Part::Low);
                        let register = ops.len();
                        ops.push((register, low, graph.axes(mean)));
                        Op::Centered(registers[&value], registers[&mean], register)
                    }
                    None => Op::Binary(prim, registers[&a], registers[&b]),
                },
                Expr::Reduce { .. } => self.home(id, Part::Value),
            };
            registers.insert(id, ops.len());
            ops.push((ops.len(), op, axes));
        }
        let mut lows = HashMap::new();
        for &mean in means {
            lows.insert(mean, ops.len());
            ops.push((ops.len(), self.home(mean, Part::Low), graph.axes(mean)));
        }
        let roots: Vec<usize> = roots.iter().map(|root| registers[root]).chain(lows.values().copied()).collect();
        for (register, op, axes) in without_unread(ops, &roots) {
            let is_fixed = matches!(op, Op::Statistic(_)) || self.blocks.is_uniform(axes);
            if is_fixed {
                walk.block_ops.push((register, op));
            } else if is_slot_value(walk, &self.blocks, axes, to) {
                walk.slot_ops.push((register, op));
            } else {
                walk.element_ops.push((register, op));
            }
        }
        [registers, lows]
    }

    fn home(&mut self, id: ValueId, part: Part) -> Op {
        if let Some(home) = self.homes.get(&(id, part)) {
            return match home.clone() {
                Home::Register(register) => Op::Statistic(register),
                Home::Own(own, index) => Op::Own(own, index),
            };
        }
        if let Some(index) = self.kept.get(&(id, part)).cloned() {
            return Op::Given(place_of(&mut self.given, Given::Kept), index);
        }
        let (given, index) = self.before.get(&(id, part)).cloned().expect("reductions are given or computed");
        Op::Given(place_of(&mut self.given, given), index)
    }

    /// Sums what the blocks have left of sums across them, each from an offset on.
    fn partials(&mut self, sums: &[(ValueId, usize)], rows: usize, columns: usize, are_slots: bool) {
        let rows_number = self.number(rows);
        let columns_number = self.number(columns);
        let samples = Span { kind: SpanKind::Elements, extent: Extent::Number(rows_number) };
        let kind = if are_slots && self.blocks.alone {
            SpanKind::One
        } else if are_slots && columns > 1 {
            SpanKind::Slots
        } else {
            SpanKind::Elements
        };
        let channels = Span { kind, extent: Extent::Number(columns_number) };
        let positions = Span { kind: SpanKind::One, extent: Extent::Block };
        let is_single = channels.is_single();
        let given = place_of(&mut self.given, Given::Scratch);
        let row = Term { of: Coordinate::Sample, unit: 1, stride: Some(columns_number) };
        let column = Term { of: Coordinate::Channel, unit: 1, stride: None };
        let count = self.count(Axes::NONE, Axes::NONE);
        let team = if is_single { self.workgroup } else { team(self.workgroup, columns, rows, 4) };
        let mut walk = Walk::new([samples, channels, positions], team, true);
        for (register, &(id, offset)) in sums.iter().enumerate() {
            let offset = Some(self.number(offset));
            walk.element_ops.push((register, Op::Given(given, Index { offset, terms: vec![row, column] })));
            let (mut result, publishes) = self.result(id, Statistic::Sum, Part::Value, Placement::default(), is_single);
            // The channel of the walk is the slot.
            for (_, index) in &mut result.places {
                index.terms.iter_mut().for_each(|term| term.unit = 1);
            }
            walk.publishes |= publishes;
            let results = vec![result];
            walk.accumulate.push(Accumulate { value: register, low: None, count, only_first: [false; 3], results });
        }
        self.walks.push(walk);
    }

    /// Writes the small values that are asked for.
    fn finals(&mut self, finals: &[(Option<ValueId>, Axes)]) {
        // Those along the same axes in one walk: each walk is code that a driver has to compile.
        let mut rest: Vec<(ValueId, Target, Axes)> = finals
            .iter()
            .enumerate()
            .filter_map(|(number, &(id, axes))| id.map(|id| (id, Target::Final(number), axes)))
            .collect();
        while let Some(&(_, _, axes)) = rest.first() {
            let together: Vec<_> = rest.extract_if(.., |&mut (_, _, other)| other == axes).collect();
            self.walk(axes, Axes::NONE, vec![], together);
        }
    }
}

/// The place of an entry in a list, at the end of which it is added if it is not there.
fn place_of<T: PartialEq>(list: &mut Vec<T>, entry: T) -> usize {
    list.iter().position(|known| *known == entry).unwrap_or_else(|| {
        list.push(entry);
        list.len() - 1
    })
}

/// Leaves out operations that nothing reads, such as a negation that became part of a difference.
fn without_unread(ops: Vec<(usize, Op, Axes)>, roots: &[usize]) -> Vec<(usize, Op, Axes)> {
    let mut is_read = vec![false; ops.len()];
    roots.iter().for_each(|&root| is_read[root] = true);
    for (register, op, _) in ops.iter().rev() {
        if is_read[*register] {
            op.operands().for_each(|operand| is_read[operand] = true);
        }
    }
    ops.into_iter().filter(|&(register, ..)| is_read[register]).collect()
}

/// The threads of a team for so many slots of so many elements, at least `least` if there are as many.
fn team(workgroup: usize, slots: usize, elements: usize, least: usize) -> usize {
    power_of_two(workgroup / slots.max(1)).max(least).min(elements.next_power_of_two()).min(workgroup)
}

/// Whether a value is the same for all elements of a slot.
fn is_slot_value(walk: &Walk, blocks: &Blocks, axes: Axes, to: Axes) -> bool {
    let samples = !axes.samples || !blocks.samples || walk.samples.kind != SpanKind::Elements;
    let positions = !axes.positions || !blocks.positions || walk.positions.kind != SpanKind::Elements;
    let channels = blocks.is_one_slot(axes.channels)
        || match walk.channels.kind {
            SpanKind::One | SpanKind::Slots => true,
            SpanKind::Elements => false,
            SpanKind::Grouped(_) => axes.channels == to.channels,
        };
    samples && positions && channels
}
