//! A schedule lowered to the programs of one or two kernels.

use std::collections::HashMap;

use normact_ir::{Axes, Channels, Extent as ParamExtent};
use normact_plan::graph::{Expr, Graph, Operands, Statistic, ValueId, one_by_one};
use normact_plan::{Plan, Reduction, Schedule, Sizes};

use super::blocks::{Blocks, power_of_two};
use super::program::{
    Accumulate, Coordinate, Extent, Index, Kernel, Lowered, Op, Program, Result, Source, Span, SpanKind, Target, Term,
    Walk, Write, number,
};

/// The most sums of one walk: what fits the 16 KiB of shared memory that every GPU has.
const SUMS: usize = 16;

/// Lowers the forward and the backward pass, that without the gradient of the input where nobody wants it.
pub(super) fn lower(
    plan: &Plan,
    params: &[ParamExtent],
    running: &[ParamExtent],
    sizes: Sizes,
    wants_input: bool,
) -> [Lowered; 2] {
    let axes = |extent: &ParamExtent| match extent {
        ParamExtent::PerChannel => Axes::CHANNEL,
        ParamExtent::Scalar => Axes::NONE,
    };
    let params: Vec<Axes> = params.iter().map(axes).collect();
    let running: Vec<Axes> = running.iter().map(axes).collect();
    let extents = (&params[..], &running[..]);
    let updates: Vec<_> = plan.joint.updates.iter().copied().zip(running.iter().copied()).collect();
    let gradients: Vec<_> = plan.joint.param_gradients.iter().copied().zip(params.iter().copied()).collect();
    let unread;
    let backward = if wants_input {
        &plan.backward
    } else {
        let mut schedule = plan.backward.clone();
        schedule.passes.iter_mut().for_each(|pass| pass.write = None);
        unread = schedule;
        &unread
    };
    let forward = schedule(plan, &plan.forward, &updates, extents, sizes, &HashMap::new());
    let backward = schedule(plan, backward, &gradients, extents, sizes, &forward.exported);
    [forward, backward]
}

/// Where a reduction is found.
#[derive(Debug, Clone)]
enum Home {
    Register(usize),
    Output(usize, Index),
}

