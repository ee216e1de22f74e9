//! The walks of a kernel: visits of elements with what they compute, add up and write.

use std::collections::HashMap;

use normact_ir::{Axes, Channels};
use normact_plan::Reduction;
use normact_plan::graph::{Expr, Operands, Statistic, ValueId, one_by_one};

use super::super::blocks::{Blocks, Threads, power_of_two};
use super::super::program::{
    Accumulate, Coordinate, Extent, Given, Index, Op, Own, Part, Result, Small, Span, SpanKind, Target, Tensor, Term,
    Walk, Write,
};
use super::{Code, Home, Placement, SUMS, Sum, centered, place_of};

/// So few elements are quicker visited by every thread than summed up across threads, on a CPU.
const FEW_ELEMENTS: usize = 64;

impl Code<'_> {
    /// Reductions of values that have few slots, those along the same axes in one walk: each walk is code that a
    /// driver has to compile, and has barriers.
    pub(in super::super) fn small(&mut self, ids: &[ValueId], homes: &dyn Fn(ValueId) -> Vec<(Part, Placement)>) {
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
    pub(in super::super) fn walk(
        &mut self,
        from: Axes,
        to: Axes,
        sums: Vec<Sum>,
        writes: Vec<(ValueId, Target, Axes)>,
    ) {
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
            false => self.team(from, to, slots_first, [1, 1], !sums.is_empty()),
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

    /// Adds up the parts of sums, each from an offset on.
    pub(in super::super) fn finish_parts(
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
                let team =
                    if is_single { self.single_team(parts) } else { self.team(parts, to, slots_first, [1, 1], true) };
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

    /// Sums what the blocks have left of sums across them, each from an offset on.
    pub(in super::super) fn partials(
        &mut self,
        sums: &[(ValueId, usize)],
        rows: usize,
        columns: usize,
        are_slots: bool,
    ) {
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
    pub(in super::super) fn finals(&mut self, finals: &[(Option<ValueId>, Axes)]) {
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
        let lanes = self.setting.lanes;
        let slots_at_a_time = match walk.positions.kind {
            SpanKind::Elements => 1,
            SpanKind::Slots => lanes,
            SpanKind::One | SpanKind::Grouped(_) => {
                self.reads_vectors &= lanes == 1;
                return;
            }
        };
        let sums = walk.accumulate.len().max(2 * walk.moments().len());
        let team = if walk.is_single() {
            walk.team
        } else {
            self.team(from, to, walk.slots_first, [lanes, slots_at_a_time], sums > 0)
        };
        let fits_shared_memory = team == 1 || sums * slots_at_a_time <= SUMS;
        self.reads_vectors &= lanes == 1 || fits_shared_memory;
        (walk.lanes, walk.team) = (lanes, team);
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

    /// How many threads work on a slot: enough that all have something to do, few enough that each has
    /// several elements. So many elements and slots are visited at a time.
    fn team(&self, from: Axes, to: Axes, slots_first: bool, [lanes, slots]: [usize; 2], sums: bool) -> usize {
        let elements = self.elements(from) / lanes;
        let slots = (self.elements(to) / slots).max(1);
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