fn schedule(
    plan: &Plan,
    schedule: &Schedule,
    finals: &[(Option<ValueId>, Axes)],
    extents: (&[Axes], &[Axes]),
    sizes: Sizes,
    kept: &HashMap<ValueId, usize>,
) -> Lowered {
    let graph = &plan.joint.graph;
    let blocks = Blocks::new(graph, schedule, sizes);
    let [sample_blocks, channel_blocks, position_blocks] = blocks.count;
    let is_whole = blocks.count == [1; 3];
    let has_finals = finals.iter().any(|(id, _)| id.is_some());
    let is_complete = |id: ValueId| channel_blocks == 1 || graph.axes(id).channels != Channels::One;
    let finishes_in_blocks = sample_blocks == 1
        && position_blocks == 1
        && schedule.across.iter().all(|&id| is_complete(id))
        && (schedule.after.is_empty() || is_whole);

    let mut code = Code::new(graph, sizes, blocks, extents);
    for &id in &schedule.given {
        let index = code.slots_index(graph.axes(id), kept[&id]);
        code.kept.insert(id, index);
    }
    let mut exported = HashMap::new();
    for &id in &schedule.exported {
        exported.insert(id, code.exports);
        code.exports += sizes.slots(graph.axes(id)).iter().product::<usize>();
    }
    let mut partial = HashMap::new();
    let across: Vec<ValueId> = if finishes_in_blocks { vec![] } else { schedule.across.clone() };
    for &id in &across {
        let columns = if is_complete(id) { sizes.slots(graph.axes(id))[1] } else { channel_blocks };
        let offset = code.scratch(sample_blocks * position_blocks * columns);
        partial.insert(id, (offset, columns));
    }
    let full = |id: ValueId| (id, Target::Full, Axes::INPUT);
    let home = |id: ValueId| Placement {
        exported: exported.get(&id).copied(),
        partial: partial.get(&id).map(|&(offset, columns)| (offset, columns, is_complete(id))),
    };

    for &id in &schedule.before {
        code.small(id, home(id));
    }
    for pass in &schedule.passes {
        // Axes that differ for the whole input may have the same slots in a block.
        let mut shapes: Vec<Axes> = vec![];
        for reduction in &pass.reductions {
            let spans = code.spans(Axes::INPUT, reduction.to);
            if shapes.iter().all(|&shape| code.spans(Axes::INPUT, shape) != spans) {
                shapes.push(reduction.to);
            }
        }
        let mut write = pass.write;
        for to in shapes {
            let spans = code.spans(Axes::INPUT, to);
            let is_here = |reduction: &&Reduction| code.spans(Axes::INPUT, reduction.to) == spans;
            let together: Vec<Reduction> = pass.reductions.iter().filter(is_here).copied().collect();
            for together in together.chunks(SUMS / 2) {
                let sums = together.iter().map(|reduction| {
                    let results = reduction.kind.results().map(|id| (id, home(id))).collect();
                    Sum { operand: reduction.operand, results, only_first: [false; 3] }
                });
                let written = if code.is_single(Axes::INPUT, to) { write.take() } else { None };
                code.walk(Axes::INPUT, to, sums.collect(), written.into_iter().map(full).collect());
            }
        }
        if let Some(id) = write {
            // Channel by channel, so that arithmetic on parameters is done once for each.
            let rows = Axes { positions: false, ..Axes::INPUT };
            code.walk(Axes::INPUT, rows, vec![], vec![full(id)]);
        }
        for &id in &pass.small {
            code.small(id, home(id));
        }
    }
    let lengths: Vec<Option<usize>> = finals.iter().map(|&(id, axes)| id.map(|_| sizes.slots(axes)[1])).collect();
    if finishes_in_blocks || !has_finals {
        if finishes_in_blocks {
            for &id in &schedule.after {
                code.small(id, home(id));
            }
        }
        code.finals(finals);
        return Lowered { blocks: code.kernel(), finish: None, exported, finals: lengths };
    }

    let mut finish = Code::new(graph, sizes, Blocks::whole(sizes), extents);
    for &id in &schedule.given {
        let index = finish.slots_index(graph.axes(id), kept[&id]);
        finish.kept.insert(id, index);
    }
    for &id in &schedule.exported {
        let index = finish.slots_index(graph.axes(id), exported[&id]);
        finish.exported.insert(id, index);
    }
    for &id in &across {
        let (offset, columns) = partial[&id];
        finish.partials(id, sample_blocks * position_blocks, offset, columns, is_complete(id));
    }
    for &id in &schedule.after {
        finish.small(id, Placement::default());
    }
    finish.finals(finals);
    Lowered { blocks: code.kernel(), finish: Some(finish.kernel()), exported, finals: lengths }
}

/// Where the results of a reduction go, beside its readers in the kernel.
#[derive(Debug, Clone, Copy, Default)]
struct Placement {
    /// The offset of its slots.
    exported: Option<usize>,
    /// The offset of the sums of each block, the number of columns, and whether they are slots.
    partial: Option<(usize, usize, bool)>,
}

struct Sum {
    operand: ValueId,
    results: Vec<(ValueId, Placement)>,
    only_first: [bool; 3],
}

/// A kernel on its way.
struct Code<'a> {
    graph: &'a Graph,
    sizes: Sizes,
    blocks: Blocks,
    workgroup: usize,
    params: &'a [Axes],
    running: &'a [Axes],
    walks: Vec<Walk>,
    numbers: Vec<usize>,
    known_numbers: HashMap<NumberKey, usize>,
    counts: Vec<f32>,
    known_counts: HashMap<(Axes, Axes), usize>,
    inputs: Vec<Source>,
    outputs: Vec<Target>,
    exports: usize,
    scratch: usize,
    registers: usize,
    homes: HashMap<ValueId, Home>,
    /// The reductions that the forward pass keeps, and those of the kernel before; such a buffer is bound
    /// when it is first read.
    kept: HashMap<ValueId, Index>,
    exported: HashMap<ValueId, Index>,
}

/// What a number means. Numbers that happen to be equal stay apart, so that the program does not
/// depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum NumberKey {
    Zero,
    One,
    ChannelStride,
    SampleStride,
    Slots(Channels),
    SlotsAndPositions(Channels),
}

impl<'a> Code<'a> {
    fn new(graph: &'a Graph, sizes: Sizes, blocks: Blocks, extents: (&'a [Axes], &'a [Axes])) -> Self {
        let [samples, channels, positions] = blocks.size;
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
        ];
        Self {
            graph,
            sizes,
            workgroup: blocks.workgroup(),
            blocks,
            params: extents.0,
            running: extents.1,
            walks: vec![],
            numbers,
            known_numbers: HashMap::new(),
            counts: vec![],
            known_counts: HashMap::new(),
            inputs: vec![],
            outputs: vec![],
            exports: 0,
            scratch: 0,
            registers: 0,
            homes: HashMap::new(),
            kept: HashMap::new(),
            exported: HashMap::new(),
        }
    }

    fn kernel(mut self) -> Kernel {
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
                ops.into_iter().any(|(_, op)| matches!(op, Op::Output(..)))
            });
            earlier[number].publishes &= reads;
        }
        Kernel {
            program: Program { workgroup: self.workgroup, walks: self.walks, shared },
            numbers: self.numbers,
            counts: self.counts,
            blocks: self.blocks.count.iter().product(),
            inputs: self.inputs,
            outputs: self.outputs,
            exports: self.exports,
            scratch: self.scratch,
        }
    }

    fn input(&mut self, source: Source) -> usize {
        self.inputs.iter().position(|&known| known == source).unwrap_or_else(|| {
            self.inputs.push(source);
            self.inputs.len() - 1
        })
    }

    fn output(&mut self, target: Target) -> usize {
        self.outputs.iter().position(|&known| known == target).unwrap_or_else(|| {
            self.outputs.push(target);
            self.outputs.len() - 1
        })
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
        self.counts.push(self.sizes.count(of, per) as f32);
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
        let offset = if offset == 0 { self.known(NumberKey::Zero, 0) } else { self.number(offset) };
        let mut terms = vec![];
        if axes.samples {
            let stride = if axes.positions {
                self.known(NumberKey::SlotsAndPositions(axes.channels), channels * positions)
            } else {
                self.known(NumberKey::Slots(axes.channels), channels)
            };
            terms.push(Term { of: Coordinate::Sample, unit: 1, stride });
        }
        if axes.channels != Channels::One {
            let unit = self.sizes.channels / channels;
            let stride = if axes.positions { number::POSITIONS } else { self.known(NumberKey::One, 1) };
            terms.push(Term { of: Coordinate::Channel, unit, stride });
        }
        if axes.positions {
            let stride = self.known(NumberKey::One, 1);
            terms.push(Term { of: Coordinate::Position, unit: 1, stride });
        }
        Index { offset, terms }
    }

    /// The place of an element in a full-size tensor.
    fn element_index(&mut self) -> Index {
        let Sizes { channels, positions, .. } = self.sizes;
        let sample = self.known(NumberKey::SampleStride, channels * positions);
        let channel = self.known(NumberKey::ChannelStride, positions);
        let position = self.known(NumberKey::One, 1);
        let term = |of, stride| Term { of, unit: 1, stride };
        Index {
            offset: self.known(NumberKey::Zero, 0),
            terms: vec![
                term(Coordinate::Sample, sample),
                term(Coordinate::Channel, channel),
                term(Coordinate::Position, position),
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

    /// A reduction of a value that has few slots.
    fn small(&mut self, id: ValueId, placement: Placement) {
        let Expr::Reduce { operand, to, .. } = self.graph.expr(id) else { unreachable!("a reduction") };
        let from = one_by_one(self.graph.axes(operand));
        let is_partial = placement.partial.is_some();
        let only_first =
            [is_partial && !from.samples, is_partial && from.channels == Channels::One, is_partial && !from.positions];
        self.walk(from, to, vec![Sum { operand, results: vec![(id, placement)], only_first }], vec![]);
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
        let team = if is_single { self.workgroup } else { self.team(from, to, slots_first) };
        let mut walk = Walk {
            samples,
            channels,
            positions,
            team,
            slots_first,
            block_ops: vec![],
            slot_ops: vec![],
            element_ops: vec![],
            accumulate: vec![],
            writes: vec![],
            publishes: false,
        };
        let roots: Vec<ValueId> = sums.iter().map(|sum| sum.operand).chain(writes.iter().map(|&(id, ..)| id)).collect();
        let registers = self.ops(&mut walk, &roots, to);
        for sum in sums {
            let (operand, from) = (registers[&sum.operand], one_by_one(self.graph.axes(sum.operand)));
            let own = sum.results.first().map_or(to, |&(id, _)| self.graph.axes(id));
            let count = self.count(from, own);
            let results = sum.results.into_iter().map(|(id, placement)| {
                let Expr::Reduce { statistic, .. } = self.graph.expr(id) else { unreachable!("a reduction") };
                let (result, publishes) = self.result(id, statistic, placement, is_single);
                walk.publishes |= publishes;
                result
            });
            let results = results.collect();
            walk.accumulate.push(Accumulate { value: operand, count, only_first: sum.only_first, results });
        }
        for (id, target, axes) in writes {
            let index = match target {
                Target::Full => self.element_index(),
                Target::Exports | Target::Scratch | Target::Final(_) => self.slots_index(axes, 0),
            };
            walk.writes.push(Write { value: registers[&id], output: self.output(target), index });
        }
        self.walks.push(walk);
    }

    fn result(&mut self, id: ValueId, statistic: Statistic, placement: Placement, is_single: bool) -> (Result, bool) {
        let axes = self.graph.axes(id);
        let mut places = vec![];
        let mut publishes = false;
        if let Some((offset, columns, are_slots)) = placement.partial {
            let mut index = if are_slots {
                self.slots_index(axes, offset)
            } else {
                Index { offset: self.number(offset), terms: vec![] }
            };
            let stride = self.number(columns);
            index.terms.push(Term { of: Coordinate::Row, unit: 1, stride });
            if !are_slots {
                let stride = self.known(NumberKey::One, 1);
                index.terms.push(Term { of: Coordinate::Column, unit: 1, stride });
            }
            places.push((self.output(Target::Scratch), index));
            return (Result { statistic, register: None, places }, false);
        }
        if placement.exported.is_some() || !is_single {
            let (target, offset) = match placement.exported {
                Some(offset) => (Target::Exports, offset),
                None => (Target::Scratch, self.scratch(self.sizes.slots(axes).iter().product())),
            };
            let index = self.slots_index(axes, offset);
            let output = self.output(target);
            if !is_single {
                self.homes.insert(id, Home::Output(output, index.clone()));
                publishes = true;
            }
            places.push((output, index));
        }
        let register = is_single.then(|| {
            self.registers += 1;
            self.homes.insert(id, Home::Register(self.registers - 1));
            self.registers - 1
        });
        (Result { statistic, register, places }, publishes)
    }

    /// How many threads work on a slot: enough that all have something to do, few enough that each has
    /// several elements.
    fn team(&self, from: Axes, to: Axes, slots_first: bool) -> usize {
        let [samples, channels, positions] = self.blocks.size;
        let block = Sizes { samples, channels: self.sizes.channels, positions };
        let part = |axes: Axes| {
            let slots = block.slots(axes);
            let channels = (slots[1] * channels).div_ceil(self.sizes.channels);
            slots[0] * channels * slots[2]
        };
        let elements = part(from);
        let slots = part(to).max(1);
        // Slots side by side give neighbours in memory to neighbouring threads only in teams.
        team(self.workgroup, slots, elements.div_ceil(slots), if slots_first { 1 } else { 16 })
    }

    /// Adds the operations that give `roots`, and tells their registers. Slots vary along `to`.
    fn ops(&mut self, walk: &mut Walk, roots: &[ValueId], to: Axes) -> HashMap<ValueId, usize> {
        let graph = self.graph;
        let is_leaf = |id: ValueId| matches!(graph.expr(id), Expr::Reduce { .. });
        let cone = graph.cone(roots, is_leaf);
        let mut registers = HashMap::new();
        for id in graph.ids().filter(|id| cone[id.index()]) {
            let axes = graph.axes(id);
            let op = match graph.expr(id) {
                Expr::Input => Op::Input(self.input(Source::Input), self.element_index()),
                Expr::Upstream => Op::Input(self.input(Source::Upstream), self.element_index()),
                Expr::Constant(value) => self.constant(value.get() as f32),
                Expr::Count { of, per } => Op::Count(self.count(of, per)),
                Expr::Param(param) => {
                    let index = self.slots_index(self.params[param.index()], 0);
                    Op::Input(self.input(Source::Param(param.index())), index)
                }
                Expr::Running(buffer) => {
                    let index = self.slots_index(self.running[buffer], 0);
                    Op::Input(self.input(Source::Running(buffer)), index)
                }
                // Operations on numbers are left where they have no finite result, such as 1 / 0.
                Expr::Prim(prim, operands) if operands.iter().all(|id| graph.as_constant(id).is_some()) => {
                    let mut numbers = operands.iter().filter_map(|id| graph.as_constant(id));
                    let mut next = || numbers.next().unwrap_or(0.0);
                    self.constant(prim.value(next(), next()) as f32)
                }
                Expr::Prim(prim, Operands::One(a)) => Op::Unary(prim, registers[&a]),
                Expr::Prim(prim, Operands::Two(a, b)) => Op::Binary(prim, registers[&a], registers[&b]),
                Expr::Reduce { .. } => self.home(id),
            };
            let register = registers.len();
            registers.insert(id, register);
            let is_fixed = matches!(op, Op::Statistic(_)) || self.blocks.is_uniform(axes);
            if is_fixed {
                walk.block_ops.push((register, op));
            } else if is_slot_value(walk, &self.blocks, axes, to) {
                walk.slot_ops.push((register, op));
            } else {
                walk.element_ops.push((register, op));
            }
        }
        registers
    }

    fn home(&mut self, id: ValueId) -> Op {
        if let Some(home) = self.homes.get(&id) {
            return match home.clone() {
                Home::Register(register) => Op::Statistic(register),
                Home::Output(output, index) => Op::Output(output, index),
            };
        }
        if let Some(index) = self.kept.get(&id).cloned() {
            return Op::Input(self.input(Source::Kept), index);
        }
        let index = self.exported.get(&id).cloned().expect("reductions are given or computed");
        Op::Input(self.input(Source::Exports), index)
    }

    /// Sums what the blocks have left of a sum across them.
    fn partials(&mut self, id: ValueId, rows: usize, offset: usize, columns: usize, are_slots: bool) {
        let rows_number = self.number(rows);
        let columns_number = self.number(columns);
        let samples = Span { kind: SpanKind::Elements, extent: Extent::Number(rows_number) };
        let kind = if are_slots && columns > 1 { SpanKind::Slots } else { SpanKind::Elements };
        let channels = Span { kind, extent: Extent::Number(columns_number) };
        let positions = Span { kind: SpanKind::One, extent: Extent::Block };
        let is_single = channels.is_single();
        let input = self.input(Source::Scratch);
        let one = self.known(NumberKey::One, 1);
        let offset = self.number(offset);
        let row = Term { of: Coordinate::Sample, unit: 1, stride: columns_number };
        let column = Term { of: Coordinate::Channel, unit: 1, stride: one };
        let load = Op::Input(input, Index { offset, terms: vec![row, column] });
        let count = self.count(Axes::NONE, Axes::NONE);
        let (mut result, publishes) = self.result(id, Statistic::Sum, Placement::default(), is_single);
        // The channel of the walk is the slot.
        for (_, index) in &mut result.places {
            index.terms.iter_mut().for_each(|term| term.unit = 1);
        }
        self.walks.push(Walk {
            samples,
            channels,
            positions,
            team: if is_single { self.workgroup } else { team(self.workgroup, columns, rows, 4) },
            slots_first: true,
            block_ops: vec![],
            slot_ops: vec![],
            element_ops: vec![(0, load)],
            accumulate: vec![Accumulate { value: 0, count, only_first: [false; 3], results: vec![result] }],
            writes: vec![],
            publishes,
        });
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
